"""Weights in files: safetensors with a description, and what others publish: torchvision's residual
networks, and vision transformers."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from sslax import paths
from sslax.errors import UserError
from sslax.models.published import is_vit_file, read_vit
from sslax.models.torch_names import from_torchvision
from sslax.models.vit import resize_positions
from sslax.types import PyTree

Pair = tuple[PyTree, PyTree]
"""Parameters and model state."""

_ENCODER = "encoder.safetensors"
_METADATA = "sslax"  # key of the JSON text in the file's own metadata


def save_weights(
    path: str | os.PathLike,
    params: PyTree,
    model_state: PyTree,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes parameters, model state and metadata to one safetensors file.

    Arrays are named by their paths: 'params/conv1/kernel', 'model_state/batch_stats/bn1/mean'. An
    existing file is replaced only once the new one is complete.

    Args:
        path: the file.
        params: nested dictionaries of arrays.
        model_state: likewise; may be empty.
        metadata: whatever JSON can hold.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.safetensors"
        >>> save_weights(path, {"linear": {"bias": jnp.zeros(3)}}, {}, {"step": 10})
        >>> read_variables(path)
        ({'linear': {'bias': array([0., 0., 0.], dtype=float32)}}, {}, {'step': 10})
    """
    tree = {"params": params, "model_state": model_state}
    arrays = {name: np.ascontiguousarray(a) for name, a in jax.device_get(flatten(tree)).items()}
    text = json.dumps({"metadata": dict(metadata or {}), "empty": _empty(tree)})
    with paths.replacing(paths.expand(path)) as unfinished:
        safetensors.numpy.save_file(arrays, unfinished, {_METADATA: text})


def read_variables(
    source: str | os.PathLike, *, file: str = "network.safetensors"
) -> tuple[PyTree, PyTree, dict[str, Any]]:
    """Reads what `save_weights` wrote.

    Args:
        source: the file, or the folder of a run.
        file: the name of the file in that folder.

    Returns:
        `(params, model_state, metadata)`, nested dictionaries of numpy arrays. Metadata is {} for
        a file without.

    Raises:
        UserError: the file is missing, cannot be read, or is not from `save_weights`.
    """
    return variables_of(*read_file(source, file), source)


def variables_of(
    arrays: Mapping[str, Any], header: Mapping[str, Any], source: str | os.PathLike
) -> tuple[PyTree, PyTree, dict[str, Any]]:
    """`read_variables` of what `read_file` returns."""
    foreign = [name for name in arrays if not name.startswith(_ROOTS)]
    if foreign or not arrays:
        raise UserError(
            f"{source} was not written by sslax: it has {foreign[0] if foreign else 'nothing'!r}. "
            "Weights of torchvision are read by `models.load_torchvision_resnet` and "
            "`models.load_torchvision_raft`, and published vision transformers by "
            "`models.load_encoder`."
        )
    tree: dict[str, Any] = {"params": {}, "model_state": {}}
    for name in header.get("empty", []):
        _put(tree, name.split("/"), {})
    for name, array in arrays.items():
        _put(tree, name.split("/"), array)
    return tree["params"], tree["model_state"], header.get("metadata", {})


_ROOTS = ("params/", "model_state/")


def read_weights(source: str | os.PathLike, *, file: str = _ENCODER) -> dict[str, np.ndarray]:
    """Reads weights from a run, a file of `save_weights`, or what others publish.

    Args:
        source: the folder of a run; a file of `save_weights`; or a state dict of a torchvision
            ResNet, as `load_torchvision_resnet` takes it, or of DINO's, DINOv2's or DINOv3's
            vision transformers, with the names of facebookresearch's code or of transformers.
        file: the name of the file in the folder of a run.

    Returns:
        Arrays by the names that `save_weights` gives them.

    Raises:
        UserError: there is no such file or folder, or the file cannot be read.
    """
    return weights_of(read_file(source, file)[0], source)


