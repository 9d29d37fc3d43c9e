"""Time and memory against the size of the work, with the exponent of each; nothing may grow faster than the work.

    cargo build --workspace --examples --bins
    python benchmarks/growth.py [--threads 2] [--plot growth.svg] [--only NAME]...

A training step of CoRe's first stage against batch and resolution, a run against its steps, an experiment against its
runs and its images, scoring against its images; all in the mini world. The exponent is the slope of a straight line
through the logarithms; what is constant, such as loading, makes it smaller than that of the work alone. Self-attention
over all pixels makes a step's time grow by up to the square of the pixels. Needs numpy, matplotlib and Pillow.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
from PIL import Image

from steps import ROOT, TARGET, environment, ours

MINI = ROOT / "models" / "mini"
CONCEPT = ROOT / "experiments" / "concepts" / "spotted-dog"

EXPERIMENT = """
name = "growth"
model = "{root}/models/mini"
concepts = ["{root}/experiments/concepts/spotted-dog"]
seeds = {seeds}
recipe = "{root}/experiments/recipes/core.toml"

[[variants]]
name = "CoRe"
set = {{ "stages.0.steps" = 60, "stages.1.steps" = 30, "stages.0.rescale" = false }}

[sampling]
scheduler = "dpmpp-2m"
steps = 10
guidance_scale = 7.5
images_per_prompt = {images}
prompts = "{root}/experiments/prompts/mini/evaluation.csv"

[evaluation]
clip = "{root}/models/mini-clip"
dino = "{root}/models/mini-dino"
protocol = "dreambooth"
"""


def config(scratch, **changes):
    """The first stage of compare.py's run with other values of its keys."""
    text = (ROOT / "benchmarks" / "core.toml").read_text()
    text = "[[stages]]".join(text.split("[[stages]]")[:2])
    text = text.replace('"../', f'"{ROOT}/')
    for key, value in changes.items():
        lines = text.splitlines()
        place = next(i for i, line in enumerate(lines) if line.startswith(f"{key} = "))
        lines[place] = f"{key} = {json.dumps(str(value) if isinstance(value, pathlib.Path) else value)}"
        text = "\n".join(lines)
    path = scratch / "run.toml"
    path.write_text(text)
    return path


def step(path, threads):
    """Seconds of a step and peak memory in MiB."""
    process = ours(["train", path, 0], threads)
    times = [process.step() for _ in range(12)]
    return statistics.median(times[2:]), process.end() * 1024


def whole(command, threads, folder):
    """Seconds and peak memory in MiB of a program."""
    start = time.perf_counter()
    with open(folder / "output.txt", "w") as output:
        command = [str(part) for part in command]
        process = subprocess.Popen(command, cwd=folder, env=environment(threads), stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)} failed:\n{(folder / 'output.txt').read_text()[-2000:]}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def by_batch(batch, threads, scratch):
    return step(config(scratch, batch_size=batch), threads)


def by_pixels(pixels, threads, scratch):
    side = round(pixels**0.5)
    model = scratch / "model"
    shutil.copytree(MINI, model)
    for part, size in [("unet", side // 4), ("vae", side)]:
        path = model / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": size}))
    return step(config(scratch, path=model, batch_size=2), threads)


def by_steps(steps, threads, scratch):
    command = [TARGET / "core-train", "train", config(scratch, steps=steps), "--output", scratch / "run"]
    return whole(command, threads, scratch)


def experiment(runs, images, threads, scratch):
    path = scratch / "growth.toml"
    path.write_text(EXPERIMENT.format(root=ROOT, seeds=list(range(runs)), images=images))
    return whole([TARGET / "core-eval", path], threads, scratch)


def by_runs(runs, threads, scratch):
    return experiment(runs, 1, threads, scratch)


def by_images(images, threads, scratch):
    return experiment(1, images // 32, threads, scratch)


def by_scores(count, threads, scratch):
    generator = numpy.random.default_rng(0)
    folder = scratch / "generated"
    folder.mkdir()
    for index in range(count):
        small = Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=numpy.uint8))
        small.resize((256, 256), Image.BICUBIC).save(folder / f"{index:05}.png")
    command = [TARGET / "core-eval", "score", "--generated", folder, "--references", CONCEPT, "--prompt", "a dog"]
    command += ["--clip", ROOT / "models" / "mini-clip", "--dino", ROOT / "models" / "mini-dino"]
    return whole([*command, "--out", scratch / "scores.csv"], threads, scratch)


SERIES = {
    # name: (unit, sizes, what measures one)
    "training step against batch": ("photos", [1, 2, 4, 8, 16], by_batch),
    "training step against resolution": ("pixels", [32**2, 64**2, 96**2, 128**2], by_pixels),
    "run against steps": ("steps", [50, 100, 200, 400], by_steps),
    "experiment against runs": ("runs", [1, 2, 4, 8], by_runs),
    "experiment against images": ("images", [32, 64, 128, 256], by_images),
    "scoring against images": ("images", [100, 200, 400, 800], by_scores),
}


def exponent(sizes, values):
    return numpy.polyfit(numpy.log(sizes), numpy.log(values), 1)[0]


def plot(measured, path):
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams |= {"svg.hashsalt": "growth", "svg.fonttype": "none"}
    figure, axes = pyplot.subplots(2, len(measured), figsize=(3 * len(measured), 5.4), squeeze=False)
    for column, (name, (unit, sizes, rows)) in zip(axes.T, measured.items()):
        for axis, values, label in zip(column, zip(*rows), ["seconds", "MiB"]):
            axis.loglog(sizes, values, "o-", color="#0072b2")
            axis.loglog(sizes, [values[0] * size / sizes[0] for size in sizes], ":", color="#999999")
            axis.set_xlabel(unit)
            axis.set_ylabel(label)
            axis.set_title(f"{name}\nexponent {exponent(sizes, values):.2f}", fontsize=8)
    figure.text(0.01, 0.005, "dotted: growth in proportion", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--plot", type=pathlib.Path)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="series whose names contain it")
    arguments = parser.parse_args()
    measured = {}
    print("| | sizes | seconds | exponent | MiB | exponent |\n|---|---|---|---|---|---|")
    for name, (unit, sizes, measure) in SERIES.items():
        if arguments.only and not any(word in name for word in arguments.only):
            continue
        rows = []
        for size in sizes:
            with tempfile.TemporaryDirectory() as scratch:
                rows.append(measure(size, arguments.threads, pathlib.Path(scratch)))
        measured[name] = (unit, sizes, rows)
        seconds, memory = zip(*rows)
        show = lambda values, form: ", ".join(form.format(value) for value in values)
        print(
            f"| {name} | {show(sizes, '{}')} {unit} | {show(seconds, '{:.3g}')} | {exponent(sizes, seconds):.2f} "
            f"| {show(memory, '{:.0f}')} | {exponent(sizes, memory):.2f} |",
            flush=True,
        )
    if arguments.plot:
        plot(measured, arguments.plot)


if __name__ == "__main__":
    main()
