"""SMURF (Stone et al., CVPR 2021): RAFT without labels, with full-image warping.

    python -m sslax.main --config=configs/smurf.py             # rendered pairs, CPU
    python -m sslax.main --config=configs/smurf.py:chairs --config.data.path=DIR
    python -m sslax.main --config=configs/smurf.py:sintel --config.data.path=DIR
    python -m sslax.main --config=configs/smurf.py:kitti --config.data.path=DIR
    python -m sslax.main --config=configs/smurf.py:video --config.data.path=DIR

The network's input is a crop of `config.augment.size`, whose pixels are matched in full frames;
`augment.full_frames=False` crops the frames as well. The paper's ablations are knobs:
`selfsup_weight`, `occlusion`, `smoothness_order` and `gamma` of `config.smurf`.

Expected: embedded, an endpoint error of 0.994 on held-out pairs (zero flow: 2.24). The paper
reports endpoint errors of 1.99 (clean) and 2.80 (final) on Sintel's training set, trained on its
test set, and of 2.00 on KITTI 2015, with 6.42 % outliers; 2.15 on Sintel without the multi-frame
stage, which is configs/smurf_multi_frame.py.
"""

from ml_collections import ConfigDict

from sslax.methods.flow.smurf import smurf
from sslax.training import flow_presets, presets

PAPER = {
    "batch_size": 8,
    "duration": "75000 steps",
    "model.width": 1.0,
    "optimizer.learning_rate": 2e-4,
    "optimizer.drops": (26 / 30, 27 / 30, 28 / 30, 29 / 30),
    "optimizer.drop_factor": 0.5,
    # Zooms of 2^-0.2 to 2^0.6 without those that would read outside of the frame.
    "augment.affine": {"flip_vertical": 0.1, "zoom": (1.0, 2**0.6), "squeeze": (2**-0.2, 2**0.2)},
    "optimizer.clip_norm": 1.0,
}
# With the paper's color jitter and boxes, the small run ends long before learning starts.
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
        "smurf.network": flow_presets.TINY_RAFT_NETWORK,
    },
    "chairs": {
        **PAPER,
        "augment.erase_side": (50 / 384, 100 / 384),
        "smurf.smoothness_weight": 2.0,
    },
    "sintel": {
        **PAPER,
        "data.size": (),
        "augment.size": (368, 496),
        "augment.erase_side": (50 / 368, 100 / 368),
        "smurf.selfsup_crop": 64 / 368,
    },
    "kitti": {
        **PAPER,
        "data.size": (370, 1224),
        "data.fitting": "window",
        "augment.size": (296, 696),
        "augment.erase_side": (50 / 296, 100 / 296),
        "smurf.selfsup_crop": 64 / 296,
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
            **presets.defaults_of(
                smurf,
                "data",
                "data_weight",
                "occlusion",
                "smoothness_weight",
                "smoothness_order",
                "edge_weight",
                "selfsup_weight",
                "selfsup_crop",  # of the shorter side
                "gamma",
            ),
            "occlusion_start": 0.0,  # of the run
            "selfsup_start": 5 / 12,  # of the run
            "selfsup_ramp": 1 / 12,  # of the run
            "network": flow_presets.RAFT_NETWORK,
        },
    )
