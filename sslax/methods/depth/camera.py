"""The camera of a snippet: given with the data, predicted from its frames, or learned for a set.

- "given": 'intrinsics' `[B, 3, 3]` of the batch, with 'alpha' `[B]` where the lens is wide.
- "per_image": a head of the pose network predicts them from the frames as the network sees them, so
  that no augmentation needs to be accounted for (Gordon et al., Depth from Videos in the Wild,
  https://arxiv.org/abs/1904.04998, 2019).
- "shared": one vector θ for the data set, of the images as they are before their augmentation. The
  parametrization is that of vidar's code for Fang et al., Self-Supervised Camera Self-Calibration
  from Video, https://arxiv.org/abs/2112.03325, 2021, restricted to pinhole cameras.
- "unified": likewise with a wide lens, the `ops.UnifiedCamera` that the paper is about:

```
(fx, fy) = (H + W) sigmoid(θ_f),   (cx, cy) = (W, H) sigmoid(θ_c) - 1/2,   α = sigmoid(θ_α)
```
A camera that only translates says nothing about its focal length: one s times as large explains the
frames as well, with the same depths and a translation across the optical axis that is s times
smaller. Rotation determines it, the better the larger the angle.
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from sslax import ops
from sslax.methods.common import Augmentation
from sslax.models.compose import Parts
from sslax.ops import Camera
from sslax.types import Array, Batch, Metrics, Model, PyTree

Kind = Literal["given", "per_image", "shared", "unified"]
OF_THE_SET = ("shared", "unified")
# vidar's θ learns at 50 times the networks' rate (1e-2 and 2e-4). Adam's steps do not depend on the
# gradient's scale, so a parameter of a fiftieth of θ does, too.
_RATE = 50.0


def parts(camera: Kind) -> dict[str, Model]:
    """The part of the network that holds the camera of the data set, where there is one.

    A `Model` from images `[B, V, H, W, C]` to intrinsics `[B, 3, 3]` in pixels of these, or a
    `UnifiedCamera` with them.
    """
    if camera not in OF_THE_SET:
        return {}

    def init(rng: Array, images: Array) -> tuple[PyTree, PyTree]:
        return {"vector": jnp.zeros(5 if camera == "unified" else 4)}, {}

    def apply(params: PyTree, state: PyTree, images: Array, train: bool) -> tuple[Camera, PyTree]:
        share = jax.nn.sigmoid(_RATE * params["vector"])
        count, _, height, width, _ = images.shape
        focal, center = (height + width) * share[:2], jnp.array([width, height]) * share[2:4] - 0.5
        one = ops.intrinsics_matrix(focal, center)
        intrinsics = jnp.broadcast_to(one, (count, 3, 3))
        if camera == "shared":
            return intrinsics, state
        return ops.UnifiedCamera(intrinsics, jnp.broadcast_to(share[4], (count,))), state

    return {"camera": Model(init, apply)}


def separate(output: Any, net: Parts, images: Array, camera: Kind) -> tuple[Any, Camera | None]:
    """A pose network's motion, and the learned camera of its images.

    Args:
        output: of the pose network, for each example or for each of its pairs of frames.
        net: the parts of the forward pass.
        images: `[B, V, H, W, C]`, as the network is given them.
        camera: which one.

    Returns:
        The motion, and intrinsics `[B, 3, 3]` in pixels of the images, the mean over an example's
        pairs, or a `UnifiedCamera`; None where the camera is given.
    """
    if camera in OF_THE_SET:
        return output, net.camera(images)
    if camera == "given":
        return output, None
    motion, of_one_pixel = output
    height, width = images.shape[2:4]
    every = of_one_pixel.reshape(images.shape[0], -1, 3, 3)  # a symbolic batch has no len
    return motion, ops.resize_intrinsics(jnp.mean(every, axis=1), (width, height))


def with_probes(augmentation: Augmentation, camera: Kind) -> Augmentation:
    """The augmentation, which for a camera of the data set is also applied to two probes.

    Flips, zooms and crops are linear in a camera without skew: focal lengths are multiplied,
    principal points mapped by a straight line, and the lens is the same. So what they did to
    cameras with a focal length of 1 and with principal points 0 and 1 says what they do to any;
    'intrinsics' of the batch then are these two, `[B, 2, 3, 3]`.
    """
    if camera not in OF_THE_SET:
        return augmentation

    def augment(rng: Array, batch: Batch) -> Batch:
        probes = ops.intrinsics_matrix(jnp.ones(2), jnp.array([[0.0, 0.0], [1.0, 1.0]]))
        probes = jnp.broadcast_to(probes, (batch["image"].shape[0], *probes.shape))
        return augmentation(rng, {**batch, "intrinsics": probes})

    return augment


def of_frames(learned: Camera | None, batch: Batch, camera: Kind) -> Camera:
    """The camera of an augmented batch's frames, intrinsics `[B, 3, 3]` or a `UnifiedCamera`.

    Args:
        learned: as `separate` returns them.
        batch: 'intrinsics' of the frames, or the probes; not read where they are "per_image".
        camera: which one.
    """
    if learned is None:
        return given(batch)
    return through_probes(learned, batch["intrinsics"]) if camera in OF_THE_SET else learned


def given(batch: Batch) -> Camera:
    """The camera that a batch knows: its 'intrinsics', with 'alpha' if it has that."""
    if "alpha" not in batch:
        return batch["intrinsics"]
    return ops.UnifiedCamera(batch["intrinsics"], batch["alpha"])


def numbers(learned: Camera | None) -> dict[str, Array]:
    """'intrinsics' `[B, 3, 3]` and 'alpha' `[B]` of a learned camera, as far as it has them."""
    if isinstance(learned, ops.UnifiedCamera):
        return learned._asdict()
    return {} if learned is None else {"intrinsics": learned}


def metrics(learned: Camera | None, images: Array) -> Metrics:
    """`focal`, the mean fx of a learned camera in units of the images' width; `alpha` of a lens."""
    known = numbers(learned)
    if not known:
        return {}
    lens = {"alpha": jnp.mean(known["alpha"])} if "alpha" in known else {}
    return {"focal": jnp.mean(known["intrinsics"][:, 0, 0]) / images.shape[-2], **lens}


def through_probes(camera: Camera, probes: Array) -> Camera:
    """A camera `[B, 3, 3]` without skew, moved as the probes `[B, 2, 3, 3]` were."""
    if isinstance(camera, ops.UnifiedCamera):
        return camera._replace(intrinsics=through_probes(camera.intrinsics, probes))
    (_, at_zero), (_, at_one) = (_focal_and_center(probes[:, i]) for i in range(2))
    factor, _ = _focal_and_center(probes[:, 0])
    focal, center = _focal_and_center(camera)
    return ops.intrinsics_matrix(factor * focal, at_zero + (at_one - at_zero) * center)


def _focal_and_center(intrinsics: Array) -> tuple[Array, Array]:
    """(fx, fy) and (cx, cy), `[B, 2]` each."""
    return jnp.diagonal(intrinsics, axis1=-2, axis2=-1)[..., :2], intrinsics[..., :2, 2]
