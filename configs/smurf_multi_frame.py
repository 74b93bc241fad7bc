"""SMURF's second stage (Stone et al., CVPR 2021): taught by a trained network and three frames.

    python -m sslax.main --config=configs/smurf.py --workdir=runs/smurf               # first stage
    python -m sslax.main --config=configs/smurf_multi_frame.py \
        --config.smurf_multi_frame.teacher_from=runs/smurf                            # CPU
    python -m sslax.main --config=configs/smurf_multi_frame.py:sintel --config.data.path=DIR ...
    python -m sslax.main --config=configs/smurf_multi_frame.py:kitti --config.data.path=DIR ...
    python -m sslax.main --config=configs/smurf_multi_frame.py:video --config.data.path=DIR ...

Each variant wants the folder of a first stage of the same variant, or of any flow method with the
same network. Three consecutive frames come from `scenes`, `sintel`, `kitti_flow` with the
multi-view extension, `video`, `kitti` and `cityscapes`; `flying_chairs` has pairs alone.

The test is of pairs, as that of the other flow methods, with the teacher beside the student:
`epe_occluded` tells what the past was good for. `start_from_teacher`, `border_occluded`,
`fusion_steps` and `teacher_iterations` of `config.smurf_multi_frame` are switches. The authors
train the student anew; in the small run it starts from the teacher, which takes fewer steps.

Expected: embedded, an endpoint error of 1.067 on held-out pairs (the teacher's 1.072, zero flow's
1.92), 1.465 where occluded (1.478). The paper reports 1.99 (clean) on Sintel's training set, with
the first stage alone 2.15.
"""

from ml_collections import ConfigDict

from sslax.training import flow_presets, presets

PAPER = {
    "batch_size": 8,
    "duration": "30000 steps",
    "model.width": 1.0,
    "optimizer.learning_rate": 2e-4,
    "optimizer.drops": (5 / 6, 11 / 12),
    "optimizer.clip_norm": 1.0,
    "smurf_multi_frame.teacher_iterations": 32,
    "smurf_multi_frame.fusion_steps": 2000,
}
# As in configs/smurf.py, whose network it is; on two cores the frames' past must not cost more.
LIGHT = {
    "duration": "300 steps",
    "augment.size": (48, 96),
    "augment.hue": 0.1,
    "augment.brightness": 0.2,
    "augment.contrast": 0.2,
    "augment.saturation": 0.2,
    "augment.erase": 0.0,
    "model.width": 0.5,
    "optimizer.learning_rate": 3e-4,
    "optimizer.clip_norm": 1.0,
    "smurf_multi_frame.start_from_teacher": True,
    "smurf_multi_frame.fusion_steps": 100,
    "smurf_multi_frame.fusion_stride": 4,
    "smurf_multi_frame.network": {"small": True, "iterations": 4, "levels": 3},
}

VARIANTS: dict[str, presets.Values] = {
    "": LIGHT,
    "tiny": {
        "augment.size": (24, 40),
        "model.width": 0.125,
        "optimizer.learning_rate": 1e-3,
        "smurf_multi_frame.start_from_teacher": False,
        "smurf_multi_frame.fusion_steps": 5,
        "smurf_multi_frame.network": {"iterations": 2, "levels": 1},
    },
    "sintel": {**PAPER, "augment.size": (368, 496), "data.size": ()},
    "kitti": {**PAPER, "augment.size": (296, 696)},
    "video": {
        "augment.size": (192, 384),
        "optimizer.clip_norm": 1.0,
        "smurf_multi_frame.fusion_stride": 4,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "smurf_multi_frame",
        variant,
        VARIANTS,
        presets=flow_presets.TRIPLET_PRESETS,
        tiny=flow_presets.TINY,
        model={"name": "raft"},
        augment={"recipe": "smurf", "size": (), "full_frames": True, "affine": {}},
        smurf_multi_frame={
            "teacher_from": "",  # folder of a finished run of the first stage
            "start_from_teacher": False,
            "teacher_iterations": 0,  # 0: as the student
            "occlusion": "forward_backward",
            "border_occluded": True,  # a pixel that leaves the frame
            "fusion_steps": 200,
            "fusion_hidden": 16,
            "fusion_stride": 1,
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
