"""Whole sampling trajectories of the diffusers schedulers with a fixed linear "network".

Writes ../fixtures/schedulers/{cases.json,cases.safetensors}. Run with diffusers installed:

    python core-model/tests/generate_fixtures/schedulers.py

Every case is also run in float64 with the same timesteps and sigmas, which shows how much of the
result is rounding; ill-conditioned cases are not written.
"""

import itertools
import json
import pathlib

import diffusers
import numpy as np
import torch
from safetensors.torch import save_file

FOLDER = pathlib.Path(__file__).parent.parent / "fixtures" / "schedulers"
CLASSES = {
    "ddim": diffusers.DDIMScheduler,
    "pndm": diffusers.PNDMScheduler,
    "dpmpp-2m": diffusers.DPMSolverMultistepScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "unipc": diffusers.UniPCMultistepScheduler,
}
LATENT_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SHAPE = (1, 4, 2, 2)


def network(sample, timestep, bias):
    """A linear function of sample and timestep."""
    return 0.4 * sample + 0.3 * float(timestep) / 1000 * bias


def widen(scheduler):
    """Makes the tensors of a scheduler float64, with the values that float32 gave them."""
    for name, value in vars(scheduler).items():
        if torch.is_tensor(value) and value.is_floating_point() and name != "timesteps":
            setattr(scheduler, name, value.double())


def trajectory(scheduler, steps, noise, bias, wide=False):
    scheduler.set_timesteps(steps)
    if wide:
        widen(scheduler)
        noise, bias = noise.double(), bias.double()
    sample = noise * scheduler.init_noise_sigma
    samples = []
    for t in scheduler.timesteps:
        output = network(scheduler.scale_model_input(sample, t), t, bias)
        sample = scheduler.step(output, t, sample).prev_sample
        samples.append(sample)
    return samples


