"""A tiny Stable Diffusion folder, a learned concept, and what diffusers draws with them.

Writes ../fixtures/pipeline/: `model/` as StableDiffusionPipeline.save_pretrained lays it out
(weights in float16), `robot.safetensors` (two vectors for "<robot>") and `expected.safetensors`.
Run with diffusers and transformers installed:

    python core-model/tests/generate_fixtures/pipeline.py
"""

import json
import pathlib
import shutil

import diffusers
import torch
import transformers
from safetensors.torch import save_file

FOLDER = pathlib.Path(__file__).parent.parent / "fixtures" / "pipeline"
MODEL = FOLDER / "model"
PROMPT = "a photo of a <robot> on the red beach"
NEGATIVE = "blue car"
STEPS = 10
SAMPLERS = {
    "ddim": diffusers.DDIMScheduler,
    "pndm": diffusers.PNDMScheduler,
    "dpmpp-2m": diffusers.DPMSolverMultistepScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
}
WORDS = "a photo of on the red blue green beach car dog cat toy in at".split()


def byte_alphabet():
    """The characters that stand for the 256 bytes in CLIP's and GPT-2's vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [256 + i for i in range(256 - len(printable))]
    return [chr(c) for c in printable + others]


def write_tokenizer(folder):
    """Byte-pair merges that make each of WORDS one token."""
    alphabet = byte_alphabet()
    vocabulary = alphabet + [c + "</w>" for c in alphabet]
    merges = []
    for word in WORDS:
        parts = list(word[:-1]) + [word[-1] + "</w>"]
        while len(parts) > 1:
            merge = (parts[0], parts[1])
            if merge not in merges:
                merges.append(merge)
            parts = ["".join(merge), *parts[2:]]
            if parts[0] not in vocabulary:
                vocabulary.append(parts[0])
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(
        json.dumps({token: i for i, token in enumerate(vocabulary)}, ensure_ascii=False)
    )
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines))
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    special |= {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 16, "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | special))
    return vocabulary


def build_model():
    torch.manual_seed(0)
    scratch = FOLDER / "tokenizer"
    vocabulary = write_tokenizer(scratch)
    eos = vocabulary.index("<|endoftext|>")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(scratch)
    text_encoder = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=len(vocabulary), hidden_size=16, intermediate_size=32, projection_dim=16,
            num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=16,
            hidden_act="quick_gelu", bos_token_id=eos - 1, eos_token_id=eos, pad_token_id=eos,
        )
    )
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16, attention_head_dim=2,
    )
    vae = diffusers.AutoencoderKL(
        sample_size=16, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4, scaling_factor=0.5,
    )
    # Initial weights hardly react to their input; larger ones make every part of the network matter.
    with torch.no_grad():
        for module in [text_encoder, unet]:
            for name, weight in module.named_parameters():
                if weight.ndim > 1:
                    weight.mul_(1.2 if module is unet else 4)
                elif "norm" not in name:
                    weight.normal_(std=0.05)
        unet.conv_out.weight.mul_(4)
        for name, weight in unet.named_parameters():
            if "attn2.to_out" in name or "attn2.to_v" in name:
                weight.mul_(4)
    scheduler = diffusers.PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
        steps_offset=1,
    )
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )
    shutil.rmtree(MODEL, ignore_errors=True)
    pipe.to(torch.float16).save_pretrained(MODEL)
    # Published folders carry a key that the PNDM class does not know, for DDIM.
    path = MODEL / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"clip_sample": False}, indent=2))
    # The tokenizer as Stable Diffusion's own folders have it.
    shutil.rmtree(MODEL / "tokenizer")
    shutil.move(scratch, MODEL / "tokenizer")


def draw(pipe, latents, guidance_scale, sampler):
    pipe.scheduler = SAMPLERS[sampler].from_config(SCHEDULER_CONFIG)
    return pipe(
        PROMPT, negative_prompt=NEGATIVE, num_images_per_prompt=len(latents), latents=latents,
        num_inference_steps=STEPS, guidance_scale=guidance_scale, output_type="latent",
    ).images


def expected(dtype, concept):
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(MODEL).to(dtype)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_textual_inversion(concept)
    latents = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    results = {"latents": latents}
    results["cond"], results["uncond"] = pipe.encode_prompt(PROMPT, "cpu", 1, True, NEGATIVE)
    latents = latents.to(dtype)
    for sampler in SAMPLERS:
        results[f"final.{sampler}"] = draw(pipe, latents, 7.5, sampler)
    results["final.unguided"] = draw(pipe, latents, 1.0, "ddim")
    decoded = pipe.vae.decode(results["final.ddim"] / pipe.vae.config.scaling_factor).sample
    pixels = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    results["image"] = (pixels * 255).round()
    return {key: value.detach() for key, value in results.items()}


def main():
    global SCHEDULER_CONFIG
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    build_model()
    SCHEDULER_CONFIG = json.loads((MODEL / "scheduler" / "scheduler_config.json").read_text())
    concept = torch.randn((2, 16), generator=torch.Generator().manual_seed(2)).mul(0.1)
    save_file({"<robot>": concept}, FOLDER / "robot.safetensors", metadata={"format": "pt"})
    results = expected(torch.float32, FOLDER / "robot.safetensors")
    exact = expected(torch.float64, FOLDER / "robot.safetensors")
    for key, value in results.items():
        error = ((value.double() - exact[key]).abs().max() / exact[key].abs().max()).item()
        print(f"{key}: size {value.abs().max():.3g}, float32 differs from float64 by {error:.1e}")
        assert error < (2e-5 if key != "image" else 1 / 255 + 1e-6), key
    effect = (results["final.ddim"] - results["final.unguided"]).abs().max()
    print(f"guidance changes the result by {effect:.2g}, pixels are {results['image'].std():.3g} apart")
    assert effect > 1
    save_file({k: v.float().contiguous() for k, v in results.items()}, FOLDER / "expected.safetensors")
    for path in FOLDER.rglob("*.safetensors"):
        path.chmod(0o644)


if __name__ == "__main__":
    main()
