"""Using what was trained: `encoder = sslax.load(workdir)`, or of depth and flow an estimator."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sslax import models, ops
from sslax.data import fitting, records
from sslax.data.files import images as data_images
from sslax.errors import UserError
from sslax.measures import depth, flow
from sslax.tasks import geometry
from sslax.training import checkpoint, sharding, train
from sslax.types import Array, Batch, TrainState

# Known of a camera at prediction, whether or not training knew of it.
_CAMERA = ("intrinsics", "baseline")


class Predictor:
    """A method's `predict`, compiled, with the variables of one training state.

    Args:
        plan: of the run.
        state: its state, on `mesh`.
        mesh: the devices.
        keep: entries of a batch, where it has them, that are returned with the predictions, all
            under the name 'truth'.
    """

    def __init__(
        self, plan: train.Plan, state: TrainState, mesh: Mesh, keep: Sequence[str] = ()
    ) -> None:
        self.mesh = mesh
        self._variables = (state.params, state.model_state, state.extra)

        def predict(variables: tuple, batch: Batch) -> tuple[dict[str, Any], Array]:
            inputs = {*plan.batch, *_CAMERA}
            given = {name: value for name, value in batch.items() if name in inputs}
            outputs = plan.method.predict(*variables, given)
            labels = {"label": batch["label"]} if "label" in batch else {}
            kept = {name: batch[name] for name in keep if name in batch}
            truth = {"truth": kept} if keep else {}
            return {**outputs, **labels, **truth}, jnp.sum(batch["mask"])

        # Replicated, so that every process of a run can read all of it.
        self._predict = jax.jit(predict, out_shardings=sharding.replicated(mesh))

    def __call__(self, batch: Batch) -> dict[str, Any]:
        """What `predict` says of a batch's real rows (those in its 'mask'), and their labels."""
        outputs, rows = jax.device_get(self._predict(self._variables, batch))
        return jax.tree.map(lambda leaf: leaf[:rows], outputs)

    def over(self, batches: Iterator[Batch]) -> dict[str, Any]:
        """The outputs of all batches, one after another."""
        outputs = [self(batch) for batch in batches]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *outputs)


def pictures(plan: train.Plan, state: TrainState, batch: Batch, rng: Array) -> dict[str, Any]:
    """What the method's `show` draws of a batch, compiled, its columns in their order."""
    titles: list[str] = []

    @jax.jit
    def show(variables: tuple, batch: Batch, rng: Array) -> list[Array]:
        columns = plan.method.show(*variables, batch, rng)
        titles.extend(columns)  # a dictionary would come back sorted by title
        return list(columns.values())

    # On this process alone, the one that draws: fetched, they belong to no global computation.
    variables = jax.device_get((state.params, state.model_state, state.extra))
    images = jax.device_get(show(variables, batch, rng))
    return dict(zip(titles, images))


class Trained:
    """What a run trained: its variables, and its encoder to take away.

    Attributes:
        config: the run's config.
        step: the step of the checkpoint.
        params: the method's parameters; `model_state` likewise.
        channels: of the images it was trained with, 1 or 3.
    """

    def __init__(self, config: ConfigDict, plan: train.Plan, state: TrainState) -> None:
        self.config = config
        self.step = int(state.step)
        self.params = state.params
        self.model_state = state.model_state
        self._encoder = plan.method.encoder(state.params, state.model_state, state.extra)
        self.channels = plan.batch["image"].shape[-1]
        self._predictor = Predictor(plan, state, sharding.make_mesh(jax.local_devices()[:1]))

    def save(self, path: str | Path) -> None:
        """Writes the encoder's weights to a safetensors file, for `models.load_safetensors`."""
        models.save_safetensors(path, *self._encoder)


