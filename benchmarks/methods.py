"""What the methods of experiments/comparison.toml train and cost on this machine, for docs/methods.md.

    cargo run -p core-eval -- experiments/comparison.toml
    python benchmarks/methods.py

Trained numbers and bytes are those of a finished run's files; seconds per step and peak memory are those of
`core-train train --dry-run` on the spotted dog. Needs no package.
"""

import json
import os
import pathlib
import re
import struct
import subprocess
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
RESULTS = ["learned_embeds.safetensors", "neti.safetensors", "lora.safetensors", "oft", "unet", "text_encoder"]


def numbers(file):
    """The numbers that a safetensors file holds, by its header."""
    with open(file, "rb") as stream:
        header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
    shapes = [entry["shape"] for key, entry in header.items() if key != "__metadata__"]
    total = 0
    for shape in shapes:
        size = 1
        for side in shape:
            size *= side
        total += size
    return total


def files(run):
    for name in RESULTS:
        path = run / name
        yield from sorted(path.rglob("*.safetensors")) if path.is_dir() else [path] if path.exists() else []


def dry_run(recipe):
    """Seconds of a step of each stage, and MiB."""
    text = (ROOT / "experiments/spotted-dog.toml").read_text()
    text = text.replace('"recipes/core.toml"', f'"{recipe}"')
    text = text.replace('"../models/', f'"{ROOT}/models/').replace('"concepts/', f'"{ROOT}/experiments/concepts/')
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "run.toml"
        file.write_text(text)
        command = [TARGET / "debug" / "core-train", "train", file, "--dry-run"]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    memory = re.search(r"peak memory: about (\d+) MiB", out)
    return re.findall(r"([\d.]+) s per step", out), memory and memory[1]


def method(config):
    """What tells a method's runs from those of others."""
    return config.get("phrase"), tuple(stage["name"] for stage in config["stages"])


def main():
    experiment = tomllib.loads((ROOT / "experiments/comparison.toml").read_text())
    runs = {}
    for config in sorted((ROOT / "results/comparison/runs").glob("*/config.toml")):
        runs[method(tomllib.loads(config.read_text()))] = config.parent
    for variant in experiment["variants"]:
        if variant.get("untuned"):
            continue
        recipe = ROOT / "experiments" / variant.get("recipe", experiment["recipe"])
        run = runs[method(tomllib.loads(recipe.read_text()))]
        sizes = [f"{path.relative_to(run)} {numbers(path)} numbers {path.stat().st_size} bytes" for path in files(run)]
        seconds, memory = dry_run(recipe)
        print(f"{variant['name']}: {', '.join(seconds)} s per step, {memory} MiB; {'; '.join(sizes)}", flush=True)


if __name__ == "__main__":
    main()
