"""A trained network as StableHLO, for any batch, on CPUs, GPUs and TPUs."""

from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export

from sslax import errors, paths
from sslax.exporting.program import describe, program_of
from sslax.inference.encoder import Trained

FILE = "model.jax_export"
PLATFORMS = ("cpu", "cuda", "tpu")


def write(trained: Trained, folder: Path, poses: bool) -> list[Path]:
    """Writes `model.jax_export`, which `jax.export.deserialize` reads, and `model.json`.

    Raises:
        MissingExtra: flatbuffers is not installed.
    """
    errors.require("export", "flatbuffers")
    program = program_of(trained, poses=poses)
    image = jax.ShapeDtypeStruct((*export.symbolic_shape("b"), *program.shape), jnp.uint8)
    exported = export.export(jax.jit(program.function), platforms=PLATFORMS)(image)
    file = folder / FILE
    with paths.replacing(file) as unfinished:
        unfinished.write_bytes(exported.serialize())
    versions = {
        "jax": jax.__version__,
        "calling_convention_version": exported.calling_convention_version,
    }
    about = describe(folder, "stablehlo", program.about, platforms=PLATFORMS, file=FILE, **versions)
    return [file, about]
