"""Predicted depth and flow as files, pictures and videos."""

import contextlib
import itertools
import json
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import numpy as np

from sslax import figures, ops
from sslax.data.files import films
from sslax.data.files.cameras import write_intrinsics, write_kitti_poses, write_tum_poses
from sslax.data.files.flow_files import read_flow, write_flow
from sslax.data.files.maps import write_scaled_png
from sslax.data.files.png import write_png
from sslax.data.files.point_clouds import write_ply
from sslax.data.files.text import write_text
from sslax.errors import UserError
from sslax.inference.inputs import Frame
from sslax.measures import pose
from sslax.ops import Camera, UnifiedCamera
from sslax.types import DepthMaps, FlowMaps

PNG_SCALE = 256.0  # of 16-bit PNGs of depth and disparity, KITTI's
_PNG_LARGEST = 65535 / PNG_SCALE
_FLOW_SMALLEST, _FLOW_LARGEST = -512.0, 511.98
_WIDEST = 1280  # pixels of an animation
_SAMPLE = 4096  # pixels of each map that the range of a video's colors is taken from

_backproject = jax.jit(ops.backproject)


class DepthFiles:
    """Writes depth maps, or disparity where depth is unknown.

    For each image NAME.npy, NAME.png (16 bits) and, with intrinsics, given or learned, NAME.ply.

    Args:
        folder: of the files.
        intrinsics: `[3, 3]`, in pixels of the images; None for those of the maps.
        reach: points of a cloud that are farther than this many median depths are left out.

    Attributes:
        kind: 'depth' or 'disparity', of the last image.
        written: names of the images, in order.
        unfit: number of pixels that exceed the range of a 16-bit PNG.
        cameras: learned cameras, intrinsics `[3, 3]` or a `UnifiedCamera`, and the size (width,
            height), of the images that have them.
    """

    item, exact, png = "image", ".npy", "value x 256, 0 where unknown, at most 255.99"

    def __init__(
        self, folder: Path, *, intrinsics: np.ndarray | None = None, reach: float = 5.0
    ) -> None:
        self.folder = folder
        self.intrinsics = intrinsics
        self.reach = reach
        self.kind = "depth"
        self.written: list[str] = []
        self.unfit = 0
        self.cameras: list[tuple[Camera, tuple[int, int]]] = []
        self._inverse: list[np.ndarray] = []  # some of each map

    def write(self, frame: Frame, maps: DepthMaps) -> None:
        """Writes the files of one image."""
        self.kind = "disparity" if maps.depth is None else "depth"
        values = maps.disparity if maps.depth is None else maps.depth
        np.save(self.folder / f"{frame.name}.npy", values)
        known = np.isfinite(values) & (values > 0)
        fits = known & (values <= _PNG_LARGEST)
        self.unfit += int((known & ~fits).sum())
        path = self.folder / f"{frame.name}.png"
        write_scaled_png(path, values, fits, scale=PNG_SCALE)
        learned = maps.intrinsics
        if learned is not None:
            if maps.alpha is not None:
                learned = UnifiedCamera(learned, maps.alpha)
            self.cameras.append((learned, values.shape[::-1]))
        camera = learned if self.intrinsics is None else self.intrinsics
        if self.kind == "depth" and camera is not None:
            path = self.folder / f"{frame.name}.ply"
            write_ply(path, *point_cloud(values, frame.image, camera, self.reach))
        self._inverse.append(_some(self._shade(values)))
        self.written.append(frame.name)

    def colors(self, name: str, **knobs: float) -> np.ndarray:
        """The map of an image in colors, uint8 `[H, W, 3]`; near is bright.

        Args:
            name: of the image.
            **knobs: of `common_colors`; by default each map has its own range.
        """
        return figures.disparity_colors(self._shade(np.load(self.folder / f"{name}.npy")), **knobs)

    def common_colors(self) -> dict[str, float]:
        """One range for all maps, so that a video does not flicker."""
        values = np.concatenate(self._inverse)
        values = values[np.isfinite(values)]
        if not len(values):
            return {}
        return {"lowest": float(values.min()), "highest": float(np.percentile(values, 95))}

    def unit(self, *, metric: bool) -> str:
        """Unit of the values: 'meters', 'pixels', or 'unknown'."""
        if self.kind == "disparity":
            return "pixels"
        return "meters" if metric else "unknown"

    def _shade(self, values: np.ndarray) -> np.ndarray:
        return inverse(values) if self.kind == "depth" else values


