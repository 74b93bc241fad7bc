"""SfMLearner (Zhou et al., CVPR 2017): depth and motion from monocular video.

    python -m sslax.main --config=configs/sfm_learner.py         # rendered video, CPU
    python -m sslax.main --config=configs/sfm_learner.py:video --config.data.path=DIR
    python -m sslax.main --config=configs/sfm_learner.py:kitti --config.data.path=DIR

`--config.sfm_learner.explainability_weight=0.0` turns off the explainability mask, as in the
authors' later models. `--config.sfm_learner.camera=shared` learns the intrinsics of video without
calibration. Depth has no unit: evaluation scales each prediction by the ground truth.

Expected: embedded, an abs_rel of 0.310 on held-out scenes (a constant: 0.379), 6.1 degrees between
true and predicted direction (static camera: 90) and 0.45 degrees of rotation a pair (0.92). The
authors' page reports an abs_rel of 0.183 (DispNet, 128 x 416, KITTI, Eigen's split, Garg's crop,
80 m) and an ATE of 0.016 and 0.013 m on sequences 09 and 10.
"""

from ml_collections import ConfigDict

from sslax import models
from sslax.methods.depth.sfm_learner import sfm_learner
from sslax.training import presets

SMALL = {
    "data.scenes.drive": True,
    "data.scenes.speed": 2.0,
    "data.scenes.boxes": 4,
    "model.width": 0.25,
    "optimizer.learning_rate": 3e-4,
    "optimizer.rates.pose": 4.0,
    # PoseCNN takes many thousands of steps before it predicts anything but the mean motion.
    "sfm_learner.pose.name": "correlation",
    "sfm_learner.pose.decoder_width": 64,
    # The paper's weights flatten these rooms: inverse depths start at 5.
    "sfm_learner.smoothness_weight": 0.01,
    "sfm_learner.explainability_weight": 0.2,
}
PAPER = {
    "data.size": (128, 416),
    "batch_size": 4,
    "duration": "200_000 steps",
    "checkpoint_every": "5000 steps",
    "model.mean": (0.5, 0.5, 0.5),
    "model.std": (0.5, 0.5, 0.5),
    "optimizer.learning_rate": 2e-4,
    "optimizer.drops": (),
    "optimizer.final_fraction": 1.0,
}

VARIANTS: dict[str, presets.Values] = {
    "": SMALL,
    "tiny": {
        "model.width": 0.0625,
        "model.blocks": (),
        "optimizer.rates.pose": 1.0,
        "sfm_learner.pose.name": "posecnn",
        "sfm_learner.decoder.scales": 2,
    },
    "scenes": SMALL,
    "video": PAPER,
    "kitti": PAPER,
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    config = presets.config(
        "sfm_learner",
        variant,
        VARIANTS,
        presets=presets.GEOMETRIC_PRESETS,
        tiny=presets.TINY_SCENES,
        data={"frames": 3, "stereo": False},
        augment={"recipe": "sfm_learner"},
        sfm_learner={
            **presets.defaults_of(
                sfm_learner, "smoothness_weight", "explainability_weight", "camera"
            ),
            "pose": {
                **presets.defaults_of(models.build_pose_network, "decoder_width", "factors"),
                "name": "posecnn",
            },
            "decoder": presets.defaults_of(models.DispNetDecoder, "scales", "bias"),
        },
    )
    config.model.name = "dispnet"
    return config
