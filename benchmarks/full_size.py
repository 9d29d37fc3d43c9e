"""Times Stable Diffusion 2.1-base at its real size with random weights, here and in PyTorch.

    cargo build --workspace --examples --bins
    python benchmarks/full_size.py make /tmp/sd21-random
    python benchmarks/full_size.py forward /tmp/sd21-random [--threads 2] [--pairs 3]
    python benchmarks/full_size.py train /tmp/sd21-random
    python benchmarks/full_size.py generate /tmp/sd21-random

`make` needs 6 GB of disk and writes what diffusers writes, with the published sizes (865 M + 340 M + 84 M
parameters). `forward` computes one prediction of the U-Net at 64x64 latents in both, in turns, and compares the
values; peak memory is that of a process that does nothing else. `train` runs steps of CoRe's first stage with
batch size 1 (`full-size.toml`), with and without `gradient_checkpointing`, and with frozen weights in float16.
`generate` samples with two steps.
Needs torch, diffusers, transformers and safetensors.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
VOCABULARY = ROOT / "core-model" / "assets" / "clip-tokenizer"


def make(folder):
    """Writes the model folder."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=64,
        attention_head_dim=[5, 10, 20, 20],
        cross_attention_dim=1024,
        use_linear_projection=True,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=23,
            num_attention_heads=16,
            hidden_act="gelu",
            projection_dim=512,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=2,
        )
    )
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[128, 256, 512, 512],
        layers_per_block=2,
        sample_size=768,
    )
    for name, network in [("unet", unet), ("text_encoder", text_encoder), ("vae", vae)]:
        print(f"{name}: {sum(p.numel() for p in network.parameters()) / 1e6:.1f} M parameters", flush=True)
    tokenizer = CLIPTokenizer.from_pretrained(str(VOCABULARY), pad_token="!", model_max_length=77)
    scheduler = PNDMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


def inputs():
    """The inputs of both: latents, timestep and hidden states of one prompt."""
    import torch

    generator = torch.Generator().manual_seed(1)
    return {
        "latents": torch.randn(1, 4, 64, 64, generator=generator),
        "timesteps": torch.tensor([501.0]),
        "context": torch.randn(1, 77, 1024, generator=generator),
    }


def peak_of(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024**2


class Worker:
    """A process that runs one step per line of its input."""

    def __init__(self, command, threads):
        environment = os.environ | {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def line(self):
        return self.process.stdout.readline().strip()

    def step(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.line())

    def end(self):
        peak = peak_of(self.process.pid)
        self.process.stdin.close()
        self.process.wait()
        return peak


def torch_worker(folder, out, threads):
    """The PyTorch side of `forward`."""
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file

    torch.set_num_threads(threads)
    start = time.perf_counter()
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    size = sum(p.numel() * p.element_size() for p in unet.parameters()) / 1024**3
    print(
        f"{time.perf_counter() - start:.1f} s, module {size:.2f} GiB, peak {peak_of(os.getpid()):.2f} GiB", flush=True
    )
    given = inputs()
    for _ in sys.stdin:
        start = time.perf_counter()
        with torch.inference_mode():
            sample = unet(given["latents"], given["timesteps"], given["context"]).sample
        print(time.perf_counter() - start, flush=True)
        save_file({"sample": sample.contiguous()}, out)


def forward(folder, threads, pairs):
    from safetensors.torch import load_file, save_file

    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        save_file(inputs(), scratch / "inputs.safetensors")
        ours = [TARGET / "examples" / "predict", folder, scratch / "inputs.safetensors", scratch / "ours.safetensors"]
        theirs = [sys.executable, __file__, "torch-worker", folder, "--out", scratch / "torch.safetensors"]
        theirs += ["--threads", threads]
        workers = [Worker(ours, threads), Worker(theirs, threads)]
        print(f"loading: ours {workers[0].line()}; torch {workers[1].line()}")
        for worker in workers:
            worker.step()
        times = [[worker.step() for worker in workers] for _ in range(pairs)]
        peaks = [worker.end() for worker in workers]
        a, b = (load_file(scratch / f"{name}.safetensors")["sample"] for name in ["ours", "torch"])
    error = ((a - b).abs().max() / b.abs().max()).item()
    ratio = statistics.median(x / y for x, y in times)
    seconds = [statistics.median(column) for column in zip(*times)]
    print(f"forward: ours {seconds[0]:.2f} s, torch {seconds[1]:.2f} s, ratio {ratio:.2f}")
    print(f"peak memory: ours {peaks[0]:.2f} GiB, torch {peaks[1]:.2f} GiB")
    print(f"largest difference relative to the largest value: {error:.1e}")
    if error > 1e-3:
        sys.exit("the predictions differ")


def train(folder, threads):
    config = ROOT / "benchmarks" / "full-size.toml"
    for checkpointing, precision in [("false", "float32"), ("true", "float32"), ("true", "float16")]:
        with tempfile.TemporaryDirectory() as scratch:
            copy = pathlib.Path(scratch) / "config.toml"
            text = config.read_text().replace("MODEL", str(folder)).replace("ROOT", str(ROOT))
            copy.write_text(text.replace("CHECKPOINTING", checkpointing).replace("PRECISION", precision))
            worker = Worker([TARGET / "examples" / "timed_steps", "train", copy, 0], threads)
            times = [worker.step() for _ in range(2)]
            peak = worker.end()
        print(
            f"CoRe step, gradient_checkpointing = {checkpointing}, precision = {precision}: "
            f"{times[-1]:.1f} s, peak {peak:.2f} GiB",
            flush=True,
        )


def generate(folder, threads):
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(scratch) / "images"
        command = [TARGET / "core-train", "generate", "--model", folder, "--prompt", "a photo of a dog", "--steps", 2]
        command = [str(part) for part in command + ["--out", out]]
        environment = os.environ | {"RAYON_NUM_THREADS": str(threads)}
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            sys.exit("generate failed")
        from PIL import Image

        size = Image.open(out / "00000.png").size
        seconds = time.perf_counter() - start
        print(f"generate, 2 steps: {seconds:.1f} s, peak {usage.ru_maxrss / 1024**2:.2f} GiB, an image of {size}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["make", "forward", "train", "generate", "torch-worker"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder, threads = arguments.folder.resolve(), arguments.threads
    match arguments.task:
        case "make":
            if folder.exists():
                sys.exit(f"{folder}: exists already")
            try:
                make(folder)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        case "forward":
            forward(folder, threads, arguments.pairs)
        case "train":
            train(folder, threads)
        case "generate":
            generate(folder, threads)
        case "torch-worker":
            torch_worker(folder, arguments.out, threads)


if __name__ == "__main__":
    main()
