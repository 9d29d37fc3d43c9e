"""Which tensor of diffusers each tensor of a one-file checkpoint becomes.

Writes ../fixtures/original-layout/sd1.json, sd2.json and shallow.json (fewer levels and blocks, and a
text encoder without its prefix): for every key of a small checkpoint in the original layout its shape and where it goes: component, key, and for OpenCLIP's joint projections which
third. The keys are made from the networks of diffusers by `original`; that they are right, diffusers'
own converters tell, which must give back every tensor. Run with diffusers and transformers installed:

    python core-model/tests/generate_fixtures/original_layout.py
"""

import json
import pathlib
import re

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint, convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint, convert_open_clip_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel

OUT = pathlib.Path(__file__).parent.parent / "fixtures" / "original-layout"
CHANNELS = {"sd1": (32, 32, 64, 64), "sd2": (32, 32, 64, 64), "shallow": (32, 64, 64)}
VAE_CHANNELS = {**CHANNELS, "shallow": (32, 32)}
BLOCKS = {"sd1": 2, "sd2": 2, "shallow": 1}
UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."


def unet_key(key, blocks):
    level = blocks + 1
    key = re.sub(r"^time_embedding.linear_(\d)", lambda m: f"time_embed.{2 * int(m[1]) - 2}", key)
    key = re.sub(r"^conv_in", "input_blocks.0.0", key)
    key = re.sub(r"^conv_norm_out", "out.0", key)
    key = re.sub(r"^conv_out", "out.2", key)
    place = r"^down_blocks.(\d)."
    key = re.sub(place + r"resnets.(\d)", lambda m: f"input_blocks.{level * int(m[1]) + int(m[2]) + 1}.0", key)
    key = re.sub(place + r"attentions.(\d)", lambda m: f"input_blocks.{level * int(m[1]) + int(m[2]) + 1}.1", key)
    key = re.sub(place + r"downsamplers.0.conv", lambda m: f"input_blocks.{level * int(m[1]) + level}.0.op", key)
    key = re.sub(r"^mid_block.resnets.(\d)", lambda m: f"middle_block.{2 * int(m[1])}", key)
    key = re.sub(r"^mid_block.attentions.0", "middle_block.1", key)
    place = r"^up_blocks.(\d)."
    key = re.sub(place + r"resnets.(\d)", lambda m: f"output_blocks.{level * int(m[1]) + int(m[2])}.0", key)
    key = re.sub(place + r"attentions.(\d)", lambda m: f"output_blocks.{level * int(m[1]) + int(m[2])}.1", key)
    # The first level has no attention, so that its upsampler comes second.
    second = lambda m: f"output_blocks.{level * int(m[1]) + blocks}.{1 if m[1] == '0' else 2}.conv"
    key = re.sub(place + r"upsamplers.0.conv", second, key)
    if ".0." in key or key.startswith("middle_block"):
        for ours, theirs in (("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1"),
                             ("norm2", "out_layers.0"), ("conv2", "out_layers.3"),
                             ("conv_shortcut", "skip_connection")):
            if "transformer_blocks" not in key:
                key = re.sub(rf"\.{ours}\.", f".{theirs}.", key)
    return UNET + key


