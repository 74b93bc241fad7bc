"""Monodepth (Godard et al., CVPR 2017): depth from a single image, learned from stereo pairs.

    python -m sslax.main --config=configs/monodepth.py           # one real pair, CPU
    python -m sslax.main --config=configs/monodepth.py:scenes    # rendered pairs, held-out scenes
    python -m sslax.main --config=configs/monodepth.py:stereo --config.data.path=DIR
    python -m sslax.main --config=configs/monodepth.py:kitti --config.data.path=DIR

A directory of your own pairs contains `left` and `right`; see docs/data.md. With
`--config.monodepth.naive=True` the right image is reconstructed from the left one, so that the
disparity is aligned with an image that the network does not see.

Expected: embedded, a disparity error of 1.4 pixels (a constant: 4.8; semi-global matching of both
images: 0.9; experiments/README.md). The paper reports an abs_rel of 0.133 (ResNet-50, 256 x 512, 50
epochs, KITTI, Eigen's split, Garg's crop, 80 m), and 0.114 with pretraining on Cityscapes and
flip averaging.
"""

from ml_collections import ConfigDict

from sslax import models
from sslax.methods.depth.monodepth import monodepth
from sslax.training import presets

VARIANTS: dict[str, presets.Values] = {
    "": {
        **presets.MOTORCYCLE,
        "augment.flip": 0.0,
        "optimizer.learning_rate": 1e-3,
        "monodepth.decoder.widths": (8, 16, 32, 64, 128),
    },
    "tiny": {"monodepth.decoder": {"widths": (4, 4, 8), "scales": 2}},
    "scenes": {
        "optimizer.learning_rate": 1e-3,
        # Disparities start at 4.6 pixels. From 19 the finest map never recovers: it compares pixels
        # that are too far from their matches.
        "monodepth.decoder": {"widths": (8, 16, 32, 64, 128), "bias": -2.0},
    },
    "stereo": {"data.size": (256, 512), "batch_size": 8, "duration": "50 epochs"},
    "kitti": {
        "data.size": (256, 512),
        "batch_size": 8,
        "duration": "50 epochs",
        "model.name": "resnet50",
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant, a key of `VARIANTS`."""
    return presets.config(
        "monodepth",
        variant,
        VARIANTS,
        presets=presets.GEOMETRIC_PRESETS,
        tiny=presets.TINY_SCENES,
        data={"frames": 1, "stereo": True},
        augment={"recipe": "monodepth"},
        optimizer={"drops": (0.6, 0.8), "drop_factor": 0.5},
        evaluate={"depth": {"scaling": "none"}},
        monodepth={
            **presets.defaults_of(
                monodepth,
                *("ssim_weight", "smoothness_weight", "consistency_weight"),
                *("max_disparity", "naive"),
            ),
            "decoder": presets.defaults_of(models.DepthDecoder, "scales", "bias", "widths"),
        },
    )
