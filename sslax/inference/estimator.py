"""Trained networks of depth, ego-motion and flow: estimators of maps for images of any size."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sslax import ops
from sslax.data import fitting, records
from sslax.data.files import images as data_images
from sslax.errors import UserError
from sslax.inference.encoder import Trained
from sslax.inference.predictor import Predictor, check_images, padded
from sslax.inference.run import Run
from sslax.measures import depth, flow
from sslax.types import Array, Batch, DepthMaps, FlowMaps, TrainState

Maps = DepthMaps | FlowMaps


class Estimator(Trained):
    """A trained network of maps; `DepthEstimator` and `FlowEstimator` say of what.

    Attributes:
        predicts: names of what the method predicts: 'depth', 'disparity', 'pose', 'intrinsics';
            'flow', ...
        size: height and width that the network works at.
    """

    def __init__(self, run: Run, state: TrainState) -> None:
        super().__init__(run, state)
        prediction = run.plan.prediction()
        self.predicts = tuple(n for n, v in prediction._asdict().items() if v is not None)
        *views, height, width, _ = run.plan.batch["image"].shape[1:]
        self.size = (height, width)
        self._views = {1, *views}  # numbers of images that an example may have

    def _over(
        self,
        examples: Iterable[dict[str, Any]],
        batch_size: int,
        predict: Callable[[Batch], Maps],
    ) -> Iterator[tuple[dict[str, Any], Maps]]:
        examples = iter(examples)
        while group := list(itertools.islice(examples, batch_size)):
            batch = padded(records.stack([self._fitted(example) for example in group]), batch_size)
            prediction = predict(batch)
            for row, example in enumerate(group):
                maps = jax.tree.map(lambda leaf, row=row: leaf[row], prediction)
                size = example["image"].shape[1:3]
                yield example, jax.device_get(_resized(type(self).resize, maps, size))

    @staticmethod
    def resize(maps: Maps, size: tuple[int, int]) -> Maps:
        """Maps without a batch axis as those of an image of another size."""
        raise NotImplementedError

    def _expected(self) -> str:
        """A sentence: the images that this estimator takes."""
        raise NotImplementedError

    def _fitted(self, example: dict[str, Any]) -> dict[str, np.ndarray]:
        """The example at the network's size."""
        images = example["image"]
        views, height, width, channels = images.shape
        if channels not in (1, 3) or views not in self._views or not height * width:
            raise UserError(f"{self._expected()} Got images of shape {list(images.shape)}.")
        fit = fitting.Fit((0.0, 0.0, float(width), float(height)), self.size)
        if channels != self.channels:
            images = [data_images.convert(image, channels=self.channels) for image in images]
        fitted = {"image": np.stack([fitting.fit_image(image, fit) for image in images])}
        if "intrinsics" in example:
            stored = np.asarray(example["intrinsics"], np.float32)
            remedy = "crop them around that point"
            fitting.check_intrinsics(stored, (height, width), "the camera", remedy=remedy)
            scale = np.float32([self.size[1] / width, self.size[0] / height])
            fitted["intrinsics"] = np.asarray(_resize_intrinsics(stored, scale))
        if "baseline" in example:
            fitted["baseline"] = np.asarray(example["baseline"], np.float32)
        return fitted

    def _examples(
        self, images: Any, ranks: tuple[int, ...], **cameras: tuple[Any, tuple[int, ...]]
    ) -> tuple[list[dict[str, Any]], bool]:
        """Examples as `over` takes them, and whether there is a single one without a leading axis.

        Args:
            images: as `__call__` takes them.
            ranks: of arrays that are allowed; the lowest is that of a single example.
            **cameras: values for all examples, or one each, with their shape, by name.
        """
        images = np.asarray(images)
        if images.ndim not in ranks:
            raise UserError(f"{self._expected()} Got an array of shape {list(images.shape)}.")
        single = images.ndim == min(ranks)
        images = check_images(images[None] if single else images)
        if images.dtype != np.uint8:
            images = np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)
        images = images if images.ndim == 5 else images[:, None]
        given: dict[str, np.ndarray] = {}
        for name, (value, shape) in cameras.items():
            given |= _per_example(name, value, (len(images), *shape))
        examples = [
            {"image": image} | {name: values[i] for name, values in given.items()}
            for i, image in enumerate(images)
        ]
        return examples, single


