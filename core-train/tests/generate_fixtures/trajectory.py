"""Training trajectories in PyTorch, for ../trajectory.rs.

Builds a tiny checkpoint in the folder layout of diffusers, draws one replay file (latents, noise,
timesteps, templates) and trains with it: CoRe's first stage in both formulations and both choices
of context, with one vector and with two, with clipping and a warmed-up cosine; and its second stage
on all weights of the U-Net. The super-category has two tokens, the rescaling window lies inside.

    python core-train/tests/generate_fixtures/trajectory.py

Written from the paper's equations with diffusers, transformers and torch.optim; needs nothing of
this project. Everything runs in float64 as well: the script fails when rounding alone would come
near the tests' tolerance of 1e-3, since such a trajectory would prove nothing.
"""

import json
import pathlib
import shutil

import diffusers
import torch
import torch.nn.functional as F
import transformers
from diffusers.optimization import get_scheduler
from safetensors.torch import load_file, save_file

OUT = pathlib.Path(__file__).parent.parent / "fixtures" / "trajectory"
MODEL = OUT / "model"
STEPS, BATCH, SIDE, CONTEXT_LENGTH = 12, 2, 16, 16
SUPER_CATEGORY, INITIALIZER = "toy dog", "toy dog"
PROMPT = "a photo of a {}"
TEMPLATES = ["a {} on the beach", "a photo of a {}", "a red {} in the car", "the {} at the toy car in a beach"]
WORDS = "a photo of on the red blue green beach car dog cat toy in at".split()
RESCALE = (4, 8)  # recorded after step 4, restored after steps 5 to 8
WEIGHTS = {"context_embedding": 0.5, "context_attention": 2000.0}
REFERENCE_WEIGHTS = {"context_embedding": 0.5, "context_attention": 200.0}


def case(name, **changes):
    base = dict(
        name=name, train="embedding", num_vectors=1, formulation="paper", context="prompt",
        learning_rate=5e-3, regularized=True, rescale=RESCALE, max_grad_norm=None, schedule="constant",
        warmup=0,
    )
    return base | changes


CASES = [
    case("paper-prompt"),
    case("paper-padded", context="padded"),
    case("reference-prompt", formulation="reference_code"),
    case("reference-padded", formulation="reference_code", context="padded"),
    case("two-vectors", num_vectors=2),
    case("clipped-cosine", max_grad_norm=0.05, schedule="cosine", warmup=3, rescale=None),
    case("textual-inversion", regularized=False, rescale=None),
    case("unet", train="unet", regularized=False, rescale=None, learning_rate=1e-4),
    case("cross-attention-kv", train="kv", regularized=False, rescale=None, learning_rate=1e-3),
]


