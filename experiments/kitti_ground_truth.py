"""KITTI's measured depth of a list of frames, at the size of the images, for any program.

    python experiments/kitti_ground_truth.py --data=KITTI --split=test_files.txt \\
        --depth=data_depth --output=gt_depths.npz

`--split` has the lines `date/drive frame side` of monodepth2's lists, which are not part of this
project. Without `--depth` the laser's points are projected into
each image (Eigen's 697 frames); with the folder of the improved maps, with `train` and `val` in it,
those are taken, and frames that have none are left out (652 of the 697 have one).

The output holds 'data', an object array of float32 `[H, W]` in meters, 0 where unknown, as
monodepth2's evaluation reads it (`np.load(FILE, allow_pickle=True)["data"]`), and 'frames', which
file each belongs to. `sslax.evaluate` needs no such file: `data.kitti.depth` names the folder.
"""

import argparse
from pathlib import Path

import numpy as np

from sslax import data
from sslax.data import fitting
from sslax.data.records import DataError
from sslax.data.sources import kitti


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the raw drives")
    parser.add_argument("--split", required=True)
    parser.add_argument("--depth", default="velodyne", help="folder of the improved depth maps")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        maps, frames = measured(arguments.data, arguments.split, arguments.depth)
    except DataError as error:
        raise SystemExit(f"error: {error}") from error
    stacked = np.empty(len(maps), object)
    stacked[:] = maps
    np.savez_compressed(arguments.output, data=stacked, frames=np.array(frames))
    print(f"{arguments.output}: {len(maps)} maps.")


def measured(root: str, split: str, depth: str) -> tuple[list[np.ndarray], list[str]]:
    """Depth maps `[H, W]` of a split file's frames that have one, and `drive, camera: file`."""
    config = data.defaults()
    config.update({"source": "kitti", "path": root})
    config.kitti.update({"test_split_file": split, "depth": depth})
    test = kitti.test_frames(config)  # logs how many frames have none
    maps, frames = [], []
    for clip, i in ((test.clips[clip], i) for clip, i in test.targets):
        size = clip.frames.shape(i)
        maps.append(clip.depth.read(i, fitting.fit(size), size))
        frames.append(f"{clip.name}: {Path(clip.frames.paths[i]).name}")
    return maps, frames


if __name__ == "__main__":
    main()
