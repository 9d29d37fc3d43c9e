"""Times Stable Diffusion 2.1-base on a card, here and in PyTorch: the part of scripts/test-gpu that needs PyTorch.

    python benchmarks/gpu.py make FOLDER [--tiny]
    python benchmarks/gpu.py forward FOLDER --device cuda:0 --programs DIR
    python benchmarks/gpu.py step|recipe|generate FOLDER --device cuda:0 --programs DIR
    python benchmarks/gpu.py compiled FOLDER --device cuda:0

`make` writes a model with random weights in the published sizes, which both read. `forward` also says whether what
float16 changes of a prediction is the rounding of the format: how far each program's prediction in float16 is from its
own in float32, as root mean squares relative to that of the prediction (`rounding` and `torch_rounding`), and whether
ours is at most twice PyTorch's (`only_rounding`). Every figure is a line of JSON, printed
as soon as it is known; `by` says whether it is this project's (`core`), PyTorch's as it is (`torch`) or `torch.compile`'s
(`compiled`). Seconds are medians of the steps after the first ones, in which kernels are compiled and chosen. Memory is
the most that `nvidia-smi` saw in use while a process ran, less what was in use before, every 0.1 s; it is absent where
there is no `nvidia-smi`. PyTorch computes on its first CUDA device, or on the CPU where it has none.

`--programs` names the folder with `core-train` and `examples/`. `--tiny` takes fewer steps and smaller batches.
Needs torch, diffusers, transformers and safetensors.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from full_size import make
from steps import ROOT, Process

CONTEXT = 77
RECIPE = ROOT / "experiments" / "paper" / "recipes" / "core.toml"
LEARNING_RATE = 5e-3
# A constant loss scale is enough for a few steps of PyTorch in float16.
LOSS_SCALE = 2.0**14


def say(**figures):
    print(json.dumps(figures), flush=True)


class Memory:
    """Memory in use on the first card."""

    def __init__(self):
        self.peak = None
        self.process = None
        if shutil.which("nvidia-smi"):
            command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "100"]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        first = None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                used = int(line)
                first = used if first is None else first
                self.peak = max(self.peak or 0, used - first)

    def end(self):
        if self.process:
            self.process.terminate()
        return self.peak


def inputs(unet, batch):
    """The inputs of a prediction: latents, timesteps and hidden states."""
    import torch

    generator = torch.Generator().manual_seed(1)
    side, width = unet["sample_size"], unet["cross_attention_dim"]
    return {
        "latents": torch.randn(batch, 4, side, side, generator=generator),
        "timesteps": torch.full((batch,), 501.0),
        "context": torch.randn(batch, CONTEXT, width, generator=generator),
    }


def torch_device():
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def torch_forward(arguments):
    """A function that makes one prediction with PyTorch, and a function that gives the last one."""
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file

    device, dtype = torch_device(), getattr(torch, arguments.precision)
    unet = UNet2DConditionModel.from_pretrained(arguments.folder, subfolder="unet").to(device, dtype)
    predict = torch.compile(unet) if arguments.by == "compiled" else unet
    given = {key: value.to(device) for key, value in load_file(arguments.scratch / "inputs.safetensors").items()}
    latents, context = given["latents"].to(dtype), given["context"].to(dtype)
    last = []

    def step():
        with torch.inference_mode():
            last[:] = [predict(latents, given["timesteps"], context).sample.float()]

    return step, lambda: {"sample": last[0].cpu().contiguous()}


class Recorder:
    """Cross-attention whose probabilities are kept."""

    def __init__(self, maps):
        self.maps = maps

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        context = encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = (x.unflatten(2, (attn.heads, -1)).transpose(1, 2) for x in (q, k, v))
        p = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)
        self.maps.append(p)
        return attn.to_out[0]((p @ v).transpose(1, 2).flatten(2))


def torch_step(arguments):
    """A function that makes one training step with PyTorch: CoRe's first stage, or all weights of the U-Net."""
    import torch
    import torch.nn.functional as F
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    device, dtype, batch = torch_device(), getattr(torch, arguments.precision), arguments.batch
    trains_unet = arguments.stage == 1
    torch.manual_seed(0)
    unet = UNet2DConditionModel.from_pretrained(arguments.folder, subfolder="unet").to(device, dtype)
    text_encoder = CLIPTextModel.from_pretrained(arguments.folder, subfolder="text_encoder").to(device, dtype)
    scheduler = DDPMScheduler.from_pretrained(arguments.folder, subfolder="scheduler")
    text_encoder.requires_grad_(False)
    unet.requires_grad_(trains_unet)
    latents = torch.randn(batch, 4, unet.config.sample_size, unet.config.sample_size, device=device, dtype=dtype)
    table = text_encoder.get_input_embeddings().weight.detach()
    vocabulary = len(table)
    vector = table[:1].float().requires_grad_(not trains_unet)
    text_encoder.get_input_embeddings().forward = lambda ids: F.embedding(ids, torch.cat([table, vector.to(dtype)]))
    parameters = list(unet.parameters()) if trains_unet else [vector]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6)
    scale = LOSS_SCALE if dtype == torch.float16 else 1.0
    maps = []
    plain = unet.attn_processors
    recording = {key: Recorder(maps) if "attn2" in key else value for key, value in plain.items()}
    predict = torch.compile(unet) if arguments.by == "compiled" else unet

    def encode(word):
        row = [vocabulary - 2, 5, 6, 7, word, 8, 9, 10] + [vocabulary - 1] * (CONTEXT - 8)
        return text_encoder(torch.tensor([row], device=device)).last_hidden_state

    with torch.no_grad():
        fixed, category = encode(vocabulary), encode(20)

    def attention(states, noisy, timesteps):
        maps.clear()
        # The setter empties what it is given.
        unet.set_attn_processor(dict(recording))
        predict(noisy, timesteps, states.expand(batch, -1, -1))
        unet.set_attn_processor(dict(plain))
        return torch.stack([p.float().mean((1, 2)) for p in maps], 1)

    def step():
        noise, timesteps = torch.randn_like(latents), torch.randint(0, 1000, (batch,), device=device)
        noisy = scheduler.add_noise(latents, noise, timesteps)
        states = fixed if trains_unet else encode(vocabulary)
        prediction = predict(noisy, timesteps, states.expand(batch, -1, -1)).sample
        loss = F.mse_loss(prediction.float(), noise.float())
        if not trains_unet:
            kept = [0, 1, 2, 3, 5, 6, 7, 8]
            regularised = encode(vocabulary)
            cosine = F.cosine_similarity(regularised[:, kept].float(), category[:, kept].float(), dim=-1)
            with torch.no_grad():
                reference = attention(category, noisy, timesteps)
            ours = attention(regularised, noisy, timesteps)
            loss = loss + 1.5e-4 * (1 - cosine).sum() + 0.05 * (ours - reference)[:, :, kept].square().mean() * batch
        optimizer.zero_grad()
        (loss * scale).backward()
        for parameter in parameters:
            parameter.grad /= scale
        optimizer.step()

    return step, lambda: {}


