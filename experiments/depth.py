"""Depth and ego-motion without labels: results of each method, and an ablation of Monodepth2.

    python experiments/depth.py --output=FOLDER [--rgbd=FILE.npz] [--odometry=FILE.npz]
        [--peer-python=PYTHON_WITH_OPENCV] [--only NAME ...]

Runs, one folder each below the output, all from random weights:

  motorcycle, motorcycle_naive       one real pair, beside OpenCV's semi-global matching
  stereo_scenes                      rendered pairs; held-out scenes
  monodepth2_scenes, sfm_scenes      rendered video; held-out scenes
  monodepth2_rgbd, sfm_rgbd          frames of a hand-held camera
  monodepth2_odometry, sfm_odometry  gray frames of a car
  ablation_*                         monodepth2_scenes, continued without one component or all
                                     three, on rendered video in which a box often moves along with
                                     the camera, like a car ahead; two seeds

`--rgbd` names an archive of 'rgb' [N, H, W, 3], 'depth_mm', 'cam2world' [N, 4, 4], 'intrinsics':
the first 500 frames train and the last 200 test. `--odometry`: 'frames' [N, H, W], 'cam2world'
[N, 3, 4], 'intrinsics'; the first three quarters train. An interrupted script resumes where it
stopped; it ends with `table.md`, and `ablation.png` of the ablation. Results and conclusions are in
experiments/README.md.
"""

import argparse
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

CONFIGS = Path(__file__).parents[1] / "configs"
INTERVAL = {
    "rgbd": 4,
    "odometry": 1,
}  # distance between the frames of a sample, in frames of the recording
LOGGED = {"batch_size": 8, "log_every": "100 steps", "checkpoint_every": "500 steps"}


def small(name: str) -> dict[str, Any]:
    """Networks and rates of a config's small variant, for use with other data."""
    values = runpy.run_path(str(CONFIGS / f"{name}.py"))["SMALL"]
    return {**LOGGED, **{k: v for k, v in values.items() if not k.startswith("data.")}}


def in_section(name: str, knobs: dict[str, Any]) -> dict[str, Any]:
    """Knobs by their dotted names."""
    return {f"{name}.{knob}": value for knob, value in knobs.items()}


MONODEPTH2 = {**small("monodepth2"), "model.name": "resnet10"}
SFM = small("sfm_learner")
RGBD = {"data.size": (96, 128), "duration": "1000 steps", "evaluate.depth.max_depth": 10.0}
ODOMETRY = {
    "data.size": (96, 320),
    "duration": "600 steps",
    "batch_size": 4,
    "optimizer.learning_rate": 2e-4,
    "optimizer.rates.pose": 5.0,
}
# Near the car, pixels move farther than the eight that one search covers. Turns are learned only if
# depth starts farther away than in the paper. From there, sideways motion moves pixels so much more
# than a turn does that it is learned instead.
CAR = {"pose.factors": (1, 4), "decoder.bias": -3.5}
BUSY = {
    "data.scenes.boxes": 1,
    "data.scenes.following": 0.7,
    "data.scenes.still": 0.1,
    "duration": "300 steps",
    "log_every": "20 steps",
}
START = "monodepth2_scenes"  # of the ablation
SEEDS = (0, 1)
SWITCHES = {
    "full": {},
    "without_minimum": {"minimum": False},
    "without_automask": {"automask": False},
    "without_full_resolution": {"full_resolution": False},
    "without_any": {"minimum": False, "automask": False, "full_resolution": False},
}
# config, variant, what differs, and the recording it needs
RUNS = {
    "motorcycle": ("monodepth", "", {}, None),
    "motorcycle_naive": ("monodepth", "", {"monodepth.naive": True}, None),
    "stereo_scenes": ("monodepth", "scenes", {}, None),
    "monodepth2_scenes": ("monodepth2", "scenes", {}, None),
    "sfm_scenes": ("sfm_learner", "scenes", {}, None),
    "monodepth2_rgbd": ("monodepth2", "video", {**MONODEPTH2, **RGBD}, "rgbd"),
    "sfm_rgbd": ("sfm_learner", "video", {**SFM, **RGBD}, "rgbd"),
    "monodepth2_odometry": (
        "monodepth2",
        "video",
        {**MONODEPTH2, **ODOMETRY, **in_section("monodepth2", CAR)},
        "odometry",
    ),
    "sfm_odometry": (
        "sfm_learner",
        "video",
        {**SFM, **ODOMETRY, **in_section("sfm_learner", CAR)},
        "odometry",
    ),
    **{
        f"ablation_{name}_{seed}": (
            "monodepth2",
            "scenes",
            {**BUSY, "seed": seed, **in_section("monodepth2", knobs)},
            None,
        )
        for name, knobs in SWITCHES.items()
        for seed in SEEDS
    },
}
SHOWN = (
    *("abs_rel", "rmse", "delta_1", "disparity_error", "disparity_above_3px"),
    *("rotation", "direction", "ate"),
)


