"""Training trajectories in PyTorch of NeTI, for ../integration/neti.rs.

Uses the checkpoint that trajectory.py has written, and its trainer:

    python core-train/tests/generate_fixtures/neti.py

Written from the description of the mapper, its nested dropout and its way into the networks. The U-Net reads other states
in every cross-attention layer, counted in the order in which they run. Everything runs in float64 as well; the script
fails when rounding alone would come near the tests' tolerance of 1e-3.
"""

import json

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import trajectory
from sampling import GUIDANCE, STEPS as SAMPLING_STEPS, first_latents, sample
from trajectory import BATCH, OUT, PROMPT, STEPS, SUPER_CATEGORY, Trainer, case, relative

LAYERS, HIDDEN, FREQUENCIES, ANCHORS, WIDTH = 4, 12, 8, 3, 16
DRAWN = "a red {} on the beach"
TRUNCATION = 5
CASES = [
    dict(name="bypass", bypass=0.2, nested_dropout=0.5, max_grad_norm=None, learning_rate=2e-3),
    dict(name="no-bypass", bypass=False, nested_dropout=0.0, max_grad_norm=0.05, learning_rate=5e-3),
]


class Mapper(torch.nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm
        self.register_buffer("w", torch.randn(FREQUENCIES, 2) * torch.tensor([0.03, 2.0]))
        anchors = [(1000 // ANCHORS * k, j) for k in range(ANCHORS) for j in range(LAYERS)]
        self.input_layer = torch.nn.Linear(2 * FREQUENCIES, len(anchors))
        with torch.no_grad():
            self.input_layer.weight.copy_(torch.stack([self.features(t, l) for t, l in anchors]))
        self.net = torch.nn.ModuleDict(
            {
                "1": torch.nn.Linear(len(anchors), HIDDEN),
                "2": torch.nn.LayerNorm(HIDDEN),
                "4": torch.nn.Linear(HIDDEN, HIDDEN),
                "5": torch.nn.LayerNorm(HIDDEN),
            }
        )
        self.output_layer = torch.nn.ModuleDict({"0": torch.nn.Linear(HIDDEN, 2 * WIDTH)})

    def features(self, timestep, layer):
        angles = self.w @ torch.tensor([float(timestep), float(layer)], dtype=self.w.dtype)
        f = torch.cat([angles.sin(), angles.cos()])
        return f / f.norm()

    def forward(self, timesteps, layer, kept=None):
        x = torch.stack([self.features(t, layer) for t in timesteps])
        x = self.input_layer(x)
        x = F.leaky_relu(self.net["2"](self.net["1"](x)))
        x = F.leaky_relu(self.net["5"](self.net["4"](x)))
        if kept is not None:
            x = torch.stack([torch.cat([row[:k], torch.zeros_like(row[k:])]) for row, k in zip(x, kept)])
        return (F.normalize(self.output_layer["0"](x)) * self.norm).chunk(2, dim=1)

    def named(self):
        return {f"neti.{name}": weight for name, weight in self.named_parameters()}


class Layered:
    """Attention whose cross-attention layers take their states one after the other."""

    def __init__(self):
        self.states, self.next = None, 0

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        keys = values = hidden_states
        if encoder_hidden_states is not None:
            keys, values = self.states[self.next]
            self.next += 1
        q, k, v = attn.to_q(hidden_states), attn.to_k(keys), attn.to_v(values)
        q, k, v = map(attn.head_to_batch_dim, (q, k, v))
        p = (q @ k.transpose(1, 2) * attn.scale).softmax(-1)
        return attn.to_out[0](attn.batch_to_head_dim(p @ v))


class Neti(Trainer):
    def __init__(self, settings, dtype):
        base = dict(learning_rate=settings["learning_rate"], max_grad_norm=settings["max_grad_norm"])
        super().__init__(case(settings["name"], regularized=False, rescale=None, **base), dtype)
        self.settings = settings
        torch.manual_seed(41)
        self.mapper = Mapper(float(self.rows.detach().double().norm())).to(dtype)
        self.optimizer = torch.optim.AdamW(
            self.mapper.parameters(), lr=settings["learning_rate"], betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2
        )
        embeddings = next(m for m in self.text_encoder.modules() if hasattr(m, "token_embedding"))
        self.tokens = embeddings.token_embedding
        del self.tokens.rows
        self.tokens.rows = self.tokens.table.weight[:1]
        norm = next(m for m in self.text_encoder.modules() if hasattr(m, "final_layer_norm"))
        self.final_norm = norm.final_layer_norm
        self.final_norm.register_forward_pre_hook(lambda _, x: setattr(self, "before_norm", x[0]))
        self.layered = Layered()
        self.unet.set_attn_processor(self.layered)

    def states(self, text, timesteps, kept):
        """Keys and values of every layer, one prompt for each timestep."""
        ids, layers = self.ids(text), []
        place = ids[0].tolist().index(self.tokens.table.num_embeddings)
        for layer in range(LAYERS):
            v, b = self.mapper(timesteps.tolist(), layer, None if kept is None else kept[layer].tolist())
            self.tokens.rows = v
            each = ids.repeat(len(v), 1)
            each[:, place] += torch.arange(len(v))
            keys = values = self.text_encoder(each).last_hidden_state
            if self.settings["bypass"]:
                h = self.before_norm
                at = h[:, place]
                at = at + self.settings["bypass"] * b / b.norm(dim=1, keepdim=True) * at.norm(dim=1, keepdim=True)
                h = torch.cat([h[:, :place], at[:, None], h[:, place + 1 :]], dim=1)
                values = self.final_norm(h)
            layers.append((keys, values))
        return layers

    def predict(self, latents, timesteps, states):
        self.layered.states, self.layered.next = states, 0
        dummy = torch.zeros(len(latents), 1, WIDTH, dtype=self.dtype)
        prediction = self.unet(latents, timesteps, dummy).sample
        assert self.layered.next == LAYERS
        return prediction

    def step(self, step, replay):
        latents = replay["latents"][step - 1].to(self.dtype)
        noise = replay["noise"][step - 1].to(self.dtype)
        timesteps = replay["timesteps"][step - 1]
        acp = self.scheduler.alphas_cumprod[timesteps].to(self.dtype).reshape(-1, 1, 1, 1)
        noisy = acp.sqrt() * latents + (1 - acp).sqrt() * noise
        kept = replay["truncation"][step - 1] if self.settings["nested_dropout"] else None
        states = self.states(PROMPT.format(self.words), timesteps, kept)
        loss = F.mse_loss(self.predict(noisy, timesteps, states), noise)
        loss.backward()
        if self.settings["max_grad_norm"]:
            torch.nn.utils.clip_grad_norm_(self.mapper.parameters(), self.settings["max_grad_norm"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"loss": loss.item(), "diffusion": loss.item()}

    def draw(self, kept):
        with torch.no_grad():
            empty = self.text_encoder(self.ids("")).last_hidden_state

        def conditioned(timestep):
            one = torch.tensor([float(timestep)])
            truncation = None if kept is None else torch.full((LAYERS, 1), kept)
            return self.states(DRAWN.format(self.words), one, truncation)

        def unet(latents, timesteps, states):
            states = [[x.expand(len(latents), -1, -1) for x in pair] for pair in states]
            return self.predict(latents, timesteps, states)

        return sample(unet, conditioned, lambda _: [(empty, empty)] * LAYERS, self.dtype)

    def run(self, replay):
        metrics = [self.step(step, replay) for step in range(1, STEPS + 1)]
        final = {key: value.detach().clone() for key, value in self.mapper.named().items()}
        final |= {"drawn": self.draw(None), "truncated": self.draw(TRUNCATION)}
        return metrics, final


def main():
    torch.set_num_threads(1)
    folder = OUT.parent / "neti"
    folder.mkdir(exist_ok=True)
    replay = load_file(OUT / "replay.safetensors")
    generator = torch.Generator().manual_seed(43)
    kept = torch.randint(0, HIDDEN, (STEPS, LAYERS, BATCH), generator=generator)
    whole = torch.rand((STEPS, LAYERS, 1), generator=generator) < 0.5
    replay["truncation"] = torch.where(whole, HIDDEN, kept)
    start = Neti(CASES[0], torch.float32).mapper
    replay |= {f"init.{key}": value.detach().contiguous() for key, value in start.named().items()}
    replay["init.neti.encoder.w"] = start.w.contiguous()
    save_file(replay, folder / "replay.safetensors")
    finals, described = {"latents": first_latents()}, []
    for settings in CASES:
        metrics32, final32 = Neti(settings, torch.float32).run(replay)
        trainer = Neti(settings, torch.float64)
        metrics, final = trainer.run(replay)
        worst = max(
            abs(a[key] - b[key]) / max(abs(b[key]), 1e-12) for a, b in zip(metrics32, metrics) for key in b
        )
        weight, where = max((relative(final32[key], final[key]), key) for key in final)
        print(f"{settings['name']}: rounding moves metrics by {worst:.1e}, weights and latents by {weight:.1e} ({where})")
        assert max(worst, weight) < 2e-4
        finals |= {f"{settings['name']}/{key}": value.float().contiguous() for key, value in final.items()}
        described.append(settings | {"target_norm": trainer.mapper.norm, "metrics": metrics})
    save_file(finals, folder / "final.safetensors")
    facts = dict(
        steps=STEPS, batch_size=BATCH, super_category=SUPER_CATEGORY, prompt=PROMPT, drawn=DRAWN, hidden=HIDDEN,
        frequencies=FREQUENCIES, time_anchors=ANCHORS, truncation=TRUNCATION, sampling_steps=SAMPLING_STEPS,
        guidance_scale=GUIDANCE, cases=described,
    )
    (folder / "cases.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
