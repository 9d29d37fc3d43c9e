"""Checkpoints in the shapes in which diffusers and transformers publish them: shards, variants.

Reads ../fixtures/vae/with-quant-conv and ../fixtures/text-encoder/quick-gelu, whose results other
fixtures hold, and writes them again to ../fixtures/weights/ with `save_pretrained`. Run with
diffusers and transformers installed:

    python core-model/tests/generate_fixtures/weights.py
"""

import json
import pathlib
import shutil

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModel

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures"
OUT = FIXTURES / "weights"


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
    for path in OUT.glob("*/config.json"):
        config = json.loads(path.read_text())
        # Where the network was read from is no part of it.
        config.pop("_name_or_path", None)
        path.write_text(json.dumps(config, indent=2) + "\n")


main()
