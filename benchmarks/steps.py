"""The steps that compare.py and full_size.py time: PyTorch's half, and processes of either half.

    python benchmarks/steps.py TASK MODEL BATCH TOKENS [--threads N] [--checkpointing]

makes one step for each line of its standard input and writes its seconds. PyTorch runs with its defaults: oneDNN,
scaled-dot-product attention (except where the attention probabilities are part of the loss), inference mode where no
gradient is needed. Photos and prompts do not affect the time. Needs torch, diffusers and transformers.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"

# What limits PyTorch's libraries to AVX2, as CORE_MAX_CPU_ISA=avx2 limits this project's kernels.
AVX2 = {
    "CORE_MAX_CPU_ISA": "avx2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}


def environment(threads, further=None):
    """The variables of a process with so many threads."""
    return os.environ | {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)} | (further or {})


class Process:
    """A process that makes one step per line of its input."""

    def __init__(self, command, threads, further=None):
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(threads, further),
        )

    def line(self):
        return self.process.stdout.readline().strip()

    def step(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.line())

    def end(self):
        """Ends it; its peak of resident memory in GiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        self.process.stdin.close()
        self.process.wait()
        return int(peak.split()[1]) / 1024**2


def ours(arguments, threads, further=None):
    return Process([TARGET / "examples" / "timed_steps", *arguments], threads, further)


def theirs(arguments, threads, further=None):
    command = [sys.executable, __file__, *arguments, "--threads", threads]
    return Process(command, threads, further)


def torch_step(task, model, batch, tokens, checkpointing):
    """A function that makes one step in PyTorch."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    if task == "decode":
        vae = AutoencoderKL.from_pretrained(model, subfolder="vae").float()
        side = UNet2DConditionModel.load_config(model, subfolder="unet")["sample_size"]
        latents = torch.randn(batch, vae.config.latent_channels, side, side)

        def step():
            with torch.inference_mode():
                for latent in latents.split(1):  # one at a time, as this project does
                    vae.decode(latent).sample.sum().item()

        return step
    if task == "text":
        text_encoder = CLIPTextModel.from_pretrained(model, subfolder="text_encoder").float()
        ids = prompt_ids(text_encoder.config, tokens, 20).expand(batch, -1)

        def step():
            with torch.inference_mode():
                return text_encoder(ids).last_hidden_state.sum().item()

        return step
    unet = UNet2DConditionModel.from_pretrained(model, subfolder="unet").float()
    if task == "forward":
        side, width = unet.config.sample_size, unet.config.cross_attention_dim
        latents, states = torch.randn(batch, 4, side, side), torch.randn(batch, tokens, width)
        timesteps = torch.full((batch,), 500)

        def step():
            with torch.inference_mode():
                return unet(latents, timesteps, states).sample.sum().item()

        return step
    text_encoder = CLIPTextModel.from_pretrained(model, subfolder="text_encoder").float()
    return training_step(task, model, unet, text_encoder, batch, tokens, checkpointing)


def prompt_ids(config, tokens, word):
    """Token ids of a prompt with `word` in it."""
    import torch

    row = [config.vocab_size - 2, 5, 6, 7, word, 8, 9, 10] + [config.eos_token_id] * (tokens - 8)
    return torch.tensor([row])


def training_step(task, model, unet, text_encoder, batch, tokens, checkpointing):
    """A step of `embedding` (Textual Inversion), `core` (CoRe's first stage) or `unet` (all its weights)."""
    import torch
    import torch.nn.functional as F
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler.from_pretrained(model, subfolder="scheduler")
    text_encoder.requires_grad_(False)
    trains_unet = task == "unet"
    unet.requires_grad_(trains_unet)
    if checkpointing:
        unet.train()
        unet.enable_gradient_checkpointing()
    side = unet.config.sample_size
    latents = torch.randn(batch, 4, side, side)
    vocabulary = text_encoder.config.vocab_size
    table = text_encoder.get_input_embeddings().weight.detach()
    vector = table[:1].clone().requires_grad_(not trains_unet)

    def encode(word):
        embeddings = text_encoder.get_input_embeddings()
        embeddings.forward = lambda ids: F.embedding(ids, torch.cat([table, vector]))
        return text_encoder(prompt_ids(text_encoder.config, tokens, word)).last_hidden_state

    parameters = list(unet.parameters()) if trains_unet else [vector]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6)
    with torch.no_grad():
        fixed = encode(vocabulary)
        category = encode(20)
    maps = []

    class Recorder:
        """Cross-attention whose probabilities are kept."""

        def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
            context = encoder_hidden_states
            q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
            q, k, v = (x.unflatten(2, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
            p = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)
            maps.append(p)
            return attn.to_out[0]((p @ v).transpose(1, 2).flatten(2))

    plain = unet.attn_processors
    recording = {key: Recorder() if "attn2" in key else value for key, value in plain.items()}

    def attention(states, noisy, timesteps):
        maps.clear()
        # The setter empties what it is given.
        unet.set_attn_processor(dict(recording))
        unet(noisy, timesteps, states.expand(batch, -1, -1))
        unet.set_attn_processor(dict(plain))
        return torch.stack([p.mean((1, 2)) for p in maps]).mean(0)

    def step():
        noise, timesteps = torch.randn_like(latents), torch.randint(0, 1000, (batch,))
        noisy = scheduler.add_noise(latents, noise, timesteps)
        states = fixed if trains_unet else encode(vocabulary)
        prediction = unet(noisy, timesteps, states.expand(batch, -1, -1)).sample
        loss = F.mse_loss(prediction, noise)
        if task == "core":
            regularised = encode(vocabulary)
            kept = [0, 1, 2, 3, 5, 6, 7, 8]
            cosine = F.cosine_similarity(regularised[:, kept], category[:, kept], dim=-1)
            with torch.no_grad():
                reference = attention(category, noisy, timesteps)
            ours = attention(regularised, noisy, timesteps)
            loss = loss + 4.5e-3 * (1 - cosine).mean()
            loss = loss + 1.5 * (ours - reference)[:, kept].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["forward", "embedding", "core", "unet", "decode", "text"])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("batch", type=int)
    parser.add_argument("tokens", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--checkpointing", action="store_true")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    step = torch_step(
        arguments.task, arguments.model, arguments.batch, arguments.tokens, arguments.checkpointing
    )
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