class DepthEstimator(Estimator):
    """A trained network of depth, and perhaps ego-motion.

    Attributes:
        frames: S, the consecutive frames that poses are predicted from; 1 where the method knows
            single images only.
        metric: whether depth is in meters, learned from the baseline of stereo cameras or from the
            distance between frames; otherwise its scale is unknown.
    """

    def __init__(self, run: Run, state: TrainState) -> None:
        super().__init__(run, state)
        self.frames = run.plan.method.task.frames
        self.metric = run.plan.method.task.metric
        self._views |= {self.frames}

    def __call__(
        self,
        images: Any,
        intrinsics: Any = None,
        baseline: Any = None,
        *,
        post_process: bool = False,
        batch_size: int = 8,
    ) -> DepthMaps:
        """Depth, disparity and poses of images of any size.

        Images are resized to the size the run was trained at, whatever their aspect, and maps back
        to the images' size: inverse depth is interpolated, disparity also scaled.

        Args:
            images: uint8, or float in [0, 1], which is rounded to 8 bits: one image `[H, W, C]` or
                several `[N, H, W, C]`; `[N, S, H, W, C]`, consecutive frames, for poses too. Gray
                becomes RGB, and RGB gray, where the run was trained so.
            intrinsics: `[3, 3]` or `[N, 3, 3]`, in pixels of these images.
            baseline: of the stereo cameras, a number or `[N]`; with the intrinsics it turns
                disparity into depth.
            post_process: average depth with that of the mirror image, `depth.flip_average`.
            batch_size: examples at a time.

        Returns:
            float32 arrays, without the leading axis for a single image: depth and disparity
            `[N, H, W]` of the image, or of the frame S // 2; pose `[N, S, 4, 4]` from that frame's
            camera to each frame's; intrinsics `[N, 3, 3]` in pixels of these images, where the run
            learned the camera. None for what the run does not predict from these images.

        Raises:
            UserError: wrong rank, number of frames or of channels, type, or intrinsics.
        """
        examples, single = self._examples(
            images, (3, 4, 5), intrinsics=(intrinsics, (3, 3)), baseline=(baseline, ())
        )
        size = min(batch_size, len(examples))
        return _stacked(self.over(examples, batch_size=size, post_process=post_process), single)

    def over(
        self, examples: Iterable[dict[str, Any]], *, batch_size: int, post_process: bool = False
    ) -> Iterator[tuple[dict[str, Any], DepthMaps]]:
        """Each example with its maps; examples are read and predicted a batch at a time.

        Args:
            examples: each with 'image' uint8 `[V, H, W, C]`, all with as many images, whose size
                may differ from example to example; with 'intrinsics' `[3, 3]`, in pixels, and
                'baseline', where they are known; and whatever the caller wants to have back.
            batch_size: examples at a time; the last batch is padded, for one compilation.
            post_process: as in `__call__`.

        Yields:
            The example, and its maps at its own size, without a batch axis.

        Raises:
            UserError: as `__call__`.
        """

        def predict(batch: Batch) -> DepthMaps:
            return predict_depth(self.predictor, batch, post_process=post_process)[0]

        return self._over(examples, batch_size, predict)

    @staticmethod
    def resize(maps: DepthMaps, size: tuple[int, int]) -> DepthMaps:
        """Depth, disparity, pose and camera as those of an image of another size."""
        camera = maps.intrinsics
        if camera is not None:  # which goes with a depth map
            height, width = maps.depth.shape
            camera = ops.resize_intrinsics(camera, (size[1] / width, size[0] / height))
        return DepthMaps(
            depth=_at_size(depth.resize_depth, maps.depth, size),
            disparity=_at_size(depth.resize_disparity, maps.disparity, size),
            pose=maps.pose,
            intrinsics=camera,
            alpha=maps.alpha,
        )

    def _expected(self) -> str:
        poses = f", poses of {self.frames} frames [N, {self.frames}, H, W, C]"
        return (
            "Depth is predicted from images [N, H, W, C] or [H, W, C]"
            f"{poses if 'pose' in self.predicts else ''}, C 1 or 3."
        )


