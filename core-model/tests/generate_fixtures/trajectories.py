"""Whole trajectories of the tiny U-Net of ../fixtures/pipeline on latents of 16x16, by diffusers.

Reads ../fixtures/pipeline/model (made by pipeline.py) and writes ../fixtures/trajectories/: the
noise, the prompt's hidden states and the last latents of every case. Run with diffusers installed:

    python core-model/tests/generate_fixtures/trajectories.py

Every case is also run in float64 with the same timesteps; one whose rounding comes near the
tolerance proves nothing and stops the script.
"""

import itertools
import json
import pathlib

import diffusers
import torch
from safetensors.torch import load_file, save_file
from schedulers import CLASSES, LATENT_DIFFUSION, widen

FIXTURES = pathlib.Path(__file__).parent.parent / "fixtures"
SAMPLERS = [(name, False) for name in CLASSES] + [("dpmpp-2m", True), ("euler", True), ("unipc", True)]
# Neither side of the last survives being halved and doubled.
SIDES = [(16, 16), (17, 21)]


def cases():
    """(name of the scheduler, values of its file, steps, sides of the latents)"""
    common = {**LATENT_DIFFUSION, "clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True}
    predictions, spacings = ["epsilon", "v_prediction"], ["leading", "trailing"]
    for (name, karras), prediction, spacing, steps in itertools.product(SAMPLERS, predictions, spacings, [5, 20, 50]):
        values = {"steps_offset": 1, "prediction_type": prediction, "timestep_spacing": spacing}
        if karras:
            values["use_karras_sigmas"] = True
        yield name, {**common, **values}, steps, SIDES[0]
    for name in CLASSES:
        yield name, {**common, "steps_offset": 1}, 10, SIDES[1]


@torch.inference_mode()
def trajectory(unet, scheduler, steps, latents, context, wide):
    scheduler.set_timesteps(steps)
    if wide:
        widen(scheduler)
        latents, context = latents.double(), context.double()
    sample = latents * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        output = unet(scheduler.scale_model_input(sample, t), t, context).sample
        sample = scheduler.step(output, t, sample).prev_sample
    return sample


def main():
    folder = FIXTURES / "pipeline"
    load = lambda: diffusers.UNet2DConditionModel.from_pretrained(folder / "model" / "unet", torch_dtype=torch.float32)
    unet, exact_unet = load(), load().double()
    context = load_file(folder / "expected.safetensors")["cond"]
    generator = torch.Generator().manual_seed(3)
    noise = {sides: torch.randn((1, 4, *sides), generator=generator) for sides in SIDES}
    tensors = {"context": context} | {f"noise.{h}x{w}": value for (h, w), value in noise.items()}
    descriptions, worst = [], 0.0
    for name, config, steps, sides in cases():
        build = lambda: CLASSES[name].from_config(dict(config))
        last = trajectory(unet, build(), steps, noise[sides], context, wide=False)
        exact = trajectory(exact_unet, build(), steps, noise[sides], context, wide=True)
        error = ((last.double() - exact).abs().max() / exact.abs().max()).item()
        assert error < 2e-5, (name, config, steps, error)
        worst = max(worst, error)
        tensors[f"{len(descriptions)}.last"] = last
        descriptions.append({"scheduler": name, "steps": steps, "sides": sides, "config": config})
    out = FIXTURES / "trajectories"
    out.mkdir(parents=True, exist_ok=True)
    text = ",\n".join("  " + json.dumps(case) for case in descriptions)
    (out / "cases.json").write_text('{"cases": [\n' + text + "\n]}\n")
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / "io.safetensors")
    (out / "io.safetensors").chmod(0o644)
    print(f"{len(descriptions)} cases, float32 differs from float64 by at most {worst:.1e}")


if __name__ == "__main__":
    main()
