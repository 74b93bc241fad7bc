"""Classical baselines for the test bed (docs/testbed.md), by OpenCV; sslax is not needed.

    pip install opencv-python-headless numpy
    python experiments/classical.py --bed=BED --output=FOLDER [--only sgm dis ...]

Reads a test bed's images and writes a folder of predictions for each method, as any other program
would: `sgm`, semi-global matching; `farneback` and `dis`, flow; `klt`, the camera's motion from
tracked corners and an essential matrix. Settings are OpenCV's or its examples', not tuned to the
scenes. Each folder is then scored by

    python -m sslax.testbed --predictions=FOLDER/METHOD --truth=BED

Results are in docs/testbed.md.
"""

import argparse
import itertools
import time
from pathlib import Path

import cv2
import numpy as np

DISPARITIES = 64  # the largest that SGM looks for; a multiple of 16
FARNEBACK = {
    "pyr_scale": 0.5,
    "levels": 5,
    "winsize": 15,
    "iterations": 3,
    "poly_n": 5,
    "poly_sigma": 1.2,
    "flags": 0,
}


def gray(path: Path) -> np.ndarray:
    """An image as 8-bit gray `[H, W]`."""
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)


def disparity(left: np.ndarray, right: np.ndarray, *, largest: int) -> np.ndarray:
    """Semi-global matching of BGR images: `[H, W]` in pixels, negative where nothing matches.

    Args:
        left: `[H, W, 3]`, uint8.
        right: the same.
        largest: that is looked for; a multiple of 16.
    """
    matcher = cv2.StereoSGBM_create(
        minDisparity=0,
        numDisparities=largest,
        blockSize=5,
        P1=8 * 3 * 25,
        P2=32 * 3 * 25,
        disp12MaxDiff=1,
        uniquenessRatio=10,
        speckleWindowSize=100,
        speckleRange=2,
        mode=cv2.STEREO_SGBM_MODE_HH,
    )
    # The first columns are only matched if there are pixels to their left.
    padded = [cv2.copyMakeBorder(x, 0, 0, largest, 0, cv2.BORDER_REPLICATE) for x in (left, right)]
    return matcher.compute(*padded)[:, largest:] / 16.0


def filled(found: np.ndarray) -> np.ndarray:
    """Gaps of a disparity filled from the nearest pixel on the left (else the right), which usually
    lies on the farther surface."""
    found = found.copy()
    for row in found:
        places = np.flatnonzero(row >= 0)
        if len(places):
            before = np.searchsorted(places, np.arange(len(row)), side="right") - 1
            row[:] = row[places[np.maximum(before, 0)]]
    return found


def sgm(sample: Path, output: Path) -> None:
    """Writes the disparity of `left.png`; gaps are filled from the left, where farther things are.

    Args:
        sample: folder of the images.
        output: folder of the prediction.
    """
    pair = [cv2.imread(str(sample / f"{name}.png")) for name in ("left", "right")]
    found = filled(disparity(*pair, largest=DISPARITIES))
    stored = np.clip(np.rint(256 * found), 1, 65535)
    cv2.imwrite(str(output / "left.png"), stored.astype(np.uint16))


def farneback(sample: Path, output: Path) -> None:
    """Writes Farnebäck's flow from `first.png` to `second.png`."""
    pair = [gray(sample / f"{name}.png") for name in ("first", "second")]
    np.save(output / "first.npy", cv2.calcOpticalFlowFarneback(*pair, None, **FARNEBACK))


def dis(sample: Path, output: Path) -> None:
    """Writes the flow of dense inverse search, and where it agrees with the flow back."""
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    first, second = (gray(sample / f"{name}.png") for name in ("first", "second"))
    forward, backward = search.calc(first, second, None), search.calc(second, first, None)
    cv2.writeOpticalFlow(str(output / "first.flo"), forward)
    height, width = first.shape
    ends = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1) + forward
    back = cv2.remap(backward, ends.astype(np.float32), None, cv2.INTER_LINEAR)
    inside = ((ends >= 0) & (ends <= (width - 1, height - 1))).all(-1)
    # UnFlow's forward-backward check.
    gap = ((forward + back) ** 2).sum(-1)
    agrees = gap < 0.01 * ((forward**2).sum(-1) + (back**2).sum(-1)) + 0.5
    cv2.imwrite(str(output / "first_visible.png"), 255 * (inside & agrees).astype(np.uint8))


