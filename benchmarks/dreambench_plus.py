"""Compares `core-eval score` with what DreamBench++'s evaluation computes on a folder in its own layout.

    cargo build --workspace
    python benchmarks/dreambench_plus.py [--concepts 3] [--images 6] [--folder DIR]

Needs torch, transformers and Pillow. The folder is synthetic: `src_image/`, `tgt_image/` and `text/` with
JPEG files of several sizes. The encoders have the architectures of the source and random weights: CLIP
ViT-B/32, DINO ViT-S/8 and DINOv2 ViT-S/14. Their preprocessing is that of the source: CLIP's, Resize(256,
bicubic), CenterCrop(224) and ImageNet's mean and deviation for DINO, and the same as a BitImageProcessor for
DINOv2. Scores are computed as in `dreambench_plus/metrics` of yuangpeng/dreambench_plus: pair by pair, 100
times the cosine, and one mean over all files in the order of their names. The source takes DINO's network from
torch.hub; here it is transformers' ViTModel, which is the same network. Images with transparency are left out:
the source puts them on white.

Every score and every mean must agree to 1e-4, where scores go to 100.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import numpy
import torch
from PIL import Image, ImageOps
from transformers import (
    BitImageProcessorPil, CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer, Dinov2Config, Dinov2Model,
    ViTConfig, ViTModel,
)

ROOT = pathlib.Path(__file__).parent.parent
VOCABULARY = ROOT / "core-model" / "assets" / "clip-tokenizer"
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
WORDS = ["kitten", "teapot", "robot", "castle"]
SCENES = ["in the snow", "as a watercolour, with a red hat", "riding a bicycle at night", "made of glass"]
LIMIT = 1e-4


def make_encoders(folder):
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(
        text_config={"hidden_size": 512, "num_attention_heads": 8, "eos_token_id": 49407, "bos_token_id": 49406},
        vision_config={"patch_size": 32}, projection_dim=512))
    clip.save_pretrained(folder / "clip")
    CLIPImageProcessorPil().save_pretrained(folder / "clip")
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(VOCABULARY / name, folder / "clip" / name)
    CLIPTokenizer.from_pretrained(folder / "clip").save_pretrained(folder / "clip")
    dino = ViTConfig(hidden_size=384, intermediate_size=1536, num_attention_heads=6, patch_size=8)
    ViTModel(dino, add_pooling_layer=False).save_pretrained(folder / "dino")
    dinov2 = Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14)
    Dinov2Model(dinov2).save_pretrained(folder / "dinov2")
    for name in ("dino", "dinov2"):
        BitImageProcessorPil(size={"shortest_edge": 256}, **IMAGENET).save_pretrained(folder / name)


def make_samples(folder, concepts, images):
    generator = numpy.random.default_rng(0)

    def picture(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(generator.integers(0, 256, (12, 12, 3), dtype=numpy.uint8))
        size = tuple(int(side) for side in generator.integers(230, 640, 2))
        small.resize(size, Image.BICUBIC).save(path, quality=90)

    for word in WORDS[:concepts]:
        concept = f"object_{word}"
        for index in range(images):
            name = f"{index}_0"
            picture(folder / "src_image" / concept / f"{name}.jpg")
            picture(folder / "tgt_image" / concept / f"{name}.jpg")
            text = folder / "text" / concept / f"{name}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text(f"a {word} {SCENES[index % len(SCENES)]}")


class Theirs:
    """The scores of `CLIPScore`, `DinoScore` and `Dinov2Score`, one pair at a time."""

    def __init__(self, folder):
        self.clip = CLIPModel.from_pretrained(folder / "clip", dtype=torch.float32).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "clip")
        self.clip_processor = CLIPImageProcessorPil.from_pretrained(folder / "clip")
        self.dino = ViTModel.from_pretrained(folder / "dino", dtype=torch.float32, add_pooling_layer=False).eval()
        self.dinov2 = Dinov2Model.from_pretrained(folder / "dinov2", dtype=torch.float32).eval()
        self.dino_processor = BitImageProcessorPil.from_pretrained(folder / "dino")

    def image_features(self, metric, path):
        picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        if metric == "clip":
            pixels = self.clip_processor([picture], return_tensors="pt").pixel_values
            features = self.clip.get_image_features(pixel_values=pixels)
            return getattr(features, "pooler_output", features)
        network = getattr(self, metric)
        pixels = self.dino_processor([picture], return_tensors="pt").pixel_values
        return network(pixel_values=pixels).last_hidden_state[:, 0]

    def text_features(self, text):
        inputs = self.tokenizer([text], padding=True, return_tensors="pt")
        features = self.clip.get_text_features(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask)
        return getattr(features, "pooler_output", features)

    @staticmethod
    def score(one, other):
        one, other = (part / part.norm(p=2, dim=-1, keepdim=True) for part in (one, other))
        return (100 * (one * other).sum(axis=-1)).sum(0).float().item()

    @torch.inference_mode()
    def scores(self, samples):
        found = {}
        for image in sorted((samples / "tgt_image").glob("**/*.jpg")):
            name = image.relative_to(samples / "tgt_image")
            photo = samples / "src_image" / name
            text = (samples / "text" / name).with_suffix(".txt").read_text()
            of_image = {metric: self.image_features(metric, image) for metric in ("clip", "dino", "dinov2")}
            of_photo = {metric: self.image_features(metric, photo) for metric in ("clip", "dino", "dinov2")}
            found[name.as_posix()] = {
                "clip_t": self.score(self.text_features(text), of_image["clip"]),
                "clip_i": self.score(of_photo["clip"], of_image["clip"]),
                "dino": self.score(of_photo["dino"], of_image["dino"]),
                "dinov2": self.score(of_photo["dinov2"], of_image["dinov2"]),
            }
        return found


def ours(folder, samples):
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    command = [
        target / "debug" / "core-eval", "score", "--generated", samples, "--protocol", "dreambench-plus", "--json",
        "--clip", folder / "clip", "--dino", folder / "dino", "--dinov2", folder / "dinov2",
        "--out", folder / "scores.csv",
    ]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--concepts", type=int, default=3)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--folder", type=pathlib.Path, help="keep encoders, samples and scores here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary)
        samples = folder / "samples"
        shutil.rmtree(samples, ignore_errors=True)
        make_encoders(folder)
        make_samples(samples, arguments.concepts, arguments.images)
        theirs, found = Theirs(folder).scores(samples), ours(folder, samples)
        assert sorted(image["image"] for image in found["images"]) == sorted(theirs), "other images"
        good = True
        for metric in ("clip_t", "clip_i", "dino", "dinov2"):
            pairs = [(image[metric], theirs[image["image"]][metric]) for image in found["images"]]
            largest = max(abs(here - there) for here, there in pairs)
            mean = sum(there for _, there in pairs) / len(pairs)
            here = found["means"]["pooled"][metric]
            spread = max(there for _, there in pairs) - min(there for _, there in pairs)
            good &= largest < LIMIT and abs(here - mean) < LIMIT
            print(f"{metric}: mean here {here:.5f}, DreamBench++ {mean:.5f}, difference {abs(here - mean):.1e}; "
                  f"largest of {len(pairs)} images {largest:.1e} (scores spread over {spread:.2f})")
        assert good, f"differences of more than {LIMIT}"


if __name__ == "__main__":
    main()