class Encoder(Trained):
    """A trained encoder: `encoder(images) -> features`."""

    def __call__(self, images: Any, *, batch_size: int = 256) -> np.ndarray:
        """Features of images.

        Args:
            images: `[N, H, W, C]` or one `[H, W, C]`, uint8 or float in [0, 1]; resized to the
                size the encoder was trained at.
            batch_size: images at a time.

        Returns:
            `[N, D]` or `[D]` float32.

        Raises:
            UserError: wrong rank, number of channels, or type.
        """
        return self._over(images, batch_size)["features"]

    def stages(self, images: Any, *, batch_size: int = 256) -> dict[str, np.ndarray]:
        """Pooled activations `[N, C]` of each stage of the encoder, as `__call__` takes images."""
        return self._over(images, batch_size)["stages"]

    def _over(self, images: Any, batch_size: int) -> dict[str, Any]:
        images = np.asarray(images)
        if images.ndim not in (3, 4) or images.shape[-1] != self.channels:
            raise UserError(
                f"This encoder takes images [N, H, W, {self.channels}] or "
                f"[H, W, {self.channels}]; got an array of shape {list(images.shape)}."
            )
        images = _checked(images)
        batch = images[None] if images.ndim == 3 else images
        size = min(batch_size, len(batch))
        chunks = (batch[start : start + size] for start in range(0, len(batch), size))
        outputs = self._predictor.over(_padded({"image": chunk}, size) for chunk in chunks)
        return jax.tree.map(lambda leaf: leaf[0], outputs) if images.ndim == 3 else outputs


