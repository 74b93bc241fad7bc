"""UFlow (Jonschkowski et al., ECCV 2020): census, range-map occlusion, and self-supervision.

    python -m sslax.main --config=configs/uflow.py             # rendered pairs, CPU
    python -m sslax.main --config=configs/uflow.py:chairs --config.data.path=DIR
    python -m sslax.main --config=configs/uflow.py:sintel --config.data.path=DIR
    python -m sslax.main --config=configs/uflow.py:kitti --config.data.path=DIR
    python -m sslax.main --config=configs/uflow.py:video --config.data.path=DIR

The paper's ablations are knobs: `data`, `occlusion`, `selfsup_weight` and `smoothness_order` of
`config.uflow`, `normalize` and `level_dropout` of `config.uflow.network`.

Expected: embedded, an endpoint error of 0.385 on held-out pairs (zero flow: 2.24), 0.67 with a
duration of 300 steps. The paper reports endpoint errors of 3.01 (clean) and 4.09 (final) on
Sintel's training set, trained on its test set, and of 2.84 on KITTI 2015, with 9.39 % outliers.
"""

from ml_collections import ConfigDict

from sslax.methods.flow.uflow import uflow
from sslax.training import flow_presets, presets

LIGHT = {"uflow.network": {"levels": 4, "channels": 16, "convolutions": 2}}

PAPER = {"optimizer.drops": (), "optimizer.final_fraction": 1.0}

VARIANTS: dict[str, presets.Values] = {
    "": LIGHT,
    "tiny": {"uflow.network": flow_presets.TINY_PWC_NETWORK},
    "chairs": PAPER,
    "sintel": {
        **PAPER,
        "data.fitting": "stretch",
        "augment.affine.flip_vertical": 0.5,
        "uflow.selfsup_crop": 64 / 448,
    },
    "kitti": {
        **PAPER,
        "data.size": (640, 640),
        "data.fitting": "stretch",
        "uflow.selfsup_crop": 64 / 640,
        "uflow.occlusion": "forward_backward",
        "uflow.smoothness_weight": 2.0,
        "uflow.smoothness_order": 2,
    },
    "video": {},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "uflow",
        variant,
        VARIANTS,
        presets=flow_presets.PRESETS,
        tiny=flow_presets.TINY,
        augment={"recipe": "uflow", "size": (), "affine": {}},
        uflow={
            **presets.defaults_of(
                uflow,
                "data",
                "data_weight",
                "occlusion",
                "smoothness_weight",
                "smoothness_order",
                "edge_weight",
                "selfsup_weight",
                "selfsup_crop",  # of the shorter side: 64 of 384 pixels
            ),
            "occlusion_start": 0.0,  # of the run
            "selfsup_start": 0.5,  # of the run
            "selfsup_ramp": 0.1,  # of the run
            "network": flow_presets.PWC_NETWORK,
        },
    )
