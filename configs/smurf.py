"""SMURF (Stone et al., CVPR 2021): RAFT without labels, with full-image warping.

    python -m sslax.main --config=configs/smurf.py             # rendered pairs, CPU
    python -m sslax.main --config=configs/smurf.py:chairs --config.data.path=DIR
    python -m sslax.main --config=configs/smurf.py:sintel --config.data.path=DIR
    python -m sslax.main --config=configs/smurf.py:kitti --config.data.path=DIR
    python -m sslax.main --config=configs/smurf.py:video --config.data.path=DIR

The network is given a part of the frames, `config.augment.size`, and matched in the whole of them;
`augment.full_frames=False` cuts the frames, too. `selfsup_weight`, `occlusion`, `smoothness_order`
and `gamma` of `config.smurf` are switches.

Expected: embedded, an endpoint error of 0.994 on held-out pairs (zero flow: 2.24). The paper
reports endpoint errors of 1.99 (clean) and 2.80 (final) on Sintel's training set, trained on its
test set, and of 2.00 on KITTI 2015, 6.42 % of outliers; 2.15 on Sintel without the multi-frame
stage, which is configs/smurf_multi_frame.py.
"""

from ml_collections import ConfigDict

from sslax.training import flow_presets, presets

PAPER = {
    "batch_size": 8,
    "duration": "75000 steps",
    "model.width": 1.0,
    "optimizer.learning_rate": 2e-4,
    "optimizer.drops": (5 / 6, 11 / 12),
    "optimizer.clip_norm": 1.0,
}
# The paper's colors and boxes delay the start by many times what all of the small run takes.
LIGHT = {
    "duration": "1000 steps",
    "augment.size": (48, 96),
    "augment.hue": 0.1,
    "augment.brightness": 0.2,
    "augment.contrast": 0.2,
    "augment.saturation": 0.2,
    "augment.erase": 0.0,
    "model.width": 0.5,
    "optimizer.clip_norm": 1.0,
    "smurf.network": {"small": True, "iterations": 4, "levels": 3},
}

VARIANTS: dict[str, presets.Values] = {
    "": LIGHT,
    "tiny": {
        "augment.size": (24, 40),
        "model.width": 0.125,
        "smurf.network": {"iterations": 2, "levels": 1},
    },
    "chairs": {**PAPER, "augment.size": (368, 496), "smurf.smoothness_weight": 2.0},
    "sintel": {**PAPER, "augment.size": (368, 496), "data.size": ()},
    "kitti": {
        **PAPER,
        "augment.size": (296, 696),
        "smurf.occlusion": "forward_backward",
        "smurf.occlusion_start": 1 / 3,
        "smurf.smoothness_weight": 2.0,
        "smurf.smoothness_order": 2,
    },
    "video": {"augment.size": (192, 384), "optimizer.clip_norm": 1.0},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "smurf",
        variant,
        VARIANTS,
        presets=flow_presets.PRESETS,
        tiny=flow_presets.TINY,
        model={"name": "raft"},
        augment={"recipe": "smurf", "size": (), "full_frames": True, "affine": {}},
        smurf={
            "data": "census",
            "data_weight": 1.0,
            "occlusion": "range_map",
            "occlusion_start": 0.0,  # of the run
            "smoothness_weight": 2.5,
            "smoothness_order": 1,
            "edge_weight": 150.0,
            "selfsup_weight": 0.3,
            "selfsup_start": 5 / 12,  # of the run
            "selfsup_ramp": 1 / 12,  # of the run
            "selfsup_crop": 1 / 6,  # of the shorter side
            "gamma": 0.8,
            "network": {
                "small": False,
                "iterations": 12,
                "levels": 4,
                "convex": True,
                "norm": "instance",
                "correlation": "dense",
                "remat": False,
            },
        },
    )
