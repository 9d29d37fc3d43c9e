"""Small seeded U-Nets of diffusers: prediction, attention probabilities, gradients.

Writes ../fixtures/unet/<case>/{config.json,diffusion_pytorch_model.safetensors,io.safetensors}.
Run with diffusers installed:

    python core-model/tests/generate_fixtures/unet.py

Weights are rounded to float16, so that files stay small and both sides read the same numbers. Every
case is also run in float64; one whose float32 rounding comes near the tolerance is not written.
"""

import json
import pathlib

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

FOLDER = pathlib.Path(__file__).parent.parent / "fixtures" / "unet"
BATCH, TOKENS = 2, 5
# Gradients smaller than this part of the largest are rounding, e.g. of a bias before a softmax.
FLOOR = 1e-4
LEVELS = {
    2: (["CrossAttnDownBlock2D", "DownBlock2D"], ["UpBlock2D", "CrossAttnUpBlock2D"]),
    3: (
        ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    ),
    4: (
        ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    ),
}
COMMON = {"sample_size": 16, "norm_num_groups": 4, "cross_attention_dim": 12, "layers_per_block": 1}
CASES = {
    # name: (config, latent height and width)
    "sd1-like": ({"block_out_channels": [8, 8, 16, 16], "attention_head_dim": 4}, (16, 16)),
    "sd2-like": (
        {
            "block_out_channels": [8, 16],
            "attention_head_dim": [2, 4],
            "use_linear_projection": True,
            "upcast_attention": True,
        },
        (16, 12),
    ),
    "mini-like": (
        {"block_out_channels": [8, 12, 16], "attention_head_dim": 2, "flip_sin_to_cos": False, "freq_shift": 1},
        (16, 16),
    ),
    # Neither side survives being halved and doubled twice.
    "odd-size": (
        {"block_out_channels": [8, 8, 16], "attention_head_dim": 2, "norm_eps": 1e-6, "layers_per_block": [1, 2, 1]},
        (15, 10),
    ),
    "rare-options": (
        {
            "block_out_channels": [8, 16],
            # The level without attention has no use for its number of heads.
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "attention_head_dim": [3, 2],
            "only_cross_attention": True,
            "transformer_layers_per_block": 2,
            "center_input_sample": True,
            "mid_block_scale_factor": 1.25,
            "downsample_padding": 0,
            "in_channels": 3,
            "out_channels": 5,
        },
        (12, 13),
    ),
}
GRADIENTS = ["conv_in.weight", "conv_norm_out.weight", "time_embedding.linear_1.bias"]
# What config.json said when Stable Diffusion 1 came out; all else is a default of the class.
FIRST_KEYS = """_class_name _diffusers_version act_fn attention_head_dim block_out_channels center_input_sample
    cross_attention_dim down_block_types downsample_padding flip_sin_to_cos freq_shift in_channels layers_per_block
    mid_block_scale_factor norm_eps norm_num_groups out_channels sample_size up_block_types""".split()


class Recorder:
    """Attention written out, which keeps the probabilities of cross-attention."""

    def __init__(self, kept, cross):
        self.kept, self.cross = kept, cross

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        batch, heads = query.shape[0], attn.heads
        query, key, value = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (query, key, value))
        scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        probabilities = scores.softmax(-1)
        if self.cross:
            self.kept.append(probabilities)
        out = (probabilities @ value).transpose(1, 2).reshape(batch, -1, heads * value.shape[-1])
        return attn.to_out[0](out)


def summary(gradient):
    """Two numbers that stand for a gradient: its norm and its product with a wave."""
    flat = gradient.double().flatten()
    return torch.stack([flat.norm(), flat @ torch.arange(flat.numel(), dtype=flat.dtype).cos()])


def check_conditioning(name, narrow, wide):
    """Refuses a case in which rounding alone comes near the tolerance of the Rust tests."""
    largest = max(value[0] for key, value in wide.items() if key.startswith("summary."))
    for key, value in narrow.items():
        scale = wide[key].abs().max()
        if key.startswith("summary."):
            scale = max(scale, FLOOR * largest)
        error = ((value - wide[key]).abs().max() / scale).item()
        assert error < 2e-5, f"{name} {key}: rounding alone gives {error:.1e}"


def run(net, inputs, kept):
    kept.clear()
    net.zero_grad()
    sample, timesteps, states, weight = inputs
    states = states.clone().requires_grad_()
    prediction = net(sample, timesteps, states).sample
    loss = (prediction * weight).mean()
    for layer, probabilities in enumerate(kept):
        token = probabilities.mean((1, 2))
        loss = loss + (layer + 1) * (token**2 * torch.arange(1, TOKENS + 1, dtype=token.dtype)).sum()
    loss.backward()
    parameters = dict(net.named_parameters())
    result = {"prediction": prediction, "loss": loss.reshape(1), "states_grad": states.grad}
    result |= {f"probabilities.{i}": p for i, p in enumerate(kept)}
    result |= {f"grad.{name}": parameters[name].grad for name in GRADIENTS}
    result |= {f"summary.{name}": summary(value.grad) for name, value in parameters.items()}
    return {name: value.detach().clone() for name, value in result.items()}


def write(name, config, size):
    down, up = LEVELS[len(config["block_out_channels"])]
    config = COMMON | {"down_block_types": down, "up_block_types": up} | config
    torch.manual_seed(0)
    net = UNet2DConditionModel(**config).eval()
    with torch.no_grad():
        for key, value in net.named_parameters():
            if key.endswith("norm.weight") or "norm" in key and key.endswith("weight"):
                value.add_(0.2 * torch.randn_like(value))
            value.copy_(value.half().float())
    kept = []
    net.set_attn_processor(
        {key: Recorder(kept, "attn2" in key) for key in net.attn_processors}
    )
    inputs = (
        torch.randn(BATCH, net.config.in_channels, *size),
        torch.tensor([3.0, 981.0]),
        torch.randn(BATCH, TOKENS, 12),
        torch.randn(BATCH, net.config.out_channels, *size),
    )
    result = run(net, inputs, kept)
    wide = run(net.double(), [x.double() for x in inputs], kept)
    check_conditioning(name, result, wide)
    folder = FOLDER / name
    net.half().save_pretrained(folder)
    if name == "sd1-like":
        path = folder / "config.json"
        kept_keys = {key: value for key, value in json.loads(path.read_text()).items() if key in FIRST_KEYS}
        path.write_text(json.dumps(kept_keys, indent=2) + "\n")
    keys = ["sample", "timesteps", "states", "weight"]
    tensors = dict(zip(keys, inputs)) | result
    save_file({key: value.float().contiguous() for key, value in tensors.items()}, folder / "io.safetensors")
    size = sum(file.stat().st_size for file in folder.iterdir()) // 1024
    print(f"{name}: {len(kept)} cross-attention layers, {size} KB")


if __name__ == "__main__":
    for name, (config, size) in CASES.items():
        write(name, config, size)
