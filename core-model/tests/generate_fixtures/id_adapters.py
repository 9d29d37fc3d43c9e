"""Tiny PhotoMaker and Face2Diffusion encoders with what their published code computes with them.

Writes ../fixtures/id-adapters/: folders with the published file names and keys, beside `expected.safetensors`.
Run with torch and transformers installed:

    python core-model/tests/generate_fixtures/id_adapters.py

The networks are written down here after the published ones (photomaker/model.py at 060b4fc; src/msid.py, src/modules.py
and src/mod.py of Face2Diffusion at 9af6a92). Every result is also computed in float64 and must agree to 2e-5.
"""

import json
import math
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

FOLDER = pathlib.Path(__file__).parent.parent / "fixtures" / "id-adapters"
VISION = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3,
          "image_size": 12, "patch_size": 4, "hidden_act": "quick_gelu"}
PROJECTIONS = [6, 10]
COUNTS = [3, 2]
PLACES = [[1, 2, 3], [4, 5]]
MSID = {"image_size": 16, "patch_size": 8, "hidden_size": 12, "intermediate_size": 48, "num_hidden_layers": 4,
        "num_attention_heads": 3, "layers": [1, 3]}
EXPRESSIONS, WIDTH = 5, 10


class MLP(nn.Module):
    def __init__(self, inputs, outputs, residual):
        super().__init__()
        self.layernorm, self.residual = nn.LayerNorm(inputs), residual
        self.fc1, self.fc2 = nn.Linear(inputs, outputs), nn.Linear(outputs, outputs)

    def forward(self, x):
        y = self.fc2(F.gelu(self.fc1(self.layernorm(x))))
        return y + x if self.residual else y


class FuseModule(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mlp1, self.mlp2 = MLP(2 * width, width, False), MLP(width, width, True)
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, text, photos):
        fused = self.mlp1(torch.cat([text, photos], -1)) + text
        return self.layer_norm(self.mlp2(fused))


class PhotoMaker(nn.Module):
    def __init__(self):
        super().__init__()
        tower = CLIPVisionModel(CLIPVisionConfig(**VISION))
        self.vision_model = getattr(tower, "vision_model", tower)
        self.visual_projection = nn.Linear(VISION["hidden_size"], PROJECTIONS[0], bias=False)
        self.visual_projection_2 = nn.Linear(VISION["hidden_size"], PROJECTIONS[1], bias=False)
        self.fuse_module = FuseModule(sum(PROJECTIONS))

    def embed(self, photos):
        pooled = self.vision_model(photos).pooler_output
        return torch.cat([self.visual_projection(pooled), self.visual_projection_2(pooled)], -1)

    def stack(self, states, id_embeds):
        """The published forward takes one prompt; here it is applied to one prompt after the other."""
        states, start = states.clone(), 0
        for row, (count, places) in enumerate(zip(COUNTS, PLACES)):
            states[row, places] = self.fuse_module(states[row, places], id_embeds[start : start + count])
            start += count
        return states


class Block(nn.Module):
    def __init__(self, width, heads, inner):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn, self.mlp = nn.Module(), nn.Module()
        self.attn.qkv, self.attn.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.attn.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / math.sqrt(d // self.heads)).softmax(-1)
        x = x + self.attn.proj((weights @ v).transpose(1, 2).reshape(b, n, d))
        return x + self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x))))


