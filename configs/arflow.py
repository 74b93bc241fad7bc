"""ARFlow (Liu et al., CVPR 2020): the first pass supervises a second one on transformed frames.

    python -m sslax.main --config=configs/arflow.py             # rendered pairs, CPU
    python -m sslax.main --config=configs/arflow.py:chairs --config.data.path=DIR
    python -m sslax.main --config=configs/arflow.py:sintel --config.data.path=DIR
    python -m sslax.main --config=configs/arflow.py:kitti --config.data.path=DIR
    python -m sslax.main --config=configs/arflow.py:video --config.data.path=DIR

`config.arflow.spatial={}`, `appearance={}` and `occluder=False` switch the three transformations
off, one by one; `analogy_weight=0.0` the whole second pass.

Expected: embedded, an endpoint error of 0.395 on held-out pairs (zero flow: 2.24). The paper
reports endpoint errors of 2.79 (clean) and 3.73 (final) on Sintel's training set and of 2.85 on
KITTI 2015, 11.8 % of outliers on its test set.
"""

from ml_collections import ConfigDict

from sslax.training import flow_presets, presets

LIGHT = {
    "arflow.network": {"levels": 4, "channels": 16, "convolutions": 2},
    "arflow.appearance.blur_sigma": (0.1, 1.0),
}

VARIANTS: dict[str, presets.Values] = {
    "": LIGHT,
    "tiny": {"arflow.network": flow_presets.TINY_NETWORK, "arflow.analogy_start": 0.0},
    "chairs": {"batch_size": 4},
    "sintel": {"batch_size": 4, "data.size": (384, 832)},
    "kitti": {
        "batch_size": 4,
        "arflow.data": "census",
        "arflow.occlusion": "range_map",
        "arflow.smoothness_weight": 75.0,
        "arflow.smoothness_order": 2,
        "arflow.analogy_weight": 0.02,
        "arflow.spatial.flip_vertical": 0.0,
        "arflow.spatial.zoom": (1.0, 1.4),
        "arflow.spatial.squeeze": (1.0, 1.0),
        "arflow.spatial.rotate": 0.01,
        "arflow.spatial.translate": 0.01,
        "arflow.spatial.relative": 0.125,
        "arflow.appearance.contrast": 0.0,
        "arflow.appearance.saturation": 0.0,
        "arflow.appearance.exposure": 0.0,
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
            "data": "ssim_l1",
            "ssim_weight": 0.85,
            "occlusion": "forward_backward",
            "smoothness_weight": 50.0,
            "smoothness_order": 1,
            "edge_weight": 10.0,
            "level_weights": (1.0, 1.0, 1.0, 1.0, 0.0),
            "analogy_weight": 0.01,
            "analogy_start": 0.5,  # of the run
            "analogy_ramp": 0.0,  # of the run
            "spatial": {
                "flip": 0.5,
                "flip_vertical": 0.5,
                "zoom": (1.0, 1.5),
                "squeeze": (0.86, 1.16),
                "rotate": 0.2,
                "translate": 0.05,
                "relative": 0.075,
            },
            "appearance": {
                "jitter": 1.0,
                "brightness": 0.5,
                "contrast": 0.5,
                "saturation": 0.5,
                "hue": 0.0,
                "exposure": 1.0,
                "tint": (1.0, 1.0),
                "blur": 0.5,
                "blur_sigma": (0.1, 3.0),
                "noise": 0.04,
            },
            "occluder": True,
            "network": {
                **flow_presets.NETWORK,
                "levels": 6,
                "channels": 32,
                "convolutions": 2,
                "normalize": True,
                "level_dropout": 0.0,
            },
        },
    )
