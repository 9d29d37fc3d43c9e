"""Shows that LoRA and OFT files go both ways between this project and diffusers, PEFT and kohya's form.

    cargo build --workspace
    python benchmarks/interop_adapters.py

Needs torch, diffusers, transformers and peft. Each check prints the largest relative difference of the
final latents (DDIM with guidance, models/mini), and the program fails when one is above 1e-4.
"""

import pathlib
import tempfile

import peft
import torch
from diffusers import StableDiffusionPipeline
from interop import MODEL, ROOT, core_train, difference, draw, generate
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
PROMPT = "a photo of a z dog in the snow"
WORST = 1e-4
RUN = """
phrase = "{{token}} {{class}}"
rare_token = "z"
[model]
path = "{model}"
[concept]
name = "dog"
images = "{photos}"
super_category = "dog"
[[stages]]
train = [{train}]
steps = 6
batch_size = 1
learning_rate = 1e-2
prompts = ["a photo of a {{}}"]
"""


def said(what, ours, theirs):
    found = difference(ours, theirs)
    print(f"{what}: {found:.1e}")
    assert found < WORST, what


def base():
    return StableDiffusionPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)


def trained(folder, train):
    run, config = folder / "run", folder / "run.toml"
    photos = ROOT / "experiments/concepts/spotted-dog"
    config.write_text(RUN.format(model=MODEL, photos=photos, train=train))
    core_train("train", config, "--output", run)
    return run


def check_lora_of_a_run(train):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run = trained(folder, train)
        latents, ours = generate(["--run", run], PROMPT)
        unchanged = draw(base(), PROMPT, latents)
        assert difference(ours, unchanged) > 1e-3, "the LoRA does nothing"
        files = {"as saved": run / "lora.safetensors"}
        for form in ["kohya", "diffusers", "peft"]:
            files[form] = folder / f"{form}.safetensors"
            core_train("lora", "convert", files["as saved"], files[form], "--to", form, "--dtype", "float32", "--model", MODEL)
        for form, file in files.items():
            pipeline = base()
            pipeline.load_lora_weights(file)
            said(f"{train}: {form} in diffusers", ours, draw(pipeline, PROMPT, latents))
            _, again = generate(["--model", MODEL, "--lora", file], PROMPT)
            said(f"{train}: {form} here", ours, again)
        pipeline = base()
        pipeline.load_lora_weights(files["kohya"], adapter_name="one")
        pipeline.set_adapters(["one"], [0.4])
        _, half = generate(["--run", run, "--lora-scale", 0.4], PROMPT)
        said(f"{train}: strength 0.4 in diffusers", half, draw(pipeline, PROMPT, latents))
        core_train("export", run, folder / "exported")
        theirs = draw(StableDiffusionPipeline.from_pretrained(folder / "exported"), PROMPT, latents)
        said(f"{train}: exported folder in diffusers", ours, theirs)


def check_lora_of_others():
    """A LoRA of U-Net and text encoder with random factors, as diffusers saves it and as kohya's form."""
    torch.manual_seed(5)
    pipeline = base()
    config = dict(r=3, lora_alpha=6, init_lora_weights=False)
    pipeline.unet.add_adapter(peft.LoraConfig(target_modules=[*ATTENTION, "ff.net.2", "proj_in"], **config))
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["q_proj", "fc1"], **config), pipeline.text_encoder)
    for network in (pipeline.unet, pipeline.text_encoder):
        for key, value in network.named_parameters():
            if "lora_" in key:
                value.data *= 0.3
    states = {"unet": get_peft_model_state_dict(pipeline.unet)}
    # Versions of transformers before 5 write this prefix.
    text = get_peft_model_state_dict(pipeline.text_encoder)
    states["text_encoder"] = {key if key.startswith("text_model.") else f"text_model.{key}": value for key, value in text.items()}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        # As diffusers does, alpha stands in the metadata.
        meta = {"unet": pipeline.unet.peft_config["default"].to_dict(), "text_encoder": pipeline.text_encoder.peft_config["default"].to_dict()}
        StableDiffusionPipeline.save_lora_weights(
            folder, unet_lora_layers=states["unet"], text_encoder_lora_layers=states["text_encoder"],
            unet_lora_adapter_metadata=meta["unet"], text_encoder_lora_adapter_metadata=meta["text_encoder"],
        )
        kohya = {}
        for network, state in states.items():
            prefix = {"unet": "lora_unet_", "text_encoder": "lora_te_"}[network]
            for key, value in state.items():
                layer, _, factor = key.removesuffix(".weight").rpartition(".")
                layer = prefix + layer.replace(".", "_")
                kohya[f"{layer}.lora_{ {'lora_A': 'down', 'lora_B': 'up'}[factor] }.weight"] = value
                kohya[f"{layer}.alpha"] = torch.tensor(6)
        save_file({key: value.contiguous() for key, value in kohya.items()}, folder / "kohya.safetensors")
        torch.save(kohya, folder / "kohya.pt")
        for file in ["pytorch_lora_weights.safetensors", "kohya.safetensors", "kohya.pt"]:
            latents, ours = generate(["--model", MODEL, "--lora", folder / file], PROMPT)
            said(f"{file} of others here", ours, draw(pipeline, PROMPT, latents))


def check_oft_of_a_run(train):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run = trained(folder, train)
        latents, ours = generate(["--run", run], PROMPT)
        pipeline = base()
        pipeline.unet = peft.PeftModel.from_pretrained(pipeline.unet, run / "oft")
        said(f"{train}: folder in PEFT", ours, draw(pipeline, PROMPT, latents))
        pipeline.unet = pipeline.unet.merge_and_unload()
        said(f"{train}: merged by PEFT", ours, draw(pipeline, PROMPT, latents))
        _, again = generate(["--model", MODEL, "--oft", run / "oft"], PROMPT)
        said(f"{train}: folder here", ours, again)
        core_train("export", run, folder / "exported")
        theirs = draw(StableDiffusionPipeline.from_pretrained(folder / "exported"), PROMPT, latents)
        said(f"{train}: exported folder in diffusers", ours, theirs)


def check_oft_of_others(**settings):
    torch.manual_seed(6)
    pipeline = base()
    config = peft.OFTConfig(r=4, oft_block_size=0, target_modules=ATTENTION, init_weights=False, **settings)
    pipeline.unet = peft.get_peft_model(pipeline.unet, config)
    with tempfile.TemporaryDirectory() as name:
        pipeline.unet.save_pretrained(name)
        latents, ours = generate(["--model", MODEL, "--oft", name], PROMPT)
        said(f"OFT of PEFT {settings} here", ours, draw(pipeline, PROMPT, latents))


def main():
    check_lora_of_a_run('{ kind = "lora", alpha = 8.0 }')
    check_lora_of_a_run('{ kind = "lora", rank = 2, targets = "transformer", text_encoder = true }')
    check_lora_of_a_run('{ kind = "lora", rank = 2, alpha = 1.0, targets = "all" }')
    check_lora_of_others()
    check_oft_of_a_run('{ kind = "oft" }')
    check_oft_of_a_run('{ kind = "oft", constraint = 1e-3, targets = "cross_attention" }')
    check_oft_of_others(use_cayley_neumann=False)
    check_oft_of_others()
    check_oft_of_others(use_cayley_neumann=True, num_cayley_neumann_terms=7)
    check_oft_of_others(use_cayley_neumann=False, coft=True, eps=0.2)


if __name__ == "__main__":
    main()
