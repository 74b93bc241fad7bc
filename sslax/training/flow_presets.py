"""Shared by the configs of all flow methods: data sets of frame pairs, and settings that fit them.

As `sslax.training.presets` has it for images: `presets.config(..., presets=PRESETS, tiny=TINY)`.
"""

from collections.abc import Mapping

from sslax.models.pwc import PWCNet
from sslax.models.raft import RAFT
from sslax.training.presets import TINY_RENDERED, Values

_FLOW: Values = {
    "batch_size": 1,
    "log_every": "100 steps",
    "checkpoint_every": "5000 steps",
    "data.frames": 2,
    "data.target_frame": "first",
    "data.labels": False,
    "model.name": "pwc",
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-4,
    "optimizer.scaling": "none",
    "optimizer.weight_decay": 0.0,
    "optimizer.drops": (0.8, 0.9),
}
"""Pairs of frames; Adam, whose learning rate drops to a hundredth in two steps."""

SCENES: Values = {
    **_FLOW,
    "batch_size": 8,
    "duration": "2000 steps",
    "log_every": "50 steps",
    "checkpoint_every": "500 steps",
    "data.source": "scenes",
    "data.size": (64, 128),
    "data.scenes.speed": 0.7,
    "model.width": 0.25,
    "optimizer.learning_rate": 1e-3,
}
"""Rooms, rendered during training, with exact flow for the test: minutes on two cores."""

TINY: Values = {
    **TINY_RENDERED,
    "data.scenes.textures": 8,
    "model.width": 0.05,
    "optimizer.clip_norm": 1.0,
}
"""On top of `SCENES`: takes seconds, runs everything, learns nothing."""

_PWC_KNOBS = (
    "levels",
    "channels",
    "convolutions",
    "decoder",
    "context",
    "normalize",
    "level_dropout",
)
_RAFT_KNOBS = ("small", "blocks", "iterations", "levels", "correlation", "remat")

PWC_NETWORK: Values = {name: getattr(PWCNet, name) for name in _PWC_KNOBS}
"""Section `network` of a method that uses PWC-Net, with UFlow's values."""

RAFT_NETWORK: Values = {
    **{name: getattr(RAFT, name) for name in _RAFT_KNOBS},
    "convex": True,
    "norm": "instance",
}
"""Section `network` of a method that uses RAFT, with SMURF's values."""

TINY_RAFT_NETWORK: Values = {"blocks": 1, "iterations": 2, "levels": 1}
"""RAFT for `TINY`."""

TINY_PWC_NETWORK: Values = {
    "levels": 3,
    "channels": 4,
    "convolutions": 1,
    "decoder": (128, 64),
    "context": ((64, 2),),
}
"""PWC-Net for `TINY`: few convolutions, since compiling them takes most of the time."""

CHAIRS: Values = {**_FLOW, "duration": "1e6 examples", "data.source": "flying_chairs"}
"""FlyingChairs, 384 x 512: data.path. Its flow serves the test alone."""

SINTEL: Values = {
    **_FLOW,
    "duration": "1e6 examples",
    "data.source": "sintel",
    "data.size": (448, 1024),
}
"""MPI Sintel: data.path; trained on its test scenes, tested on its training scenes."""

KITTI: Values = {
    **_FLOW,
    "duration": "1e6 examples",
    "data.source": "kitti_flow",
    "data.size": (352, 1216),
}
"""KITTI's flow with the multi-view extension: data.path; tested on the 200 scenes of 2015."""

VIDEO: Values = {
    **_FLOW,
    "batch_size": 4,
    "duration": "20 epochs",
    "checkpoint_every": "1 epoch",
    "data.source": "video",
    "data.size": (256, 448),
}
"""Your own frames: data.path, a data.size of their aspect ratio, data.interval."""

PRESETS: Mapping[str, Values] = {
    "": SCENES,
    "chairs": CHAIRS,
    "sintel": SINTEL,
    "kitti": KITTI,
    "video": VIDEO,
}

_TRIPLETS: Values = {"data.frames": 3, "data.target_frame": "second"}

TRIPLET_PRESETS: Mapping[str, Values] = {
    name: {**values, **_TRIPLETS} for name, values in PRESETS.items() if name != "chairs"
}
"""The same with the frame before each pair, which FlyingChairs lacks."""
