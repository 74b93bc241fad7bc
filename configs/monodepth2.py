"""Monodepth2 (Godard et al., ICCV 2019): depth from video, from stereo pairs, or from both.

    python -m sslax.main --config=configs/monodepth2.py          # rendered video, CPU
    python -m sslax.main --config=configs/monodepth2.py:video --config.data.path=DIR
    python -m sslax.main --config=configs/monodepth2.py:stereo --config.data.path=DIR
    python -m sslax.main --config=configs/monodepth2.py:kitti --config.data.path=DIR
    python -m sslax.main --config=configs/monodepth2.py:kitti_stereo --config.data.path=DIR
    python -m sslax.main --config=configs/monodepth2.py:kitti_mono_stereo --config.data.path=DIR

`--config.monodepth2.camera=shared` learns the intrinsics of video without calibration.
`--config.model.encoder_from=resnet18.pth` starts from ImageNet's weights, as the paper's main
numbers do. `minimum`, `automask`, `full_resolution` and `ssim_weight` of `config.monodepth2` are
the paper's ablations.

Expected: embedded, an abs_rel of 0.274 on held-out scenes (a constant: 0.379), 4.5 degrees between
true and predicted direction (static camera: 90) and 0.37 degrees of rotation a pair (0.92). The
paper reports an abs_rel (ResNet-18, 192 x 640, KITTI, Eigen's split, Garg's crop, 80 m) of 0.115
from video, 0.109 from stereo and 0.106 from both with ImageNet's weights; 0.132, 0.130 and 0.127
without.
"""

from ml_collections import ConfigDict

from sslax import models
from sslax.methods.depth.monodepth2 import monodepth2
from sslax.training import presets

SMALL = {
    "data.scenes.drive": True,
    "data.scenes.speed": 2.0,
    "data.scenes.boxes": 4,
    "model.width": 0.25,
    "optimizer.learning_rate": 3e-4,
    # Until the motion is learned, every pixel favors more parallax. To keep depth from saturating
    # the sigmoid, where it has no gradient, motion learns faster than depth.
    "optimizer.rates.pose": 4.0,
    "monodepth2.decoder.widths": (8, 16, 32, 64, 128),
    # A ResNet takes many thousands of steps before it predicts anything but the mean motion.
    "monodepth2.pose.name": "correlation",
    "monodepth2.pose.decoder_width": 64,
}
# Meters: 5.4 times the paper's range, which is for a baseline of 0.1, not KITTI's 0.54.
METRIC = {
    "data.stereo": True,
    "evaluate.depth.scaling": "none",
    "monodepth2.min_depth": 0.54,
    "monodepth2.max_depth": 540.0,
}

VARIANTS: dict[str, presets.Values] = {
    "": SMALL,
    "tiny": {
        "monodepth2.decoder": {"widths": (4, 4, 8), "scales": 2},
        "optimizer.rates.pose": 1.0,
        "monodepth2.pose.name": "",
        "monodepth2.pose.decoder_width": 8,
    },
    "scenes": SMALL,
    "video": {},
    "stereo": {**METRIC, "data.frames": 1},
    "kitti": {},
    "kitti_stereo": {**METRIC, "data.frames": 1},
    "kitti_mono_stereo": METRIC,
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "monodepth2",
        variant,
        VARIANTS,
        presets=presets.GEOMETRIC_PRESETS,
        tiny=presets.TINY_SCENES,
        data={"frames": 3, "stereo": False},
        augment={"recipe": "monodepth2"},
        monodepth2={
            **presets.defaults_of(
                monodepth2,
                *("minimum", "automask", "full_resolution", "ssim_weight", "smoothness_weight"),
                *("velocity_weight", "consistency_weight", "min_depth", "max_depth", "camera"),
            ),
            "pose": {
                "kind": "separate",
                **presets.defaults_of(
                    models.build_pose_network, "name", "decoder_width", "factors"
                ),
            },
            "decoder": presets.defaults_of(models.DepthDecoder, "scales", "bias", "widths"),
        },
    )
