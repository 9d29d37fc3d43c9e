"""A picture aligned to the face template by OpenCV, as insightface's `norm_crop` and Face2Diffusion do it.

Writes ../fixtures/alignment/: one PNG per set of landmarks; in photo/ the picture and a landmarks.csv of 68 points, and
beside it face2diffusion.png, what Face2Diffusion's encoder reads of it. Run with OpenCV 4 and numpy installed (OpenCV 5
interpolates in other steps):

    python core-model/tests/generate_fixtures/alignment.py

Face2Diffusion asks `warpPerspective` for INTER_AREA, which both warps of OpenCV turn into INTER_LINEAR.

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


def points_68():
    """68 points of which Face2Diffusion's five are not far from those of "upright"."""
    turn = numpy.arange(68) * 2.4
    points = numpy.stack([60 + 25 * numpy.cos(turn), 70 + 30 * numpy.sin(turn)], 1)
    around = numpy.array([[-6, 0], [-2.5, -3], [2, -3.5], [6.5, 0.5], [2, 2.5], [-2, 3]])
    points[36:42] = [50, 60] + around
    points[42:48] = [85, 58] + around[::-1] * 1.25
    points[[30, 48, 54]] = [[69.5, 80], [54, 101.25], [83, 99]]
    return points.round(3)


def five_of(points):
    return numpy.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])


def write_face2diffusion():
    folder = FOLDER / "photo"
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / "0.png"), picture()[..., ::-1])
    points = points_68()
    columns = ",".join(f"x{n},y{n}" for n in range(1, 69))
    values = ",".join(f"{value:g}" for value in points.ravel())
    (folder / "landmarks.csv").write_text(f"image,{columns}\n0.png,{values}\n")
    matrix = numpy.vstack([similarity(five_of(points), TEMPLATE), [0, 0, 1]])
    aligned = cv2.warpPerspective(picture(), matrix, (112, 112), flags=cv2.INTER_AREA)
    cv2.imwrite(str(FOLDER / "face2diffusion.png"), aligned[..., ::-1])


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, points in LANDMARKS.items():
        matrix = similarity(numpy.array(points, dtype=float), TEMPLATE)
        aligned = cv2.warpAffine(picture(), matrix, (112, 112), borderValue=0.0)
        cv2.imwrite(str(FOLDER / f"{name}.png"), aligned[..., ::-1])
    write_face2diffusion()


if __name__ == "__main__":
    main()
