"""Training trajectories in PyTorch of stages that train the text encoder, several sets of weights at
their own learning rates, and concepts written with a phrase, for ../integration/networks.rs.

Uses the checkpoint and the replay file that trajectory.py has written, and its trainer:

    python core-train/tests/generate_fixtures/networks.py

The text encoder is trained as diffusers' train_dreambooth.py does with --train_text_encoder: all of
its weights, the whole token table among them. Everything runs in float64 as well; the script fails
when rounding alone would come near the tests' tolerance of 1e-3.
"""

import json

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import trajectory
from trajectory import MODEL, OUT, PROMPT, STEPS, SUPER_CATEGORY, Trainer, case, relative

CASES = [
    dict(case("text-encoder", regularized=False, rescale=None), sets={"text_encoder": 1e-3}),
    dict(case("text-encoder-with-terms", rescale=None), sets={"text_encoder": 1e-3}),
    dict(
        case("rare-token", regularized=False, rescale=None, max_grad_norm=0.1),
        sets={"unet": 1e-4, "text_encoder": 5e-4}, phrase="{token} {class}", rare_token="red",
    ),
    dict(
        case("prior", regularized=False, rescale=None, max_grad_norm=0.1),
        sets={"unet": 1e-4, "text_encoder": 5e-4}, phrase="{token} {class}", rare_token="red",
        terms={"prior_preservation": 0.7},
    ),
    dict(
        case("photo-terms", num_vectors=2, regularized=False, rescale=None),
        sets={"embedding": 5e-3}, phrase="the {token} {class}",
        terms={"attention_statistics": 500.0, "embedding_anchor": 0.05},
    ),
    dict(
        case("own-rates", regularized=False, rescale=None, max_grad_norm=0.05, schedule="cosine", warmup=3),
        sets={"embedding": 5e-3, "cross_attention_kv": 1e-3}, phrase="{token} {class}",
    ),
]


CLASS_PROMPT = "a photo of a {class}"


