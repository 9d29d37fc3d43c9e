"""Trajectories of Cross Initialization (CVPR 2024) in PyTorch, from words and from names, and of Textual
Inversion on several templates, for ../integration/cross_initialization.rs.

    python core-train/tests/generate_fixtures/cross_initialization.py
"""

import torch
import torch.nn.functional as F

from golden import BATCH, STEPS, replay_file, write

NAMES = ["red beach", "green", "cat toy car", "car on"]


def of_words(words):
    """The encoder's output for the words: the authors' token_cross_init."""

    def start(run):
        count = len(run.tokenizer(words).input_ids) - 2
        return run.encode(words)[0, 1 : 1 + count]

    return start


def of_names(run):
    """The encoder's output for column means of input embeddings: the authors' celeb_names_cross_init."""
    embeddings = next(m for m in run.text_encoder.modules() if hasattr(m, "token_embedding"))
    weight = embeddings.token_embedding.table.weight
    columns = [[], []]
    for name in NAMES:
        for i, token in enumerate(run.tokenizer(name).input_ids[1:-1][:2]):
            columns[i].append(weight[token])
    means = torch.stack([torch.stack(column).mean(0) for column in columns])
    # The rows of the concept stand for the means while the encoder reads them.
    run.rows.copy_(means)
    return run.encode(" ".join(["<robot>", "<robot>_1"]))[0, 1:3]


def anchor(run):
    return F.pairwise_distance(run.rows, run.first_rows).mean()


COMMON = dict(
    num_vectors=2, phrase="{token} {class}", sets={"embedding": 5e-3}, prompts=["a photo of a {}"],
    weights={"embedding_anchor": 0.05}, extra={"embedding_anchor": anchor},
)
CASES = [
    COMMON | dict(
        name="words", start=of_words("toy dog"), top=["num_vectors = 2", 'initializer = "encoder_output"'],
    ),
    COMMON | dict(
        name="one-token", start=of_words("dog dog"), top=["num_vectors = 2", 'initializer = "encoder_output"'],
        concept=['initializer_token = "dog"'],
    ),
    COMMON | dict(
        name="names", start=of_names,
        top=[f"initializer = {{ encoder_output_of_names = {NAMES!r} }}"], concept=["num_vectors = 2"],
    ),
    dict(
        name="several-templates", sets={"embedding": 5e-3},
        prompts=["a photo of a {}", "the {} on a beach", "a {} in a car"],
    ),
]


def choices(generator):
    return {"prompt_index": torch.randint(0, 3, (STEPS, BATCH), generator=generator)}


if __name__ == "__main__":
    write("cross_initialization", CASES, replay_file(41, choices))
