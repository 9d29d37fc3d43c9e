"""Checkpoints in the shapes in which diffusers and transformers publish them: shards, variants, pickles.

Reads ../fixtures/vae/with-quant-conv, ../fixtures/text-encoder/quick-gelu and ../fixtures/clip/new,
whose results other fixtures hold, and writes them again to ../fixtures/weights/ with
`save_pretrained` and, as both libraries did before safetensors, with `torch.save`. Run with diffusers
and transformers installed:

    python core-model/tests/generate_fixtures/weights.py
"""

import json
import pathlib
import shutil

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file
from transformers import CLIPTextModel

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures"
OUT = FIXTURES / "weights"


def write_pickled(source, name, out, shards=1, views=()):
    """The tensors of a folder as `torch.save` wrote them; `views` are stored column by column."""
    folder = OUT / out
    folder.mkdir()
    shutil.copy(FIXTURES / source / "config.json", folder)
    (safetensors,) = (FIXTURES / source).glob("*model.safetensors")
    tensors = {k: v.t().contiguous().t() if k in views else v for k, v in load_file(safetensors).items()}
    assert set(views) <= set(tensors)
    if shards == 1:
        torch.save(tensors, folder / f"{name}.bin")
        return
    keys, weight_map = sorted(tensors), {}
    for shard in range(shards):
        file = f"{name}-{shard + 1:05}-of-{shards:05}.bin"
        weight_map |= {key: file for key in keys[shard::shards]}
        torch.save({key: tensors[key] for key in keys[shard::shards]}, folder / file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / f"{name}.bin.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def write_snapshot(path):
    """A training's snapshot as pytorch-lightning writes it, with the weights among other things."""
    weights = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([7], dtype=torch.int64)}
    weights["turned"] = weights["a.weight"].t()
    weights["part"] = torch.arange(10.0)[3:5]
    torch.save({"epoch": 3, "global_step": 875000, "state_dict": weights, "optimizer_states": [{"m": torch.ones(2)}]}, path)


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    # Stored in float16 steps, so that writing them in float16 loses nothing.
    vae = AutoencoderKL.from_pretrained(FIXTURES / "vae/with-quant-conv", torch_dtype=torch.float16)
    vae.save_pretrained(OUT / "vae-sharded", max_shard_size="40KB")
    vae.save_pretrained(OUT / "vae-variant", variant="fp16")
    vae.save_pretrained(OUT / "vae-sharded-variant", variant="fp16", max_shard_size="40KB")
    text = CLIPTextModel.from_pretrained(FIXTURES / "text-encoder/quick-gelu", torch_dtype=torch.float16)
    text.save_pretrained(OUT / "text-encoder-sharded", max_shard_size="8KB")
    text.save_pretrained(OUT / "text-encoder-variant", variant="fp16")
    write_pickled("vae/with-quant-conv", "diffusion_pytorch_model", "vae-pickled")
    write_pickled("vae/with-quant-conv", "diffusion_pytorch_model", "vae-sharded-pickled", shards=2)
    # OpenAI's own were converted by transposing, which torch.save keeps as a view.
    projections = ["visual_projection.weight", "text_projection.weight"]
    write_pickled("clip/new", "pytorch_model", "clip-pickled", views=projections)
    write_snapshot(OUT / "snapshot.ckpt")
    for path in OUT.glob("*/config.json"):
        config = json.loads(path.read_text())
        # Where the network was read from is no part of it.
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n")


main()