def weights_of(tensors: Mapping[str, Any], source: str | os.PathLike) -> dict[str, np.ndarray]:
    """`read_weights` of the arrays that `read_file` returns."""
    if any(name.startswith("params/") for name in tensors):
        return dict(tensors)
    if is_vit_file(tensors):
        return read_vit(tensors, source).arrays
    arrays = from_torchvision(tensors)
    in_state = {name for name in arrays if name.startswith("batch_stats/")}
    return {f"model_state/{n}" if n in in_state else n: array for n, array in arrays.items()}


def read_file(
    source: str | os.PathLike, file: str = _ENCODER
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """Arrays by the names of a file, and what `save_weights` wrote beside them; {} for others.

    Raises:
        UserError: as `read_weights`.
    """
    path = _find(source, file)
    if path.suffix not in (".safetensors", ".npz", ".pth", ".pt"):
        raise UserError(
            f"{source} is no file of weights: give a run's folder, or a .safetensors, .npz or .pth "
            "file."
        )
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        tensors = read_tensors(path)
    except UserError:
        raise
    except Exception as error:  # whatever zip, pickle or PyTorch make of a damaged file
        raise UserError(f"{source} cannot be read: {error}") from error
    nested = [name for name, value in tensors.items() if isinstance(value, Mapping)]
    if nested:
        raise UserError(
            f"{source} holds a whole training state, with {', '.join(map(repr, nested))}: save the "
            "state dict of one network in a file of its own."
        )
    return tensors, {}


def fit_weights(
    arrays: Mapping[str, Any] | Pair,
    like: Pair,
    source: str | os.PathLike,
    *,
    position_antialias: bool = True,
) -> tuple[PyTree, PyTree]:
    """Puts weights into trees like the given ones, after comparing names and shapes.

    Where the first convolution of a ResNet takes F times the channels that its weights have,
    because its input is F stacked frames, the weights are repeated and divided by F: equal frames
    then give what one of them gave. Where a ViT learned its positions on another grid of patches,
    they are resized. A mask token that the network does not have is left out.

    Args:
        arrays: what `read_weights` returns, or parameters and model state.
        like: `(params, model_state)`, arrays or `jax.ShapeDtypeStruct`.
        source: where the weights come from, for the message.
        position_antialias: how positions are resized, see `resize_positions`.

    Returns:
        `(params, model_state)` with the dtypes of `like`.

    Raises:
        UserError: an array is missing, unexpected, or of another shape.

    Example:
        >>> like = {"bias": jax.ShapeDtypeStruct((3,), jnp.float32)}, {}
        >>> fit_weights(({"bias": np.zeros(3)}, {}), like, "weights.safetensors")
        ({'bias': Array([0., 0., 0.], dtype=float32)}, {})
    """
    if isinstance(arrays, Mapping):
        flat = dict(arrays)
    else:
        flat = flatten({"params": arrays[0], "model_state": arrays[1]})
    tree = {"params": like[0], "model_state": like[1]}
    wanted = flatten(tree)
    if _FIRST in wanted and _FIRST in flat:
        flat[_FIRST] = _repeat_channels(flat[_FIRST], wanted[_FIRST].shape[-2])
    if _POSITION in wanted and _POSITION in flat:
        table, shape = flat[_POSITION], wanted[_POSITION].shape
        if table.ndim == len(shape) and table.shape[-1] == shape[-1]:
            table = resize_positions(table, shape[:2], antialias=position_antialias)
        flat[_POSITION] = table
    if _MASK_TOKEN not in wanted:
        flat.pop(_MASK_TOKEN, None)
    try:
        check_like(wanted, flat, str(source))
    except ValueError as error:
        raise UserError(
            f"{error} config.model (name, blocks, width, the stem, ...) has to describe the "
            "network whose weights these are."
        ) from error
    leaves = [jnp.asarray(flat[name], leaf.dtype) for name, leaf in wanted.items()]
    tree = jax.tree.unflatten(jax.tree.structure(tree), leaves)
    return tree["params"], tree["model_state"]


_FIRST = "params/conv1/kernel"
_POSITION = "params/position"
_MASK_TOKEN = "params/mask_token"


def _repeat_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    frames, rest = divmod(channels, kernel.shape[-2])
    return kernel if rest or frames < 2 else np.tile(kernel, (1, 1, frames, 1)) / frames


def load_torchvision_resnet(
    source: str | os.PathLike | Mapping[str, Any], module: nn.Module, *, channels: int = 3
) -> tuple[PyTree, PyTree]:
    """Converts the state dict of a torchvision ResNet to the variables of a `ResNet`.

    The classifier 'fc' and the counters 'num_batches_tracked' are dropped.

    Args:
        source: arrays by name, or a file of them: `.safetensors`, `.npz`, or, where PyTorch is
            installed, `.pth`.
        module: the `ResNet` that the weights are for.
        channels: of its images.

    Returns:
        `(params, model_state)`, float32.

    Raises:
        ValueError: an array is missing, unexpected, or of another shape; the message names it.
        ImportError: a PyTorch file without PyTorch.
    """
    tensors = source if isinstance(source, Mapping) else read_tensors(Path(source))
    arrays = from_torchvision(tensors)
    image = jax.ShapeDtypeStruct((1, 64, 64, channels), jnp.float32)
    like = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)
    wanted = flatten(like)
    check_like(wanted, arrays, "the state dict")
    leaves = [jax.device_put(arrays[name]) for name in wanted]
    variables = dict(jax.tree.unflatten(jax.tree.structure(like), leaves))
    return variables.pop("params"), variables


