"""Times the same steps with the same weights in this project and in PyTorch, in turns; prints ratios.

    cargo build --workspace --examples
    python benchmarks/compare.py [--threads 2] [--pairs 20]

Needs torch, diffusers and transformers. PyTorch runs with its defaults: oneDNN, scaled-dot-product
attention (except where the attention probabilities are part of the loss), inference mode where no
gradient is needed. Shapes are those of the mini world's recipes; photos and prompts do not affect
the time. Peak memory is that of a process that does nothing else.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
MODEL = ROOT / "models" / "mini"
TOKENS = 24
TASKS = {
    # name: (arguments of our half, batch)
    "U-Net forward": (["forward", str(MODEL), "8"], 8),
    "embedding step": (["train", str(ROOT / "benchmarks" / "textual-inversion.toml"), "0"], 6),
    "CoRe step": (["train", str(ROOT / "benchmarks" / "core.toml"), "0"], 6),
    "all-weights step": (["train", str(ROOT / "benchmarks" / "core.toml"), "1"], 4),
}


def ours(arguments, threads):
    """A process that runs one step per line of its input."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    binary = target / "debug" / "examples" / "timed_steps"
    environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        [binary, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def our_step(process):
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def torch_step(name, batch, threads):
    """A function that makes one step in PyTorch and returns its seconds."""
    import torch
    import torch.nn.functional as F
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_pretrained(MODEL, subfolder="unet").float()
    text_encoder = CLIPTextModel.from_pretrained(MODEL, subfolder="text_encoder").float()
    scheduler = DDPMScheduler.from_pretrained(MODEL, subfolder="scheduler")
    text_encoder.requires_grad_(False)
    trains_unet = name == "all-weights step"
    unet.requires_grad_(trains_unet)
    side, width = unet.config.sample_size, unet.config.cross_attention_dim
    latents = torch.randn(batch, 4, side, side)
    vocabulary = text_encoder.config.vocab_size
    table = text_encoder.get_input_embeddings().weight.detach()
    vector = table[:1].clone().requires_grad_(not trains_unet)
    end = text_encoder.config.eos_token_id

    def ids(word):
        row = [vocabulary - 2, 5, 6, 7, word, 8, 9, 10] + [end] * (TOKENS - 8)
        return torch.tensor([row])

    def encode(word):
        embeddings = text_encoder.get_input_embeddings()
        embeddings.forward = lambda ids: F.embedding(ids, torch.cat([table, vector]))
        return text_encoder(ids(word)).last_hidden_state

    if name == "U-Net forward":
        states = torch.randn(batch, TOKENS, width)
        timesteps = torch.full((batch,), 500)

        def step():
            with torch.inference_mode():
                return unet(latents, timesteps, states).sample.sum().item()

    else:
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
            if name == "CoRe step":
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

    def timed():
        start = time.perf_counter()
        step()
        return time.perf_counter() - start

    return timed


def memory_of_torch(name, batch, threads):
    """Peak resident megabytes of a fresh PyTorch process after five steps."""
    code = f"import compare; s = compare.torch_step({name!r}, {batch}, {threads}); [s() for _ in range(5)]"
    code += "; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=pathlib.Path(__file__).parent, capture_output=True, text=True, check=True
    )
    return int(out.stdout.split()[-1]) / 1024


def memory_of_ours(arguments, threads):
    """The same of our process."""
    process = ours(arguments, threads)
    for _ in range(5):
        our_step(process)
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    process.stdin.close()
    process.wait()
    return int(peak.split()[1]) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--pairs", type=int, default=20)
    arguments = parser.parse_args()
    print(f"{'step':18} {'ours ms':>8} {'torch ms':>9} {'ratio':>6} {'ours MB':>8} {'torch MB':>9}")
    for name, (ours_arguments, batch) in TASKS.items():
        process = ours(ours_arguments, arguments.threads)
        theirs = torch_step(name, batch, arguments.threads)
        for _ in range(3):
            our_step(process), theirs()
        pairs = [(our_step(process), theirs()) for _ in range(arguments.pairs)]
        process.stdin.close()
        process.wait()
        a, b = (statistics.median(column) * 1000 for column in zip(*pairs))
        ratio = statistics.median(x / y for x, y in pairs)
        ours_mb = memory_of_ours(ours_arguments, arguments.threads)
        torch_mb = memory_of_torch(name, batch, arguments.threads)
        print(f"{name:18} {a:8.1f} {b:9.1f} {ratio:6.2f} {ours_mb:8.0f} {torch_mb:9.0f}", flush=True)


if __name__ == "__main__":
    main()