class FlowFiles:
    """Writes the flow of pairs of images: NAME.flo, NAME.png (KITTI's) and NAME_visible.png each.

    Args:
        folder: of the files.

    Attributes:
        written: names of the pairs, in order.
        unfit: number of pixels that exceed the range of KITTI's PNG.
    """

    kind, item, exact, png = "flow", "pair", ".flo", "KITTI's, -512 to 511.98 pixels"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[str] = []
        self.unfit = 0
        self._speed: list[np.ndarray] = []  # some of each field

    def write(self, frame: Frame, maps: FlowMaps) -> None:
        """Writes the files of one pair, named after its first image."""
        field = maps.flow
        write_flow(self.folder / f"{frame.name}.flo", field)
        known = np.isfinite(field).all(-1)
        fits = known & ((field >= _FLOW_SMALLEST) & (field <= _FLOW_LARGEST)).all(-1)
        self.unfit += int((known & ~fits).sum())
        write_flow(self.folder / f"{frame.name}.png", field, fits)
        if maps.visible is not None:
            mask = np.rint(255 * np.clip(maps.visible, 0, 1)).astype(np.uint8)
            write_png(self.folder / f"{frame.name}_visible.png", mask)
        self._speed.append(_some(np.linalg.norm(field[known], axis=-1)))
        self.written.append(frame.name)

    def colors(self, name: str, **knobs: float) -> np.ndarray:
        """The flow of a pair in Middlebury's colors, uint8 `[H, W, 3]`.

        Args:
            name: of the pair.
            **knobs: of `common_colors`; by default colors saturate at the fastest pixel.
        """
        field, known = read_flow(self.folder / f"{name}.flo")
        return figures.flow_colors(field, mask=known, **knobs)

    def common_colors(self) -> dict[str, float]:
        """One radius for all fields: the 99th percentile of their speeds."""
        speeds = np.concatenate(self._speed)
        return {"max_radius": max(float(np.percentile(speeds, 99)), 1e-3)} if len(speeds) else {}

    def unit(self, *, metric: bool) -> str:
        """Unit of the values: 'pixels'."""
        return "pixels"


def inverse(values: np.ndarray) -> np.ndarray:
    """`1 / values`, NaN where they are not positive.

    Example:
        >>> inverse(np.array([2.0, 0.0, np.inf])).tolist()
        [0.5, nan, 0.0]
    """
    positive = values > 0
    return np.where(positive, 1 / np.where(positive, values, 1), np.nan)


