"""Counts the images that have exactly Pillow's bytes: JPEG files by sampling and kind as they are read, and
resized photographs by mode and filter.

    cargo build --workspace --examples
    python benchmarks/pillow.py FOLDER...

Needs Pillow, numpy and `cjpeg` of libjpeg-turbo (Debian: libjpeg-turbo-progs). Pieces of every photograph
are written as JPEG in every sampling and kind; what is read here is compared with Pillow's
`convert("RGB")`. Every photograph in the folders is also reduced to at most 700 pixels, cut to an odd
width and stored losslessly in each mode; then it is resized to several sizes with each filter, here and
by Pillow. 16-bit values, which Pillow would clip, are divided by 257 and rounded; transparency is
composed on white.
"""

import collections
import io
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy
from PIL import Image, ImageOps

ROOT = pathlib.Path(__file__).parent.parent
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
SIZES = [(224, 224), (64, 64), (299, 512), (37, 201), (1, 1)]


def gradient(picture):
    """A mask from left to right, for transparency."""
    row = numpy.linspace(0, 255, picture.width).astype(numpy.uint8)
    return Image.fromarray(numpy.tile(row, (picture.height, 1)))


def with_alpha(picture, mode):
    picture = picture.convert(mode[:-1])
    picture.putalpha(gradient(picture))
    return picture


def deep(picture):
    wide = numpy.asarray(picture.convert("L")).astype(numpy.uint16) * 257
    return Image.fromarray(wide + numpy.arange(wide.shape[1], dtype=numpy.uint16) % 97)


def turned(picture):
    """The image rotated by 90 degrees, with the EXIF tag that says so."""
    return picture.transpose(Image.ROTATE_90), {"exif": exif(6)}


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


# Sampling factors of the channels, as cjpeg takes them; absent ones are 1x1.
SAMPLINGS = {
    "4:4:4": "1x1", "4:2:2": "2x1", "4:2:0": "2x2", "4:4:0": "1x2", "4:1:1": "4x1", "4:1:0": "4x2", "4:4:1": "1x4",
    "3:1:1": "3x1", "2x2, 1x2, 2x1": "2x2,1x2,2x1", "1x1, 2x2, 2x2": "1x1,2x2,2x2",
}
KINDS = {
    "baseline": ["-baseline"], "optimised": ["-optimize"], "progressive": ["-progressive"],
    "restart markers": ["-restart", "1B"], "arithmetic": ["-arithmetic"],
    "arithmetic, progressive": ["-arithmetic", "-progressive"], "RGB": ["-rgb"],
}
PIECES = [(1, 1), (7, 5), (16, 16), (17, 33), (101, 77), (255, 129), (200, 300)]
QUALITIES = [30, 75, 92, 100]


def jpegs(photographs):
    """Pieces of the photographs as sampling, kind and bytes."""
    for number, picture in enumerate(photographs):
        for index, (width, height) in enumerate(PIECES):
            left = number * 37 % max(1, picture.width - width)
            piece = picture.crop((left, 0, left + width, height))
            quality = QUALITIES[(number + index) % len(QUALITIES)]
            ppm = io.BytesIO()
            piece.save(ppm, "PPM")
            for sampling, factors in SAMPLINGS.items():
                for kind, arguments in KINDS.items():
                    command = ["cjpeg", "-quality", str(quality), "-sample", factors, *arguments]
                    jpeg = subprocess.run(command, input=ppm.getvalue(), capture_output=True, check=True).stdout
                    yield sampling, kind, jpeg
            for subsampling, sampling in enumerate(["4:4:4", "4:2:2", "4:2:0"]):
                for progressive in (False, True):
                    file = io.BytesIO()
                    piece.convert("CMYK").save(file, "JPEG", quality=quality, subsampling=subsampling,
                                               progressive=progressive)
                    cmyk = file.getvalue()
                    yield sampling, "CMYK", cmyk
                    # The same file with its channels taken for YCbCr and black.
                    transform = cmyk.index(b"Adobe") + 11
                    yield sampling, "YCCK", cmyk[:transform] + b"\2" + cmyk[transform + 1:]