def write_tokenizer(folder):
    """CLIP's byte alphabet and the merges that make each of WORDS one token."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(c) for c in printable + [256 + i for i in range(256 - len(printable))]]
    vocabulary, merges = alphabet + [c + "</w>" for c in alphabet], []
    for word in WORDS:
        parts = list(word[:-1]) + [word[-1] + "</w>"]
        while len(parts) > 1:
            if tuple(parts[:2]) not in merges:
                merges.append(tuple(parts[:2]))
            parts = ["".join(parts[:2]), *parts[2:]]
            if parts[0] not in vocabulary:
                vocabulary.append(parts[0])
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    ids = {token: i for i, token in enumerate(vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, merges), ""]))
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    special |= {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": CONTEXT_LENGTH}
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"do_lower_case": True} | special))
    return vocabulary


def build_model():
    shutil.rmtree(OUT, ignore_errors=True)
    torch.manual_seed(5)
    vocabulary = write_tokenizer(OUT / "scratch")
    eos = vocabulary.index("<|endoftext|>")
    text_encoder = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=len(vocabulary), hidden_size=16, intermediate_size=32, projection_dim=16,
            num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=CONTEXT_LENGTH,
            hidden_act="gelu", bos_token_id=eos - 1, eos_token_id=eos, pad_token_id=eos,
        )
    )
    # Larger than fresh weights, so that words and their order matter.
    with torch.no_grad():
        for name, weight in text_encoder.named_parameters():
            if "embedding" in name:
                weight.normal_(0.0, 0.3)
            elif weight.ndim == 2:
                weight.normal_(0.0, 0.3)
    unet = diffusers.UNet2DConditionModel(
        sample_size=SIDE, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=2, cross_attention_dim=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    vae = diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(4, 8),
        norm_num_groups=2, layers_per_block=1, scaling_factor=0.5, sample_size=2 * SIDE,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1,
        clip_sample=False, set_alpha_to_one=False,
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae.half(), text_encoder=text_encoder.half(), unet=unet.half(), scheduler=scheduler,
        tokenizer=transformers.CLIPTokenizer.from_pretrained(OUT / "scratch"),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )
    pipeline.save_pretrained(MODEL)
    # The plain files that both sides read, not the form of one version of transformers.
    shutil.rmtree(MODEL / "tokenizer")
    (OUT / "scratch").rename(MODEL / "tokenizer")


class TokenTable(torch.nn.Module):
    """A token table in which ids past its end are rows of another, learned one."""

    def __init__(self, table, rows):
        super().__init__()
        self.table, self.rows = table, rows

    def forward(self, ids):
        count = self.table.num_embeddings
        both = torch.cat([self.table.weight, self.rows])
        assert ids.max() < count + len(self.rows)
        return both[ids]


class Recorder:
    """Attention written out; keeps the probabilities of cross-attention."""

    def __init__(self):
        self.maps = []

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = map(attn.head_to_batch_dim, (q, k, v))
        p = (q @ k.transpose(1, 2) * attn.scale).softmax(-1)
        if encoder_hidden_states is not None:
            heads = attn.heads
            self.maps.append(p.reshape(p.shape[0] // heads, heads, *p.shape[1:]))
        return attn.to_out[0](attn.batch_to_head_dim(p @ v))


def context_positions(span, length, context):
    end = length if context == "prompt" else CONTEXT_LENGTH
    return [i for i in range(end) if not span[0] <= i < span[1]]


class Trainer:
    def __init__(self, case, dtype):
        self.case, self.dtype = case, dtype
        load = dict(torch_dtype=torch.float32)
        self.tokenizer = transformers.CLIPTokenizer.from_pretrained(MODEL / "tokenizer")
        self.text_encoder = transformers.CLIPTextModel.from_pretrained(MODEL / "text_encoder").to(dtype)
        self.unet = diffusers.UNet2DConditionModel.from_pretrained(MODEL / "unet", **load).to(dtype)
        self.scheduler = diffusers.DDPMScheduler.from_pretrained(MODEL / "scheduler")
        self.text_encoder.requires_grad_(False)
        self.unet.requires_grad_(False)
        tokens = ["<robot>"] + [f"<robot>_{i}" for i in range(1, case["num_vectors"])]
        self.tokenizer.add_tokens(tokens)
        self.words = " ".join(tokens)
        embeddings = next(m for m in self.text_encoder.modules() if hasattr(m, "token_embedding"))
        table = embeddings.token_embedding
        ids = self.tokenizer(INITIALIZER).input_ids[1:-1]
        assert len(ids) == 2
        start = table.weight[ids].double().mean(0).to(dtype)
        self.rows = torch.nn.Parameter(start.repeat(case["num_vectors"], 1))
        embeddings.token_embedding = TokenTable(table, self.rows)
        self.recorder = Recorder()
        self.unet.set_attn_processor(self.recorder)
        self.trained = self.choose()
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=case["learning_rate"], betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2
        )
        self.lr_scheduler = get_scheduler(
            case["schedule"], self.optimizer, num_warmup_steps=case["warmup"], num_training_steps=STEPS
        )

    def choose(self):
        if self.case["train"] == "embedding":
            return [self.rows]
        self.rows.requires_grad_(False)
        chosen = [
            weight
            for name, weight in self.unet.named_parameters()
            if self.case["train"] == "unet" or ".attn2.to_k." in name or ".attn2.to_v." in name
        ]
        for weight in chosen:
            weight.requires_grad_(True)
        return chosen

    def ids(self, text):
        options = dict(padding="max_length", max_length=CONTEXT_LENGTH, truncation=True)
        return self.tokenizer(text, return_tensors="pt", **options).input_ids

    def encode(self, text):
        return self.text_encoder(self.ids(text)).last_hidden_state

    def attention(self, latents, timesteps, hidden):
        self.recorder.maps = []
        self.unet(latents, timesteps, hidden.expand(BATCH, -1, -1))
        return self.recorder.maps

    def positions(self, template):
        """Kept positions in y* and y_cat."""
        start = self.ids(template.format("dog"))[0].tolist().index(self.tokenizer("dog").input_ids[1])
        spans = [(start, start + self.case["num_vectors"]), (start, start + 2)]
        both = []
        for span, words in zip(spans, (self.words, SUPER_CATEGORY)):
            length = len(self.tokenizer(template.format(words)).input_ids)
            both.append(context_positions(span, length, self.case["context"]))
        n = min(map(len, both))
        return both[0][:n], both[1][:n]

    def context_terms(self, template, noisy, timesteps):
        keep, keep_cat = self.positions(template)
        hidden = self.encode(template.format(self.words))
        with torch.no_grad():
            hidden_cat = self.encode(template.format(SUPER_CATEGORY))
            maps_cat = self.attention(noisy, timesteps, hidden_cat)
        maps = self.attention(noisy, timesteps, hidden)
        reference = self.case["formulation"] == "reference_code"
        cosine = F.cosine_similarity(hidden[:, keep], hidden_cat[:, keep_cat], dim=1 if reference else 2)
        mu = torch.stack([m.mean((1, 2))[:, keep] for m in maps])
        mu_cat = torch.stack([m.mean((1, 2))[:, keep_cat] for m in maps_cat])
        if reference:
            per_layer = [sum(F.mse_loss(a, b) for a, b in zip(x, y)) for x, y in zip(mu, mu_cat)]
            attention = sum(per_layer) / len(per_layer)
        else:
            attention = F.mse_loss(mu.mean(0), mu_cat.mean(0))
        return {"context_embedding": (1 - cosine).mean(), "context_attention": attention}

    def step(self, step, replay):
        latents = replay["latents"][step - 1].to(self.dtype)
        noise = replay["noise"][step - 1].to(self.dtype)
        timesteps = replay["timesteps"][step - 1]
        acp = self.scheduler.alphas_cumprod[timesteps].to(self.dtype).reshape(-1, 1, 1, 1)
        noisy = acp.sqrt() * latents + (1 - acp).sqrt() * noise
        hidden = self.encode(PROMPT.format(self.words)).expand(BATCH, -1, -1)
        diffusion = F.mse_loss(self.unet(noisy, timesteps, hidden).sample, noise)
        loss, terms = diffusion, {}
        if self.case["regularized"]:
            template = TEMPLATES[replay["template_index"][step - 1]]
            terms = self.context_terms(template, noisy, timesteps)
            weights = WEIGHTS if self.case["formulation"] == "paper" else REFERENCE_WEIGHTS
            loss = diffusion + sum(weights[kind] * value for kind, value in terms.items())
        loss.backward()
        if self.case["max_grad_norm"]:
            torch.nn.utils.clip_grad_norm_(self.trained, self.case["max_grad_norm"])
        row = {"loss": loss, "diffusion": diffusion} | terms
        row["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.lr_scheduler.step()
        self.optimizer.zero_grad()
        self.rescale(step)
        row["embedding_norm"] = self.rows.norm()
        return {key: float(value) for key, value in row.items()}

    def rescale(self, step):
        if not self.case["rescale"]:
            return
        start, end = self.case["rescale"]
        with torch.no_grad():
            if step == start:
                self.norm = self.rows.norm()
            elif start < step <= end:
                self.rows *= self.norm / self.rows.norm()

    def run(self, replay):
        rows = [self.step(step, replay) for step in range(1, STEPS + 1)]
        if self.case["train"] == "embedding":
            return rows, {"rows": self.rows.detach()}
        return rows, {
            name: weight.detach() for name, weight in self.unet.named_parameters() if weight.requires_grad
        }


def stored(case, final):
    """Of the U-Net the change, which keeps its precision in half the space."""
    if case["train"] == "embedding":
        return final
    start = load_file(MODEL / "unet" / "diffusion_pytorch_model.safetensors")
    return {key: (value - start[key].float()).half() for key, value in final.items()}


def relative(a, b):
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


def main():
    torch.set_num_threads(1)
    build_model()
    generator = torch.Generator().manual_seed(9)
    shape = (STEPS, BATCH, 4, SIDE, SIDE)
    replay = {
        "latents": torch.randn(shape, generator=generator).half(),
        "noise": torch.randn(shape, generator=generator).half(),
        "timesteps": torch.randint(0, 1000, shape[:2], generator=generator),
        "template_index": torch.randint(0, len(TEMPLATES), shape[:1], generator=generator),
    }
    save_file(replay, OUT / "replay.safetensors")
    finals, described = {}, []
    for case in CASES:
        metrics, final = Trainer(case, torch.float32).run(replay)
        metrics64, final64 = Trainer(case, torch.float64).run(replay)
        worst = max(
            abs(row[key] - row64[key]) / max(abs(row64[key]), 1e-12)
            for row, row64 in zip(metrics, metrics64)
            for key in row
        )
        worst_weight = max(relative(final[key], final64[key]) for key in final)
        print(f"{case['name']}: rounding moves metrics by {worst:.1e}, weights by {worst_weight:.1e}")
        assert worst < 2e-4 and worst_weight < 2e-4, "badly conditioned"
        for key, value in stored(case, final).items():
            finals[f"{case['name']}/{key}"] = value.contiguous()
        weights = WEIGHTS if case["formulation"] == "paper" else REFERENCE_WEIGHTS
        described.append(case | {"weights": weights, "metrics": metrics})
    save_file(finals, OUT / "final.safetensors")
    facts = {
        "steps": STEPS, "batch_size": BATCH, "super_category": SUPER_CATEGORY, "prompt": PROMPT,
        "templates": TEMPLATES, "cases": described,
    }
    (OUT / "cases.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
