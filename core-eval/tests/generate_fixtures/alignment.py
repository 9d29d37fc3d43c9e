"""A picture aligned to the face template by OpenCV, as insightface's `norm_crop` does it.

Writes ../fixtures/alignment/: one PNG per set of landmarks. Run with OpenCV 4 and numpy installed:

    python core-eval/tests/generate_fixtures/alignment.py

The similarity is found here by numpy's singular value decomposition (Umeyama 1991); the test makes the same
picture and has the same landmarks.
"""

import pathlib

import cv2
import numpy

FOLDER = pathlib.Path(__file__).parent.parent / "fixtures" / "alignment"
TEMPLATE = numpy.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
LANDMARKS = {
    "upright": [[50, 60], [85, 58], [69, 80], [54, 101], [83, 99]],
    "turned": [[60, 30], [71, 58], [50, 52], [33, 44], [42, 71]],
    "at-the-rim": [[5.5, 12.25], [30.75, 10], [18, 25.5], [8, 40.125], [29, 39]],
}


def picture():
    """90 x 120 pixels with edges and slopes; the test makes the same."""
    y, x, c = numpy.meshgrid(numpy.arange(120), numpy.arange(90), numpy.arange(3), indexing="ij")
    return ((x * 3 + y * 2 + c * 40 + (x * y) % 31 * 4) % 256).astype(numpy.uint8)


def similarity(source, target):
    source_mean, target_mean = source.mean(0), target.mean(0)
    source, target = source - source_mean, target - target_mean
    u, s, v = numpy.linalg.svd(target.T @ source / len(source))
    signs = numpy.ones(2)
    if numpy.linalg.det(u) * numpy.linalg.det(v) < 0:
        signs[1] = -1
    turn = u @ numpy.diag(signs) @ v
    scale = (s * signs).sum() / source.var(0).sum()
    return numpy.hstack([scale * turn, (target_mean - scale * turn @ source_mean)[:, None]])


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, points in LANDMARKS.items():
        matrix = similarity(numpy.array(points, dtype=float), TEMPLATE)
        aligned = cv2.warpAffine(picture(), matrix, (112, 112), borderValue=0.0)
        cv2.imwrite(str(FOLDER / f"{name}.png"), aligned[..., ::-1])


if __name__ == "__main__":
    main()