class Estimator(Trained):
    """A trained network of depth, ego-motion or flow: `estimator(images) -> maps of their size`.

    Attributes:
        predicts: names of what the run's method predicts: 'depth', 'disparity', 'pose', 'flow', ...
        frames: S, the consecutive frames that poses are predicted from, 2 for flow; 1 where the
            method knows single images only.
        metric: whether depth is in meters, learned from the distance of stereo cameras or of frames;
            otherwise its scale is unknown.
        size: height and width that the network works at.
    """

    def __init__(
        self, config: ConfigDict, plan: train.Plan, state: TrainState, predictions: dict[str, Any]
    ) -> None:
        super().__init__(config, plan, state)
        self.predicts = tuple(name for name in _RESIZE if name in predictions)
        self.frames = predictions["pose"].shape[1] if "pose" in predictions else 1
        self.frames = 2 if "flow" in predictions else self.frames
        knobs = config.get(
            config.method, {}
        )  # knowing the distances is one thing, learning another
        velocity = "distance" in plan.batch and knobs.get("velocity_weight", 0.0) > 0
        self.metric = "disparity" in predictions or "baseline" in plan.batch or velocity
        self._flow = "flow" in predictions
        views = plan.batch["image"].shape[1:-3]  # with the partner, where there is one
        self._views = {2} if self._flow else {1, self.frames, *views}
        self.size = tuple(plan.batch["image"].shape[-3:-1])

    def __call__(
        self,
        images: Any,
        intrinsics: Any = None,
        baseline: Any = None,
        *,
        post_process: bool = False,
        batch_size: int = 8,
    ) -> dict[str, np.ndarray]:
        """Depth, poses or flow of images of any size.

        Images are resized to the size the run was trained at, whatever their shape, and maps back
        to the images' size: of depth the inverse is interpolated, disparity and flow are multiplied
        by the ratio of the sizes.

        Args:
            images: uint8, or float in [0, 1], which is rounded to 8 bits. Of depth one image
                `[H, W, C]` or several `[N, H, W, C]`; `[N, S, H, W, C]`, consecutive frames, for
                poses too. Of flow a pair `[2, H, W, C]` or several `[N, 2, H, W, C]`. Gray becomes
                RGB, and RGB gray, where the run was trained so.
            intrinsics: `[3, 3]` or `[N, 3, 3]`, in pixels of these images.
            baseline: of the stereo cameras, a number or `[N]`; with the intrinsics it makes depth
                of disparity.
            post_process: average depth with the mirror image's, `depth.flip_average`.
            batch_size: examples at a time.

        Returns:
            float32 arrays by name, of one image or pair without the leading axis: 'depth' and
            'disparity' `[N, H, W]` of the image, or of the frame S // 2; 'pose' `[N, S, 4, 4]` from
            that frame's camera to each frame's; 'flow', 'backward' `[N, H, W, 2]`, 'visible'
            `[N, H, W]`. Those that the run predicts and the images allow.

        Raises:
            UserError: wrong rank, number of frames or of channels, type, or intrinsics.
        """
        images = np.asarray(images)
        one = images.ndim == (4 if self._flow else 3)
        if images.ndim not in ((4, 5) if self._flow else (3, 4, 5)):
            raise UserError(f"{self._wanted()} Got an array of shape {list(images.shape)}.")
        images = _checked(images[None] if one else images)
        if images.dtype != np.uint8:
            images = np.rint(255 * np.clip(images, 0, 1)).astype(np.uint8)
        images = images if images.ndim == 5 else images[:, None]
        cameras = _of_each("intrinsics", intrinsics, (len(images), 3, 3))
        cameras |= _of_each("baseline", baseline, (len(images),))
        examples = [
            {"image": image} | {name: values[i] for name, values in cameras.items()}
            for i, image in enumerate(images)
        ]
        size = min(batch_size, len(examples))
        found = [x for _, x in self.over(examples, batch_size=size, post_process=post_process)]
        if one:
            return found[0]
        return {name: np.stack([x[name] for x in found]) for name in found[0]}

    def over(
        self, examples: Iterable[dict[str, Any]], *, batch_size: int, post_process: bool = False
    ) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
        """Each example with what is predicted of it; read and predicted a batch at a time.

        Args:
            examples: each with 'image' uint8 `[V, H, W, C]`, all with as many images, whose size
                may differ from example to example; with 'intrinsics' `[3, 3]`, in pixels, and
                'baseline', where they are known; and whatever the caller wants to have back.
            batch_size: examples at a time, the last batch filled up: there is one compilation.
            post_process: as in `__call__`.

        Yields:
            The example, and maps at its size as `__call__` returns them for one.

        Raises:
            UserError: as `__call__`.
        """
        examples = iter(examples)
        while group := list(itertools.islice(examples, batch_size)):
            batch = _padded(records.stack([self._fitted(example) for example in group]), batch_size)
            found = self._predictor(batch)
            found = {name: found[name] for name in _RESIZE if name in found}
            if post_process:
                mirror = self._predictor(geometry.mirrored(batch))
                found = geometry.post_processed(found, mirror)
            for row, example in enumerate(group):
                maps = {name: value[row] for name, value in found.items()}
                yield example, jax.device_get(_restored(maps, example["image"].shape[1:3]))

    def _fitted(self, example: dict[str, Any]) -> dict[str, np.ndarray]:
        """The example at the network's size."""
        images = example["image"]
        views, height, width, channels = images.shape
        if channels not in (1, 3) or views not in self._views or not height * width:
            raise UserError(f"{self._wanted()} Got images of shape {list(images.shape)}.")
        fit = fitting.Fit((0.0, 0.0, float(width), float(height)), self.size)
        if channels != self.channels:
            images = [data_images.convert(image, channels=self.channels) for image in images]
        fitted = {"image": np.stack([fitting.fit_image(image, fit) for image in images])}
        if "intrinsics" in example:
            stored = np.asarray(example["intrinsics"], np.float32)
            fitting.check_intrinsics(stored, (height, width), "the camera")
            scale = np.float32([self.size[1] / width, self.size[0] / height])
            fitted["intrinsics"] = np.asarray(_resize_intrinsics(stored, scale))
        if "baseline" in example:
            fitted["baseline"] = np.asarray(example["baseline"], np.float32)
        return fitted

    def _wanted(self) -> str:
        if self._flow:
            return (
                "Flow is predicted of pairs of images, [N, 2, H, W, C] or [2, H, W, C], C 1 or 3."
            )
        poses = f", poses of {self.frames} frames [N, {self.frames}, H, W, C]"
        return (
            "Depth is predicted of images [N, H, W, C] or [H, W, C]"
            f"{poses if 'pose' in self.predicts else ''}, C 1 or 3."
        )


def _resize_mask(mask: Array, size: tuple[int, int]) -> Array:
    return ops.resize(mask[..., None], size)[..., 0]


# What is predicted, and how it becomes that of an image of another size.
_RESIZE: dict[str, Callable[[Array, tuple[int, int]], Array]] = {
    "depth": depth.resize_depth,
    "disparity": depth.resize_disparity,
    "pose": lambda pose, size: pose,
    "flow": flow.resize_flow,
    "backward": flow.resize_flow,
    "visible": _resize_mask,
}


_resize_intrinsics = jax.jit(ops.resize_intrinsics)


@partial(jax.jit, static_argnums=1)
def _restored(maps: dict[str, Array], size: tuple[int, int]) -> dict[str, Array]:
    """Predictions at the size of the image."""
    restored = {}
    for name, value in maps.items():
        same = value.shape[:2] == size
        restored[name] = (value if same else _RESIZE[name](value, size)).astype(jnp.float32)
    return restored


