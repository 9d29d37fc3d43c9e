"""Times Stable Diffusion 2.1-base at its real size with random weights, here and in PyTorch.

    cargo build --workspace --examples --bins
    python benchmarks/full_size.py make /tmp/sd21-random
    python benchmarks/full_size.py equal /tmp/sd21-random
    python benchmarks/full_size.py table /tmp/sd21-random [--threads 2] [--pairs 3] [--avx2] [--only NAME]...

`make` needs 6 GB of disk and writes what diffusers writes, with the published sizes (865 M + 340 M + 84 M
parameters). `equal` computes one prediction of the U-Net at 64x64 latents in both and compares the values. `table`
times each task below in processes that do nothing else, ours and PyTorch's in turns, and prints seconds, their ratio
and peak memory. Tasks that do not fit into memory side by side are timed in processes that follow each other.
Training steps are CoRe's at 512 x 512 pixels (`full-size.toml`); `generate` runs from the start of the process to the
first image. `--avx2` keeps both from using AVX-512. Needs torch, diffusers, transformers and safetensors.
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

from steps import AVX2, ROOT, TARGET, Process, environment, ours, theirs

TOKENS = 77
VOCABULARY = ROOT / "core-model" / "assets" / "clip-tokenizer"


def make(folder, tiny=False):
    """Writes the model folder; `tiny` has the same parts with few channels, to try a script."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        # With 8, the smallest level has one pixel, and group norms of two values make rounding large.
        sample_size=16 if tiny else 64,
        block_out_channels=[32, 64, 64, 64] if tiny else [320, 640, 1280, 1280],
        attention_head_dim=[1, 2, 2, 2] if tiny else [5, 10, 20, 20],
        cross_attention_dim=64 if tiny else 1024,
        use_linear_projection=True,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            hidden_size=64 if tiny else 1024,
            intermediate_size=256 if tiny else 4096,
            num_hidden_layers=2 if tiny else 23,
            num_attention_heads=2 if tiny else 16,
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
        block_out_channels=[32] * 4 if tiny else [128, 256, 512, 512],
        layers_per_block=1 if tiny else 2,
        sample_size=64 if tiny else 768,
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


def equal(folder, threads):
    """One prediction of both, compared."""
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file, save_file

    given = inputs()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        save_file(given, scratch / "inputs.safetensors")
        command = [TARGET / "examples" / "predict", folder, scratch / "inputs.safetensors", scratch / "ours.safetensors"]
        process = Process(command, threads)
        print(f"loading here: {process.line()}")
        process.step()
        process.end()
        a = load_file(scratch / "ours.safetensors")["sample"]
    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    with torch.inference_mode():
        b = unet(given["latents"], given["timesteps"], given["context"]).sample
    error = ((a - b).abs().max() / b.abs().max()).item()
    print(f"largest difference relative to the largest value: {error:.1e}")
    if error > 1e-3:
        sys.exit("the predictions differ")


class Task:
    """Steps of both halves: what starts a process of each, and whether two fit side by side."""

    def __init__(self, our_arguments, torch_arguments, apart=False):
        self.our_arguments, self.torch_arguments, self.apart = our_arguments, torch_arguments, apart

    def start(self, folder, threads, further):
        task, batch, *flags = self.torch_arguments
        yield lambda: ours(self.our_arguments, threads, further)
        yield lambda: theirs([task, folder, batch, TOKENS, *flags], threads, further)

    def measure(self, folder, threads, pairs, further):
        """Seconds of both by pair, and their peaks."""
        starts = list(self.start(folder, threads, further))
        if not self.apart:
            processes = [start() for start in starts]
            for process in processes:
                process.step()
            times = [[process.step() for process in processes] for _ in range(pairs)]
            return times, [process.end() for process in processes]
        times, peaks = [], []
        for _ in range(pairs):
            row, peak = [], []
            for start in starts:
                process = start()
                process.step()
                row.append(process.step())
                peak.append(process.end())
            times.append(row)
            peaks.append(peak)
        return times, [max(column) for column in zip(*peaks)]


