"""What diffusers and transformers make of checkpoints that they correct when they open them.

Writes ../fixtures/opening/: `cases.json`, which has for each case the changes of the model in
../fixtures/pipeline/model (keys of JSON files; null stands for the removal of a key), and
`expected.safetensors` with the latents that `StableDiffusionPipeline.from_pretrained` then draws.
Run with diffusers and transformers installed:

    python core-model/tests/generate_fixtures/opening.py
"""

import json
import pathlib
import shutil
import tempfile

import diffusers
import torch
from safetensors.torch import save_file

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures"
MODEL = FIXTURES / "pipeline" / "model"
FOLDER = FIXTURES / "opening"
PROMPT, NEGATIVE, STEPS = "a photo of a red car", "blue", 7
SAMPLERS = {"ddim": diffusers.DDIMScheduler, "dpmpp-2m": diffusers.DPMSolverMultistepScheduler,
            "euler": diffusers.EulerDiscreteScheduler}
SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
            "skip_prk_steps": None, "clip_sample": None, "steps_offset": None}


def scheduler(name, **keys):
    """The changes that make another scheduler of the model's."""
    return {"scheduler/scheduler_config.json": SCHEDULE | {"_class_name": name} | keys,
            "model_index.json": {"scheduler": ["diffusers", name]}}


def text_encoder(**keys):
    return {"text_encoder/config.json": keys}


def nested():
    """The config of a whole CLIP model beside the weights of a text encoder."""
    own = json.loads((MODEL / "text_encoder" / "config.json").read_text())
    changes = dict.fromkeys(own) | {"model_type": "clip", "text_config": own, "projection_dim": 16}
    return {"text_encoder/config.json": changes}


CASES = {
    "plain": ({}, None),
    "ddim-clips-by-default": (scheduler("DDIMScheduler", set_alpha_to_one=False, steps_offset=1), None),
    "ddim-says-that-it-clips": (scheduler("DDIMScheduler", clip_sample=True), None),
    "pndm-without-offset": (scheduler("PNDMScheduler", skip_prk_steps=True, steps_offset=0), None),
    "euler-without-offset": (scheduler("EulerDiscreteScheduler", timestep_spacing="leading"), None),
    "dpm-without-offset": (scheduler("DPMSolverMultistepScheduler", timestep_spacing="leading"), None),
    "dpm-over-ddpm": (scheduler("DDPMScheduler", variance_type="fixed_small", clip_sample=True), "dpmpp-2m"),
    "euler-over-ddpm": (scheduler("DDPMScheduler", variance_type="fixed_large"), "euler"),
    "the-index-names-the-class": (
        scheduler("PNDMScheduler") | {"model_index.json": {"scheduler": ["diffusers", "DDIMScheduler"]}}, None),
    "fewer-layers-than-the-file": (text_encoder(num_hidden_layers=1), None),
    "config-of-a-whole-clip-model": (nested(), None),
    "a-token-without-row": ({"tokenizer/added_tokens.json": {"<old>": "ROWS"}}, None),
}


def edited(changes, folder):
    shutil.copytree(MODEL, folder, dirs_exist_ok=True)
    for name, keys in changes.items():
        path = folder / name
        content = json.loads(path.read_text()) if path.exists() else {}
        content = {key: value for key, value in (content | keys).items() if value is not None}
        path.write_text(json.dumps(content))


def main():
    rows = json.loads((MODEL / "text_encoder" / "config.json").read_text())["vocab_size"]
    latents = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    results, cases = {"latents": latents}, {}
    for name, (changes, sampler) in CASES.items():
        changes = json.loads(json.dumps(changes).replace('"ROWS"', str(rows)))
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            edited(changes, folder)
            pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder).to(torch.float32)
            if sampler:
                pipe.scheduler = SAMPLERS[sampler].from_config(pipe.scheduler.config)
            pipe.set_progress_bar_config(disable=True)
            results[name] = pipe(PROMPT, negative_prompt=NEGATIVE, latents=latents.clone(), num_inference_steps=STEPS,
                                 guidance_scale=7.5, output_type="latent").images.detach()
        cases[name] = {"changes": changes, "sampler": sampler}
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    (FOLDER / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
    save_file({key: value.contiguous() for key, value in results.items()}, FOLDER / "expected.safetensors")
    (FOLDER / "expected.safetensors").chmod(0o644)


if __name__ == "__main__":
    main()