def flatten(tree: PyTree) -> dict[str, Any]:
    """Leaves by their path: 'params/conv1/kernel'."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(p, simple=True, separator="/"): leaf for p, leaf in leaves}


def check_like(wanted: Mapping[str, Any], arrays: Mapping[str, Any], source: str) -> None:
    """Compares the names and shapes of arrays.

    Raises:
        ValueError: an array is missing, unexpected, or of another shape; the message names it.
    """
    missing, extra = sorted(wanted.keys() - arrays.keys()), sorted(arrays.keys() - wanted.keys())
    if missing:
        raise ValueError(f"{source} lacks {missing[0]!r} ({len(missing)} missing in all).")
    if extra:
        raise ValueError(
            f"{source} holds {extra[0]!r}, which the model does not have "
            f"({len(extra)} such in all)."
        )
    for name, leaf in wanted.items():
        if arrays[name].shape != leaf.shape:
            raise ValueError(
                f"{name!r} is {arrays[name].shape} in {source} but {leaf.shape} in the model."
            )


def read_tensors(path: Path) -> Mapping[str, Any]:
    """Arrays by name from a `.safetensors`, `.npz` or PyTorch file.

    Raises:
        ValueError: the file cannot be read.
        ImportError: a PyTorch file without PyTorch.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)[0]
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


def _find(source: str | os.PathLike, file: str) -> Path:
    """The file of weights that a user named by itself or by its folder."""
    path = paths.trained(source)
    if path.is_dir():
        path = path / file
        if not path.exists():
            remedy = "finish that run"
            if file == _ENCODER:
                command = f"sslax.load({str(source)!r}).save({str(path)!r})"
                remedy += f", or write the encoder with `{command}`"
            raise UserError(f"There is no {file} in {source}: {remedy}.")
    if not path.is_file():
        raise UserError(f"There is no file or folder {source} to read weights from.")
    return path


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays by name, and what `save_weights` wrote beside them; {} for other files."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path} cannot be read: {error}. It is damaged or no safetensors file: copy it again, "
            "or write it again with `sslax.load(run).save(path)`."
        ) from error


def _empty(tree: PyTree, path: tuple[str, ...] = ()) -> list[str]:
    """Paths of empty dictionaries, which have no array that would stand for them."""
    if not isinstance(tree, Mapping):
        return []
    below = [name for key, value in tree.items() for name in _empty(value, (*path, key))]
    return below if tree else ["/".join(path)]


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    *scope, last = path
    for name in scope:
        tree = tree.setdefault(name, {})
    tree[last] = value
