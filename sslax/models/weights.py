"""Weights in and out: safetensors files, and torchvision's residual networks."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from sslax.errors import UserError
from sslax.types import PyTree


def flatten(tree: PyTree) -> dict[str, Any]:
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}


def save_safetensors(path: str | os.PathLike, params: PyTree, model_state: PyTree) -> None:
    """Writes parameters and model state to one safetensors file.

    Names are the paths of the tree: 'params/conv1/kernel', 'model_state/batch_stats/bn1/mean'.

    Args:
        path: the file.
        params: parameters, nested dictionaries of arrays.
        model_state: model state, likewise; may be empty.
    """
    arrays = flatten({"params": params, "model_state": model_state})
    arrays = {name: np.ascontiguousarray(jax.device_get(leaf)) for name, leaf in arrays.items()}
    safetensors.numpy.save_file(arrays, path)


def load_safetensors(path: str | os.PathLike, like: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
    """Reads what `save_safetensors` wrote into trees like the given ones.

    Args:
        path: the file.
        like: `(params, model_state)`, arrays or `jax.ShapeDtypeStruct`.

    Returns:
        `(params, model_state)` with the dtypes of `like`.

    Raises:
        ValueError: a tensor is missing, is not expected, or has another shape; the message names
            it.
    """
    tree = {"params": like[0], "model_state": like[1]}
    wanted, found = flatten(tree), safetensors.numpy.load_file(path)
    check_like(wanted, found, str(path))
    leaves = [jnp.asarray(found[name], leaf.dtype) for name, leaf in wanted.items()]
    tree = jax.tree.unflatten(jax.tree.structure(tree), leaves)
    return tree["params"], tree["model_state"]


def check_like(wanted: Mapping[str, Any], found: Mapping[str, Any], source: str) -> None:
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing:
        raise ValueError(f"{source} lacks {missing[0]!r} ({len(missing)} missing in all).")
    if extra:
        raise ValueError(
            f"{source} holds {extra[0]!r}, which the model does not have "
            f"({len(extra)} such in all)."
        )
    for name, leaf in wanted.items():
        if found[name].shape != leaf.shape:
            raise ValueError(
                f"{name!r} is {found[name].shape} in {source} but {leaf.shape} in the model."
            )


def load_torchvision_resnet(
    source: str | os.PathLike | Mapping[str, Any], module: nn.Module, *, channels: int = 3
) -> tuple[PyTree, PyTree]:
    """Converts a torchvision ResNet's state dict to the variables of a `ResNet`.

    The classifier 'fc' and the counters 'num_batches_tracked' are dropped.

    Args:
        source: a mapping of names to arrays, or a file of one: `.safetensors`, `.npz`, or, where
            PyTorch is installed, `.pth`.
        module: the `ResNet` that the weights are for.
        channels: channels of its images.

    Returns:
        `(params, model_state)`, float32.

    Raises:
        ValueError: a tensor is missing, is not expected, or has another shape; the message names
            it.
        ImportError: a PyTorch file without PyTorch.
    """
    found = _from_torchvision(source if isinstance(source, Mapping) else read_tensors(Path(source)))
    image = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    like = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)
    wanted = flatten(like)
    check_like(wanted, found, "the state dict")
    leaves = [jnp.asarray(found[name]) for name in wanted]
    variables = dict(jax.tree.unflatten(jax.tree.structure(like), leaves))
    return variables.pop("params"), variables


def _from_torchvision(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors of a `ResNet`, by the paths of its variables."""
    found = {}
    for name, tensor in tensors.items():
        if name.startswith("fc.") or name.endswith("num_batches_tracked"):
            continue
        array = np.asarray(tensor, np.float32)
        path = _torchvision_path(name, array.ndim)
        found[path] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    return found