class Msid(nn.Module):
    def __init__(self):
        super().__init__()
        width, patches = MSID["hidden_size"], (MSID["image_size"] // MSID["patch_size"]) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, patches + 1, width))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, width, MSID["patch_size"], MSID["patch_size"])
        self.blocks = nn.ModuleList(Block(width, MSID["num_attention_heads"], MSID["intermediate_size"])
                                    for _ in range(MSID["num_hidden_layers"]))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.norms = nn.ModuleDict({f"layer_{i}": nn.Sequential(nn.BatchNorm1d(width), nn.LayerNorm(width))
                                    for i in MSID["layers"]})

    def forward(self, x):
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        features = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in MSID["layers"]:
                features.append(self.norms[f"layer_{index}"](x[:, 0]))
        return torch.cat(features, 1)


class MappingMLP(nn.Module):
    def __init__(self, inputs, hidden, outputs):
        super().__init__()
        part = lambda n: nn.Sequential(nn.Linear(n, hidden), nn.Dropout(0.1), nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(part(inputs), part(hidden))
        self.fc_out = nn.Linear(hidden, outputs)

    def forward(self, x):
        return self.fc_out(self.layers(x))


class Mapping(nn.Module):
    def __init__(self):
        super().__init__()
        hidden = len(MSID["layers"]) * MSID["hidden_size"]
        self.i2t_first, self.i2t_last = (MappingMLP(hidden + EXPRESSIONS, hidden, WIDTH) for _ in range(2))
        self.null_exp = nn.Parameter(torch.zeros(EXPRESSIONS))

    def forward(self, identity, expression, given):
        expression = expression * given + self.null_exp * (1 - given)
        both = torch.cat([identity, expression], -1)
        return torch.stack([self.i2t_first(both), self.i2t_last(both)], 1)


def filled(module, seed):
    """The module with seeded values, all of them exact in float16."""
    generator = torch.Generator().manual_seed(seed)
    for key, value in list(module.named_parameters()) + list(module.named_buffers()):
        if not value.is_floating_point():
            continue
        scale = 0.7 if value.dim() < 2 else 1.5 / value[0].numel() ** 0.5
        center = 1.0 if "norm" in key and key.endswith("weight") or key.endswith("running_var") else 0.0
        drawn = center + scale * torch.randn(value.shape, generator=generator)
        value.data = (drawn.abs() + 0.1 if key.endswith("running_var") else drawn).half().float()
    return module.eval()


def both_ways(name, compute):
    """What `compute` gives in float32, which has to be what it gives in float64."""
    narrow, wide = compute(torch.float32), compute(torch.float64)
    assert (narrow.double() - wide).abs().max() / wide.abs().max() < 2e-5, name
    return narrow.detach().contiguous()


def lora(form):
    """Factors for two layers of Stable Diffusion's U-Net, under the keys of one of both spellings of diffusers."""
    generator = torch.Generator().manual_seed(9)
    block = "unet.down_blocks.0.attentions.0.transformer_blocks.0"
    tensors = {}
    for layer in ["attn1.to_q", "attn2.to_out.0"]:
        attention, part = layer.split(".", 1)
        for factor, shape in [("down", (2, 4)), ("up", (4, 2))]:
            key = {"processor": f"{block}.{attention}.processor.{part.removesuffix('.0')}_lora.{factor}.weight",
                   "layer": f"{block}.{layer}.lora.{factor}.weight"}[form]
            tensors[key] = torch.randn(shape, generator=generator).half()
    return tensors


def half(tensors):
    return {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}


def write_adapter(name, config):
    folder = FOLDER / name
    folder.mkdir()
    (folder / "adapter.json").write_text(json.dumps(config, indent=2) + "\n")
    return folder


def text_states(model, ids, rows, dtype):
    """The published forward: the two vectors overwrite the inputs of the first layer, position embeddings included."""
    model = model.to(dtype)
    text = getattr(model, "text_model", model)
    known = ids.clamp(max=model.config.vocab_size - 1)
    embed = text.embeddings.forward

    def overwritten(*args, **kwargs):
        states = embed(*args, **kwargs).clone()
        for row, column in (ids >= model.config.vocab_size).nonzero().tolist():
            states[row, column] = rows[ids[row, column] - model.config.vocab_size].to(dtype)
        return states

    text.embeddings.forward = overwritten
    result = model(input_ids=known).last_hidden_state
    text.embeddings.forward = embed
    return result


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    random = lambda seed, *shape: torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    expected = {"photos": random(1, sum(COUNTS), 3, 12, 12), "states": random(2, 2, 7, sum(PROJECTIONS))}

    model = filled(PhotoMaker(), 3)
    config = {"kind": "photomaker", "vision": {"clip": VISION}, "projections": PROJECTIONS}
    encoder = half(model.state_dict())
    # Older versions of transformers stored it, as the published file does.
    encoder["vision_model.embeddings.position_ids"] = torch.arange(10)[None]
    folder = write_adapter("photomaker", config)
    torch.save({"id_encoder": encoder, "lora_weights": lora("processor")}, folder / "photomaker-v1.bin")
    folder = write_adapter("photomaker-safetensors", config)
    tensors = {f"id_encoder.{key}": value for key, value in half(model.state_dict()).items()}
    tensors |= {f"lora_weights.{key}": value for key, value in lora("layer").items()}
    save_file(tensors, folder / "photomaker-v1.safetensors")
    embed = lambda dtype: model.to(dtype).embed(expected["photos"].to(dtype))
    expected["id_embeds"] = both_ways("id_embeds", embed)
    stack = lambda dtype: model.to(dtype).stack(expected["states"].to(dtype), embed(dtype))
    expected["stacked"] = both_ways("stacked", stack)
    expected["weights"] = random(10, 2, 7, sum(PROJECTIONS))

    def gradient(dtype):
        id_embeds = embed(dtype).requires_grad_()
        with torch.enable_grad():
            (model.to(dtype).stack(expected["states"].to(dtype), id_embeds) * expected["weights"].to(dtype)).sum().backward()
        return id_embeds.grad

    expected["id_embeds_gradient"] = both_ways("id_embeds_gradient", gradient)

    msid, mapping = filled(Msid(), 4), filled(Mapping(), 5)
    config = {"kind": "face2diffusion", "msid": MSID, "exp_dim": EXPRESSIONS, "text_width": WIDTH}
    folder = write_adapter("face2diffusion", config)
    torch.save(half(msid.state_dict()), folder / "msid.pt")
    torch.save(half(mapping.state_dict()), folder / "mapping.pt")
    expected |= {"faces": random(6, 3, 3, 16, 16), "expressions": random(7, 3, EXPRESSIONS),
                 "given": torch.tensor([[1.0], [0.0], [1.0]])}
    identity = lambda dtype: msid.to(dtype)(expected["faces"].to(dtype))
    expected["identity"] = both_ways("identity", identity)
    vectors = lambda dtype: mapping.to(dtype)(identity(dtype), expected["expressions"].to(dtype), expected["given"].to(dtype))
    expected["vectors"] = both_ways("vectors", vectors)

    sizes = {"vocab_size": 40, "hidden_size": WIDTH, "intermediate_size": 16, "num_hidden_layers": 2,
             "num_attention_heads": 2, "max_position_embeddings": 9, "eos_token_id": 39, "bos_token_id": 38}
    text = filled(CLIPTextModel(CLIPTextConfig(**sizes)), 8)
    text.half().save_pretrained(FOLDER / "text-encoder")
    ids = torch.tensor([[38, 7, 40, 41, 12, 39, 39], [38, 40, 41, 3, 5, 22, 39]])
    expected["ids"] = ids
    states = lambda dtype: text_states(text, ids, expected["vectors"][0], dtype)
    expected["text_states"] = both_ways("text_states", states)
    save_file(expected, FOLDER / "expected.safetensors")


if __name__ == "__main__":
    with torch.no_grad():
        main()
