"""Encoders in self-describing files."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from sslax import augment, ops
from sslax.checks import assert_rank
from sslax.errors import UserError
from sslax.models.build import MODELS, defaults, encoder_module, patch_features, section_of
from sslax.models.linen import normalize
from sslax.models.published import PublishedViT, is_vit_file, read_vit
from sslax.models.weights import fit_weights, read_file, save_weights, variables_of
from sslax.types import Array, Encoding, PyTree


def standardized(images: Array) -> Array:
    """Images `[N, H, W, C]` with mean 0 and deviation 1 in each channel of each image."""
    return jax.vmap(augment.standardize)(images)


def lightness(images: Array) -> Array:
    """Lightness `[N, H, W, 1]` in [0, 1] of images `[N, H, W, C]`, gray or RGB."""
    rgb = jnp.broadcast_to(images, (*images.shape[:3], 3))
    return ops.rgb_to_lab(rgb)[..., :1] / 100


PREPROCESSING: dict[str, Callable[[Array], Array]] = {
    "float": augment.to_float,
    "standardized": standardized,
    "lightness": lightness,
}
"""Functions for `Method.preprocess` by the names that files of weights know them by."""


def preprocessing_name(preprocess: Callable[[Array], Array]) -> str:
    """The name of a function in `PREPROCESSING`, or "custom".

    Example:
        >>> preprocessing_name(lightness)
        'lightness'
    """
    return next((n for n, known in PREPROCESSING.items() if known is preprocess), "custom")


@dataclasses.dataclass(frozen=True)
class Description:
    """What is needed to use an encoder, besides its weights.

    Attributes:
        architecture: the `model` section of the config that it was built from.
        size: (H, W) in pixels of the images that it was trained with, and is evaluated on.
        channels: of these images, 1 or 3.
        preprocessing: name of what is done to images first, a key of `PREPROCESSING`; "custom" if
            it has no name, and then `load_encoder` cannot build the module.
        method: the method that trained it, such as "simclr".
        task: that method's task, such as "representation".
        step: training steps.
        version: of the sslax that wrote the file.
    """

    architecture: Mapping[str, Any]
    size: tuple[int, int]
    channels: int
    preprocessing: str = "float"
    method: str = ""
    task: str = ""
    step: int = 0
    version: str = ""

    @property
    def mean(self) -> tuple[float, ...]:
        """Channel means that the encoder subtracts; empty for none."""
        return tuple(self.architecture["mean"])

    @property
    def std(self) -> tuple[float, ...]:
        """Channel standard deviations that the encoder divides by; empty for none."""
        return tuple(self.architecture["std"])


class LoadedEncoder(NamedTuple):
    """An encoder for use in Flax code.

    Attributes:
        module: from images to an `Encoding`.
        variables: 'params', and with batch normalization 'batch_stats'.
        description: what the file says about them.
    """

    module: "PretrainedEncoder"
    variables: dict[str, PyTree]
    description: Description


class PretrainedEncoder(nn.Module):
    """An encoder with the preprocessing and normalization of its images.

    Attributes:
        encoder: the module; parameters have its names.
        preprocessing: a key of `PREPROCESSING`, applied first.
        mean: channel means, subtracted next; empty for none.
        std: channel standard deviations, divided by.
    """

    encoder: nn.Module
    preprocessing: str = "float"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def setup(self) -> None:
        nn.share_scope(self, self.encoder)

    def __call__(self, images: Array, *, train: bool = False) -> Encoding:
        """Encodes images `[N, H, W, C]`, uint8 or float in [0, 1]."""
        assert_rank(images, 4)
        images = PREPROCESSING[self.preprocessing](augment.to_float(images))
        if self.mean:
            images = normalize(images, self.mean, self.std)
        return self.encoder(images, train=train)

    def patches(self, images: Array) -> Array:
        """Dense features `[N, h, w, D]` of images, see `patch_features`; to be called by
        `module.apply(variables, images, method="patches")`."""
        return patch_features(self.encoder, self(images), images.shape[1:3])


def save_encoder(
    path: str | os.PathLike, params: PyTree, model_state: PyTree, description: Description
) -> None:
    """Writes an encoder to one safetensors file, with its description in the file's metadata.

    Args:
        path: the file.
        params: parameters of the encoder.
        model_state: its model state.
        description: what `load_encoder` needs to build it; the version is filled in.
    """
    import sslax

    description = dataclasses.replace(description, version=sslax.__version__)
    section = ml_collections.ConfigDict(description.architecture).to_dict()
    section.pop("encoder_from", None)  # the weights are here
    fields = dataclasses.asdict(dataclasses.replace(description, architecture=section))
    save_weights(path, params, model_state, {"encoder": fields})


def load_encoder(source: str | os.PathLike) -> LoadedEncoder:
    """Reads an encoder, ready to be embedded in Flax code.

    Args:
        source: a file of `save_encoder`, or the folder of a run, whose encoder.safetensors is read;
            or a published vision transformer, DINO's, DINOv2's or DINOv3's, as .safetensors, .npz
            or, where PyTorch is installed, .pth, with facebookresearch's names or transformers'.

    Returns:
        The module, its variables, and its description. The module takes images `[N, H, W, C]`,
        uint8 or float in [0, 1], and includes preprocessing and normalization; resizing to
        `description.size` is left to the caller.

    Raises:
        UserError: the file is missing or damaged, or has neither a description nor the weights of
            a vision transformer whose size is known; there is no module for what it holds, or its
            weights do not fit its description.

    Example:
        >>> import tempfile
        >>> from sslax import models
        >>> section = models.defaults()
        >>> section.update(name="resnet10", width=0.0625, mean=(0.5,), std=(0.25,))
        >>> images = jnp.zeros((2, 32, 32, 1), jnp.uint8)
        >>> weights = jax.jit(models.build_encoder(section).init)(jax.random.key(0), images / 255)
        >>> path = f"{tempfile.mkdtemp()}/encoder.safetensors"
        >>> models.save_encoder(path, *weights, models.Description(section, (32, 32), channels=1))
        >>> module, variables, description = models.load_encoder(path)
        >>> module.apply(variables, images).features.shape, description.size
        ((2, 32), (32, 32))
    """
    tensors, header = read_file(source)
    if is_vit_file(tensors):
        return _of_published(read_vit(tensors, source), source)
    params, model_state, metadata = variables_of(tensors, header, source)
    if "encoder" not in metadata:
        raise UserError(
            f"{source} does not say which encoder its weights belong to: write it again with "
            "`sslax.load(run).save(path)`, or read it with `models.read_variables`."
        )
    description = _description(metadata["encoder"])
    if description.architecture["name"] not in MODELS:
        raise UserError(
            f'{source} holds the feature encoder of the flow network "'
            f'{description.architecture["name"]}", which has no module of its own: read it with '
            "`models.read_variables`."
        )
    if description.preprocessing not in PREPROCESSING:
        raise UserError(
            f"The images for {source} were preprocessed by a function without a name: read the "
            "weights with `models.read_variables`, and apply that function yourself."
        )
    section = defaults()
    section.update(description.architecture)
    return _loaded(section, description, (params, model_state), source)


def _of_published(published: PublishedViT, source: str | os.PathLike) -> LoadedEncoder:
    section = section_of(published, source)
    description = Description(section, published.size, published.channels)
    return _loaded(section, description, published.arrays, source)


def _loaded(
    section: ml_collections.ConfigDict,
    description: Description,
    weights: Any,
    source: str | os.PathLike,
) -> LoadedEncoder:
    """The module of a section with the weights that `fit_weights` takes."""
    module = PretrainedEncoder(
        encoder_module(section), description.preprocessing, description.mean, description.std
    )
    images = jax.ShapeDtypeStruct((1, *description.size, description.channels), jnp.float32)
    like = dict(jax.eval_shape(module.init, jax.random.key(0), images))
    params, state = fit_weights(weights, (like.pop("params"), like), source)
    return LoadedEncoder(module, {"params": params, **state}, description)


def _description(fields: Mapping[str, Any]) -> Description:
    """From JSON, which has lists for tuples, and perhaps fields of a later version."""
    known = {field.name for field in dataclasses.fields(Description)}
    fields = {name: value for name, value in fields.items() if name in known}
    architecture = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in fields["architecture"].items()
    }
    return Description(**fields | {"architecture": architecture, "size": tuple(fields["size"])})
