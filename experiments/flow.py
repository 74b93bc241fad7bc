"""Optical flow without labels: results of each method, and an ablation of UFlow.

    python experiments/flow.py --output=FOLDER [--chairs=FILE.npz] [--rgbd=FILE.npz]
        [--peer-python=PYTHON_WITH_OPENCV] [--only NAME ...]

Runs, one folder each below the output, all from random weights on rendered pairs:

  uflow, unflow, arflow, smurf   with their default configs
  smurf_multi_frame              smurf's second stage, with smurf as the teacher
  ablation_*                     UFlow with another data term or occlusion estimate, or without one
                                 of its terms, on rendered pairs with faster cameras, moving boxes,
                                 and frames that differ in brightness

Each network is tested on pairs it was not trained on: rendered ones with other rooms and textures,
the motorcycle (from the left image to the right), and, where given, pairs of `--chairs` ('img0',
'img1' and 'flow' [N, H, W, ...]) and `--rgbd` ('rgb', 'depth_mm', 'cam2world', 'intrinsics': rigid
flow). The baselines are zero flow, and OpenCV's Farnebäck and DIS on the same pairs.

An interrupted script resumes where it stopped; it ends with `table.md`, a picture for each set of
pairs, `ablation.md` and `ablation.png`. Results and conclusions are in experiments/README.md.
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
METHODS = ("uflow", "unflow", "arflow", "smurf", "smurf_multi_frame")
BUSY = {
    "duration": "400 steps",
    "data.scenes.speed": 1.2,
    "data.scenes.moving": 0.5,
    "data.scenes.brightness": 0.2,
}
SWITCHES = {
    "full": {},
    "l1": {"data": "l1"},
    "ssim": {"data": "ssim"},
    "forward_backward": {"occlusion": "forward_backward"},
    "without_occlusion": {"occlusion": "none"},
    "second_order_smoothness": {"smoothness_order": 2, "smoothness_weight": 2.0},
    "without_smoothness": {"smoothness_weight": 0.0},
    "without_self_supervision": {"selfsup_weight": 0.0},
}
# config and what differs from it
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in METHODS},
    **{
        f"ablation_{name}": (
            "uflow",
            {**BUSY, **{f"uflow.{knob}": value for knob, value in knobs.items()}},
        )
        for name, knobs in SWITCHES.items()
    },
}
# The network's input size on pairs of other sizes, multiples of its stride.
SIZES = {"chairs": (192, 256), "motorcycle": (160, 224), "rgbd": (128, 160)}
APART = 4  # distance between the frames of a pair, in frames of the RGB-D recording
PEERS = ("Farnebäck", "DIS")
COLUMNS = ("epe", "epe_visible", "epe_occluded", "occlusion_f1")

Pairs = dict[str, np.ndarray]


def train(name: str, output: Path) -> None:
    """Trains (or resumes) and evaluates a run."""
    from sslax.inference.run import open_run
    from sslax.tasks.evaluation import evaluate_run
    from sslax.training.fit import fit

    config_name, changes = RUNS[name]
    if (output / name / "results.json").exists():
        return
    config = runpy.run_path(str(CONFIGS / f"{config_name}.py"))["get_config"]("")
    config.update_from_flattened_dict(changes)
    if name == "smurf_multi_frame":
        config.smurf_multi_frame.teacher_from = str(output / "smurf")
    print(f"--- {name}", flush=True)
    state = fit(config, output / name)
    if int(state.step) < open_run(output / name).plan.steps:
        raise SystemExit(f"{name} was stopped at step {int(state.step)}; start again to resume.")
    evaluate_run(output / name)


def sets(chairs: str | None, rgbd: str | None) -> dict[str, Pairs]:
    """Pairs with truth: 'image' [N, 2, H, W, 3], 'flow' [N, H, W, 2], 'known' [N, H, W]."""
    from sslax import data, ops
    from sslax.data import scenes

    config = runpy.run_path(str(CONFIGS / "uflow.py"))["get_config"]("")
    test = data.load(config.data).test
    made = {"rendered": test.take(np.arange(len(test)))}
    pair = scenes.motorcycle(SIZES["motorcycle"])
    known = np.asarray(pair["known"])
    flow = np.where(known[..., None], pair["flow"], 0.0)
    made["motorcycle"] = {"image": pair["image"][None], "flow": flow[None], "known": known[None]}
    if chairs:
        with np.load(chairs) as archive:
            image = np.stack([archive["img0"], archive["img1"]], axis=1)
            flow = archive["flow"].astype(np.float32)
        made["chairs"] = {"image": image, "flow": flow, "known": np.ones(flow.shape[:3], bool)}
    if rgbd:
        with np.load(rgbd) as archive:
            first = np.arange(0, len(archive["rgb"]) - APART, 2 * APART)
            rows = np.stack([first, first + APART], axis=1)
            image, camera = archive["rgb"][rows], archive["cam2world"][rows]
            depth = archive["depth_mm"][first].astype(np.float32) / 1000
            intrinsics = np.broadcast_to(archive["intrinsics"], (len(rows), 3, 3))
        pose = np.linalg.inv(camera[:, 1].astype(np.float64)) @ camera[:, 0]
        known = depth > 0
        flow, _ = ops.rigid_flow(np.where(known, depth, 1.0), pose.astype(np.float32), intrinsics)
        flow = np.where(known[..., None], flow, 0.0)
        made["rgbd"] = {"image": image, "flow": flow, "known": known}
    return made


def measured(found: Pairs, pairs: Pairs) -> dict[str, float]:
    """The metrics in `COLUMNS` that the ground truth allows."""
    from sslax.measures import geometry
    from sslax.types import FlowMaps, FlowTruth

    truth = FlowTruth(**{name: pairs.get(name) for name in FlowTruth._fields})
    numbers = geometry.measure_flow(FlowMaps(**found), truth)
    return {name: numbers[name] for name in COLUMNS if name in numbers}


def predicted(workdir: Path, pairs: dict[str, Pairs]) -> dict[str, Pairs]:
    """Flow and visibility predicted by a run on each set."""
    import sslax

    found = {}
    for name, of_set in pairs.items():
        estimate = sslax.load(workdir, size=SIZES.get(name))
        made = estimate(of_set["image"])
        found[name] = {"flow": made.flow, "visible": made.visible}
    return found


def classical() -> None:
    """Runs with OpenCV: reads archives of pairs from standard input, writes flows beside them."""
    import cv2
    from classical import FARNEBACK

    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    for file in sys.stdin.read().split("\n"):
        if not file:
            continue
        with np.load(file) as archive:
            pairs = [
                [cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in pair] for pair in archive["image"]
            ]
        flows = {
            "Farnebäck": [cv2.calcOpticalFlowFarneback(*pair, None, **FARNEBACK) for pair in pairs],
            "DIS": [dis.calc(*pair, None) for pair in pairs],
        }
        np.savez(file.replace(".npz", "_flow.npz"), **flows)


def matched(python: str, output: Path, pairs: dict[str, Pairs]) -> dict[str, dict[str, Pairs]]:
    """Flow of OpenCV's methods, by method and set."""
    files = {name: output / f"pairs_{name}.npz" for name in pairs}
    for name, file in files.items():
        np.savez(file, image=pairs[name]["image"])
    command = [python, __file__, "--match"]
    given = "\n".join(str(file) for file in files.values())
    subprocess.run(command, input=given, text=True, check=True)
    found: dict[str, dict[str, Pairs]] = {peer: {} for peer in PEERS}
    for name, file in files.items():
        with np.load(str(file).replace(".npz", "_flow.npz")) as archive:
            for peer in PEERS:
                found[peer][name] = {"flow": archive[peer]}
    return found