class Networks(Trainer):
    """Trains sets of weights; the concept is written with a phrase."""

    def __init__(self, case, dtype):
        super().__init__(case | {"train": "unet"}, dtype)
        self.case = case
        token = case.get("rare_token") or self.words
        phrase = case.get("phrase", "{token}")
        self.words = phrase.format(**{"token": token, "class": SUPER_CATEGORY})

    def choose(self):
        """One group of parameters for each set, at its own rate."""
        self.rows.requires_grad_(False)
        for weight in self.unet.parameters():
            weight.requires_grad_(False)
        self.named, groups = {}, []
        for kind, rate in self.case["sets"].items():
            named = dict(self.named_of(kind))
            for weight in named.values():
                weight.requires_grad_(True)
            self.named |= named
            groups.append({"params": list(named.values()), "lr": rate})
        return groups

    def named_of(self, kind):
        if kind == "embedding":
            yield "rows", self.rows
        elif kind == "text_encoder":
            for name, weight in self.text_encoder.named_parameters():
                if name.endswith("token_embedding.rows"):
                    continue
                name = name.removeprefix("text_model.").replace("token_embedding.table.", "token_embedding.")
                yield f"text_encoder.{name}", weight
        else:
            for name, weight in self.unet.named_parameters():
                if kind == "unet" or ".attn2.to_k." in name or ".attn2.to_v." in name:
                    yield f"unet.{name}", weight

    def photo_terms(self):
        """AttnDreamBooth's statistics and Cross Initialization's anchor, as their public code has them."""
        start = self.tokenizer("a photo of a the").input_ids[:-1]
        i, n = len(start), self.case["num_vectors"]
        j, statistics = i + n, 0.0
        for p in self.recorder.maps:
            batch, _, _, tokens = p.shape
            p = p.permute(0, 3, 1, 2).reshape(batch, tokens, -1)
            for factor, value in ((2.0, p.mean(-1)), (5.0, p.var(-1))):
                part = (value[:, i : i + n] - value[:, j : j + 1]).square().mean(1).sum()
                statistics = statistics + factor * part / len(self.recorder.maps)
        if not hasattr(self, "start"):
            self.start = self.rows.detach().clone()
        anchor = F.pairwise_distance(self.rows, self.start).mean()
        return {"attention_statistics": statistics, "embedding_anchor": anchor}

    def step_with_photo_terms(self, step, replay):
        latents = replay["latents"][step - 1].to(self.dtype)
        noise = replay["noise"][step - 1].to(self.dtype)
        timesteps = replay["timesteps"][step - 1]
        acp = self.scheduler.alphas_cumprod[timesteps].to(self.dtype).reshape(-1, 1, 1, 1)
        noisy = acp.sqrt() * latents + (1 - acp).sqrt() * noise
        hidden = self.encode(PROMPT.format(self.words)).expand(trajectory.BATCH, -1, -1)
        self.recorder.maps = []
        diffusion = F.mse_loss(self.unet(noisy, timesteps, hidden).sample, noise)
        terms = self.photo_terms()
        loss = diffusion + sum(self.case["terms"][kind] * value for kind, value in terms.items())
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        row = {"loss": loss, "diffusion": diffusion} | terms
        row["embedding_norm"] = self.rows.norm()
        return {key: float(value) for key, value in row.items()}

    def step_with_prior(self, step, replay):
        """As diffusers' train_dreambooth.py: instance and class samples in one pass."""
        both = {
            key: torch.cat([replay[key][step - 1], replay["prior_" + key][step - 1]])
            for key in ("latents", "noise", "timesteps")
        }
        latents, noise = both["latents"].to(self.dtype), both["noise"].to(self.dtype)
        acp = self.scheduler.alphas_cumprod[both["timesteps"]].to(self.dtype).reshape(-1, 1, 1, 1)
        noisy = acp.sqrt() * latents + (1 - acp).sqrt() * noise
        prompts = [PROMPT.format(self.words), CLASS_PROMPT.format(**{"class": SUPER_CATEGORY})]
        hidden = torch.cat([self.encode(p).expand(trajectory.BATCH, -1, -1) for p in prompts])
        prediction, prior = self.unet(noisy, both["timesteps"], hidden).sample.chunk(2)
        target, prior_target = noise.chunk(2)
        diffusion = F.mse_loss(prediction, target)
        terms = {"prior_preservation": F.mse_loss(prior, prior_target)}
        loss = diffusion + self.case["terms"]["prior_preservation"] * terms["prior_preservation"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.named.values()), self.case["max_grad_norm"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        row = {"loss": loss, "diffusion": diffusion, "embedding_norm": self.rows.norm()} | terms
        return {key: float(value) for key, value in row.items()}

    def step(self, step, replay):
        if "prior_preservation" in (self.case.get("terms") or {}):
            return self.step_with_prior(step, replay)
        if self.case.get("terms"):
            return self.step_with_photo_terms(step, replay)
        flat, self.trained = self.trained, list(self.named.values())
        row = super().step(step, replay)
        self.trained = flat
        return row

    def run(self, replay):
        rows = [self.step(step, replay) for step in range(1, STEPS + 1)]
        return rows, {name: weight.detach() for name, weight in self.named.items()}


def start_values():
    unet = load_file(MODEL / "unet" / "diffusion_pytorch_model.safetensors")
    text = load_file(MODEL / "text_encoder" / "model.safetensors")
    values = {f"unet.{key}": value for key, value in unet.items()}
    values |= {f"text_encoder.{key.removeprefix('text_model.')}": value for key, value in text.items()}
    return values


def main():
    torch.set_num_threads(1)
    replay = load_file(OUT / "replay.safetensors")
    generator = torch.Generator().manual_seed(31)
    shape = replay["latents"].shape
    prior = {
        "prior_latents": torch.randn(shape, generator=generator).half(),
        "prior_noise": torch.randn(shape, generator=generator).half(),
        "prior_timesteps": torch.randint(0, 1000, shape[:2], generator=generator),
    }
    replay |= prior
    save_file(replay, OUT.parent / "networks" / "replay.safetensors")
    start = start_values()
    finals, described = {}, []
    for settings in CASES:
        metrics, final = Networks(settings, torch.float32).run(replay)
        metrics64, final64 = Networks(settings, torch.float64).run(replay)
        worst = max(
            abs(row[key] - row64[key]) / max(abs(row64[key]), 1e-12)
            for row, row64 in zip(metrics, metrics64)
            for key in row
        )
        # A softmax does not see the bias of the keys: its gradient is rounding, which AdamW blows up.
        final64 = {key: value for key, value in final64.items() if not key.endswith("k_proj.bias")}
        worst_weight, where = max((relative(final[key], final64[key]), key) for key in final64)
        print(f"{settings['name']}: rounding moves metrics by {worst:.1e}, weights by {worst_weight:.1e} ({where})")
        assert worst < 3e-4 and worst_weight < 3e-4, settings["name"]
        for key, value in final64.items():
            # Of a network the change, which keeps its precision in half the space.
            value = value.float() if key == "rows" else (value - start[key].double()).half()
            finals[f"{settings['name']}/{key}"] = value
        keep = ["name", "sets", "terms", "num_vectors", "phrase", "rare_token", "regularized", "max_grad_norm", "schedule", "warmup"]
        described.append({key: settings.get(key) for key in keep} | {"metrics": metrics64})
    save_file(finals, OUT.parent / "networks" / "final.safetensors")
    text = json.dumps(
        dict(
            steps=STEPS, batch_size=trajectory.BATCH, super_category=SUPER_CATEGORY, prompt=PROMPT,
            templates=trajectory.TEMPLATES, weights=trajectory.WEIGHTS, cases=described,
        ),
        indent=1,
    )
    (OUT.parent / "networks" / "cases.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
