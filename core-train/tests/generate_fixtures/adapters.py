"""Training trajectories in PyTorch of sets of weights that are added to a model, LoRA and OFT, for
../integration/adapters.rs.

    python core-train/tests/generate_fixtures/adapters.py

LoRA is trained by PEFT itself, as diffusers' train_dreambooth_lora.py adds it. OFT and COFT are
written out after Zeju1997/oft (oft-db/oft_utils/attention_processor.py): R is trained, the rotation
is (I - S)(I + S)^-1, and COFT projects R. Uses the checkpoint that trajectory.py has written.
Everything runs in float64 as well; the script fails when rounding alone would come near the tests'
tolerance of 1e-3. Final latents are those of eight DDIM steps with the trained model.
"""

import json

import diffusers
import peft
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import trajectory
from trajectory import MODEL, OUT, PROMPT, SIDE, STEPS, SUPER_CATEGORY, Trainer, case, relative

HERE = OUT.parent / "adapters"
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
TRANSFORMER = ATTENTION + ["proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
BLOCKS = ["conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv"]
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj"]
CLIP = dict(regularized=False, rescale=None, max_grad_norm=0.5, learning_rate=2e-3)

CASES = [
    dict(case("lora", **CLIP), kind="lora", toml="rank = 2", rank=2, alpha=2.0, targets=ATTENTION, text=[]),
    dict(
        case("lora-text-encoder", **CLIP), kind="lora", toml="rank = 3, alpha = 1.5, text_encoder = true",
        rank=3, alpha=1.5, targets=ATTENTION, text=TEXT,
    ),
    dict(
        case("lora-all", **CLIP), kind="lora", toml='rank = 2, alpha = 4.0, targets = "all"', rank=2,
        alpha=4.0, targets=TRANSFORMER + BLOCKS, text=[],
    ),
    dict(case("oft", **(CLIP | {"learning_rate": 5e-3})), kind="oft", toml="blocks = 2", blocks=2, constraint=None),
    dict(
        case("coft", **(CLIP | {"learning_rate": 5e-3})), kind="oft", toml="blocks = 4, constraint = 2e-3",
        blocks=4, constraint=2e-3,
    ),
]


class Rotated(torch.nn.Module):
    """A linear layer whose inputs are rotated block by block."""

    def __init__(self, layer, blocks, constraint):
        super().__init__()
        self.layer, self.blocks = layer, blocks
        side = layer.in_features // blocks
        assert side * blocks == layer.in_features
        self.R = torch.nn.Parameter(torch.zeros(blocks, side, side, dtype=layer.weight.dtype))
        self.bound = constraint and constraint * side**2 / blocks**0.5

    def forward(self, x):
        if self.bound:
            with torch.no_grad():
                norm = self.R.norm(dim=(1, 2), keepdim=True)
                self.R.copy_(torch.where(norm > self.bound, self.bound * self.R / norm, self.R))
        skew = (self.R - self.R.transpose(1, 2)) / 2
        one = torch.eye(skew.shape[1], dtype=skew.dtype)
        q = (one - skew) @ torch.inverse(one + skew)
        return F.linear(x, self.layer.weight @ torch.block_diag(*q).T, self.layer.bias)


class Adapters(Trainer):
    def __init__(self, case, dtype, init):
        self.init = init
        super().__init__(case | {"train": "unet"}, dtype)
        self.words = "red " + SUPER_CATEGORY
    def choose(self):
        self.rows.requires_grad_(False)
        self.named = {}
        (self.add_lora if self.case["kind"] == "lora" else self.add_oft)()
        for parameter in self.named.values():
            parameter.requires_grad_(True)
        return list(self.named.values())

    def add_lora(self):
        case = self.case
        config = dict(r=case["rank"], lora_alpha=case["alpha"], init_lora_weights="gaussian")
        self.unet.add_adapter(peft.LoraConfig(target_modules=case["targets"], **config))
        networks = [("unet.", self.unet)]
        if case["text"]:
            peft.inject_adapter_in_model(peft.LoraConfig(target_modules=case["text"], **config), self.text_encoder)
            networks.append(("text_encoder.text_model.", self.text_encoder))
        for prefix, network in networks:
            for name, parameter in network.named_parameters():
                if "lora_" not in name:
                    continue
                key = prefix + name.removeprefix("text_model.").replace(".default", "")
                if "lora_A" in key:
                    start = self.init.setdefault(key, torch.randn(parameter.shape) / case["rank"])
                    parameter.data = start.clone().to(self.dtype)
                else:
                    parameter.data = torch.zeros_like(parameter, dtype=self.dtype)
                self.named[key] = parameter
        assert any("lora_A" in key for key in self.named)

    def add_oft(self):
        for name, module in list(self.unet.named_modules()):
            if not any(name.endswith("." + end) for end in ATTENTION):
                continue
            parent = self.unet.get_submodule(name.rpartition(".")[0])
            rotated = Rotated(module, self.case["blocks"], self.case["constraint"])
            if isinstance(parent, torch.nn.ModuleList):
                parent[int(name.rpartition(".")[2])] = rotated
            else:
                setattr(parent, name.rpartition(".")[2], rotated)
            self.named[f"base_model.model.{name}.oft_R.weight"] = rotated.R

    def final(self):
        if self.case["kind"] == "lora":
            return {key: value.detach() for key, value in self.named.items()}
        triangles = {}
        for key, r in self.named.items():
            r = r.detach()
            bound = self.case["constraint"] and self.case["constraint"] * r.shape[1] ** 2 / r.shape[0] ** 0.5
            if bound:
                norm = r.norm(dim=(1, 2), keepdim=True)
                r = torch.where(norm > bound, bound * r / norm, r)
            rows, columns = torch.triu_indices(r.shape[1], r.shape[1], 1)
            triangles[key] = ((r - r.transpose(1, 2)) / 2)[:, rows, columns]
        return triangles

    @torch.no_grad()
    def latents(self, noise):
        scheduler = diffusers.DDIMScheduler.from_pretrained(MODEL / "scheduler")
        scheduler.set_timesteps(8)
        both = torch.cat([self.encode(""), self.encode(PROMPT.format(self.words))])
        latents = noise.to(self.dtype)
        for t in scheduler.timesteps:
            without, with_prompt = self.unet(torch.cat([latents] * 2), t, both).sample.chunk(2)
            latents = scheduler.step(without + 3.0 * (with_prompt - without), t, latents).prev_sample
        return latents

    def run(self, replay):
        rows = [self.step(step, replay) for step in range(1, STEPS + 1)]
        return rows, self.final() | {"latents": self.latents(replay["sampling"])}


def main():
    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    torch.manual_seed(11)
    generator = torch.Generator().manual_seed(12)
    shape = (STEPS, trajectory.BATCH, 4, SIDE, SIDE)
    replay = {
        "latents": torch.randn(shape, generator=generator).half(),
        "noise": torch.randn(shape, generator=generator).half(),
        "timesteps": torch.randint(0, 1000, shape[:2], generator=generator),
    }
    sampling = torch.randn((1, 4, SIDE, SIDE), generator=generator)
    save_file({"latents": sampling}, HERE / "noise.safetensors")
    finals, described = {}, []
    for settings in CASES:
        init = {}
        metrics, final = Adapters(settings, torch.float32, init).run(replay | {"sampling": sampling})
        metrics64, final64 = Adapters(settings, torch.float64, init).run(replay | {"sampling": sampling})
        worst = max(
            abs(row[key] - row64[key]) / max(abs(row64[key]), 1e-12)
            for row, row64 in zip(metrics, metrics64)
            for key in row
        )
        worst_weight, where = max((relative(final[key], final64[key]), key) for key in final64)
        print(f"{settings['name']}: rounding moves metrics by {worst:.1e}, weights by {worst_weight:.1e} ({where})")
        assert worst < 3e-4 and worst_weight < 3e-4, settings["name"]
        starts = {f"init.{key}": value for key, value in init.items()}
        save_file(replay | starts, HERE / f"{settings['name']}.safetensors")
        for key, value in final64.items():
            finals[f"{settings['name']}/{key}"] = value.float().contiguous()
        keep = ["name", "kind", "toml", "learning_rate", "max_grad_norm"]
        described.append({key: settings[key] for key in keep} | {"metrics": metrics64})
    save_file(finals, HERE / "final.safetensors")
    facts = dict(
        steps=STEPS, batch_size=trajectory.BATCH, super_category=SUPER_CATEGORY, prompt=PROMPT, cases=described
    )
    (HERE / "cases.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