def vae_key(key, levels):
    key = key.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
    key = key.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_norm_out", "norm_out")
    key = re.sub(r"down_blocks.(\d).resnets.(\d)", r"down.\1.block.\2", key)
    key = re.sub(r"up_blocks.(\d).resnets.(\d)", lambda m: f"up.{levels - 1 - int(m[1])}.block.{m[2]}", key)
    key = re.sub(r"down_blocks.(\d).downsamplers.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks.(\d).upsamplers.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)
    key = key.replace("conv_shortcut", "nin_shortcut")
    if "attn_1" in key:
        for ours, theirs in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
            key = key.replace(f"attn_1.{ours}.", f"attn_1.{theirs}.")
    return VAE + key


def open_clip_key(key):
    for ours, theirs in (("text_model.", ""), ("embeddings.token_embedding", "token_embedding"),
                         ("embeddings.position_embedding.weight", "positional_embedding"),
                         ("final_layer_norm", "ln_final"), ("encoder.layers", "transformer.resblocks"),
                         ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"), ("self_attn.out_proj", "attn.out_proj"),
                         ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj")):
        key = key.replace(ours, theirs)
    return OPEN_CLIP + key


def text_keys(model):
    """The encoder's tensors under the keys that all versions of transformers read."""
    return {f"text_model.{key.removeprefix('text_model.')}": value for key, value in model.state_dict().items()
            if not key.endswith("position_ids")}


def write(name, second):
    torch.manual_seed(0)
    context = 16
    channels, vae_channels, blocks = CHANNELS[name], VAE_CHANNELS[name], BLOCKS[name]
    levels = len(vae_channels)
    unet = UNet2DConditionModel(
        block_out_channels=channels, cross_attention_dim=context, attention_head_dim=8, use_linear_projection=second,
        down_block_types=("CrossAttnDownBlock2D",) * (len(channels) - 1) + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (len(channels) - 1), layers_per_block=blocks)
    vae = AutoencoderKL(
        block_out_channels=vae_channels, layers_per_block=blocks, down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels, norm_num_groups=32)
    layers = 23 if second else 2
    text = CLIPTextModel(CLIPTextConfig(
        hidden_size=context, intermediate_size=32, num_hidden_layers=layers, num_attention_heads=1))
    table, file = [], {}

    def put(key, value, component, ours, third=None, stored=None):
        file[key] = value
        table.append([key, list(stored or value.shape), component, ours, third])

    for key, value in unet.state_dict().items():
        put(unet_key(key, blocks), value, "unet", key)
    for key, value in vae.state_dict().items():
        # Attention was a convolution of one pixel.
        is_map = "attentions" in key and value.ndim == 2
        put(vae_key(key, levels), value[..., None, None] if is_map else value, "vae", key)
    for key, value in text_keys(text).items():
        if not second:
            stored = key.removeprefix("text_model.") if name == "shallow" else key
            put(CLIP + stored, value, "text_encoder", key)
        elif match := re.search(r"self_attn.([qkv])_proj.(weight|bias)", key):
            joint = open_clip_key(key.replace(match[0], f"attn.in_proj_{match[2]}"))
            third = "qkv".index(match[1])
            file.setdefault(joint, torch.zeros(3 * value.shape[0], *value.shape[1:]))
            file[joint][third * value.shape[0]:(third + 1) * value.shape[0]] = value
            table.append([joint, list(file[joint].shape), "text_encoder", key, third])
        else:
            put(open_clip_key(key), value, "text_encoder", key)
    if second:
        # The last layer is in the file and is not used; nor are projection and temperature.
        for key in [key for key in file if ".resblocks.22." in key]:
            last = key.replace(".22.", ".23.")
            file[last] = torch.ones_like(file[key])
            table.append([last, list(file[last].shape), None, None, None])
        for key, shape in (("text_projection", [context, context]), ("logit_scale", [])):
            file[OPEN_CLIP + key] = torch.ones(shape)
            table.append([OPEN_CLIP + key, shape, None, None, None])

    config = dict(unet.config)
    check(convert_ldm_unet_checkpoint(dict(file), config), unet.state_dict())
    check(convert_ldm_vae_checkpoint(dict(file), dict(vae.config)), vae.state_dict())
    if second:
        converted = convert_open_clip_checkpoint(text, dict(file))
    else:
        # diffusers knows the keys with their prefix only.
        start = CLIP + "text_model."
        file = {start + k.removeprefix(CLIP).removeprefix("text_model.") if k.startswith(CLIP) else k: v
                for k, v in file.items()}
        converted = convert_ldm_clip_checkpoint(dict(file))
    converted = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in converted.items()}
    check({key: value for key, value in converted.items() if key in text_keys(text)}, text_keys(text))
    (OUT / f"{name}.json").write_text("[\n" + ",\n".join(json.dumps(row) for row in sorted(table, key=str)) + "\n]\n")


def check(converted, expected):
    assert set(converted) == set(expected), set(converted) ^ set(expected)
    for key, value in expected.items():
        assert torch.equal(converted[key].reshape(value.shape), value), key


if __name__ == "__main__":
    OUT.mkdir(parents=True, exist_ok=True)
    write("sd1", second=False)
    write("sd2", second=True)
    write("shallow", second=False)