def recording(kind: str, source: str, folder: Path) -> dict[str, str]:
    """Writes a recording in the format of the source 'video'; returns the two paths.

    Each of the first INTERVAL frames starts a training sequence of every INTERVAL-th frame, so that
    all frames are used; test frames are every INTERVAL-th.
    """
    from PIL import Image

    from sslax.data.files import cameras

    with np.load(source) as archive:
        if kind == "rgbd":
            images, poses = archive["rgb"], archive["cam2world"]
            depth = archive["depth_mm"].astype(np.float32) / 1000
            cut = 500
        else:
            images, poses, depth = archive["frames"], archive["cam2world"], None
            images = np.repeat(images[..., None], 3, axis=-1)
            cut = 3 * len(images) // 4
        camera = archive["intrinsics"]
    step = INTERVAL[kind]
    train, test = folder / f"{kind}_train", folder / f"{kind}_test.npz"
    if not test.exists():
        for phase in range(step):
            sequence = train / f"{phase}"
            sequence.mkdir(parents=True, exist_ok=True)
            cameras.write_intrinsics(sequence / "intrinsics.txt", camera)
            for i in range(phase, cut, step):
                Image.fromarray(images[i]).save(sequence / f"{i:05d}.png")
        rows = slice(cut, None, step)
        truth = {} if depth is None else {"depth": depth[rows]}
        np.savez(test, image=images[rows], intrinsics=camera, pose=poses[rows], **truth)
    return {"data.path": str(train), "data.test_path": str(test)}


def train(name: str, output: Path, recordings: dict[str, str | None]) -> dict[str, float] | None:
    """Trains (or resumes) and evaluates a run. Returns its results, or None without its data."""
    from sslax.inference.run import open_run
    from sslax.methods import METHODS
    from sslax.tasks.evaluation import evaluate_run
    from sslax.training.fit import fit

    config_name, variant, changes, kind = RUNS[name]
    workdir = output / name
    if (workdir / "results.json").exists():
        return json.loads((workdir / "results.json").read_text())
    paths = {}
    if kind:
        if not recordings[kind]:
            return None
        paths = recording(kind, recordings[kind], output)
    config = runpy.run_path(str(CONFIGS / f"{config_name}.py"))["get_config"](variant)
    with config.optimizer.rates.unlocked():
        config.update_from_flattened_dict({**changes, **paths})
    print(f"--- {name}", flush=True)
    methods = METHODS
    if name.startswith("ablation"):
        methods = {**METHODS, "monodepth2": continued(METHODS["monodepth2"], output / START)}
    state = fit(config, workdir, methods=methods)
    if int(state.step) < open_run(workdir).plan.steps:
        raise SystemExit(f"{name} was stopped at step {int(state.step)}; start again to resume.")
    return evaluate_run(workdir)


def continued(build: Any, source: Path) -> Any:
    """`build`, but the networks start from the last checkpoint of the run in `source`."""
    import jax

    from sslax import models

    def made(config: Any, steps: int) -> Any:
        method = build(config, steps)

        def init(rng: Any, batch: Any) -> Any:
            fresh = method.init(rng, batch)
            params, state, _ = models.read_variables(source, file="network.safetensors")
            params, state = jax.tree.map(jax.numpy.asarray, (params, state))
            return fresh._replace(params=params, model_state=state)

        return method._replace(init=init)

    return made


def semi_global_matching() -> None:
    """Runs with OpenCV: reads a file name from standard input, prints errors to standard output.

    Gaps in the disparity are filled.
    """
    import cv2
    from classical import disparity, filled

    with np.load(sys.stdin.buffer.readline().decode().strip()) as archive:
        left, right = archive["image"]
        truth, known = archive["disparity"], archive["known"]
    found = disparity(*(cv2.cvtColor(x, cv2.COLOR_RGB2BGR) for x in (left, right)), largest=48)
    error = np.abs(filled(found) - truth)
    matched = known & (found >= 0)
    print(
        json.dumps(
            {
                "disparity_error": float(error[known].mean()),
                "disparity_above_3px": float((error[known] > 3).mean()),
                "disparity_error_where_matched": float(error[matched].mean()),
                "matched": float(matched.sum() / known.sum()),
            }
        )
    )


