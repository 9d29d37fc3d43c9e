"""Training trajectories in PyTorch of Directional Textual Inversion, for ../integration/direction.rs.

Uses the checkpoint and the replay file that trajectory.py has written, and its trainer:

    python core-train/tests/generate_fixtures/direction.py

Written from the five steps of the method's optimiser. Everything runs in float64 as well; the script fails when rounding
alone would come near the tests' tolerance of 1e-3.
"""

import json

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import trajectory
from sampling import GUIDANCE, STEPS as SAMPLING_STEPS, first_latents, sample
from trajectory import OUT, PROMPT, STEPS, SUPER_CATEGORY, Trainer, case, relative

CASES = [
    dict(name="mean", scale="mean", kappa=1e-4, beta=0.0, learning_rate=0.04, num_vectors=1),
    dict(name="min", scale="min", kappa=0.05, beta=0.9, learning_rate=0.02, num_vectors=2),
    dict(name="max", scale="max", kappa=0.0, beta=0.5, learning_rate=0.02, num_vectors=1),
    dict(name="number", scale=1.75, kappa=0.02, beta=0.0, learning_rate=0.1, num_vectors=2),
]
DRAWN = "a red {} on the beach"


class Direction(Trainer):
    """The rows are a length times unit vectors, and only those move."""

    def __init__(self, settings, dtype):
        super().__init__(case(regularized=False, rescale=None, **settings), dtype)
        self.settings = settings
        embeddings = next(m for m in self.text_encoder.modules() if hasattr(m, "token_embedding"))
        self.tokens = embeddings.token_embedding
        lengths = self.tokens.table.weight.detach().norm(dim=1)
        lengths = lengths[lengths > 0]
        scale = settings["scale"]
        self.scale = getattr(lengths, scale)() if isinstance(scale, str) else scale
        self.u = self.rows.detach() / self.rows.detach().norm(dim=1, keepdim=True)
        self.u0, self.w, self.t = self.u.clone(), 0.0, 0
        del self.tokens.rows

    def step(self, step, replay):
        self.u.requires_grad_(True)
        self.tokens.rows = self.scale * self.u
        latents = replay["latents"][step - 1].to(self.dtype)
        noise = replay["noise"][step - 1].to(self.dtype)
        timesteps = replay["timesteps"][step - 1]
        acp = self.scheduler.alphas_cumprod[timesteps].to(self.dtype).reshape(-1, 1, 1, 1)
        noisy = acp.sqrt() * latents + (1 - acp).sqrt() * noise
        hidden = self.encode(PROMPT.format(self.words)).expand(trajectory.BATCH, -1, -1)
        loss = F.mse_loss(self.unet(noisy, timesteps, hidden).sample, noise)
        (g,) = torch.autograd.grad(loss, self.u)
        with torch.no_grad():
            self.descend(g)
        norm = (self.scale * self.u).norm()
        return {"loss": loss.item(), "diffusion": loss.item(), "embedding_norm": float(norm)}

    def descend(self, g):
        kappa, beta, rate = (self.settings[key] for key in ("kappa", "beta", "learning_rate"))
        self.t += 1
        g = g - kappa * self.u0
        g = g - (g * self.u).sum(1, keepdim=True) * self.u
        self.w = beta * self.w + (1 - beta) * g.norm(dim=1, keepdim=True) ** 2
        g = g / ((self.w / (1 - beta**self.t)).sqrt() + 1e-8)
        u = self.u - rate * g
        self.u = u / u.norm(dim=1, keepdim=True)

    def draw(self):
        self.tokens.rows = self.scale * self.u
        with torch.no_grad():
            hidden, empty = self.encode(DRAWN.format(self.words)), self.encode("")

        def unet(latents, timesteps, states):
            return self.unet(latents, timesteps, states.expand(len(latents), -1, -1)).sample

        return sample(unet, lambda _: hidden, lambda _: empty, self.dtype)


def main():
    torch.set_num_threads(1)
    folder = OUT.parent / "direction"
    folder.mkdir(exist_ok=True)
    replay = load_file(OUT / "replay.safetensors")
    finals, described = {"latents": first_latents()}, []
    for settings in CASES:
        both = []
        for dtype in (torch.float32, torch.float64):
            trainer = Direction(settings, dtype)
            metrics = [trainer.step(step, replay) for step in range(1, STEPS + 1)]
            both.append((metrics, trainer.scale * trainer.u, trainer.draw(), float(trainer.scale)))
        (metrics32, rows32, drawn32, _), (metrics, rows, drawn, scale) = both
        worst = max(
            abs(a[key] - b[key]) / max(abs(b[key]), 1e-12) for a, b in zip(metrics32, metrics) for key in b
        )
        print(settings["name"], f"rounding: metrics {worst:.1e}, rows {relative(rows32, rows):.1e}, drawn {relative(drawn32, drawn):.1e}")
        assert max(worst, relative(rows32, rows), relative(drawn32, drawn)) < 1e-4
        finals[f"{settings['name']}/rows"] = rows.float().contiguous()
        finals[f"{settings['name']}/drawn"] = drawn.float().contiguous()
        described.append(settings | {"length": scale, "metrics": metrics})
    save_file(finals, folder / "final.safetensors")
    facts = dict(
        steps=STEPS, batch_size=trajectory.BATCH, super_category=SUPER_CATEGORY, prompt=PROMPT, drawn=DRAWN,
        sampling_steps=SAMPLING_STEPS, guidance_scale=GUIDANCE, cases=described,
    )
    (folder / "cases.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
