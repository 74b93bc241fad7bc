"""Networks; the only place of sslax that knows Flax."""

from collections.abc import Callable
from functools import partial

from flax import linen as nn
from ml_collections import ConfigDict

from sslax.errors import UserError, nearest
from sslax.models.heads import Projector
from sslax.models.linen import from_linen
from sslax.models.resnet import BasicBlock, Bottleneck, ResNet
from sslax.types import Model

MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet18": partial(ResNet, stages=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, stages=(3, 4, 6, 3)),
    "resnet50": partial(ResNet, stages=(3, 4, 6, 3), block=Bottleneck),
    "resnet101": partial(ResNet, stages=(3, 4, 23, 3), block=Bottleneck),
    "resnet152": partial(ResNet, stages=(3, 8, 36, 3), block=Bottleneck),
    "resnet": ResNet,  # with `stages` of one's own, of basic blocks
}

DTYPES = ("float32", "bfloat16")


def defaults() -> ConfigDict:
    """The `model` section of a config."""
    return ConfigDict(
        {
            "name": "resnet18",  # a key of MODELS
            "stages": (),  # blocks a stage, of "resnet"
            "width": 1.0,  # factor on all channels
            "stem": "standard",  # standard | small (images near 32 pixels) | patch
            "zero_init": False,  # blocks start as the identity
            "dtype": "float32",  # of the computation; bfloat16 on accelerators
            "mean": (),  # per channel, of the images; () leaves them as they are
            "std": (),
        }
    )


def build_encoder(config: ConfigDict) -> Model:
    """The encoder that a `model` section names.

    Raises:
        UserError: unknown name, stem or dtype; the nearest one is named.
    """
    for key, known in (
        ("name", MODELS),
        ("stem", ("standard", "small", "patch")),
        ("dtype", DTYPES),
    ):
        if config[key] not in known:
            hint = nearest(config[key], [*known])
            raise UserError(f'Unknown config.model.{key} "{config[key]}": {hint}')
    knobs = {"stages": tuple(config.stages)} if config.stages else {}
    module = MODELS[config.name](
        width=config.width,
        stem=config.stem,
        zero_init=config.zero_init,
        dtype=config.dtype,
        **knobs,
    )
    return from_linen(module, mean=tuple(config.mean), std=tuple(config.std))


def build_projector(config: ConfigDict, *, dtype: str = "float32") -> Model:
    """The projector of a section with `layers`, `hidden` and `output` (fields of `Projector`)."""
    return from_linen(Projector(**config, dtype=dtype))


__all__ = [
    "MODELS",
    "BasicBlock",
    "Bottleneck",
    "Projector",
    "ResNet",
    "build_encoder",
    "build_projector",
    "defaults",
    "from_linen",
]