def _checked(images: np.ndarray) -> np.ndarray:
    """Images that are uint8, or float32 in [0, 1].

    Raises:
        UserError: they are not, or there is none.
    """
    if images.dtype != np.uint8:
        if not np.issubdtype(images.dtype, np.floating):
            raise UserError(f"Images are uint8, or float in [0, 1]; got {images.dtype}.")
        images = images.astype(np.float32)
        if images.size and (images.min() < -0.01 or images.max() > 1.01):
            raise UserError(
                "Float images lie in [0, 1]; these reach from "
                f"{images.min():.3g} to {images.max():.3g}. Divide by 255, or pass uint8."
            )
    if images.ndim > 3 and not len(images):
        raise UserError("There is no image: the array's first axis has length 0.")
    return images


def _of_each(name: str, value: Any, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """A value of each image or one for all, `[N, ...]` by its name; nothing of None."""
    if value is None:
        return {}
    value = np.asarray(value, np.float32)
    if value.shape not in (shape, shape[1:]):
        raise UserError(
            f"The {name} of {shape[0]} image(s) has the shape {list(shape)}, or {list(shape[1:])} "
            f"for all of them; got {list(value.shape)}."
        )
    return {name: np.broadcast_to(value, shape)}


def _padded(batch: dict[str, np.ndarray], size: int) -> Batch:
    """A batch of one size, and its mask, so that one compilation serves all; the last row is
    repeated, since zeros are no camera's intrinsics."""
    count = len(batch["image"])
    rows = np.minimum(np.arange(size), count - 1)
    return {name: value[rows] for name, value in batch.items()} | {"mask": np.arange(size) < count}


def read_plan(
    workdir: str | Path, *, size: tuple[int, int] | None = None
) -> tuple[ConfigDict, train.Plan]:
    """The config and the plan of the run in `workdir`, for images of another `size` if wanted.

    Raises:
        UserError: there is no run.
    """
    config, spec = checkpoint.read_description(Path(workdir))
    if size:
        *views, _, _, channels = spec["image_shape"]
        spec = {**spec, "image_shape": [*views, *size, channels]}
    started = config.copy_and_resolve_references()
    # The checkpoints have what the run started from.
    started.model.encoder_from = ""
    own = started.get(started.method, {})
    if "teacher_from" in own:
        own.teacher_from = None
    return config, train.make_plan(started, **spec)


def read_state(
    workdir: str | Path, plan: train.Plan, mesh: Mesh, *, which: str = "latest"
) -> TrainState:
    """The `latest` or `best` checkpoint of the run in `workdir`, replicated over `mesh`.

    Raises:
        UserError: the run has no checkpoint yet, or `which` is neither.
    """
    if which not in ("latest", "best"):
        raise UserError(f'A checkpoint is "latest" or "best", not "{which}".')
    with checkpoint.Checkpoints(Path(workdir) / "checkpoints") as checkpoints:
        step = checkpoints.best_step() if which == "best" else None
        state = checkpoints.restore(plan.abstract_state(mesh), step=step)
    if state is None:
        raise UserError(f"The run in {workdir} has no checkpoint yet.")
    return state


def load(
    workdir: str | Path, *, which: str = "latest", size: tuple[int, int] | None = None
) -> Encoder | Estimator:
    """What a run trained: an encoder, or an estimator of depth, poses or flow.

    Args:
        workdir: the run's folder.
        which: `latest` or `best` checkpoint.
        size: height and width that an estimator's network works at, multiples of its stride; by
            default those of the run. Larger ones keep what small images lose, as long as objects
            and motions are not much larger in pixels than those that were learned.

    Raises:
        UserError: no run, or no checkpoint, there; a size that the network cannot work at, or of an
            encoder.
    """
    config, plan = read_plan(workdir)
    mesh = sharding.make_mesh(jax.local_devices()[:1])
    state = read_state(workdir, plan, mesh, which=which)
    predictions = plan.predictions()
    if geometry.geometric(predictions):
        if size:
            plan = read_plan(workdir, size=size)[1]
            predictions = plan.predictions()
        return Estimator(config, plan, state, predictions)
    if size:
        raise UserError(f"{workdir} trained an encoder, which works at the size of the run alone.")
    return Encoder(config, plan, state)
