"""Pictures, tiny judges and what transformers scores them with, under every protocol.

Writes ../fixtures/score/: `clip/`, `dino/` and `clipseg/` as `save_pretrained` writes them,
`references/CONCEPT/`, `generated/`, masks of both, `images.csv`, and for each protocol
`expected-PROTOCOL.csv`; `expected-core-clipseg.csv` has masks by CLIPSeg instead. Run with transformers,
torch and Pillow installed:

    python core-eval/tests/generate_fixtures/score.py

Preprocessing is that of transformers' PIL image processors. Everything is computed in float64 too and
must agree to 2e-6 of a cosine.
"""

import csv
import json
import pathlib
import shutil
import sys

import numpy
import torch
from PIL import Image, ImageOps
from transformers import (
    CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPSegConfig, CLIPSegForImageSegmentation, CLIPTokenizer,
    ViTConfig, ViTImageProcessorPil, ViTModel,
)

ROOT = pathlib.Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "core-model/tests/generate_fixtures"))
from clip import randomise  # noqa: E402
OUT = pathlib.Path(__file__).parent.parent / "fixtures" / "score"
TOKENIZER = ROOT / "core-train/tests/fixtures/trajectory/model/tokenizer"
PHOTOGRAPH = ROOT / "core-model/tests/fixtures/image-processor/photograph.png"
SIDE = 32
CONCEPTS = {"dog": ("<dog>", "dog"), "red-cup": ("<cup>", "cup")}


def judges():
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    config = json.loads((TOKENIZER.parent / "text_encoder/config.json").read_text())
    text = {
        "vocab_size": config["vocab_size"], "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": config["max_position_embeddings"],
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id, "projection_dim": 12,
    }
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": SIDE, "patch_size": 8, "projection_dim": 12,
    }
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).eval()
    clip_processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, resample=Image.BICUBIC)
    dino = ViTModel(ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
        patch_size=8), add_pooling_layer=False).eval()
    dino_processor = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}, resample=Image.BILINEAR)
    for seed, model, processor, name in ((1, clip, clip_processor, "clip"), (2, dino, dino_processor, "dino")):
        randomise(model, seed)
        model.half().save_pretrained(OUT / name)
        model.float()
        processor.save_pretrained(OUT / name)
    for file in TOKENIZER.iterdir():
        shutil.copy(file, OUT / "clip" / file.name)
    return tokenizer, clip, clip_processor, dino, dino_processor


class MaskJudge:
    """A CLIPSeg whose masks are neither empty nor full, and whose logits are never near 0."""

    def __init__(self, tokenizer, seed):
        self.tokenizer = tokenizer
        text = json.loads((OUT / "clip/config.json").read_text())["text_config"]
        vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                  "image_size": 24, "patch_size": 8}
        self.model = CLIPSegForImageSegmentation(CLIPSegConfig(
            text_config=text, vision_config=vision, projection_dim=12, extract_layers=[0, 1], reduce_dim=16,
            decoder_num_attention_heads=2, decoder_intermediate_size=32)).eval()
        randomise(self.model, seed)
        self.processor = ViTImageProcessorPil(size={"height": 40, "width": 40}, resample=Image.BILINEAR)
        self.good = True

    @torch.no_grad()
    def mask(self, picture, word):
        length = self.model.config.text_config.max_position_embeddings
        ids = self.tokenizer(word, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        pixels = self.processor(picture, return_tensors="pt").pixel_values
        logits = self.model(input_ids=ids.input_ids, pixel_values=pixels).logits.reshape(1, 1, 40, 40)
        size = (picture.height, picture.width)
        logits = torch.nn.functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0, 0]
        inside = (logits > 0).numpy()
        near = float(logits.abs().min() / logits.abs().max())
        self.good &= 0.1 < inside.mean() < 0.9 and near > 2e-6
        return inside

    def save(self):
        self.model.half().save_pretrained(OUT / "clipseg")
        self.processor.save_pretrained(OUT / "clipseg")
        for file in TOKENIZER.iterdir():
            shutil.copy(file, OUT / "clipseg" / file.name)


