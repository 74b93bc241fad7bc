"""ARFlow (Liu et al., CVPR 2020): the first pass supervises a second one on transformed frames.

    python -m sslax.main --config=configs/arflow.py             # rendered pairs, CPU
    python -m sslax.main --config=configs/arflow.py:chairs --config.data.path=DIR
    python -m sslax.main --config=configs/arflow.py:sintel --config.data.path=DIR
    python -m sslax.main --config=configs/arflow.py:kitti --config.data.path=DIR
    python -m sslax.main --config=configs/arflow.py:video --config.data.path=DIR

`config.arflow.spatial={}`, `appearance={}` and `occluder=False` each switch one of the three
transformations off; `analogy_weight=0.0` switches off the whole second pass.

Expected: embedded, an endpoint error of 0.393 on held-out pairs (zero flow: 2.24). The paper
reports endpoint errors of 2.79 (clean) and 3.73 (final) on Sintel's training set and of 2.85 on
KITTI 2015, with 11.8 % outliers on its test set.
"""

from ml_collections import ConfigDict

from sslax.methods.flow.arflow import APPEARANCE, SPATIAL, arflow
from sslax.training import flow_presets, presets

LIGHT = {
    "arflow.network": {"levels": 4, "channels": 16, "convolutions": 2},
    "arflow.appearance.blur_sigma": (0.1, 1.0),
}

# The authors' two trainings take a thousand epochs each, of at most a thousand steps.
PAPER = {
    "batch_size": 4,
    "duration": "2_000_000 steps",
    "optimizer.drops": (),
    "optimizer.final_fraction": 1.0,
    "optimizer.weight_decay": 1e-6,
    "optimizer.epsilon": 1e-7,
}

# Knobs of `FlowRecipe` that change colors.
COLORS = (
    "jitter",
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "exposure",
    "tint",
    "blur",
    "blur_sigma",
    "noise",
)

VARIANTS: dict[str, presets.Values] = {
    "": LIGHT,
    "tiny": {
        "arflow.network": flow_presets.TINY_PWC_NETWORK,
        "arflow.early": 0.0,
        "arflow.analogy_start": 0.0,
    },
    "chairs": PAPER,
    "sintel": {**PAPER, "data.size": (), "augment.size": (384, 832)},
    "kitti": {
        **PAPER,
        "data.size": (256, 832),
        "data.fitting": "stretch",
        "arflow.smoothness_weight": 75.0,
        "arflow.smoothness_order": 2,
        "arflow.analogy_weight": 0.02,
        "arflow.spatial": {"flip_vertical": 0.0, "zoom": (1.0, 1.4), "squeeze": (1.0, 1.0)},
        "arflow.spatial.rotate": 0.01,
        "arflow.spatial.translate": 0.01,
        "arflow.spatial.relative": {"zoom": (0.99, 1.01), "rotate": 0.01, "translate": 0.00125},
        "arflow.appearance": {"contrast": 0.0, "saturation": 0.0, "exposure": 0.0},
    },
    "video": {},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "arflow",
        variant,
        VARIANTS,
        presets=flow_presets.PRESETS,
        tiny=flow_presets.TINY,
        augment={"recipe": "arflow", "size": (), "affine": {}},
        arflow={
            **presets.defaults_of(
                arflow,
                "data",
                "occlusion",
                "early_data",
                "early_occlusion",
                "ssim_weight",
                "census_radius",
                "census_robust",
                "masking",
                "smoothness_weight",
                "smoothness_order",
                "edge_weight",
                "edge_stride",
                "level_weights",
                "analogy_weight",
                "occluder",
            ),
            "early": 0.025,  # of the run: 50 epochs of 1000, before 1000 more with the analogy
            "analogy_start": 0.5,  # of the run
            "analogy_ramp": 0.0,  # of the run
            "spatial": {**SPATIAL._asdict(), "relative": SPATIAL.relative._asdict()},
            "appearance": {name: getattr(APPEARANCE, name) for name in COLORS},
            "network": {
                **flow_presets.PWC_NETWORK,
                "levels": 6,
                "convolutions": 2,
                "level_dropout": 0.0,
            },
        },
    )
