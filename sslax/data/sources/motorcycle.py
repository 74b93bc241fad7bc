"""Middlebury's motorcycle, a real stereo pair that comes with scikit-image."""

import numpy as np
from ml_collections import ConfigDict

from sslax.data import sampling, scenes
from sslax.data.records import DataError, Dataset, array_source

SIZE = (160, 224)


def load(config: ConfigDict) -> Dataset:
    """A single pair to train on and, with its ground truth, to test on.

    As stereo (`frames=1, stereo=True`) it is left and right. As flow (`frames=2,
    target_frame="first"`) too, with the flow where it is known. As video (`frames=2`) it is right
    and left, so that the target, the second, is the view whose depth is known.

    Raises:
        DataError: the config asks for more than a pair.
    """
    sampling.check(config)
    sampling.check_no_files(config)
    if config.frames + config.stereo != 2 or config.interval != 1:
        raise DataError(
            "data.source='motorcycle' is one pair: set data.frames=1 and data.stereo=True, or "
            "data.frames=2 and data.stereo=False, at data.interval=1"
        )
    pair = scenes.motorcycle(tuple(config.size) or SIZE)
    record = {"image": pair["image"], "intrinsics": pair["intrinsics"]}
    ground_truth = {"depth": pair["depth"]}
    if config.stereo:
        record["baseline"] = pair["baseline"]
    else:
        distance = np.float32([0.0, pair["baseline"]])
        poses = np.stack([np.eye(4, dtype=np.float32), pair["pose"]])
        if config.target_frame == "middle":
            record["image"] = record["image"][::-1]
            distance, poses = distance[::-1], poses[::-1]
        else:
            flow = np.where(pair["known"][..., None], pair["flow"], np.float32(0))
            ground_truth |= {"flow": flow, "known": pair["known"]}
        ground_truth["pose"] = poses
        if config.distances:
            record["distance"] = distance
    train, test = (
        array_source({name: np.asarray(value)[None] for name, value in arrays.items()})
        for arrays in (record, record | ground_truth)
    )
    return Dataset(train, test, None)