class FlowEstimator(Estimator):
    """A trained network of optical flow.

    Attributes:
        frames: 2, the images that an example has.
    """

    frames = 2

    def __init__(self, run: Run, state: TrainState) -> None:
        super().__init__(run, state)
        self._views = {self.frames}

    def __call__(self, images: Any, *, batch_size: int = 8) -> FlowMaps:
        """Flow between pairs of images of any size.

        Images are resized to the size the run was trained at, whatever their aspect, and flow back
        to the images' size, scaled by the ratio of the sizes.

        Args:
            images: uint8, or float in [0, 1], which is rounded to 8 bits: a pair `[2, H, W, C]` or
                several `[N, 2, H, W, C]`. Gray becomes RGB, and RGB gray, where the run was trained
                so.
            batch_size: pairs at a time.

        Returns:
            float32 arrays, without the leading axis for a single pair: flow and backward
            `[N, H, W, 2]`, visible `[N, H, W]`.

        Raises:
            UserError: wrong rank, number of images or of channels, or type.
        """
        examples, single = self._examples(images, (4, 5))
        return _stacked(self.over(examples, batch_size=min(batch_size, len(examples))), single)

    def over(
        self, examples: Iterable[dict[str, Any]], *, batch_size: int
    ) -> Iterator[tuple[dict[str, Any], FlowMaps]]:
        """Each example with its flow, as `DepthEstimator.over`; 'image' is uint8 `[2, H, W, C]`."""
        return self._over(examples, batch_size, lambda batch: self.predictor(batch)[0])

    @staticmethod
    def resize(maps: FlowMaps, size: tuple[int, int]) -> FlowMaps:
        """Flow and visibility as those of a pair of another size."""

        return FlowMaps(
            flow=_at_size(flow.resize_flow, maps.flow, size),
            backward=_at_size(flow.resize_flow, maps.backward, size),
            visible=_at_size(_resize_mask, maps.visible, size),
        )

    def _expected(self) -> str:
        return "Flow is predicted from pairs of images, [N, 2, H, W, C] or [2, H, W, C], C 1 or 3."


def predict_depth(
    predictor: Predictor, batch: Batch, *, post_process: bool
) -> tuple[DepthMaps, dict[str, np.ndarray]]:
    """The prediction for a batch and its kept entries.

    With `post_process`, depth and disparity are averaged with those of the mirror images, by
    `measures.depth.flip_average`; of depth the inverse is averaged.
    """
    maps, kept = predictor(batch)
    if not post_process:
        return maps, kept
    flipped, _ = predictor(mirrored(batch))
    if maps.disparity is not None:
        average = depth.flip_average(maps.disparity, flipped.disparity)
        maps = maps._replace(disparity=np.asarray(average))
    if maps.depth is not None:
        average = np.asarray(depth.flip_average(1 / maps.depth, 1 / flipped.depth))
        maps = maps._replace(depth=1 / average)
    return maps, kept


def mirrored(batch: Batch) -> Batch:
    """The batch with mirrored images, otherwise unchanged."""
    changed = {"image": batch["image"][..., ::-1, :]}
    if "intrinsics" in batch:
        width = batch["image"].shape[-2]
        changed["intrinsics"] = ops.flip_intrinsics(batch["intrinsics"], width)
    return {**batch, **changed}


_resize_intrinsics = jax.jit(ops.resize_intrinsics)


def _at_size(resize: Callable, values: Array | None, size: tuple[int, int]) -> Array | None:
    """A map `[H, W, ...]` at another size; None where there is none."""
    return values if values is None or values.shape[:2] == size else resize(values, size)


def _resize_mask(mask: Array, size: tuple[int, int]) -> Array:
    return ops.resize(mask[..., None], size)[..., 0]


def _stacked(predicted: Iterator[tuple[dict[str, Any], Maps]], single: bool) -> Maps:
    """Maps of all examples `[N, ...]`, or those of a single one."""
    maps = [m for _, m in predicted]
    return maps[0] if single else jax.tree.map(lambda *leaves: np.stack(leaves), *maps)


@partial(jax.jit, static_argnums=(0, 2))
def _resized(resize: Any, maps: Maps, size: tuple[int, int]) -> Maps:
    resized = resize(maps, size)
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), resized)


def _per_example(name: str, value: Any, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """A value for each example, `[N, ...]`, by its name; {} for None."""
    if value is None:
        return {}
    value = np.asarray(value, np.float32)
    if value.shape not in (shape, shape[1:]):
        raise UserError(
            f"The {name} of {shape[0]} image(s) has the shape {list(shape)}, or {list(shape[1:])} "
            f"for all of them; got {list(value.shape)}."
        )
    return {name: np.broadcast_to(value, shape)}
