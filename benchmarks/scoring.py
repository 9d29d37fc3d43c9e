"""Compares speed and memory of scoring with transformers, with encoders of the size that papers use.

    cargo build --workspace
    python benchmarks/scoring.py [--threads 2] [--images 48] [--pairs 3]

Needs torch, transformers and Pillow. CLIP ViT-B/32 and DINO ViT-S/16 have random weights: time and
memory do not depend on them. Images are 512 by 512 pixels of smooth noise. Both compute CLIP-T, CLIP-I
and DINO of every image against five photos, in turns; reading files and preprocessing are included,
loading the encoders is not. Our peak memory is measured with this number of images and with four times
as many.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

import numpy
import torch
from PIL import Image
from transformers import (
    CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer, ViTConfig, ViTImageProcessorPil, ViTModel,
)

ROOT = pathlib.Path(__file__).parent.parent
VOCABULARY = ROOT / "core-model" / "assets" / "clip-tokenizer"
PHOTOS, BATCH = 5, 16


def make_encoders(folder):
    clip = CLIPModel(CLIPConfig(
        text_config={"hidden_size": 512, "num_attention_heads": 8, "eos_token_id": 49407, "bos_token_id": 49406},
        vision_config={"patch_size": 32}, projection_dim=512))
    clip.save_pretrained(folder / "clip")
    CLIPImageProcessorPil().save_pretrained(folder / "clip")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(VOCABULARY / name, folder / "clip" / name)
    CLIPTokenizer.from_pretrained(folder / "clip").save_pretrained(folder / "clip")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(VOCABULARY / name, folder / "clip" / name)
    dino = ViTModel(
        ViTConfig(hidden_size=384, intermediate_size=1536, num_attention_heads=6), add_pooling_layer=False)
    dino.save_pretrained(folder / "dino")
    ViTImageProcessorPil().save_pretrained(folder / "dino")


def make_pictures(folder, count):
    generator = numpy.random.default_rng(0)
    folder.mkdir(parents=True)
    for index in range(count):
        small = Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=numpy.uint8))
        small.resize((512, 512), Image.BICUBIC).save(folder / f"{index:05}.png")


def ours(folder, images, threads):
    """Seconds and peak memory in bytes of a whole call."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    command = [
        target / "debug" / "core-eval", "score", "--generated", images, "--references", folder / "photos",
        "--prompt", "a photo of a dog on the beach", "--clip", folder / "clip", "--dino", folder / "dino",
        "--out", folder / "scores.csv",
    ]
    start = time.perf_counter()
    process = subprocess.Popen(
        command, env=os.environ | {"RAYON_NUM_THREADS": str(threads)}, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL)
    status, peak = pathlib.Path(f"/proc/{process.pid}/status"), 0
    while process.poll() is None:
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        peak = max([peak, *(int(line.split()[1]) * 1024 for line in lines)])
        time.sleep(0.02)
    assert process.returncode == 0
    return time.perf_counter() - start, peak


class Theirs:
    def __init__(self, folder):
        self.clip = CLIPModel.from_pretrained(folder / "clip", dtype=torch.float32).eval()
        self.dino = ViTModel.from_pretrained(folder / "dino", dtype=torch.float32, add_pooling_layer=False).eval()
        self.clip_processor = CLIPImageProcessorPil.from_pretrained(folder / "clip")
        self.dino_processor = ViTImageProcessorPil.from_pretrained(folder / "dino")
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "clip")

    def features(self, paths):
        clip, dino = [], []
        for start in range(0, len(paths), BATCH):
            pictures = [Image.open(path).convert("RGB") for path in paths[start:start + BATCH]]
            seen = self.clip.vision_model(**self.clip_processor(pictures, return_tensors="pt")).pooler_output
            clip.append(self.clip.visual_projection(seen))
            dino.append(self.dino(**self.dino_processor(pictures, return_tensors="pt")).last_hidden_state[:, 0])
        return [torch.nn.functional.normalize(torch.cat(parts)) for parts in (clip, dino)]

    @torch.inference_mode()
    def score(self, folder, images):
        start = time.perf_counter()
        photos = self.features(sorted((folder / "photos").iterdir()))
        seen = self.features(sorted(images.iterdir()))
        ids = self.tokenizer("a photo of a dog on the beach", padding="max_length", max_length=77, return_tensors="pt")
        text = self.clip.text_projection(self.clip.text_model(ids.input_ids).pooler_output)
        text = torch.nn.functional.normalize(text)
        (seen[0] @ text.T).tolist(), [(a @ b.T).mean(1).tolist() for a, b in zip(seen, photos)]
        return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        make_encoders(folder)
        make_pictures(folder / "photos", PHOTOS)
        make_pictures(folder / "few", arguments.images)
        make_pictures(folder / "many", 4 * arguments.images)
        theirs = Theirs(folder)
        here, there, peaks = [], [], []
        for _ in range(arguments.pairs):
            # The difference of two calls has neither loading nor photos in it.
            few, many = (ours(folder, folder / name, arguments.threads) for name in ("few", "many"))
            here.append(3 * arguments.images / (many[0] - few[0]))
            peaks.append((few[1], many[1]))
            few, many = (theirs.score(folder, folder / name) for name in ("few", "many"))
            there.append(3 * arguments.images / (many - few))
        here, there = statistics.median(here), statistics.median(there)
        print(f"images per second: here {here:.1f}, transformers {there:.1f}, ratio of times {there / here:.2f}")
        few, many = (max(column) / 2**20 for column in zip(*peaks))
        print(f"peak memory here: {few:.0f} MB for {arguments.images} images, {many:.0f} MB for four times as many")


if __name__ == "__main__":
    main()
