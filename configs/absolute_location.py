"""Absolute location (Doersch, Gupta and Efros, ICCV 2015): a diagnosis of shortcuts.

    python -m sslax.main --config=configs/absolute_location.py              # photographs, CPU
    python -m sslax.main --config=configs/absolute_location.py:folder --config.data.path=DIR

Expected: an accuracy near `accuracy_at_chance`. If it is far above, the images reveal positions: by
chromatic aberration (then `absolute_location.colors=drop` or `project` lowers it), or by content
with a typical place (sky above, ground below). See experiments/README.md.
"""

from ml_collections import ConfigDict

from sslax.methods.representation.absolute_location import absolute_location
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        "data": {"source": "photographs", "labels": False, "image_size": 96},
        "online_probe": False,
        "augment.size": 96,
        "model": {"patch_stem": 0, "small_stem": True, "width": 0.5},
        "optimizer.learning_rate": 0.2,
    },
    "tiny": {
        "data.image_size": 24,
        "augment.size": 24,
        "absolute_location": {"patches": 2, "patch": 8},
    },
    "folder": {"data.image_size": 256, "augment.size": 256, "absolute_location.patch": 64},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "absolute_location",
        variant,
        VARIANTS,
        augment={"recipe": "identity"},
        optimizer={"learning_rate": 0.1, "weight_decay": 1e-4},
        model={"mean": (), "std": ()},  # patches are standardized one by one
        absolute_location=presets.defaults_of(absolute_location),
    )
