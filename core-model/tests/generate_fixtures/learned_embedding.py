"""One learned concept in the layouts that the various tools write.

Writes ../fixtures/learned_embedding/. Run with torch, safetensors and diffusers installed:

    python core-model/tests/generate_fixtures/learned_embedding.py

With a file as argument it checks that diffusers and transformers read that file instead, and
prints what they found.
"""

import pathlib
import sys

import torch
from safetensors.torch import save_file

FOLDER = pathlib.Path(__file__).parent.parent / "fixtures" / "learned_embedding"


class Harmful:
    """Runs a program when Python opens it."""

    def __reduce__(self):
        import os

        return os.system, ("echo harm",)


def generate():
    FOLDER.mkdir(parents=True, exist_ok=True)
    # Halves, so that float16 and bfloat16 hold them exactly.
    vectors = torch.randn((3, 8), generator=torch.Generator().manual_seed(0)).mul(4).round().div(8)
    one = vectors[0].clone()
    other = torch.zeros(3, 12)
    layouts = {
        "reference": {"<robot>": vectors},
        "one-dimensional": {"<robot>": one},
        "half": {"<robot>": vectors.half()},
        "bfloat": {"<robot>": vectors.bfloat16()},
        "double": {"<robot>": vectors.double()},
        "automatic1111": {"string_to_param": vectors},
        "automatic1111-nested": {"string_to_param.*": vectors},
        "kohya": {"emb_params": vectors},
        "onetrainer": {"emp_params": vectors},
        "comfyui": {"clip_l": vectors, "clip_g": other},
        "by-width": {"first": other, "second": vectors},
        "one-key-per-vector": {f"robot_v{i}": row.clone() for i, row in enumerate(vectors)},
    }
    for name, tensors in layouts.items():
        save_file(tensors, FOLDER / f"{name}.safetensors")
        (FOLDER / f"{name}.safetensors").chmod(0o644)
    nested = torch.nn.ParameterDict({"*": torch.nn.Parameter(vectors.clone())})
    pickles = {
        "diffusers.bin": {"<robot>": vectors},
        "one-dimensional.bin": {"<robot>": one},
        "half.bin": {"<robot>": vectors.half()},
        "bfloat.bin": {"<robot>": vectors.bfloat16()},
        "double.bin": {"<robot>": vectors.double()},
        # A view of another tensor: with an offset, columns first.
        "view.bin": {"<robot>": torch.cat([torch.zeros(2, 8), vectors]).T.contiguous().T[2:]},
        "parameter.bin": {"<robot>": torch.nn.Parameter(vectors)},
        "one-key-per-vector.bin": {f"robot_v{i}": row.clone() for i, row in enumerate(vectors)},
        "kohya.pt": {"emb_params": vectors},
        # As stable-diffusion-webui's Embedding.save, and as the first authors' manager.
        "automatic1111.pt": {
            "string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "robot", "step": 100,
            "sd_checkpoint": "0123456789", "sd_checkpoint_name": "sd",
        },
        "textual-inversion.pt": {"string_to_token": {"*": torch.tensor(265)}, "string_to_param": nested},
    }
    for name, content in pickles.items():
        torch.save(content, FOLDER / name)
    torch.save({"<robot>": vectors}, FOLDER / "before-1.6.bin", _use_new_zipfile_serialization=False)
    torch.save({"<robot>": vectors, "run": Harmful()}, FOLDER / "harmful.bin")


def check(path):
    from diffusers.loaders.textual_inversion import load_textual_inversion_state_dicts

    (state,) = load_textual_inversion_state_dicts([path])
    assert len(state) == 1, state.keys()
    for token, vectors in state.items():
        print(token, tuple(vectors.shape), vectors.dtype, vectors.float().norm(dim=-1))


if __name__ == "__main__":
    check(sys.argv[1]) if len(sys.argv) > 1 else generate()
