"""What Pillow and transformers' PIL image processors make of small pictures.

Writes ../fixtures/image-processor/:
* `resize/`: inputs, `cases.json` with the SHA-256 of the bytes of every resized picture
* `files/`: image files of many kinds and `expected.safetensors`, their RGB pixels
* `processors/`: configurations in folders, inputs and `expected.safetensors`, the pixel values
* `fit.safetensors`: a photograph cropped and squashed

Run with transformers, Pillow and numpy installed:

    python core-model/tests/generate_fixtures/image_processor.py
"""

import hashlib
import json
import pathlib
import shutil
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps
from safetensors.numpy import save_file
from transformers import CLIPImageProcessorPil, ViTImageProcessorPil

FOLDER = pathlib.Path(__file__).parent.parent / "fixtures" / "image-processor"
RANDOM = np.random.default_rng(0)


def noise(width, height, channels=3):
    return RANDOM.integers(0, 256, (height, width, channels), dtype=np.uint8)


def smooth(width, height):
    """Waves and an edge: what photographs consist of."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / 5 + y / 9), np.cos(x / 11 - y / 4), np.sin(x * y / 300)]
    picture = np.stack(waves, -1) * 100 + 128
    picture[y > x] *= 0.4
    return picture.round().clip(0, 255).astype(np.uint8)


def write_resize():
    folder = FOLDER / "resize"
    folder.mkdir(parents=True)
    inputs = {
        "noise": noise(31, 23), "even": noise(32, 48), "smooth": smooth(97, 61), "one": noise(1, 1),
        "wide": noise(211, 3), "binary": noise(20, 14) // 128 * 255, "gray": noise(37, 29, 1)[..., 0],
    }
    cases = []
    for name, pixels in inputs.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
        height, width = pixels.shape[:2]
        sizes = [
            (1, 1), (width, height), (width, 7), (7, height), (64, 64), (63, 65), (16, 11), (15, 12), (5, 4),
            (2 * width, 2 * height), (width // 2 or 1, height // 2 or 1), (width // 3 or 1, 40), (224, 3),
            (100, height // 5 or 1), (width + 1, height + 1), (width - 1 or 1, height - 1 or 1),
        ]
        for size in dict.fromkeys(sizes):
            for resample in range(6):
                resized = np.array(Image.fromarray(pixels).resize(size, resample))
                digest = hashlib.sha256(resized.tobytes()).hexdigest()
                cases.append([name, *size, resample, digest[:16]])
    lines = ",\n".join(json.dumps(case) for case in cases)
    (folder / "cases.json").write_text(f"[\n{lines}\n]\n")


def write_png(path, pixels, color_type):
    """16-bit PNG with colour, which Pillow cannot write."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, body in [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]:
            file.write(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))


def on_white(image):
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return np.array(white)


def to_eight_bits(pixels):
    return np.floor(pixels / 257 + 0.5).astype(np.uint8)


def write_files():
    folder = FOLDER / "files"
    folder.mkdir(parents=True)
    expected = {}
    color = Image.fromarray(noise(9, 7))
    plain = {
        "rgb.png": color, "gray.png": color.convert("L"), "bit.png": color.convert("1"),
        "rgba.png": Image.fromarray(noise(9, 7, 4)), "la.png": Image.fromarray(noise(9, 7, 4)).convert("LA"),
        "palette.png": color.quantize(12), "lossless.webp": Image.fromarray(noise(9, 7, 4)),
        "name-is-wrong.jpg": color,
    }
    for name, image in plain.items():
        kind = "PNG" if name.startswith("name") else None
        image.save(folder / name, format=kind, **({"lossless": True, "exact": True} if "webp" in name else {}))
        expected[name] = on_white(Image.open(folder / name))
    transparent = color.quantize(12)
    transparent.save(folder / "palette-transparent.png", transparency=3)
    expected["palette-transparent.png"] = on_white(Image.open(folder / "palette-transparent.png"))
    for orientation in range(1, 9):
        name = f"orientation-{orientation}.png"
        exif = Image.Exif()
        exif[0x0112] = orientation
        color.save(folder / name, exif=exif)
        expected[name] = np.array(ImageOps.exif_transpose(Image.open(folder / name)))
    wide = RANDOM.integers(0, 65536, (7, 9, 4)).astype(np.uint16)
    for name, color_type, channels in [("gray16.png", 0, 1), ("rgb16.png", 2, 3), ("la16.png", 4, 2), ("rgba16.png", 6, 4)]:
        write_png(folder / name, wide[..., :channels], color_type)
        eight = to_eight_bits(wide[..., :channels].astype(np.float64))
        mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
        expected[name] = on_white(Image.fromarray(eight.squeeze() if channels == 1 else eight, mode=mode))
    exif = Image.Exif()
    exif[0x0112] = 6
    photograph = Image.fromarray(smooth(40, 24))
    photograph.save(folder / "photograph.jpg", quality=95, exif=exif)
    photograph.save(folder / "progressive.jpg", quality=95, progressive=True, subsampling=0)
    photograph.convert("L").save(folder / "gray.jpg", quality=95)
    photograph.save(folder / "lossy.webp", quality=95)
    for name in ["photograph.jpg", "progressive.jpg", "gray.jpg", "lossy.webp"]:
        expected[name] = np.array(ImageOps.exif_transpose(Image.open(folder / name)).convert("RGB"))
    save_file({name: np.ascontiguousarray(pixels) for name, pixels in expected.items()}, folder / "expected.safetensors")


