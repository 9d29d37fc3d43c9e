"""Tiny CLIP models and text encoders with what transformers computes with them.

Writes ../fixtures/text-encoder/ and ../fixtures/clip/: folders as `save_pretrained` writes them, in
float16, beside `expected.safetensors`. Run with transformers installed:

    python core-model/tests/generate_fixtures/clip.py

Every result is also computed in float64 and must agree to 2e-5.
"""

import pathlib
import shutil

import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTextModel

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures"
TEXT = FIXTURES / "text-encoder"
CLIP = FIXTURES / "clip"
VOCABULARY, LENGTH, VECTORS = 40, 9, 3
BOS, EOS = 38, 39
IDS = torch.tensor([
    [38, 3, 17, 5, 39, 39, 39, 39, 39],
    [38, 40, 41, 42, 8, 9, 39, 0, 0],
    [38, 7, 41, 1, 1, 2, 40, 21, 39],
])


def text_sizes(**changes):
    sizes = {
        "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 3, "max_position_embeddings": LENGTH, "bos_token_id": BOS, "eos_token_id": EOS,
        "pad_token_id": 0, "projection_dim": 10,
    }
    return sizes | changes


def randomise(model, seed):
    """Weights in float16 steps that are large enough for every part to matter."""
    torch.manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("logit_scale"):
            continue
        scale = 1.0 if "embedding" in name else 1.5 / parameter.shape[-1] ** 0.5
        center = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.data = (center + scale * torch.randn_like(parameter)).half().float()


def check(results, wide):
    for key, value in results.items():
        difference = (value.double() - wide[key]).abs().max() / wide[key].abs().max()
        assert difference < 2e-5, (key, float(difference))


def save(model, folder):
    shutil.rmtree(folder, ignore_errors=True)
    model.half().save_pretrained(folder)
    model.float()


def with_rows(model, rows):
    """The same encoder with `rows` after the vocabulary, as `add_tokens` does it."""
    table = model.get_input_embeddings().weight.data
    grown = torch.nn.Embedding(VOCABULARY + VECTORS, table.shape[1])
    grown.weight = torch.nn.Parameter(torch.cat([table, rows.to(table.dtype)]))
    model.set_input_embeddings(grown)
    return grown.weight


def hidden_and_gradient(model, rows, weights):
    table = with_rows(model, rows)
    hidden = model(input_ids=IDS).last_hidden_state
    (hidden * weights.to(hidden.dtype)).sum().backward()
    return {"last_hidden_state": hidden.detach(), "gradient": table.grad[VOCABULARY:].clone()}


def write_text_encoders():
    rows = torch.randn(VECTORS, 24, generator=torch.Generator().manual_seed(7))
    weights = torch.randn(3, LENGTH, 24, generator=torch.Generator().manual_seed(8))
    expected = {"rows": rows, "ids": IDS, "weights": weights}
    cases = {
        "quick-gelu": {"hidden_act": "quick_gelu"},
        "gelu": {"hidden_act": "gelu", "layer_norm_eps": 1e-3},
        "gelu-new": {"hidden_act": "gelu_new", "num_hidden_layers": 1, "num_attention_heads": 1},
    }
    for seed, (name, changes) in enumerate(cases.items()):
        model = CLIPTextModel(CLIPTextConfig(**text_sizes(**changes)))
        randomise(model, seed)
        save(model, TEXT / name)
        plain = model(input_ids=IDS.clamp(max=EOS)).last_hidden_state.detach()
        results = hidden_and_gradient(model, rows, weights)
        again = CLIPTextModel.from_pretrained(TEXT / name, dtype=torch.float64)
        check(results, hidden_and_gradient(again, rows.double(), weights))
        expected[f"{name}.plain"] = plain
        expected |= {f"{name}.{key}": value for key, value in results.items()}
    # The spelling of transformers before version 5, with the buffer that versions before 4.31 stored.
    old = TEXT / "old-spelling"
    shutil.rmtree(old, ignore_errors=True)
    old.mkdir()
    shutil.copy(TEXT / "quick-gelu" / "config.json", old)
    tensors = {f"text_model.{key}": value for key, value in load_file(TEXT / "quick-gelu" / "model.safetensors").items()}
    tensors["text_model.embeddings.position_ids"] = torch.arange(LENGTH)[None]
    save_file(tensors, old / "model.safetensors", metadata={"format": "pt"})
    save_file({key: value.contiguous() for key, value in expected.items()}, TEXT / "expected.safetensors")


def write_clips():
    ids = torch.tensor([[38, 3, 17, 5, 39, 0, 0, 0, 0], [38, 1, 39, 2, 39, 0, 0, 0, 0], [38, 9, 8, 7, 6, 5, 4, 3, 39]])
    pixels = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(9))
    expected = {"ids": ids, "pixels": pixels}
    vision = {"hidden_size": 16, "intermediate_size": 28, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 12, "patch_size": 4, "projection_dim": 10}
    cases = {
        "new": (text_sizes(hidden_act="gelu"), vision | {"hidden_act": "gelu", "layer_norm_eps": 1e-6}),
        # Files of OpenAI's checkpoints name end token 2 and mean the largest id.
        "legacy": (text_sizes(eos_token_id=2, bos_token_id=0, pad_token_id=1), vision),
    }
    for seed, (name, (text, image)) in enumerate(cases.items()):
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=image, projection_dim=10))
        randomise(model, 20 + seed)
        save(model, CLIP / name)
        for dtype in (torch.float32, torch.float64):
            twin = CLIPModel.from_pretrained(CLIP / name, dtype=dtype)
            output = twin(input_ids=ids, pixel_values=pixels.to(dtype))
            text_embeds = twin.get_text_features(input_ids=ids)
            image_embeds = twin.get_image_features(pixel_values=pixels.to(dtype))
            text_embeds = getattr(text_embeds, "pooler_output", text_embeds)
            image_embeds = getattr(image_embeds, "pooler_output", image_embeds)
            normalised = torch.nn.functional.normalize(text_embeds)
            assert torch.allclose(normalised, output.text_embeds, atol=1e-6)
            results = {"text": text_embeds.detach(), "image": image_embeds.detach(), "logit_scale": twin.logit_scale.detach()[None]}
            if dtype is torch.float32:
                narrow = results
        check(narrow, results)
        expected |= {f"{name}.{key}": value.contiguous() for key, value in narrow.items()}
    # A checkpoint of an encoder only: no temperature.
    shutil.rmtree(CLIP / "no-scale", ignore_errors=True)
    (CLIP / "no-scale").mkdir()
    shutil.copy(CLIP / "new" / "config.json", CLIP / "no-scale")
    tensors = load_file(CLIP / "new" / "model.safetensors")
    del tensors["logit_scale"]
    save_file(tensors, CLIP / "no-scale" / "model.safetensors", metadata={"format": "pt"})
    save_file(expected, CLIP / "expected.safetensors")


if __name__ == "__main__":
    TEXT.mkdir(parents=True, exist_ok=True)
    CLIP.mkdir(parents=True, exist_ok=True)
    write_text_encoders()
    write_clips()