def torch_worker(arguments):
    """One step per line of standard input, its seconds on standard output; at the end the result is written."""
    import torch

    step, result = (torch_forward if arguments.kind == "forward" else torch_step)(arguments)
    say(loaded=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        if torch_device().type == "cuda":
            torch.cuda.synchronize()
        print(time.perf_counter() - start, flush=True)
    if result():
        from safetensors.torch import save_file

        save_file(result(), arguments.scratch / "torch.safetensors")


def time_of(command, steps, loads):
    """Seconds of the steps after the first ones, seconds until the first one was done, peak memory."""
    first, timed = steps
    memory = Memory()
    start = time.perf_counter()
    worker = Process(command, os.cpu_count())
    if loads:
        worker.line()
    worker.step()
    until_first = time.perf_counter() - start
    for _ in range(first - 1):
        worker.step()
    seconds = statistics.median(worker.step() for _ in range(timed))
    worker.process.stdin.close()
    worker.process.wait()
    return seconds, until_first, memory.end()


def run_config(arguments, scratch):
    """The run of which steps are timed: CoRe's recipe with the paper's settings."""
    path = scratch / "run.toml"
    path.write_text(
        f'seed = 0\ndevice = "{arguments.device}"\nrecipe = "{RECIPE}"\n'
        f'[model]\npath = "{arguments.folder}"\nprecision = "{arguments.precision}"\n'
        f'[concept]\nname = "spotted-dog"\nimages = "{ROOT}/experiments/concepts/spotted-dog"\n'
        'super_category = "dog"\ngroup = "animate"\n'
    )
    return path


def measure(kind, by, arguments, scratch, stage=0):
    """Prints and returns the seconds of a prediction or step; none when it failed, which is printed too."""
    if by == "core":
        examples = arguments.programs / "examples"
        if kind == "forward":
            command = [examples / "predict", arguments.folder, scratch / "inputs.safetensors"]
            command += [scratch / "core.safetensors", arguments.device, arguments.precision]
        else:
            command = [examples / "timed_steps", "train", run_config(arguments, scratch), stage]
            command += [f"stages.{stage}.batch_size={arguments.batch}"]
    else:
        command = [sys.executable, __file__, "torch-worker", arguments.folder, "--kind", kind, "--by", by]
        command += ["--precision", arguments.precision, "--batch", arguments.batch, "--scratch", scratch]
        command += ["--stage", stage]
    known = {"part": kind, "by": by, "device": arguments.device if by == "core" else str(torch_device())}
    known |= {"precision": arguments.precision, "batch": arguments.batch, "stage": stage if kind == "step" else None}
    known = {key: value for key, value in known.items() if value is not None}
    try:
        seconds, first, peak = time_of(command, (1, 2) if arguments.tiny else (3, 5), kind == "forward" or by != "core")
    except (ValueError, BrokenPipeError):
        say(**known, failed=True)
        return None
    say(**known, seconds=seconds, until_first_seconds=first, peak_mib=peak)
    return seconds


def relative(difference, full, measure):
    """A difference of predictions beside the prediction, both in this measure."""
    return (measure(difference) / measure(full)).item()


def compare(kind, arguments, scratch, full=None):
    """Times both and prints the ratio; the predictions of `forward`, in float16 beside those in float32."""
    if kind == "forward":
        from safetensors.torch import load_file, save_file

        unet = json.loads((arguments.folder / "unet" / "config.json").read_text())
        save_file(inputs(unet, arguments.batch), scratch / "inputs.safetensors")
    seconds = [measure(kind, by, arguments, scratch) for by in ("core", "torch")]
    if None in seconds:
        return None
    figures = {"part": kind, "precision": arguments.precision, "batch": arguments.batch}
    figures |= {"ratio": seconds[0] / seconds[1]}
    predictions = None
    if kind == "forward":
        # Copies, as the files are written anew for the next precision.
        predictions = [load_file(scratch / f"{name}.safetensors")["sample"].clone() for name in ("core", "torch")]
        ours, theirs = predictions
        figures |= {"difference": relative(ours - theirs, theirs, lambda x: x.abs().max())}
    if full:
        pairs = zip(predictions, full)
        ours, theirs = (relative(a - b, b, lambda x: x.square().mean().sqrt()) for a, b in pairs)
        figures |= {"rounding": ours, "torch_rounding": theirs, "only_rounding": ours <= 2 * theirs}
    say(**figures)
    return predictions


def sweep(kind, arguments, scratch):
    """Both batch sizes in float32 and in half precision."""
    for arguments.batch in [1, 2] if arguments.tiny else [1, 6]:
        full = None
        for arguments.precision in ["float32", "float16"]:
            full = compare(kind, arguments, scratch, full)


def compiled(arguments, scratch):
    """`torch.compile` in half precision, at the larger batch."""
    from safetensors.torch import save_file

    arguments.batch, arguments.precision = (2 if arguments.tiny else 6), "float16"
    unet = json.loads((arguments.folder / "unet" / "config.json").read_text())
    save_file(inputs(unet, arguments.batch), scratch / "inputs.safetensors")
    measure("forward", "compiled", arguments, scratch)
    measure("step", "compiled", arguments, scratch)


def recipe(arguments, scratch):
    """The whole recipe at the paper's settings, extrapolated from a few steps of each stage."""
    for arguments.precision in ["float32", "float16"]:
        total = 0.0
        for stage, (steps, batch) in enumerate([(300, 6), (1000, 4)]):
            arguments.batch = 2 if arguments.tiny else batch
            seconds = measure("step", "core", arguments, scratch, stage)
            if seconds is None:
                return
            total += steps * seconds
        say(part="recipe", device=arguments.device, precision=arguments.precision, minutes=total / 60)


def torch_images(arguments, count):
    """Seconds of drawing so many images with diffusers."""
    import torch
    from diffusers import StableDiffusionPipeline

    dtype = getattr(torch, arguments.precision)
    pipeline = StableDiffusionPipeline.from_pretrained(arguments.folder, torch_dtype=dtype, safety_checker=None)
    pipeline = pipeline.to(torch_device())
    pipeline.set_progress_bar_config(disable=True)
    pipeline("a photo of a dog", num_inference_steps=2)
    start = time.perf_counter()
    for _ in range(count):
        pipeline("a photo of a dog", num_inference_steps=arguments.steps)
    return time.perf_counter() - start


def our_images(arguments, count, scratch):
    """Seconds of a whole call."""
    command = [arguments.programs / "core-train", "generate", "--model", arguments.folder, "--prompt", "a photo of a dog"]
    command += ["--steps", arguments.steps, "--num-images", count, "--device", arguments.device]
    command += ["--precision", arguments.precision, "--out", scratch / f"{arguments.precision}-{count}"]
    start = time.perf_counter()
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def generate(arguments, scratch):
    """Images per minute, apart from loading."""
    few, many = (1, 2) if arguments.tiny else (1, 4)
    arguments.steps = 2 if arguments.tiny else 50
    for arguments.precision in ["float16", "float32"]:
        memory = Memory()
        seconds = [our_images(arguments, count, scratch) for count in (few, many)]
        ours = 60 * (many - few) / (seconds[1] - seconds[0])
        known = {"part": "generate", "precision": arguments.precision, "steps": arguments.steps}
        say(
            **known, by="core", device=arguments.device, images_per_minute=ours, one_image_with_loading=seconds[0],
            peak_mib=memory.end(),
        )
        theirs = 60 * few / torch_images(arguments, few)
        say(**known, by="torch", device=str(torch_device()), images_per_minute=theirs, ratio=theirs / ours)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    tasks = ["make", "forward", "step", "compiled", "generate", "recipe"]
    parser.add_argument("task", choices=[*tasks, "torch-worker"])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--programs", type=pathlib.Path)
    parser.add_argument("--tiny", action="store_true")
    for hidden in ["--kind", "--by", "--precision"]:
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    for hidden in ["--batch", "--stage"]:
        parser.add_argument(hidden, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.folder = arguments.folder.resolve()
    if arguments.task == "torch-worker":
        return torch_worker(arguments)
    if arguments.task == "make":
        start = time.perf_counter()
        with contextlib.redirect_stdout(sys.stderr):
            make(arguments.folder, arguments.tiny)
        return say(part="weights", seconds=time.perf_counter() - start)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        match arguments.task:
            case "forward" | "step":
                sweep(arguments.task, arguments, scratch)
            case "compiled":
                compiled(arguments, scratch)
            case "recipe":
                recipe(arguments, scratch)
            case "generate":
                generate(arguments, scratch)


if __name__ == "__main__":
    main()