CLIP_OLD = {
    "crop_size": 24, "do_center_crop": True, "do_normalize": True, "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 24,
}
VIT_OLD = {
    "do_normalize": True, "do_resize": True, "feature_extractor_type": "ViTFeatureExtractor",
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 2, "size": 20,
}


def processors():
    """name -> class, file, content"""
    clip, vit = CLIPImageProcessorPil, ViTImageProcessorPil
    new = {"image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True, "do_rescale": True}
    return {
        "clip-old": (clip, CLIP_OLD),
        "vit-old": (vit, VIT_OLD),
        "clip-new": (clip, new | {"size": {"shortest_edge": 21}, "crop_size": {"height": 19, "width": 17}, "resample": 1}),
        "clip-padded": (clip, new | {"size": {"shortest_edge": 9}, "crop_size": {"height": 24, "width": 23}}),
        "clip-raw": (clip, new | {"do_rescale": False, "do_resize": False, "crop_size": 12}),
        "clip-exact": (clip, new | {"size": {"height": 10, "width": 14}, "do_center_crop": False, "do_normalize": False}),
        "vit-new": (vit, {"image_processor_type": "ViTImageProcessor", "size": {"height": 13, "width": 18},
                          "rescale_factor": 0.00784313725490196, "image_mean": [1.0] * 3, "image_std": [1.0] * 3,
                          "do_center_crop": None, "resample": 0}),
        "vit-defaults": (vit, {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}),
    }


def write_processors():
    folder = FOLDER / "processors"
    folder.mkdir(parents=True)
    inputs = {"tall": smooth(33, 50), "flat": noise(45, 26), "square": noise(30, 30)}
    for name, pixels in inputs.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    expected = {}
    for name, (kind, content) in processors().items():
        (folder / name).mkdir()
        (folder / name / "preprocessor_config.json").write_text(json.dumps(content, indent=2) + "\n")
        processor = kind.from_pretrained(folder / name)
        images = [Image.fromarray(pixels) for pixels in inputs.values()]
        values = [processor(image, return_tensors="np")["pixel_values"][0] for image in images]
        expected[name] = np.stack(values).astype(np.float32)
    # What transformers 5 writes for a whole CLIP processor.
    nested = CLIPImageProcessorPil.from_pretrained(folder / "clip-new").to_dict()
    (folder / "clip-nested").mkdir()
    (folder / "clip-nested" / "processor_config.json").write_text(
        json.dumps({"image_processor": nested, "processor_class": "CLIPProcessor"}, indent=2) + "\n"
    )
    expected["clip-nested"] = expected["clip-new"]
    save_file(expected, folder / "expected.safetensors")


def write_fit():
    photograph = Image.fromarray(smooth(53, 38))
    photograph.save(FOLDER / "photograph.png")
    tensors = {}
    for side in [16, 25, 64]:
        width, height = int(side * 53 / 38), side
        left = (width - side) // 2
        resized = photograph.resize((width, height), Image.Resampling.BICUBIC)
        tensors[f"crop.{side}"] = np.array(resized.crop((left, 0, left + side, side)))
        tensors[f"squash.{side}"] = np.array(photograph.resize((side, side), Image.Resampling.BICUBIC))
    save_file(tensors, FOLDER / "fit.safetensors")


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    write_resize()
    write_files()
    write_processors()
    write_fit()