def pictures():
    """References and generated pictures of several sizes and modes, with masks, without loss."""
    photograph = Image.open(PHOTOGRAPH).convert("RGB")
    photograph = photograph.resize((72, 60), Image.LANCZOS)
    generator = numpy.random.default_rng(3)

    def variation():
        left, top = generator.integers(0, 20), generator.integers(0, 16)
        width, height = generator.integers(30, 50), generator.integers(28, 44)
        picture = photograph.crop((left, top, left + width, top + height))
        if generator.random() < 0.5:
            picture = ImageOps.mirror(picture)
        gain = generator.uniform(0.6, 1.3, 3)
        pixels = numpy.clip(numpy.asarray(picture) * gain + generator.normal(0, 6, 3), 0, 255)
        return Image.fromarray(pixels.astype(numpy.uint8))

    def save(picture, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)

    def mask(picture):
        pixels = numpy.zeros((picture.height, picture.width), numpy.uint8)
        top, left = generator.integers(2, 8, 2)
        pixels[top:top + 18, left:left + 20] = 255
        return Image.fromarray(pixels)

    rows = []
    for concept in CONCEPTS:
        for index in range(4 if concept == "dog" else 3):
            picture = variation()
            save(picture, OUT / "references" / concept / f"{index}.png")
            save(mask(picture), OUT / "reference-masks" / concept / f"{index}.png")
        token, word = CONCEPTS[concept]
        (OUT / "references" / concept / "concept.toml").write_text(
            f'name = "{concept}"\nplaceholder_token = "{token}"\nsuper_category = "{word}"\n')
        kinds = [("plain", "a photo of a {}"), ("style", "a red {} on the beach")]
        for kind, prompt in kinds:
            for number in range(6 if kind == "plain" and concept == "dog" else 2):
                picture = variation()
                if (concept, kind, number) == ("dog", "plain", 1):
                    picture = Image.new("RGB", picture.size)
                if (concept, kind, number) == ("dog", "style", 0):
                    picture = picture.convert("L")
                if (concept, kind, number) == ("red-cup", "style", 0):
                    picture = picture.convert("P", palette=Image.ADAPTIVE)
                name = f"{concept}/{kind}-{number}.png"
                save(picture, OUT / "generated" / name)
                save(mask(picture), OUT / "generated-masks" / name)
                rows.append((name, concept, prompt, kind))
    with open(OUT / "generated/images.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "concept", "prompt", "kind"])
        writer.writerows(rows)
    return rows


class Encoders:
    def __init__(self, tokenizer, clip, clip_processor, dino, dino_processor, dtype):
        self.tokenizer, self.dtype = tokenizer, dtype
        self.clip, self.clip_processor = clip.to(dtype), clip_processor
        self.dino, self.dino_processor = dino.to(dtype), dino_processor

    def unit(self, feature):
        return (feature / feature.norm())[0]

    @torch.no_grad()
    def text(self, prompt):
        length = self.clip.config.text_config.max_position_embeddings
        ids = self.tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return self.unit(pooled(self.clip.get_text_features(input_ids=ids.input_ids)))

    @torch.no_grad()
    def clip_image(self, picture):
        pixels = self.clip_processor(picture, return_tensors="pt").pixel_values.to(self.dtype)
        return self.unit(pooled(self.clip.get_image_features(pixel_values=pixels)))

    @torch.no_grad()
    def dino_image(self, picture):
        pixels = self.dino_processor(picture, return_tensors="pt").pixel_values.to(self.dtype)
        return self.unit(self.dino(pixel_values=pixels).last_hidden_state[:, 0])


def pooled(features):
    return getattr(features, "pooler_output", features)


def load(path, masks=None, word=None):
    """A picture, or with `masks`, a file or a judge, its foreground on black."""
    picture = Image.open(path).convert("RGB")
    if masks is None:
        return picture
    mask = masks.mask(picture, word) if isinstance(masks, MaskJudge) else numpy.asarray(Image.open(masks)) >= 128
    return Image.fromarray(numpy.asarray(picture) * mask[..., None].astype(numpy.uint8))


def scores(encoders, rows, protocol, judge=None):
    masked = protocol == "core"
    scale = 100 if protocol == "dreambench-plus" else 1
    result, seen, places = [], {}, {}
    for name, concept, template, kind in rows:
        number = seen.get((concept, template), 0)
        seen[(concept, template)] = number + 1
        place = places.get(concept, 0)
        places[concept] = place + 1
        picture = load(OUT / "generated" / name)
        black = picture.getextrema() == ((0, 0),) * 3
        if protocol == "oft" and (number >= 4 or black):
            result.append((None, None, None))
            continue
        token, word = CONCEPTS[concept]
        if protocol in ("dreambooth", "core"):
            prompt = template.replace("{}", word)
        elif protocol in ("oft", "dreambench-plus"):
            prompt = template.replace("{}", token)
        else:
            prompt = " ".join(template.replace("{}", " ").split())
        clip_t = float(encoders.clip_image(picture) @ encoders.text(prompt))
        clip_t = 2.5 * max(clip_t, 0) if protocol == "custom-diffusion" else scale * clip_t
        if masked and kind == "style":
            result.append((clip_t, None, None))
            continue
        subject = load(OUT / "generated" / name, judge or OUT / "generated-masks" / name, word) if masked else picture
        photos = sorted((OUT / "references" / concept).glob("*.png"))
        if protocol == "dreambench-plus":
            photos = photos[:1]
        photos = [
            load(photo, (judge or OUT / "reference-masks" / concept / photo.name) if masked else None, word)
            for photo in photos]
        clip, dino = encoders.clip_image(subject), encoders.dino_image(subject)
        clip_i = [float(clip @ encoders.clip_image(photo)) for photo in photos]
        of_dino = [float(dino @ encoders.dino_image(photo)) for photo in photos]
        result.append((clip_t, scale * sum(clip_i) / len(photos), scale * sum(of_dino) / len(photos)))
    return result


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    parts = judges()
    rows = pictures()
    protocols = ["dreambooth", "core", "textual-inversion", "custom-diffusion", "oft", "dreambench-plus"]
    narrow = Encoders(*parts, torch.float32)
    results = {protocol: scores(narrow, rows, protocol) for protocol in protocols}
    for seed in range(1000):
        judge = MaskJudge(parts[0], seed)
        results["core-clipseg"] = scores(narrow, rows, "core", judge)
        if judge.good:
            break
    else:
        raise SystemExit("no seed gives good masks")
    wide = Encoders(*parts, torch.float64)
    for protocol, result in results.items():
        tolerance = 2e-4 if protocol == "dreambench-plus" else 2e-6
        again = scores(wide, rows, protocol.removesuffix("-clipseg"), judge if protocol == "core-clipseg" else None)
        for ours, theirs in zip(result, again):
            for a, b in zip(ours, theirs):
                assert a is b is None or abs(a - b) <= tolerance, (protocol, a, b)
        with open(OUT / f"expected-{protocol}.csv", "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["image", "concept", "clip_t", "clip_i", "dino"])
            for (name, concept, _, _), values in zip(rows, result):
                writer.writerow([name, concept, *("" if v is None else repr(v) for v in values)])
    judge.save()


main()