def compare_jpegs(photographs, program, folder):
    """Prints the table of JPEG files that are read with exactly Pillow's pixels."""
    equal, total, cases = collections.Counter(), collections.Counter(), []
    for number, (sampling, kind, jpeg) in enumerate(jpegs(photographs)):
        source, target = folder / f"{number}.jpg", folder / f"{number}.png"
        source.write_bytes(jpeg)
        cases.append((sampling, kind, source, target, *Image.open(source).size))
    lines = "".join(f"{s}\t{t}\t{w}\t{h}\t0\n" for _, _, s, t, w, h in cases)
    subprocess.run([program], input=lines, text=True, check=True)
    for sampling, kind, source, ours, _, _ in cases:
        total[sampling, kind] += 1
        theirs = Image.open(source).convert("RGB")
        equal[sampling, kind] += Image.open(ours).convert("RGB").tobytes() == theirs.tobytes()
    kinds = [*KINDS, "CMYK", "YCCK"]
    print("| sampling | " + " | ".join(kinds) + " |\n|---|" + "---|" * len(kinds))
    for sampling in SAMPLINGS:
        cells = [f"{equal[sampling, k]} of {total[sampling, k]}" if total[sampling, k] else "" for k in kinds]
        print(f"| {sampling} | {' | '.join(cells)} |")
    print(f"\n{sum(equal.values())} of {sum(total.values())} JPEG files are equal.\n")


MODES = {
    "RGB": lambda p: p, "L": lambda p: p.convert("L"), "1": lambda p: p.convert("1"),
    "P": lambda p: p.convert("P", palette=Image.ADAPTIVE), "RGBA": lambda p: with_alpha(p, "RGBA"),
    "LA": lambda p: with_alpha(p, "LA"), "I;16": deep, "EXIF": turned,
}


def as_rgb(path):
    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.mode.startswith("I"):
        wide = numpy.asarray(picture).astype(numpy.uint32)
        return Image.fromarray(((wide + 128) // 257).astype(numpy.uint8)).convert("RGB")
    if picture.mode in ("RGBA", "LA"):
        white = Image.new("RGB", picture.size, (255, 255, 255))
        white.paste(picture.convert("RGB"), mask=picture.getchannel("A"))
        return white
    return picture.convert("RGB")


def main(folders):
    photographs = sorted(path for folder in folders for path in pathlib.Path(folder).rglob("*.jpg"))
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    program = target / "debug" / "examples" / "resize"
    equal, total = collections.Counter(), collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        folder, cases = pathlib.Path(folder), []
        compare_jpegs([Image.open(path).convert("RGB") for path in photographs], program, folder)
        for number, path in enumerate(photographs):
            picture = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
            picture.thumbnail((700, 700))
            picture = picture.crop((0, 0, picture.width - 1 + picture.width % 2, picture.height))
            for index, (mode, convert) in enumerate(MODES.items()):
                stored = convert(picture)
                stored, options = stored if isinstance(stored, tuple) else (stored, {})
                source = folder / f"{number}-{index}.png"
                stored.save(source, **options)
                width, height = SIZES[(number + index) % len(SIZES)]
                for code in FILTERS:
                    cases.append((mode, code, source, folder / f"{number}-{index}-{code}.png", width, height))
        lines = "".join(f"{s}\t{t}\t{w}\t{h}\t{code}\n" for _, code, s, t, w, h in cases)
        subprocess.run([program], input=lines, text=True, check=True)
        for mode, code, source, ours, width, height in cases:
            theirs = as_rgb(source).resize((width, height), code)
            total[mode, code] += 1
            equal[mode, code] += Image.open(ours).convert("RGB").tobytes() == theirs.tobytes()
    print("| mode | " + " | ".join(FILTERS.values()) + " |\n|---|" + "---|" * len(FILTERS))
    for mode in MODES:
        cells = [f"{equal[mode, code]} of {total[mode, code]}" for code in FILTERS]
        print(f"| {mode} | {' | '.join(cells)} |")
    print(f"\n{sum(equal.values())} of {sum(total.values())} pictures of {len(photographs)} photographs are equal.")


if __name__ == "__main__":
    main(sys.argv[1:])
