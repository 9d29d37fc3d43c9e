"""Small seeded autoencoders of diffusers: moments, decoded pictures, gradients.

Writes ../fixtures/vae/<case>/{config.json,diffusion_pytorch_model.safetensors,io.safetensors}.
Run with diffusers installed:

    python core-model/tests/generate_fixtures/vae.py

Weights are rounded to float16; every case is also run in float64, see unet.py.
"""

import pathlib

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

# Gradients smaller than this part of the largest are rounding: that of `to_k.bias` is zero.
FLOOR = 1e-4
FOLDER = pathlib.Path(__file__).parent.parent / "fixtures" / "vae"
COMMON = {
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
}
CASES = {
    "with-quant-conv": {"block_out_channels": [8, 12, 12]},
    "without-quant-conv": {
        "block_out_channels": [8, 8, 12],
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "layers_per_block": 2,
    },
    # Sides that no power of two divides, no attention.
    "odd-size": {
        "block_out_channels": [8, 12],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "mid_block_add_attention": False,
        "latent_channels": 3,
    },
}
SIZES = {"odd-size": ((23, 18), (11, 9))}
LEGACY = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def summary(gradient):
    """Two numbers that stand for a gradient: its norm and its product with a wave."""
    flat = gradient.double().flatten()
    return torch.stack([flat.norm(), flat @ torch.arange(flat.numel(), dtype=flat.dtype).cos()])


def run(net, pixels, noise, weight):
    net.zero_grad()
    posterior = net.encode(pixels).latent_dist
    decoded = net.decode(posterior.mean + posterior.std * noise).sample
    ((decoded * weight).mean() + posterior.logvar.mean()).backward()
    result = {"mean": posterior.mean, "logvar": posterior.logvar, "decoded": decoded}
    for name in ["encoder.conv_in.weight", "decoder.conv_out.weight"]:
        result[f"grad.{name}"] = dict(net.named_parameters())[name].grad
    result |= {f"summary.{name}": summary(value.grad) for name, value in net.named_parameters()}
    return {name: value.detach().clone() for name, value in result.items()}


def write(name, config):
    torch.manual_seed(1)
    net = AutoencoderKL(**(COMMON | config)).eval()
    with torch.no_grad():
        for value in net.parameters():
            value.copy_(value.half().float())
    (height, width), latent = SIZES.get(name, ((24, 32), (6, 8)))
    pixels = torch.rand(2, 3, height, width) * 2 - 1
    noise = torch.randn(2, net.config.latent_channels, latent[0], latent[1])
    weight = torch.randn_like(net.decode(noise).sample)
    result = run(net, pixels, noise, weight)
    wide = run(net.double(), pixels.double(), noise.double(), weight.double())
    largest = max(value[0] for key, value in wide.items() if key.startswith("summary."))
    for key, value in result.items():
        scale = wide[key].abs().max()
        if key.startswith("summary."):
            scale = max(scale, FLOOR * largest)
        error = ((value - wide[key]).abs().max() / scale).item()
        assert error < 2e-5, f"{name} {key}: rounding alone gives {error:.1e}"
    folder = FOLDER / name
    net.half().save_pretrained(folder)
    tensors = {"pixels": pixels, "noise": noise, "weight": weight} | result
    save_file({key: value.float().contiguous() for key, value in tensors.items()}, folder / "io.safetensors")
    if name == "without-quant-conv":
        # The spelling of diffusers before 0.18.
        path = folder / "diffusion_pytorch_model.safetensors"
        tensors = load_file(path)
        for new, old in LEGACY.items():
            tensors = {
                key.replace(f".{new}.", f".{old}.") if "attentions" in key else key: value
                for key, value in tensors.items()
            }
        save_file(tensors, path)
    size = sum(file.stat().st_size for file in folder.iterdir()) // 1024
    print(f"{name}: {size} KB")


if __name__ == "__main__":
    for name, config in CASES.items():
        write(name, config)
