"""UnFlow (Meister et al., AAAI 2018): bidirectional census loss on every level of PWC-Net.

    python -m sslax.main --config=configs/unflow.py             # rendered pairs, CPU
    python -m sslax.main --config=configs/unflow.py:chairs --config.data.path=DIR
    python -m sslax.main --config=configs/unflow.py:sintel --config.data.path=DIR
    python -m sslax.main --config=configs/unflow.py:kitti --config.data.path=DIR
    python -m sslax.main --config=configs/unflow.py:video --config.data.path=DIR

A weight of 0.0 switches a term of `config.unflow` off; `brightness_weight=1.0` with
`census_weight=0.0` is the baseline of the paper's ablation; `occlusion=none` disables the masks.

Expected: embedded, an endpoint error of 0.560 on held-out pairs (zero flow: 2.24). The paper's
network is FlowNetC, or a stack of them, rather than PWC-Net; it reports an endpoint error of 8.10
and 23.3 % outliers on KITTI 2015 (training set, CSS).
"""

from ml_collections import ConfigDict

from sslax.methods.flow.unflow import unflow
from sslax.training import flow_presets, presets

LIGHT = {"unflow.network": {"levels": 4, "channels": 16, "convolutions": 2}}

PAPER = {"batch_size": 4, "optimizer.drop_factor": 0.5}

VARIANTS: dict[str, presets.Values] = {
    # The finest level has 16 x 32 pixels, of which a 7 x 7 census and the border leave little.
    "": {**LIGHT, "unflow.census_radii": (2, 1, 1), "unflow.border": 0.0},
    "tiny": {"unflow.network": flow_presets.TINY_PWC_NETWORK},
    "chairs": {
        **PAPER,
        "duration": "600_000 steps",
        "optimizer.drops": (1 / 2, 2 / 3, 5 / 6),
        "unflow.consistency_weight": 0.0,
        "unflow.occlusion": "none",
        "unflow.occlusion_weight": 0.0,
    },
    "sintel": PAPER,
    "kitti": {
        **PAPER,
        "duration": "500_000 steps",
        "data.size": (370, 1224),
        "data.fitting": "window",
        "augment.size": (320, 1152),
        "optimizer.learning_rate": 1e-5,
        "optimizer.drops": (0.4, 0.6, 0.8),
    },
    "video": {},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "unflow",
        variant,
        VARIANTS,
        presets=flow_presets.PRESETS,
        tiny=flow_presets.TINY,
        augment={"recipe": "unflow", "size": (), "affine": {}},
        unflow={
            **presets.defaults_of(
                unflow,
                "census_weight",
                "brightness_weight",
                "gradient_weight",
                "smoothness_weight",
                "smoothness_order",
                "consistency_weight",
                "occlusion",
                "occlusion_weight",
                "border",
                "level_weights",
                "census_radii",
            ),
            "network": {**flow_presets.PWC_NETWORK, "levels": 6, "level_dropout": 0.0},
        },
    )
