"""Shows that TensorBoard reads the event files that a run writes.

    cargo build --workspace
    pip install tensorboard pillow
    python benchmarks/tensorboard_reader.py

Trains experiments/spotted-dog.toml with `report_to = ["tensorboard", "jsonl"]` and scored validation images,
reads the events with TensorBoard's own reader, and compares every number with metrics.csv and metrics.jsonl
and every image with its file. Exits with 1 when anything differs.
"""

import csv
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = pathlib.Path(__file__).parent.parent
NO_LIMIT = {"scalars": 0, "images": 0}


def train(output):
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    models = ROOT.resolve() / "models"
    encoders = f'{{ clip = "{models}/mini-clip", dino = "{models}/mini-dino" }}'
    sets = ['report_to=["tensorboard", "jsonl"]', "validation.scores=true", f"validation.encoders={encoders}"]
    arguments = [argument for value in sets for argument in ("--set", value)]
    program = target / "debug" / "core-train"
    run = ["train", ROOT / "experiments" / "spotted-dog.toml", "--output", output]
    subprocess.run([program, *run, *arguments], check=True, capture_output=True)


def main():
    with tempfile.TemporaryDirectory() as folder:
        run = pathlib.Path(folder) / "run"
        train(run)
        events = EventAccumulator(str(run / "tensorboard"), NO_LIMIT).Reload()
        rows = list(csv.DictReader((run / "metrics.csv").open()))
        lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
        assert len(rows) == len(lines), "metrics.jsonl has another number of steps"
        numbers = worst = 0
        for tag in events.Tags()["scalars"]:
            column = tag.split("/", 1)[1]
            for event in events.Scalars(tag):
                row, line = rows[event.step - 1], lines[event.step - 1]
                expected = float(row[column])
                assert line["total_step"] == event.step and line[column] == expected, (tag, event.step)
                worst = max(worst, abs(event.value - numpy.float32(expected)))
                numbers += 1
        written = sum(value != "" for row in rows for name, value in row.items() if name not in ("stage", "step"))
        print(f"{numbers} of {written} numbers of metrics.csv, largest difference {worst:.1e}")
        images = 0
        for tag in events.Tags()["images"]:
            for event in events.Images(tag):
                row = rows[event.step - 1]
                file = run / "validation" / f"{row['stage']}-{int(row['step']):05}-00.png"
                found = numpy.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
                assert (found == numpy.asarray(Image.open(file))).all(), file
                images += 1
        files = len(list((run / "validation").glob("*.png")))
        print(f"{images} of {files} validation images, byte for byte")
        return numbers == written and worst == 0 and images == files


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