def cases():
    """(name of the scheduler, values of its file, steps)"""
    spacings = ["leading", "linspace", "trailing"]
    predictions = ["epsilon", "v_prediction"]
    betas = [
        LATENT_DIFFUSION,
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2", "lambda_min_clipped": -5.1},
    ]
    common = {"clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1}
    for name, beta, prediction, spacing, steps in itertools.product(
        CLASSES, betas, predictions, spacings, [5, 10, 20, 50]
    ):
        yield name, {**common, **beta, "prediction_type": prediction, "timestep_spacing": spacing}, steps
    # Defaults of each class: no key but the schedule's.
    for name, steps in itertools.product(CLASSES, [7, 25]):
        yield name, LATENT_DIFFUSION, steps
    for name, spacing, steps in itertools.product(["ddim", "dpmpp-2m", "euler", "unipc"], spacings, [10, 20]):
        zero = {**LATENT_DIFFUSION, "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
        yield name, {**common, **zero, "timestep_spacing": spacing}, steps
    yield "ddim", {**LATENT_DIFFUSION, "clip_sample": True, "clip_sample_range": 0.5}, 10
    yield "ddim", {**LATENT_DIFFUSION, "set_alpha_to_one": True, "clip_sample": False}, 10
    yield "pndm", {**LATENT_DIFFUSION, "prediction_type": "v_prediction", "set_alpha_to_one": True}, 12
    for extra in [
        {"solver_order": 1},
        {"solver_type": "heun"},
        {"solver_type": "bh2"},
        {"lower_order_final": False},
        {"euler_at_final": True, "final_sigmas_type": "sigma_min"},
        {"final_sigmas_type": "sigma_min"},
        {"final_sigmas_type": "sigma_min", "lower_order_final": False},
    ]:
        for steps in [10, 20]:
            yield "dpmpp-2m", {**LATENT_DIFFUSION, **extra}, steps
    for extra in [
        {"solver_order": 1},
        {"solver_order": 3},
        {"solver_order": 3, "lower_order_final": False, "final_sigmas_type": "sigma_min"},
        {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},
        {"solver_type": "bh1", "solver_order": 3, "final_sigmas_type": "sigma_min"},
        {"solver_type": "midpoint"},
        {"disable_corrector": [0, 1, 4]},
        {"final_sigmas_type": "sigma_min"},
        {"final_sigmas_type": "sigma_min", "lower_order_final": False},
    ]:
        for steps in [10, 20]:
            yield "unipc", {**LATENT_DIFFUSION, **extra}, steps
    for name, beta, prediction, spacing, steps in itertools.product(
        ["dpmpp-2m", "euler", "unipc"], betas, predictions, spacings, [5, 10, 20]
    ):
        karras = {"prediction_type": prediction, "timestep_spacing": spacing, "use_karras_sigmas": True}
        yield name, {**common, **beta, **karras}, steps
    for name in ["dpmpp-2m", "euler", "unipc"]:
        bounds = {"use_karras_sigmas": True, "sigma_min": 0.05, "sigma_max": 10.0}
        yield name, {**LATENT_DIFFUSION, **bounds}, 10
    yield "euler", {**LATENT_DIFFUSION, "final_sigmas_type": "sigma_min"}, 10
    # One call, and numbers that do not divide 1000.
    for name, spacing, steps in itertools.product(CLASSES, spacings, [1, 2, 3, 13, 37]):
        yield name, {**common, **LATENT_DIFFUSION, "timestep_spacing": spacing}, steps


def main():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(SHAPE, generator=generator)
    bias = torch.randn(SHAPE, generator=generator)
    tensors = {"noise": noise, "bias": bias}
    descriptions, worst, left_out = [], 0.0, []
    for name, config, steps in cases():
        build = lambda: CLASSES[name].from_config(dict(config))
        scheduler = build()
        try:
            samples = trajectory(scheduler, steps, noise, bias)
        except (IndexError, AssertionError):
            # Two of Karras' sigmas have one timestep, and diffusers starts at the second.
            left_out.append((name, config, steps, float("nan")))
            continue
        exact = trajectory(build(), steps, noise, bias, wide=True)
        error = max(
            ((a.double() - b).abs().max() / b.abs().max()).item() for a, b in zip(samples, exact)
        )
        if not error < 2e-5:
            left_out.append((name, config, steps, error))
            continue
        worst = max(worst, error)
        key = f"{len(descriptions)}"
        tensors[f"{key}.timesteps"] = scheduler.timesteps.to(torch.float32)
        tensors[f"{key}.last"] = samples[-1].flatten()
        if steps == 10:
            tensors[f"{key}.largest"] = torch.stack([s.abs().max() for s in samples])
        descriptions.append({"scheduler": name, "steps": steps, "config": config})

    timesteps = torch.tensor([0, 1, 250, 999])
    latents = torch.randn((4, *SHAPE[1:]), generator=generator)
    training_noise = torch.randn((4, *SHAPE[1:]), generator=generator)
    tensors |= {"training.latents": latents, "training.noise": training_noise}
    training = []
    for config in [
        LATENT_DIFFUSION,
        {"beta_schedule": "linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {**LATENT_DIFFUSION, "rescale_betas_zero_snr": True},
    ]:
        scheduler = diffusers.DDPMScheduler.from_config(config)
        key = f"training.{len(training)}"
        tensors[f"{key}.alphas_cumprod"] = scheduler.alphas_cumprod[::37].clone()
        tensors[f"{key}.noisy"] = scheduler.add_noise(latents, training_noise, timesteps)
        tensors[f"{key}.velocity"] = scheduler.get_velocity(latents, training_noise, timesteps)
        training.append(config)

    FOLDER.mkdir(parents=True, exist_ok=True)
    text = ",\n".join("  " + json.dumps(case) for case in descriptions)
    (FOLDER / "cases.json").write_text(
        '{"training": ' + json.dumps(training) + ',\n"cases": [\n' + text + "\n]}\n"
    )
    save_file({k: v.contiguous() for k, v in tensors.items()}, FOLDER / "cases.safetensors")
    print(f"{len(descriptions)} cases, float32 differs from float64 by at most {worst:.1e}")
    for name, config, steps, error in left_out:
        print("left out:", name, steps, error, config)


if __name__ == "__main__":
    np.seterr(divide="ignore")
    main()
