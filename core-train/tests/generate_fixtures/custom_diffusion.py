"""Trajectories of Custom Diffusion (CVPR 2023) and of ClassDiffusion, which is that and one term, in PyTorch,
and of a rare token of several vocabulary entries, for ../integration/custom_diffusion.rs.

The loss is that of diffusers' train_custom_diffusion.py: on the mask, summed over the channels, with the class
images' plain mean beside it; the decay of all other rows of the token table, an oversight there, is left out.

    python core-train/tests/generate_fixtures/custom_diffusion.py
"""

import torch
import torch.nn.functional as F

from golden import BATCH, SIDE, STEPS, SUPER_CATEGORY, replay_file, write

ROW = 300


def row(run):
    embeddings = next(m for m in run.text_encoder.modules() if hasattr(m, "token_embedding"))
    return embeddings.token_embedding.table.weight[ROW]


def semantic_preservation(run):
    learned = run.end_of_text("the {}".format(run.words))
    with torch.no_grad():
        reference = run.end_of_text(f"the {SUPER_CATEGORY}")
    return 1 - F.cosine_similarity(learned, reference, dim=0)


def attention_statistics(run):
    """AttnDreamBooth's term with both pieces of the rare token."""
    i, n = len(run.tokenizer("a photo of a").input_ids) - 1, 2
    total = 0.0
    for p in run.recorder.maps:
        batch, _, _, tokens = p.shape
        p = p.permute(0, 3, 1, 2).reshape(batch, tokens, -1)
        for factor, value in ((2.0, p.mean(-1)), (5.0, p.var(-1))):
            part = (value[:, i : i + n] - value[:, i + n : i + n + 1]).square().mean(1).sum()
            total = total + factor * part / len(run.recorder.maps)
    return total


COMMON = dict(
    start=row, phrase="{token} {class}", sets={"embedding": 5e-3, "cross_attention_kv": 1e-3},
    prompts=["photo {}"],
)
CASES = [
    COMMON | dict(
        name="custom-diffusion", masked=True, first_token=True, max_grad_norm=1.0,
        top=[f"initializer = {{ id = {ROW} }}"], weights={"prior_preservation": 0.7},
        stage=['augmentation = "custom_diffusion"', "stop_first_token_gradient = true"],
    ),
    COMMON | dict(
        name="first-token-recomputed", first_token=True, top=[f"initializer = {{ id = {ROW} }}"],
        stage=["stop_first_token_gradient = true", "gradient_checkpointing = true"],
    ),
    COMMON | dict(
        name="classdiffusion", masked=True, max_grad_norm=1.0, top=[f"initializer = {{ id = {ROW} }}"],
        weights={"semantic_preservation": 1.5}, extra={"semantic_preservation": semantic_preservation},
        stage=['augmentation = "custom_diffusion"'], sentence="the {}",
    ),
    dict(
        name="token-of-two-entries", rare_token="zq", phrase="{token} {class}", sets={"cross_attention_kv": 1e-3},
        prompts=["a photo of a {}"], weights={"attention_statistics": 500.0},
        extra={"attention_statistics": attention_statistics},
    ),
]


def choices(generator):
    """Masks of one rectangle each, and the words that go in front of a prompt."""
    mask = torch.zeros((STEPS, BATCH, 1, SIDE, SIDE))
    for step in range(STEPS):
        for sample in range(BATCH):
            top, left = torch.randint(0, SIDE // 2, (2,), generator=generator).tolist()
            height, width = torch.randint(2, SIDE // 2, (2,), generator=generator).tolist()
            mask[step, sample, 0, top : top + height, left : left + width] = 1.0
    addition = torch.randint(0, 5, (STEPS, BATCH), generator=generator)
    return {"mask": mask.half(), "prompt_addition": addition}


if __name__ == "__main__":
    write("custom_diffusion", CASES, replay_file(42, choices))