def table(scores: dict[str, dict[str, dict[str, float]]], names: list[str]) -> str:
    """A row for each method: all columns for the rendered pairs, the endpoint error for others."""
    heads = ["rendered", "visible", "occluded", "occlusion F1", *names[1:]]
    lines = ["| | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for method, of_sets in scores.items():
        found = [of_sets["rendered"].get(column) for column in COLUMNS]
        found += [of_sets[name]["epe"] for name in names[1:]]
        cells = ["" if value is None else f"{value:.3f}" for value in found]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def pictures(flows: dict[str, dict[str, Pairs]], pairs: dict[str, Pairs], output: Path) -> None:
    """Draws true and predicted flow for each set, with one color scale per row."""
    from sslax import figures

    for name, of_set in pairs.items():
        rows = np.linspace(0, len(of_set["flow"]) - 1, min(5, len(of_set["flow"]))).astype(int)
        truth, known = of_set["flow"][rows], np.asarray(of_set["known"][rows], bool)
        radius = [np.percentile(np.linalg.norm(t[k], axis=-1), 99) for t, k in zip(truth, known)]

        def colored(fields: np.ndarray, masks: np.ndarray, radius: list = radius) -> np.ndarray:
            parts = zip(fields, masks, radius)
            return np.stack([figures.flow_colors(f, mask=m, max_radius=r) for f, m, r in parts])

        columns = {"first": of_set["image"][rows, 0], "true": colored(truth, known)}
        for method, of_sets in flows.items():
            columns[method] = colored(of_sets[name]["flow"][rows], np.ones_like(known))
        figures.task_grid(columns, output / f"{name}.png", title=f"Flow of {name} pairs")


def ablation(output: Path) -> None:
    """Writes `ablation.md` and `ablation.png`, the endpoint errors of the ablation."""
    from sslax.figures import style

    files = {name: output / f"ablation_{name}" / "results.json" for name in SWITCHES}
    results = {n: json.loads(f.read_text()) for n, f in files.items() if f.exists()}
    if not results:
        return
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, found in results.items():
        cells = [f"{found[column]:.3f}" for column in COLUMNS]
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    zero = next(iter(results.values()))
    cells = [f"{zero[f'{column}_trivial']:.3f}" for column in COLUMNS[:3]]
    lines.append("| zero flow | " + " | ".join(cells) + " | |")
    (output / "ablation.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    with style.page(output / "ablation.png", 8.5, 3.6) as figure:
        style.heading(figure, "What UFlow's parts are worth", f"after {BUSY['duration']}")
        axes = figure.subplots()
        place = np.arange(len(results))
        parts = {"epe_visible": "visible pixels", "epe_occluded": "occluded pixels"}
        for i, (column, label) in enumerate(parts.items()):
            height = [found[column] for found in results.values()]
            style_of = {"width": 0.38, "color": style.PALETTE[i], "label": label}
            axes.bar(place + 0.4 * (i - 0.5), height, **style_of)
        axes.set_xticks(place, [name.replace("_", "\n") for name in results], fontsize=7.5)
        axes.grid(False, axis="x")
        axes.set_ylabel("endpoint error, pixels")
        axes.set_ylim(0, 1.25 * axes.get_ylim()[1])  # room for the legend
        axes.legend(loc="upper right", ncols=2, fontsize=8)
        figure.tight_layout(rect=(0, 0, 1, 1 - 0.6 / figure.get_figheight()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--chairs")
    parser.add_argument("--rgbd")
    parser.add_argument("--peer-python", help="interpreter with OpenCV")
    parser.add_argument("--only", nargs="*", choices=[*RUNS], default=[*RUNS])
    parser.add_argument("--match", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.match:
        classical()
        return
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        train(name, options.output)
    ablation(options.output)

    pairs = sets(options.chairs, options.rgbd)
    flows = {
        name: predicted(options.output / name, pairs)
        for name in METHODS
        if (options.output / name / "results.json").exists()
    }
    if options.peer_python:
        flows |= matched(options.peer_python, options.output, pairs)
    pictures(flows, pairs, options.output)
    zero = {name: {"flow": np.zeros_like(of_set["flow"])} for name, of_set in pairs.items()}
    scores = {
        method: {name: measured(of_sets[name], pairs[name]) for name in pairs}
        for method, of_sets in {**flows, "zero flow": zero}.items()
    }
    text = table(scores, list(pairs))
    (options.output / "table.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
