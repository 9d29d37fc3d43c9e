"""Image files of many kinds, with what Pillow reads of them.

Writes ../fixtures/image-files/: the files and `expected.json`, which has for each its size and the
SHA-256 of its RGB pixels after `ImageOps.exif_transpose`, transparency composed on white.

* JPEG: every sampling of chroma in every kind of coding, channels and orientations
* BMP, GIF and TIFF

Run with Pillow, numpy and `cjpeg` of libjpeg-turbo (Debian: libjpeg-turbo-progs) installed:

    python core-model/tests/generate_fixtures/image_files.py
"""

import hashlib
import io
import json
import pathlib
import shutil
import subprocess

import numpy as np
from PIL import Image, ImageOps

FOLDER = pathlib.Path(__file__).parent.parent / "fixtures" / "image-files"

# Sampling factors of the channels, as cjpeg takes them; absent ones are 1x1.
SAMPLINGS = {
    "444": "1x1", "422": "2x1", "420": "2x2", "440": "1x2", "411": "4x1", "441": "1x4", "410": "4x2", "311": "3x1",
    "mixed": "2x2,1x2,2x1", "inverted": "1x1,2x2,2x2",
}
KINDS = {
    "baseline": ["-baseline"], "progressive": ["-progressive"], "restart": ["-restart", "3B"],
    "arithmetic": ["-arithmetic", "-progressive"],
}


def smooth(width, height):
    """Waves, an edge and some noise: what photographs consist of."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / 5 + y / 9), np.cos(x / 11 - y / 4), np.sin(x * y / 300)]
    picture = np.stack(waves, -1) * 100 + 128
    picture[y > x] *= 0.4
    picture += np.random.default_rng(0).normal(0, 6, picture.shape)
    return Image.fromarray(picture.round().clip(0, 255).astype(np.uint8))


def cjpeg(picture, *arguments):
    ppm = io.BytesIO()
    picture.save(ppm, "PPM")
    return subprocess.run(["cjpeg", *arguments], input=ppm.getvalue(), capture_output=True, check=True).stdout


def saved(picture, kind, **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def as_ycck(jpeg):
    """The same file with its CMYK channels taken for YCbCr and black."""
    jpeg = bytearray(jpeg)
    jpeg[jpeg.index(b"Adobe") + 11] = 2
    return bytes(jpeg)


def with_segment(jpeg, marker, content):
    return jpeg[:2] + bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content + jpeg[2:]


def jpeg_files():
    photograph = smooth(45, 37)
    for sampling, factors in SAMPLINGS.items():
        for kind, arguments in KINDS.items():
            yield f"{sampling}-{kind}.jpg", cjpeg(photograph, "-quality", "85", "-sample", factors, *arguments)
    for width, height in [(1, 1), (2, 1), (1, 3), (8, 8), (16, 17), (33, 2)]:
        yield f"{width}x{height}.jpg", cjpeg(smooth(width, height), "-quality", "90", "-sample", "2x2")
    yield "quality-100.jpg", cjpeg(photograph, "-quality", "100", "-sample", "2x1")
    yield "quality-1.jpg", cjpeg(photograph, "-quality", "1", "-sample", "2x2")
    yield "rgb.jpg", cjpeg(photograph, "-rgb")
    yield "gray.jpg", cjpeg(photograph, "-grayscale")
    yield "gray-progressive.jpg", cjpeg(photograph, "-grayscale", "-progressive", "-restart", "1")
    for subsampling in (0, 2):
        cmyk = saved(photograph.convert("CMYK"), "JPEG", quality=90, subsampling=subsampling)
        yield f"cmyk-{subsampling}.jpg", cmyk
        yield f"ycck-{subsampling}.jpg", as_ycck(cmyk)
    plain = cjpeg(photograph, "-quality", "85", "-sample", "2x2")
    film = np.random.default_rng(1).bytes(3000)
    yield "motion-photo.jpg", plain + b"\0\0\0\x18ftypmp42" + film + b"\xff\xda" + film[:50]
    # Some telephones write their own data where the end of image should be.
    yield "no-end-of-image.jpg", plain[:-2] + bytes(600) + b"SEFT"
    exif = Image.Exif()
    exif[0x0112] = 8
    yield "exif-8.jpg", saved(photograph, "JPEG", quality=80, exif=exif)
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation="6"/>'
    yield "xmp-6.jpg", with_segment(plain, 0xE1, xmp)
    yield "thumbnail.jpg", with_segment(plain, 0xE7, cjpeg(smooth(9, 9)))


def other_files():
    photograph = smooth(23, 17)
    transparent = photograph.convert("RGBA")
    transparent.putalpha(smooth(23, 17).convert("L"))
    palette = photograph.quantize(12)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        picture = {"P": palette, "RGBA": transparent}.get(mode) or photograph.convert(mode)
        yield f"{mode}.bmp", saved(picture, "BMP")
    yield "palette.gif", saved(palette, "GIF", interlace=0)
    yield "interlaced.gif", saved(palette, "GIF", interlace=1)
    yield "transparent.gif", saved(palette, "GIF", transparency=3)
    frames = [palette, smooth(23, 17).rotate(180).quantize(7)]
    yield "animated.gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield f"{compression or 'plain'}.tif", saved(photograph, "TIFF", compression=compression)
    yield "gray.tif", saved(photograph.convert("L"), "TIFF", compression="tiff_lzw")
    yield "bit.tif", saved(photograph.convert("1"), "TIFF")
    yield "cmyk.tif", saved(photograph.convert("CMYK"), "TIFF")
    yield "rgba.tif", saved(transparent, "TIFF")
    yield "orientation.tif", saved(photograph, "TIFF", tiffinfo={274: 6})


def as_rgb(path):
    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.mode in ("RGBA", "LA") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGB", picture.size, (255, 255, 255))
        white.paste(picture, mask=picture.getchannel("A"))
        return white
    return picture.convert("RGB")


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    expected = {}
    for name, content in [*jpeg_files(), *other_files()]:
        (FOLDER / name).write_bytes(content)
        rgb = as_rgb(FOLDER / name)
        expected[name] = [*rgb.size, hashlib.sha256(rgb.tobytes()).hexdigest()[:16]]
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in expected.items())
    (FOLDER / "expected.json").write_text(f"{{\n{lines}\n}}\n")