def point_cloud(
    depth: np.ndarray, image: np.ndarray, intrinsics: Camera, reach: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Points of a depth map with the colors of its image.

    Args:
        depth: `[H, W]`.
        image: uint8 `[H, W, 1 or 3]`.
        intrinsics: `[3, 3]`, in pixels of the image; or a `UnifiedCamera`.
        reach: points farther than this many median depths, such as the sky, are left out.

    Returns:
        Points `[N, 3]` in the unit of the depth, colors uint8 `[N, 3]`.

    Example:
        >>> camera = np.array([[2.0, 0, 0.5], [0, 2, 0], [0, 0, 1]])
        >>> points, _ = point_cloud(np.array([[4.0, 8.0]]), np.zeros((1, 2, 3), np.uint8), camera)
        >>> points.tolist()
        [[-1.0, 0.0, 4.0], [2.0, 0.0, 8.0]]
    """
    known = np.isfinite(depth) & (depth > 0)
    kept = known & (depth <= reach * np.median(depth[known])) if known.any() else known
    points = np.asarray(_backproject(np.float32(depth), jax.tree.map(np.float32, intrinsics)))
    colors = np.broadcast_to(image, (*depth.shape, 3))
    return points[kept], colors[kept]


def write_camera(folder: Path, cameras: list[tuple[Camera, tuple[int, int]]]) -> str:
    """Writes `intrinsics.txt`, the median of learned cameras, and describes it.

    Args:
        folder: of the file.
        cameras: intrinsics `[3, 3]` in pixels, or a `UnifiedCamera` with them, and the size (width,
            height) of each image.

    Returns:
        A sentence for the user; where images differ in size, that there is no file.
    """
    (width, height), *others = {size for _, size in cameras}
    if others:
        return "There is no intrinsics.txt: the images, and so their cameras, differ in size."
    camera = jax.tree.map(lambda *of: np.median(of, axis=0), *(camera for camera, _ in cameras))
    lens = ""
    if isinstance(camera, UnifiedCamera):
        camera, alpha = camera
        lens = f" Its wide lens has alpha = {alpha:.3f} (sslax.ops.UnifiedCamera)."
    write_intrinsics(folder / "intrinsics.txt", camera)
    (fx, _, cx), (_, fy, cy), _ = camera.tolist()
    return (
        f"The learned camera, in intrinsics.txt: focal lengths {fx:.1f} and {fy:.1f} pixels, "
        f"{fx / width:.3f} widths, and center ({cx:.1f}, {cy:.1f}) of {width} x {height} pixels."
        f"{lens}"
    )


def write_trajectory(folder: Path, poses: np.ndarray, *, rate: float) -> None:
    """Writes `trajectory.txt` (KITTI), `trajectory_tum.txt` and `trajectory.png`.

    Args:
        folder: of the files.
        poses: `[N - S + 1, S, 4, 4]`, as `pose.consecutive_motions` takes them.
        rate: frames a second.
    """
    trajectory = pose.compose_poses(pose.consecutive_motions(poses))
    write_kitti_poses(folder / "trajectory.txt", trajectory)
    write_tum_poses(folder / "trajectory_tum.txt", np.arange(len(trajectory)) / rate, trajectory)
    figures.trajectories({"predicted": trajectory}, folder / "trajectory.png")


def write_animation(folder: Path, pictures: Iterable[np.ndarray], *, rate: float) -> Path:
    """Writes `video.mp4` where ffmpeg is installed, else `video.webp`, looping forever.

    Args:
        folder: of the file.
        pictures: uint8 `[H, W, 3]`, at least one, all of one size; those wider than 1280 pixels are
            shrunk.
        rate: pictures a second.

    Returns:
        The file.
    """
    from PIL import Image

    def frames() -> Iterator[Image.Image]:
        for pixels in pictures:
            picture = Image.fromarray(pixels)
            picture.thumbnail((_WIDEST, _WIDEST), Image.Resampling.BILINEAR)
            yield picture

    if program := films.ffmpeg():
        return _write_film(folder / "video.mp4", program, frames(), rate)
    path, rest = folder / "video.webp", frames()
    knobs = {"duration": round(1000 / rate), "loop": 0, "quality": 85}
    next(rest).save(path, save_all=True, append_images=rest, **knobs)
    return path


def _write_film(path: Path, program: str, frames: Iterator, rate: float) -> Path:
    frames = (np.asarray(frame) for frame in frames)
    frames = (pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2] for pixels in frames)
    first = next(frames)  # of even sides, as codecs want them
    size = f"{first.shape[1]}x{first.shape[0]}"
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", f"{rate:g}", "-i", "-"]
    command = [program, "-y", "-loglevel", "error", *given, "-pix_fmt", "yuv420p", str(path)]
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=complaints)
        with contextlib.suppress(BrokenPipeError):  # ffmpeg has ended, with a message
            for pixels in itertools.chain([first], frames):
                process.stdin.write(pixels.tobytes())
            process.stdin.close()
        if process.wait():
            complaints.seek(0)
            reason = complaints.read().decode(errors="replace").strip().splitlines()
            raise UserError(f"{path} cannot be written: {reason[-1] if reason else 'ffmpeg'}")
    return path


def write_summary(folder: Path, **facts: str | float | bool | None) -> None:
    """Writes `predictions.json`, a description of the folder."""
    write_text(folder / "predictions.json", json.dumps(facts, indent=2) + "\n")


def _some(values: np.ndarray) -> np.ndarray:
    """At most `_SAMPLE` or so of the values, evenly spaced."""
    values = values.ravel()
    return values[:: max(1, len(values) // _SAMPLE)]
