"""Shared by depth methods: snippets, the rest of the method, sums over scales, augmentation."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sslax import augment, checks, ranges
from sslax.errors import UserError
from sslax.methods.common import Augmentation, no_update, plain
from sslax.methods.depth import camera
from sslax.methods.depth.geometry import insert_identity
from sslax.models.compose import Network, Parts
from sslax.ops import Camera
from sslax.types import (
    Array,
    Batch,
    Depth,
    DepthMaps,
    InverseDepth,
    Method,
    Metrics,
    Pictures,
    Variables,
)

_REMEDIES = {
    "intrinsics": "name their file in data.camera.intrinsics (3 x 3 numbers, or fx fy cx cy, in "
    "pixels of the stored images), put them beside the frames as intrinsics.txt, or learn them, "
    'with config.METHOD.camera="shared" or "per_image" for sfm_learner or monodepth2',
    "baseline": "set data.camera.baseline to the distance between the cameras in meters",
    "distance": "set data.distances=True, for data whose camera poses or speeds are known",
}


class Motion(NamedTuple):
    """What the frames of an example say of the camera.

    Attributes:
        twists: as the method's pose network predicts them.
        intrinsics: `[B, 3, 3]` in pixels of the images that it is given, or a `UnifiedCamera`;
            None where the camera is given, too.
        logits: of explainability, finest first.
    """

    twists: Array
    intrinsics: Camera | None = None
    logits: tuple[Array, ...] = ()


class Snippet(NamedTuple):
    """The images of an example: consecutive frames, then the target's partner with stereo.

    Attributes:
        frames: S; the target is frame S // 2.
        stereo: the last image is the target's right-hand partner.
    """

    frames: int = 1
    stereo: bool = False

    @property
    def images(self) -> int:
        """V, the frames and the partner."""
        return self.frames + self.stereo

    @property
    def target_index(self) -> int:
        """Index of the target."""
        return self.frames // 2

    @property
    def source_frames(self) -> list[int]:
        """Indices of the frames other than the target."""
        return [i for i in range(self.frames) if i != self.target_index]

    @property
    def partner_index(self) -> int:
        """Index of the partner."""
        return self.frames

    @property
    def sources(self) -> list[int]:
        """Indices of all images but the target: the source frames, then the partner."""
        return self.source_frames + [self.partner_index] * self.stereo

    def check(self, batch: Batch, *needed: str) -> None:
        """Checks an augmented batch: its number of images, and the arrays that a method needs.

        Raises:
            UserError: the number is another, or an array is missing.
        """
        checks.assert_rank([batch["frames"], batch["input"]], 5)
        images = batch["frames"].shape[1]
        if images != self.images:
            partner = " and the target's partner" if self.stereo else ""
            raise UserError(
                f"The method takes {self.frames} frame(s){partner}, but each example has {images} "
                "image(s); set config.data.frames and config.data.stereo to match the data."
            )
        for name in needed:
            if name not in batch:
                raise UserError(
                    f"The method needs '{name}', which the examples do not have: {_REMEDIES[name]}."
                )

    def target_of(self, images: Array) -> Array:
        """The target `[B, ...]` of images `[B, V, ...]`; a single image is the target itself.

        Raises:
            UserError: there are several images, but fewer than frames.
        """
        given = images.shape[1]
        if 1 < given < self.frames:
            raise UserError(f"Give one image or {self.frames} frames to predict from, not {given}.")
        return images[:, self.target_index if given >= self.frames else 0]


def video_method(
    network: Network,
    snippet: Snippet,
    task: Depth,
    *,
    augmentation: Augmentation,
    init: Callable,
    loss: Callable,
    to_depth: Callable[[Array], Array],
    motion: Callable | None,
    to_poses: Callable[[Array], Array],
    reconstructions: Callable[..., Pictures],
) -> Method:
    """A method that learns the depth of a snippet's target, and poses if there are several frames.

    Args:
        network: has the parts `encoder` and `decoder`, for `depth_maps`, and perhaps `camera`.
        snippet: the images of an example.
        task: as in `Method`; likewise `init` and `loss`.
        augmentation: `Method.augment`.
        to_depth: maps `[B, H, W, K]` in (0, 1) to depth `[B, H, W]`.
        motion: forward pass `(net, frames [B, S, H, W, C]) -> Motion`; None for a single frame.
        to_poses: twists to poses `[B, S - 1, 4, 4]`, from the target's camera to each other's.
        reconstructions: `(maps, motion, images [B, V, H, W, C], batch) -> Pictures`, what
            `visualize` shows of whole snippets with a known camera; motion is None for one frame.
    """

    def estimate_motion(variables: Variables, images: Array) -> Motion | None:
        return network.apply(motion, variables, images[:, : snippet.frames])[0] if motion else None

    def shared_camera(variables: Variables, images: Array) -> Camera | None:
        if "camera" not in network.parts:
            return None
        return network.apply(lambda net, images: net.camera(images), variables, images)[0]

    def predict(variables: Variables, batch: Batch) -> DepthMaps:
        images = augment.to_float(batch["image"])
        maps, _ = network.apply(depth_maps, variables, snippet.target_of(images))
        depth = to_depth(maps[0])
        if motion is None or images.shape[1] < snippet.frames:
            return DepthMaps(depth=depth, **camera.numbers(shared_camera(variables, images)))
        found = estimate_motion(variables, images)
        poses = insert_identity(to_poses(found.twists), snippet.target_index)
        return DepthMaps(depth=depth, pose=poses, **camera.numbers(found.intrinsics))

    def visualize(variables: Variables, batch: Batch, rng: Array) -> Pictures:
        images = augment.to_float(batch["image"])
        target = snippet.target_of(images)
        maps, _ = network.apply(depth_maps, variables, target)
        columns = {"image": target, "inverse depth": InverseDepth(1 / to_depth(maps[0]))}
        if images.shape[1] != snippet.images:
            return columns
        found = estimate_motion(variables, images)
        learned = found.intrinsics if found else None
        needed = ["intrinsics"] * (learned is None) + ["baseline"] * snippet.stereo
        if any(name not in batch for name in needed):
            return columns
        batch = {**batch, "intrinsics": camera.given(batch) if learned is None else learned}
        return columns | reconstructions(maps[0], found, images, batch)

    return Method(
        task=task,
        augment=augmentation,
        init=init,
        loss=loss,
        update=no_update,
        predict=predict,
        visualize=visualize,
        encoder=network.encoder,
        preprocess=augment.to_float,
    )


def depth_maps(net: Parts, images: Array) -> tuple[Array, ...]:
    """Forward pass from images `[N, H, W, C]` to maps `[N, h, w, K]` in (0, 1), finest first."""
    return net.decoder({"stages": net.encoder(images).stages, "like": images})


def stack_scales(terms: Sequence[Metrics]) -> Metrics:
    """The terms of all scales, finest first, as one array `[scales]` each."""
    return jax.tree.map(lambda *values: jnp.stack(values), *terms)


def sum_halving(terms: Array) -> Array:
    """Sum of a term's values `[scales]`, finest first, with the weights 1, 1/2, 1/4, ..."""
    return jnp.sum(terms * 0.5 ** jnp.arange(len(terms)))


def displayable(error: Array) -> Array:
    """Errors or masks `[B, h, w]` as gray images `[B, h, w, 1]`; errors above 0.5 are white."""
    gray = error.astype(jnp.float32) if error.dtype == bool else 2 * error
    return jnp.clip(gray, 0.0, 1.0)[..., None]


def snippet_of(config: ConfigDict) -> Snippet:
    """The images of an example, by `config.data`."""
    return Snippet(config.data.frames, config.data.stereo)


def build_augmentation(section: ConfigDict, snippet: Snippet) -> Augmentation:
    """The augmentation of an `augment` section: a `recipe` of frames by name, knobs replaced.

    Raises:
        UserError: unknown recipe or knob, or a knob out of its range.
    """
    knobs = plain(section)
    recipes = Literal[tuple(augment.FRAME_RECIPES)]
    kinds = {**ranges.kinds_of(augment.FrameRecipe), "recipe": recipes}
    ranges.check_knobs("config.augment", knobs, kinds)
    recipe = augment.get_frame_recipe(knobs.pop("recipe"), **knobs)
    return augment.make_frames(recipe, stereo=snippet.stereo)