def _torchvision_path(name: str, rank: int) -> str:
    """'layer1.0.downsample.1.weight' -> 'params/layer1_0/downsample_bn/scale'."""
    name = name.replace("downsample.0", "downsample_conv").replace("downsample.1", "downsample_bn")
    name = re.sub(r"^(layer\d+)\.(\d+)\.", r"\1_\2.", name)
    *scope, leaf = name.split(".")
    collection = "batch_stats" if leaf.startswith("running_") else "params"
    leaf = {
        "weight": "kernel" if rank == 4 else "scale",
        "running_mean": "mean",
        "running_var": "var",
    }.get(leaf, leaf)
    return "/".join([collection, *scope, leaf])


def read_tensors(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".safetensors":
        return safetensors.numpy.load_file(path)
    if path.suffix == ".npz":
        return dict(np.load(path))
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path} needs PyTorch to be read; where it is installed, convert the file with "
            "`safetensors.torch.save_file(torch.load(path), 'weights.safetensors')`."
        ) from error
    return torch.load(path, map_location="cpu", weights_only=True)


def read_weights(source: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads an encoder's weights from whatever holds them.

    Args:
        source: a run's folder, whose encoder.safetensors is read; a file that `save_safetensors`
            wrote; or torchvision's ResNet as `load_torchvision_resnet` takes it.

    Returns:
        Arrays by the names of `save_safetensors`.

    Raises:
        UserError: there is no such file or folder, the folder lacks the file, or the file is of
            no kind that can be read.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        path = path / "encoder.safetensors"
        if not path.exists():
            raise UserError(
                f"There is no encoder.safetensors in {source}: finish that run, or write the file "
                f"with `sslax.load({str(source)!r}).save({str(path)!r})`."
            )
    if not path.is_file():
        raise UserError(f"There is no file or folder {source} to read an encoder's weights from.")
    if path.suffix not in (".safetensors", ".npz", ".pth", ".pt"):
        raise UserError(
            f"{source} is no file of weights: give a run's folder, or a file .safetensors, .npz "
            "or .pth."
        )
    try:
        tensors = read_tensors(path)
    except (ImportError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{source} cannot be read: {error}") from error
    if any(name.startswith("params/") for name in tensors):
        return dict(tensors)
    found = _from_torchvision(tensors)
    in_state = {name for name in found if name.startswith("batch_stats/")}
    return {f"model_state/{n}" if n in in_state else n: array for n, array in found.items()}


def fit_weights(
    found: Mapping[str, Any], like: tuple[PyTree, PyTree], source: str | os.PathLike
) -> tuple[PyTree, PyTree]:
    """Puts weights into trees like the given ones.

    Where the first convolution takes F times the channels that its weights have, F frames of an
    image's, the weights are repeated and divided by F: frames that are all equal then give what
    one of them did.

    Args:
        found: what `read_weights` returns.
        like: `(params, model_state)`, arrays or `jax.ShapeDtypeStruct`.
        source: where they are from, for the message.

    Returns:
        `(params, model_state)` with the dtypes of `like`.

    Raises:
        UserError: a tensor is missing, is not expected, or has another shape.
    """
    tree = {"params": like[0], "model_state": like[1]}
    wanted, found = flatten(tree), dict(found)
    if _FIRST in wanted and _FIRST in found:
        found[_FIRST] = _repeat_channels(found[_FIRST], wanted[_FIRST].shape[-2])
    try:
        check_like(wanted, found, str(source))
    except ValueError as error:
        raise UserError(
            f"{error} config.model (name, blocks, width, the stem, ...) has to be that of the "
            "encoder whose weights these are."
        ) from error
    leaves = [jnp.asarray(found[name], leaf.dtype) for name, leaf in wanted.items()]
    tree = jax.tree.unflatten(jax.tree.structure(tree), leaves)
    return tree["params"], tree["model_state"]


_FIRST = "params/conv1/kernel"


def _repeat_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    frames, rest = divmod(channels, kernel.shape[-2])
    return kernel if rest or frames < 2 else np.tile(kernel, (1, 1, frames, 1)) / frames
