"""Latents drawn in PyTorch from the tiny checkpoint, for the other scripts here."""

import diffusers
import torch

from trajectory import MODEL, SIDE

STEPS, GUIDANCE = 4, 3.0


def first_latents():
    generator = torch.Generator().manual_seed(77)
    return torch.randn((2, 4, SIDE, SIDE), generator=generator)


@torch.no_grad()
def sample(unet, states, negative, dtype):
    """DDIM without noise of its own. `states(timestep)` gives what the cross-attention of the prompt reads, in the form
    that `unet` takes; so does `negative`."""
    scheduler = diffusers.DDIMScheduler.from_pretrained(MODEL / "scheduler")
    scheduler.set_timesteps(STEPS)
    latents = first_latents().to(dtype) * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        batch = timestep.repeat(len(latents))
        without = unet(latents, batch, negative(timestep))
        towards = unet(latents, batch, states(timestep))
        prediction = without + GUIDANCE * (towards - without)
        latents = scheduler.step(prediction, timestep, latents, eta=0.0).prev_sample
    return latents
