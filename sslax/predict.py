"""`python -m sslax.predict --workdir=RUN --input=DIR --output=features.npz`: features of images."""

from pathlib import Path

import numpy as np
from absl import app, flags

from sslax.errors import UserError
from sslax import command

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_INPUT = flags.DEFINE_string("input", None, "An image, or a folder of images.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The .npz to write.", required=True)
_CHECKPOINT = flags.DEFINE_enum("checkpoint", "latest", ["latest", "best"], "Which checkpoint.")
_STAGES = flags.DEFINE_bool("stages", False, "Also the pooled activations of every stage.")
