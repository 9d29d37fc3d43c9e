"""What the trajectories of published methods have in common: a trainer in PyTorch on the checkpoint that
trajectory.py has written, a check against float64, and the files that ../integration/golden.rs reads.

Written from the methods' papers and public code with diffusers, transformers and torch.optim; needs nothing
of this project. A case is a run file and what PyTorch makes of it: metrics of every step, final weights, and
latents that are sampled with them.
"""

import json

import diffusers
import torch
from safetensors.torch import load_file, save_file

import trajectory
from trajectory import MODEL, SUPER_CATEGORY, Recorder, Trainer, relative

OUT = trajectory.OUT.parent
STEPS, BATCH, SIDE = 8, 2, trajectory.SIDE
ADDITIONS = ["", "a far away ", "very small ", "zoomed in ", "close up "]
SAMPLING_STEPS, GUIDANCE = 4, 3.0


class FirstTokenStopped(Recorder):
    """Custom Diffusion's attention: keys and values of text position 0 give no gradient."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        if encoder_hidden_states is not None:
            detach = torch.ones_like(k)
            detach[:, :1] = 0.0
            k = detach * k + (1 - detach) * k.detach()
            v = detach * v + (1 - detach) * v.detach()
        q, k, v = map(attn.head_to_batch_dim, (q, k, v))
        p = (q @ k.transpose(1, 2) * attn.scale).softmax(-1)
        return attn.to_out[0](attn.batch_to_head_dim(p @ v))


class Golden(Trainer):
    """Trains the sets of a case on its prompts; `extra` of the case are further terms by kind."""

    def __init__(self, case, dtype):
        base = trajectory.case(case["name"], num_vectors=case.get("num_vectors", 1), train="embedding")
        super().__init__(base, dtype)
        self.settings = case
        token = case.get("rare_token") or self.words
        self.words = case.get("phrase", "{token}").format(**{"token": token, "class": SUPER_CATEGORY})
        if "start" in case:
            with torch.no_grad():
                self.rows.copy_(case["start"](self))
        self.first_rows = self.rows.detach().clone()
        if case.get("first_token"):
            self.unet.set_attn_processor(FirstTokenStopped())
        self.named, groups = self.choose_sets()
        self.optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2)

    def choose_sets(self):
        """One group of parameters for each set, at its own rate."""
        self.rows.requires_grad_(False)
        named, groups = {}, []
        for kind, rate in self.settings["sets"].items():
            chosen = {"rows": self.rows} if kind == "embedding" else {
                f"unet.{name}": weight
                for name, weight in self.unet.named_parameters()
                if kind == "unet" or ".attn2.to_k." in name or ".attn2.to_v." in name
            }
            for weight in chosen.values():
                weight.requires_grad_(True)
            named |= chosen
            groups.append({"params": list(chosen.values()), "lr": rate})
        return named, groups

    def prompts(self, step, replay):
        """The prompt of each sample, its words by scale in front."""
        templates = self.settings["prompts"]
        number = replay["prompt_index"][step] if len(templates) > 1 else [0] * BATCH
        addition = replay["prompt_addition"][step] if self.settings.get("masked") else [0] * BATCH
        return [ADDITIONS[a] + templates[n].format(self.words) for n, a in zip(number, addition)]

    def predict(self, step, replay, prefix, prompts):
        latents = replay[f"{prefix}latents"][step].to(self.dtype)
        noise = replay[f"{prefix}noise"][step].to(self.dtype)
        timesteps = replay[f"{prefix}timesteps"][step]
        acp = self.scheduler.alphas_cumprod[timesteps].to(self.dtype).reshape(-1, 1, 1, 1)
        noisy = acp.sqrt() * latents + (1 - acp).sqrt() * noise
        hidden = torch.cat([self.encode(prompt) for prompt in prompts])
        return (self.unet(noisy, timesteps, hidden).sample - noise).square()

    def losses(self, step, replay):
        self.recorder.maps = []
        errors = self.predict(step, replay, "", self.prompts(step, replay))
        if self.settings.get("masked"):
            mask = replay["mask"][step].to(self.dtype)
            diffusion = ((errors * mask).sum([1, 2, 3]) / mask.sum([1, 2, 3])).mean()
        else:
            diffusion = errors.mean()
        terms = {kind: term(self) for kind, term in self.settings.get("extra", {}).items()}
        if "prior_preservation" in self.settings.get("weights", {}):
            prompt = f"photo of a {SUPER_CATEGORY}"
            terms["prior_preservation"] = self.predict(step, replay, "prior_", [prompt] * BATCH).mean()
        return diffusion, terms

    def step(self, step, replay):
        diffusion, terms = self.losses(step, replay)
        loss = diffusion + sum(self.settings["weights"][kind] * value for kind, value in terms.items())
        loss.backward()
        if self.settings.get("max_grad_norm"):
            torch.nn.utils.clip_grad_norm_(list(self.named.values()), self.settings["max_grad_norm"])
        self.optimizer.step()
        self.optimizer.zero_grad()
        row = {"loss": loss, "diffusion": diffusion} | terms
        if "embedding" in self.settings["sets"]:
            row["embedding_norm"] = self.rows.norm()
        return {key: float(value) for key, value in row.items()}

    @torch.no_grad()
    def sample(self, latents):
        scheduler = diffusers.DDIMScheduler.from_pretrained(MODEL / "scheduler")
        scheduler.set_timesteps(SAMPLING_STEPS)
        latents = latents.to(self.dtype)
        hidden = torch.cat([self.encode(""), self.encode("a photo of a {}".format(self.words))])
        for timestep in scheduler.timesteps:
            without, with_prompt = self.unet(torch.cat([latents] * 2), timestep, hidden).sample.chunk(2)
            prediction = without + GUIDANCE * (with_prompt - without)
            latents = scheduler.step(prediction, timestep, latents).prev_sample
        return latents

    def run(self, replay):
        metrics = [self.step(step, replay) for step in range(STEPS)]
        finals = {name: weight.detach() for name, weight in self.named.items()}
        return metrics, finals, self.sample(replay["init_latents"])

    def end_of_text(self, text):
        """The last hidden state at the first end of text, after the final norm."""
        ids = self.ids(text)[0].tolist()
        return self.encode(text)[0, ids.index(self.tokenizer.eos_token_id)]


def toml(case):
    """The run file of a case; the test puts the path of the model in."""
    top = [f"{key} = {json.dumps(case[key])}" for key in ("phrase", "rare_token") if key in case]
    top += case.get("top", [])
    sets = ", ".join(f'{{ kind = "{kind}", learning_rate = {rate!r} }}' for kind, rate in case["sets"].items())
    lines = top + [
        "[model]", 'path = "MODEL"', "[concept]", 'name = "robot"', 'images = "absent"',
        f'super_category = "{SUPER_CATEGORY}"', *case.get("concept", []), "[[stages]]", f"train = [{sets}]",
        f"steps = {STEPS}", f"batch_size = {BATCH}", "learning_rate = 1.0",
        f"prompts = {json.dumps(case['prompts'])}", *case.get("stage", []),
    ]
    if case.get("max_grad_norm"):
        lines += ["[stages.optimizer]", f"max_grad_norm = {case['max_grad_norm']}"]
    for kind, weight in case.get("weights", {}).items():
        lines += ["[[stages.regularizers]]", f'kind = "{kind}"', f"weight = {weight}"]
        if kind == "prior_preservation":
            lines.append('prompts = ["photo of a {class}"]')
        if kind == "semantic_preservation":
            lines.append(f"prompt = {json.dumps(case['sentence'])}")
    return "\n".join(lines) + "\n"


def replay_file(seed, more=None):
    """Random numbers for all cases of a script."""
    generator = torch.Generator().manual_seed(seed)
    shape = (STEPS, BATCH, 4, SIDE, SIDE)
    replay = {"init_latents": torch.randn((1, 4, SIDE, SIDE), generator=generator)}
    for prefix in ("", "prior_"):
        replay[f"{prefix}latents"] = torch.randn(shape, generator=generator).half()
        replay[f"{prefix}noise"] = torch.randn(shape, generator=generator).half()
        replay[f"{prefix}timesteps"] = torch.randint(0, 1000, shape[:2], generator=generator)
    return replay | (more(generator) if more else {})


def write(folder, cases, replay):
    """Runs all cases in float32 and float64 and writes what the tests read."""
    torch.set_num_threads(1)
    folder = OUT / folder
    folder.mkdir(exist_ok=True)
    save_file(replay, folder / "replay.safetensors")
    unet = load_file(MODEL / "unet" / "diffusion_pytorch_model.safetensors")
    start = {f"unet.{key}": value for key, value in unet.items()}
    finals, described = {}, []
    for case in cases:
        metrics, final, latents = Golden(case, torch.float32).run(replay)
        metrics64, final64, latents64 = Golden(case, torch.float64).run(replay)
        worst = max(
            abs(row[key] - row64[key]) / max(abs(row64[key]), 1e-12)
            for row, row64 in zip(metrics, metrics64)
            for key in row
        )
        worst_weight = max(relative(final[key], final64[key]) for key in final64)
        off = relative(latents, latents64)
        print(f"{case['name']}: rounding moves metrics by {worst:.1e}, weights by {worst_weight:.1e}, latents by {off:.1e}")
        assert max(worst, worst_weight, off) < 3e-4, case["name"]
        for key, value in final64.items():
            # Of a network the change, which keeps its precision in half the space.
            value = value.float() if key == "rows" else (value - start[key].double()).half()
            finals[f"{case['name']}/{key}"] = value
        finals[f"{case['name']}/latents"] = latents64.float()
        described.append({"name": case["name"], "toml": toml(case), "metrics": metrics64})
    save_file(finals, folder / "final.safetensors")
    sampling = {"steps": SAMPLING_STEPS, "guidance_scale": GUIDANCE, "prompt": "a photo of a {}"}
    text = json.dumps({"sampling": sampling, "cases": described}, indent=1)
    (folder / "cases.json").write_text(text + "\n")
