"""Which methods the tests compile once more, for another layout of the devices or the batch.

With `SSLAX_SHARDED=every` these are all methods, which takes several minutes.
"""

import os

from sslax.methods import METHODS

EVERY = os.environ.get("SSLAX_SHARDED") == "every"


def chosen(names):
    """Those names, or with `SSLAX_SHARDED=every` all methods."""
    return sorted(METHODS if EVERY else names)


# Steps of those left out take longest to compile; whatever the devices, they are one program.
ONE_AND_EIGHT = chosen(
    METHODS.keys() - {"arflow", "monodepth2", "sfm_learner", "smurf", "smurf_multi_frame", "unflow"}
)
SHARDED = chosen(["simclr", "mae", "monodepth"])
# Rotation and MAE stand for the losses that are means over examples.
DIVIDED = chosen(
    METHODS.keys()
    - {"absolute_location", "colorization", "context_prediction", "inpainting", "jigsaw"}
)
