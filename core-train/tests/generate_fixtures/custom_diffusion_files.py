"""Files of Custom Diffusion as other programs write them, and latents that diffusers draws with them, for
../integration/custom_diffusion_files.rs.

diffusers' own processors write `.safetensors` and `.bin`, for keys and values and for all of cross-attention; the
authors' `delta.bin` is written as their diffusers_training.py and compress.py do, with whole matrices and with
the factors of a change.

    python core-train/tests/generate_fixtures/custom_diffusion_files.py
"""

import diffusers
import torch
import transformers
from diffusers.models.attention_processor import CustomDiffusionAttnProcessor
from safetensors.torch import save_file

from trajectory import MODEL, OUT, SIDE

FOLDER = OUT.parent / "custom_diffusion_files"
PROMPT = "a photo of a <new1> dog"
STEPS, GUIDANCE, RANK = 4, 3.0, 2


def pipeline(row):
    pipe = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL.from_pretrained(MODEL / "vae", torch_dtype=torch.float32),
        text_encoder=transformers.CLIPTextModel.from_pretrained(MODEL / "text_encoder", torch_dtype=torch.float32),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(MODEL / "tokenizer"),
        unet=diffusers.UNet2DConditionModel.from_pretrained(MODEL / "unet", torch_dtype=torch.float32),
        scheduler=diffusers.DDIMScheduler.from_pretrained(MODEL / "scheduler"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )
    pipe.tokenizer.add_tokens(["<new1>"])
    pipe.text_encoder.resize_token_embeddings(len(pipe.tokenizer))
    with torch.no_grad():
        pipe.text_encoder.get_input_embeddings().weight[-1] = row
    return pipe


def processors(unet, changes, q_out):
    """The processors that train_custom_diffusion.py makes, with changed weights."""
    weights = unet.state_dict()
    made = {}
    for name in unet.attn_processors:
        block = name.removesuffix(".processor")
        if not name.endswith("attn2.processor"):
            made[name] = CustomDiffusionAttnProcessor(train_kv=False, train_q_out=False)
            continue
        channels, width = weights[f"{block}.to_k.weight"].shape
        processor = CustomDiffusionAttnProcessor(
            train_kv=True, train_q_out=q_out, hidden_size=channels, cross_attention_dim=width
        )
        new = {key: weights[f"{block}.{key}"] + change(changes, f"{block}.{key}") for key in kinds(q_out)}
        processor.load_state_dict(
            {key.replace("to_out.0", "to_out_custom_diffusion.0") if "out" in key else
             key.replace(".weight", "_custom_diffusion.weight"): value for key, value in new.items()}
        )
        made[name] = processor
    return made


def kinds(q_out):
    more = ["to_q.weight", "to_out.0.weight", "to_out.0.bias"] if q_out else []
    return ["to_k.weight", "to_v.weight", *more]


def change(changes, key):
    value = changes[key]
    return value[0] @ value[1] if isinstance(value, tuple) else value


def main():
    FOLDER.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(17)
    draw = lambda *shape: torch.randn(shape, generator=generator) * 0.3
    row = draw(16)
    latents = torch.randn((1, 4, SIDE, SIDE), generator=generator)
    unet = pipeline(row).unet
    weights = unet.state_dict()
    changes = {}
    for key in weights:
        if ".attn2." in key and not key.endswith("bias"):
            rows, columns = weights[key].shape
            changes[key] = (draw(rows, RANK), draw(RANK, columns))
        elif ".attn2." in key:
            changes[key] = draw(*weights[key].shape)
    expected = {"latents": latents}
    for name, q_out in (("keys-and-values", False), ("all", True)):
        pipe = pipeline(row)
        pipe.unet.set_attn_processor(processors(pipe.unet, changes, q_out))
        expected[name] = pipe(
            PROMPT, latents=latents, num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="latent"
        ).images
        for safe in (True, False):
            pipe.unet.save_attn_procs(FOLDER / name, safe_serialization=safe)
    expected["base"] = pipeline(row)(
        PROMPT, latents=latents, num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="latent"
    ).images
    save_file(expected, FOLDER / "expected.safetensors")
    # As train_custom_diffusion.py saves the token: a view of the whole table.
    table = torch.nn.Parameter(torch.cat([torch.zeros(3, 16), row[None]]))
    torch.save({"<new1>": table[-1]}, FOLDER / "keys-and-values" / "<new1>.bin")
    trained = {key: value for key, value in changes.items() if "to_k" in key or "to_v" in key}
    token = {"modifier_token": {"<new1>": row}}
    whole = {key: weights[key] + change(changes, key) for key in trained}
    torch.save({"unet": whole} | token, FOLDER / "delta.bin")
    factors = {key: {"u": u, "v": v} for key, (u, v) in trained.items()}
    torch.save({"unet": factors} | token, FOLDER / "delta-compressed.bin")
    torch.save({"unet": whole, "text_encoder": {"weight": row}} | token, FOLDER / "delta-text-encoder.bin")


if __name__ == "__main__":
    main()