def klt(sample: Path, output: Path) -> None:
    """Writes the camera's trajectory, from corners that are tracked through all frames.

    The essential matrix of the first and the last frame gives the last camera and the corners in
    space, up to scale; the cameras in between follow from these. Where that fails, the camera
    stays where it was.
    """
    frames = [gray(path) for path in sorted(sample.glob("?.png"))]
    intrinsics = np.loadtxt(sample / "intrinsics.txt")
    to_cameras = cameras(tracks(frames), intrinsics)
    np.savetxt(output / "trajectory.txt", np.linalg.inv(to_cameras)[:, :3].reshape(-1, 12))


def tracks(frames: list[np.ndarray]) -> np.ndarray:
    """Corners `[S, N, 2]` of the first frame that are found in all others, and back again."""
    corners = cv2.goodFeaturesToTrack(frames[0], maxCorners=500, qualityLevel=0.01, minDistance=5)
    if corners is None:
        return np.zeros((len(frames), 0, 2), np.float32)
    found = [corners]
    kept = np.ones(len(corners), bool)
    for first, second in itertools.pairwise(frames):
        ahead, status, _ = cv2.calcOpticalFlowPyrLK(first, second, found[-1], None)
        back, back_status, _ = cv2.calcOpticalFlowPyrLK(second, first, ahead, None)
        returns = np.linalg.norm(back - found[-1], axis=-1).ravel() < 0.5
        kept &= returns & (status.ravel() == 1) & (back_status.ravel() == 1)
        found.append(ahead)
    return np.stack(found)[:, kept, 0]


def cameras(found: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """World-to-camera poses `[S, 4, 4]` from tracks `[S, N, 2]`; the first camera is the world."""
    poses = np.tile(np.eye(4), (len(found), 1, 1))
    if found.shape[1] < 8:
        return poses
    first, last = found[0], found[-1]
    essential, inliers = cv2.findEssentialMat(
        first, last, intrinsics, method=cv2.RANSAC, prob=0.999, threshold=0.5
    )
    if essential is None or essential.shape != (3, 3):
        return poses
    _, rotation, translation, inliers = cv2.recoverPose(
        essential, first, last, intrinsics, mask=inliers
    )
    poses[-1, :3] = np.concatenate([rotation, translation], 1)
    chosen = inliers.ravel() > 0
    if chosen.sum() < 6:
        return poses
    rays = [cv2.undistortPoints(x[chosen], intrinsics, None)[:, 0].T for x in (first, last)]
    points = cv2.triangulatePoints(poses[0, :3], poses[-1, :3], *rays)
    points = (points[:3] / points[3]).T.copy()
    for pose, pixels in zip(poses[1:-1], found[1:-1]):
        done, turn, shift = cv2.solvePnP(points, pixels[chosen].astype(float), intrinsics, None)
        if done:
            pose[:3] = np.concatenate([cv2.Rodrigues(turn)[0], shift], 1)
    return poses


METHODS = {
    "sgm": ("stereo", sgm),
    "farneback": ("flow", farneback),
    "dis": ("flow", dis),
    "klt": ("video", klt),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bed", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=[*METHODS], default=[*METHODS])
    options = parser.parse_args()
    conditions = [p for p in sorted(options.bed.iterdir()) if p.is_dir() and p.name != "truth"]
    cv2.setRNGSeed(0)
    for method in options.only:
        task, predict = METHODS[method]
        start = time.perf_counter()
        for condition in conditions:
            for sample in sorted((condition / task).iterdir()):
                output = options.output / method / condition.name / task / sample.name
                output.mkdir(parents=True, exist_ok=True)
                predict(sample, output)
        seconds = time.perf_counter() - start
        print(f"{method}: {len(conditions)} condition(s), {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
