"""SMURF's second stage (Stone et al., CVPR 2021): pseudo-labels from a teacher and 3 frames.

    python -m sslax.main --config=configs/smurf.py --workdir=runs/smurf               # first stage
    python -m sslax.main --config=configs/smurf_multi_frame.py \
        --config.smurf_multi_frame.teacher_from=runs/smurf                            # CPU
    python -m sslax.main --config=configs/smurf_multi_frame.py:sintel --config.data.path=DIR ...
    python -m sslax.main --config=configs/smurf_multi_frame.py:kitti --config.data.path=DIR ...
    python -m sslax.main --config=configs/smurf_multi_frame.py:video --config.data.path=DIR ...

Each variant takes the folder of a first stage of the same variant, or of any flow method with the
same network. Three consecutive frames come from `scenes`, `sintel`, `kitti_flow` with the
multi-view extension, `video`, `kitti` and `cityscapes`; `flying_chairs` has pairs only.

The test uses pairs, as for the other flow methods, and evaluates the teacher next to the student:
`epe_occluded` shows how much the previous frame helps. The authors train a new student; in the
small run it starts from the teacher (`start_from_teacher`), which takes fewer steps.

Expected: embedded, an endpoint error of 1.067 on held-out pairs (teacher: 1.072, zero flow: 1.92),
1.465 where occluded (teacher: 1.478). The paper reports 1.99 (clean) on Sintel's training set, and
2.15 after the first stage alone.
"""

from ml_collections import ConfigDict

from sslax.methods.flow.smurf_multi_frame import smurf_multi_frame
from sslax.training import flow_presets, presets

PAPER = {
    "batch_size": 8,
    "duration": "30000 steps",
    "model.width": 1.0,
    "optimizer.learning_rate": 2e-4,
    "optimizer.drops": (26 / 30, 27 / 30, 28 / 30, 29 / 30),
    "optimizer.drop_factor": 0.5,
    # Zooms of 2^-0.2 to 2^0.6 without those that would read outside of the frame.
    "augment.affine": {"flip_vertical": 0.1, "zoom": (1.0, 2**0.6), "squeeze": (2**-0.2, 2**0.2)},
    "optimizer.clip_norm": 1.0,
    "smurf_multi_frame.teacher_iterations": 32,
    "smurf_multi_frame.fusion_steps": 2000,
}
# As in configs/smurf.py, which trains the teacher; fusion should cost no more than the network.
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
        "smurf_multi_frame.network": flow_presets.TINY_RAFT_NETWORK,
    },
    "sintel": {
        **PAPER,
        "data.size": (),
        "augment.size": (368, 496),
        "augment.erase_side": (50 / 368, 100 / 368),
    },
    "kitti": {
        **PAPER,
        "data.size": (370, 1224),
        "data.fitting": "window",
        "augment.size": (296, 696),
        "augment.erase_side": (50 / 296, 100 / 296),
    },
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
            **presets.defaults_of(
                smurf_multi_frame,
                "start_from_teacher",
                "occlusion",
                "border_occluded",
                "fusion_steps",
                "fusion_hidden",
                "fusion_stride",
                "gamma",
            ),
            "teacher_from": "",  # folder of a finished first stage, or its network.safetensors
            "teacher_iterations": 0,  # 0: as many as the student
            "network": flow_presets.RAFT_NETWORK,
        },
    )
