"""Tiny ViT and DINOv2 models with what transformers computes with them.

Writes ../fixtures/dino/: folders as `save_pretrained` writes them, in float16, beside
`expected.safetensors`. Run with transformers installed:

    python core-model/tests/generate_fixtures/dino.py

Every result is also computed in float64 and must agree to 2e-5.
"""

import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2Model, ViTConfig, ViTModel

FOLDER = pathlib.Path(__file__).parent.parent / "fixtures" / "dino"
SIZES = {"hidden_size": 18, "intermediate_size": 30, "num_hidden_layers": 2, "num_attention_heads": 3,
         "image_size": 12, "patch_size": 4}


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    pixels = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    expected = {"pixels": pixels}
    cases = {
        "pooler": ({}, True),
        "no-pooler": ({"hidden_act": "gelu_new", "layer_norm_eps": 1e-6}, False),
        "no-qkv-bias": ({"qkv_bias": False, "num_hidden_layers": 1}, False),
    }
    for seed, (name, (changes, pooler)) in enumerate(cases.items()):
        torch.manual_seed(seed)
        model = ViTModel(ViTConfig(**SIZES | changes), add_pooling_layer=pooler)
        for key, parameter in model.named_parameters():
            scale = 1.0 if "embeddings" in key else 1.5 / parameter.shape[-1] ** 0.5
            center = 1.0 if "norm" in key and key.endswith("weight") else 0.0
            parameter.data = (center + scale * torch.randn_like(parameter)).half().float()
        model.half().save_pretrained(FOLDER / name)
        narrow, wide = (
            ViTModel.from_pretrained(FOLDER / name, dtype=dtype, add_pooling_layer=pooler).eval()(pixels.to(dtype)).last_hidden_state
            for dtype in (torch.float32, torch.float64)
        )
        assert (narrow.double() - wide).abs().max() / wide.abs().max() < 2e-5, name
        expected[name] = narrow.detach().contiguous()
    # DINOv2, on pictures of another size than its table of positions is for.
    sizes = {key: value for key, value in SIZES.items() if key != "intermediate_size"} | {"image_size": 20}
    for seed, (name, changes) in enumerate({"dinov2": {}, "dinov2-gated": {"use_swiglu_ffn": True}}.items()):
        torch.manual_seed(10 + seed)
        model = Dinov2Model(Dinov2Config(**sizes | changes))
        for key, parameter in model.named_parameters():
            scale = 1.0 if "embeddings" in key else 1.5 / parameter.shape[-1] ** 0.5
            center = 1.0 if "norm" in key and key.endswith("weight") or "lambda" in key else 0.0
            parameter.data = (center + scale * torch.randn_like(parameter)).half().float()
        model.half().save_pretrained(FOLDER / name)
        narrow, wide = (
            Dinov2Model.from_pretrained(FOLDER / name, dtype=dtype).eval()(pixels.to(dtype)).last_hidden_state
            for dtype in (torch.float32, torch.float64)
        )
        assert (narrow.double() - wide).abs().max() / wide.abs().max() < 2e-5, name
        expected[name] = narrow.detach().contiguous()
    # A classifier's checkpoint has the encoder below `vit.`.
    (FOLDER / "prefixed").mkdir()
    shutil.copy(FOLDER / "pooler" / "config.json", FOLDER / "prefixed")
    tensors = {f"vit.{key}": value for key, value in load_file(FOLDER / "pooler" / "model.safetensors").items()}
    save_file(tensors, FOLDER / "prefixed" / "model.safetensors", metadata={"format": "pt"})
    expected["prefixed"] = expected["pooler"].clone()
    save_file(expected, FOLDER / "expected.safetensors")


if __name__ == "__main__":
    main()