def matched(python: str, output: Path) -> dict[str, float]:
    """Errors of semi-global matching on the motorcycle at the run's resolution."""
    from sslax.data import scenes

    pair = scenes.motorcycle((160, 224))
    file = output / "motorcycle.npz"
    np.savez(file, **{name: pair[name] for name in ("image", "disparity", "known")})
    command = [python, __file__, "--match"]
    found = subprocess.run(command, input=f"{file}\n", capture_output=True, text=True, check=True)
    return json.loads(found.stdout)


def table(results: dict[str, dict[str, float]]) -> str:
    """A row for each run, followed by the untrained network and the trivial baseline."""
    lines = ["| run | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 1) + "|"]
    for name, numbers in results.items():
        for suffix in ("", "_untrained", "_trivial"):
            found = [numbers.get(column + suffix) for column in SHOWN]
            if all(value is None for value in found):
                continue
            cells = ["" if value is None else f"{value:.3f}" for value in found]
            lines.append(f"| {name}{suffix} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ablation(output: Path) -> str:
    """Evaluates the ablation where its components matter, and draws depth maps side by side.

    Depth is scaled by the median of the whole image. The error is the mean of `|z - z*| / z*` over
    all pixels, over those occluded in the frame before or after, and over boxes that follow the
    camera; "far" is the share of the latter predicted at more than twice their distance. Means over
    the seeds and, after ±, half their range.
    """
    import sslax
    from sslax import data, figures

    runs = {"start": [START]}
    runs |= {name: [f"ablation_{name}_{seed}" for seed in SEEDS] for name in SWITCHES}
    every = [output / run for found in runs.values() for run in found]
    if not all((run / "results.json").exists() for run in every):
        return ""
    test = data.load(sslax.load(output / runs["full"][0]).config.data).test
    samples = test.take(np.arange(len(test)))
    depth, box = samples["depth"], samples["moving"]
    parts = {"all": np.ones_like(box), "occluded": samples["occluded"], "boxes that follow": box}
    shown = np.argsort(-box.mean((1, 2)))[:8]
    columns = {"image": samples["image"][shown, 1], "true": depth[shown]}
    lines = [f"| run | {' | '.join(parts)} | far |", "|---" * (len(parts) + 2) + "|"]
    for name, names in runs.items():
        errors = []
        for run in names:
            found = sslax.load(output / run)(samples["image"], samples["intrinsics"]).depth
            ratio = found * np.median(depth / found, axis=(1, 2), keepdims=True) / depth
            errors.append([np.abs(ratio[part] - 1).mean() for part in parts.values()])
            errors[-1].append(np.mean(ratio[box] > 2))
        means, spread = np.mean(errors, axis=0), np.ptp(errors, axis=0) / 2
        cells = [f"{mean:.3f} ± {half:.3f}" for mean, half in zip(means, spread)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
        columns[name.replace("_", " ")] = found[shown]
    for title in list(columns)[1:]:
        columns[title] = np.stack([figures.depth_colors(x) for x in columns[title]])
    title = "Monodepth2 without one idea, or any"
    figures.task_grid(columns, output / "ablation.png", title=title)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rgbd")
    parser.add_argument("--odometry")
    parser.add_argument("--peer-python", help="interpreter with OpenCV")
    parser.add_argument("--only", nargs="*", choices=[*RUNS], default=[*RUNS])
    parser.add_argument("--match", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.match:
        semi_global_matching()
        return
    options.output.mkdir(parents=True, exist_ok=True)
    recordings = {"rgbd": options.rgbd, "odometry": options.odometry}
    results = {}
    for name in RUNS:
        done = options.output / name / "results.json"
        if name in options.only:
            numbers = train(name, options.output, recordings)
        else:
            numbers = json.loads(done.read_text()) if done.exists() else None
        if numbers:
            results[name] = numbers
    if options.peer_python:
        results["semi-global matching"] = matched(options.peer_python, options.output)
        print(results["semi-global matching"])
    text = table(results) + "\n\n" + ablation(options.output)
    (options.output / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