class Generate:
    """From the start of a process to its first image, ten steps."""

    PROGRAM = """
import sys, torch
from diffusers import StableDiffusionPipeline
torch.set_num_threads(int(sys.argv[2]))
pipeline = StableDiffusionPipeline.from_pretrained(sys.argv[1], safety_checker=None)
pipeline("a photo of a dog", num_inference_steps=10).images[0].save(sys.argv[3])
"""

    def measure(self, folder, threads, pairs, further):
        times, peaks = [], []
        variables = environment(threads, further)
        for _ in range(pairs):
            with tempfile.TemporaryDirectory() as scratch:
                out = pathlib.Path(scratch) / "images"
                here = [TARGET / "core-train", "generate", "--model", folder, "--prompt", "a photo of a dog"]
                here += ["--steps", 10, "--out", out]
                torch = [sys.executable, "-c", self.PROGRAM, folder, threads, pathlib.Path(scratch) / "torch.png"]
                row, peak = zip(*(self.run(command, variables) for command in (here, torch)))
                times.append(row)
                peaks.append(peak)
        return times, [max(column) for column in zip(*peaks)]

    @staticmethod
    def run(command, variables):
        start = time.perf_counter()
        command = [str(part) for part in command]
        process = subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            sys.exit(f"{command[0]} failed")
        return time.perf_counter() - start, usage.ru_maxrss / 1024**2


def configuration(folder, scratch, batch, checkpointing, precision="float32"):
    """A copy of full-size.toml with the words in capital letters replaced."""
    text = (ROOT / "benchmarks" / "full-size.toml").read_text()
    words = {"MODEL": folder, "ROOT": ROOT, "CHECKPOINTING": checkpointing, "PRECISION": precision, "BATCH": batch}
    for word, value in words.items():
        text = text.replace(word, str(value))
    path = pathlib.Path(scratch) / f"batch-{batch}-{checkpointing}-{precision}.toml"
    path.write_text(text)
    return path


def tasks(folder, scratch):
    core = lambda batch: configuration(folder, scratch, batch, "false")
    return {
        "U-Net forward, batch 1": Task(["forward", folder, 1, TOKENS], ["forward", 1]),
        "U-Net forward, batch 2": Task(["forward", folder, 2, TOKENS], ["forward", 2]),
        "text encoder, batch 1": Task(["text", folder, 1, TOKENS], ["text", 1]),
        "VAE decode, batch 1": Task(["decode", folder, 1, TOKENS], ["decode", 1]),
        "CoRe step, batch 1": Task(["train", core(1), 0], ["core", 1], apart=True),
        "CoRe step, batch 2": Task(["train", core(2), 0], ["core", 2], apart=True),
        "all-weights step, batch 1, checkpointing": Task(
            ["train", configuration(folder, scratch, 1, "true"), 1], ["unet", 1, "--checkpointing"], apart=True
        ),
        "generate, 10 steps": Generate(),
    }


def table(folder, threads, pairs, avx2, only):
    further = AVX2 if avx2 else {}
    print(f"| | here | PyTorch | ratio | peak here | peak PyTorch | ratio |\n|{'---|' * 7}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name, task in tasks(folder, scratch).items():
            if only and not any(word in name for word in only):
                continue
            times, peaks = task.measure(folder, threads, pairs, further)
            a, b = (statistics.median(column) for column in zip(*times))
            ratio = statistics.median(x / y for x, y in times)
            print(
                f"| {name} | {a:.2f} s | {b:.2f} s | {ratio:.2f} | {peaks[0]:.2f} GiB | {peaks[1]:.2f} GiB "
                f"| {peaks[0] / peaks[1]:.2f} |",
                flush=True,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=["make", "equal", "table"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--avx2", action="store_true")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="tasks whose names contain it")
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
        case "equal":
            equal(folder, threads)
        case "table":
            table(folder, threads, arguments.pairs, arguments.avx2, arguments.only)


if __name__ == "__main__":
    main()
