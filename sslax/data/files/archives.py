"""`.npz` archives: read without unpickling, and checked array by array."""

import contextlib
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np

from sslax.data.files.headers import describe
from sslax.data.records import DataError

Arrays = dict[str, np.ndarray]


def read_archive(path: str) -> Arrays:
    """All arrays of an archive by name; nothing is ever unpickled.

    Raises:
        DataError: there is no such archive, or it is damaged or holds Python objects.
    """
    if not path:
        raise DataError("data.source='npz' needs data.path, the archive's file name")
    file = Path(path)
    if file.is_dir():
        raise DataError(f"{path} is a directory: set data.source='folder' to read images from it")
    if not file.exists():
        raise DataError(f"data.path {path} does not exist")
    if not zipfile.is_zipfile(file):
        raise DataError(f"{path} is not an .npz archive: write it with numpy.savez_compressed")
    _check_memory(file)
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (ValueError, pickle.UnpicklingError) as error:
        raise DataError(
            f"{path} holds pickled Python objects, which are never loaded: save plain arrays, all "
            f"images in one uint8 array [N, H, W, C] ({error})"
        ) from error
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged, write it again: {error}") from error


def _check_memory(file: Path) -> None:
    """Refuses an archive that unpacks to more than the machine's memory.

    Raises:
        DataError: naming both sizes.
    """
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if unpacked > memory:
            raise DataError(
                f"{file} unpacks to {unpacked / 2**30:.1f} GiB, and this machine has "
                f"{memory / 2**30:.1f} GiB of memory: save the images as files in a folder, which "
                "are read while training"
            )


def images(arrays: Arrays, name: str, path: str) -> np.ndarray:
    """Images uint8 `[N, H, W, 1 or 3]` of an archive.

    Args:
        arrays: the archive.
        name: of the images in it.
        path: of the archive, for messages.

    Raises:
        DataError: they are missing, or of another type or shape.
    """
    if name not in arrays:
        raise DataError(f"{path} has no {name!r} but {sorted(arrays)}: save the images as {name!r}")
    pixels = arrays[name][..., None] if arrays[name].ndim == 3 else arrays[name]
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3) or pixels.dtype != np.uint8:
        raise DataError(
            f"{name!r} of {path} is {describe(arrays[name])}; images are uint8 [N, H, W] or "
            "[N, H, W, 1 or 3]"
        )
    return pixels


def dense_map(arrays: Arrays, name: str, shape: tuple[int, ...], path: str) -> np.ndarray:
    """A floating-point map `[N, H, W]` of an archive, such as depth.

    Args:
        arrays: the archive.
        name: of the map in it.
        shape: that of its images.
        path: of the archive, for messages.

    Raises:
        DataError: it has another type or shape.
    """
    values = arrays[name]
    if values.shape != shape:
        raise DataError(
            f"{name!r} of {path} has the shape {list(values.shape)}; with these images it is "
            f"{list(shape)}"
        )
    if not np.issubdtype(values.dtype, np.floating):
        unit = "meters" if name == "depth" else "pixels"
        raise DataError(
            f"{name!r} of {path} is {values.dtype}; save {unit} as floating-point numbers (from "
            "millimeters: depth / 1000.0)"
        )
    return values


def intrinsics(arrays: Arrays, count: int, path: str) -> np.ndarray:
    """Intrinsics `[1, 3, 3]` or `[N, 3, 3]` of an archive that has them.

    Raises:
        DataError: they have another shape.
    """
    matrices = np.asarray(arrays["intrinsics"], np.float64)
    if matrices.shape not in ((3, 3), (count, 3, 3)):
        raise DataError(
            f"'intrinsics' of {path} has the shape {list(matrices.shape)}; it is [3, 3], or "
            f"[{count}, 3, 3]"
        )
    return matrices.reshape(-1, 3, 3)


def poses(arrays: Arrays, count: int, path: str) -> np.ndarray:
    """Camera-to-world poses `[N, 4, 4]`, float64, of an archive that has 'pose'.

    Raises:
        DataError: they have another shape, are not rigid motions, or are not one for each image.
    """
    stored = arrays["pose"]
    if stored.ndim != 3 or stored.shape[1:] not in ((3, 4), (4, 4)):
        raise DataError(
            f"'pose' of {path} has the shape {list(stored.shape)}; poses are [N, 4, 4] or [N, 3, 4]"
        )
    result = np.tile(np.eye(4), (len(stored), 1, 1))
    result[:, :3] = stored[:, :3]
    rotation = result[:, :3, :3]
    deviation = np.abs(rotation @ rotation.swapaxes(1, 2) - np.eye(3)).max(initial=0)
    proper = (np.linalg.det(rotation) > 0).all() and np.isfinite(result).all()
    if not (deviation < 1e-2 and proper):
        raise DataError(
            f"'pose' of {path} has matrices that are not rigid motions; poses are [R | t] from the "
            "camera to the world, with R a rotation"
        )
    if len(result) != count:
        raise DataError(f"{path} has {count} images but {len(result)} of 'pose': give one for each")
    return result
