"""Can a network tell where in a photograph a patch was? Yes, by the lens's chromatic aberration.

    python experiments/chromatic_aberration.py --output=aberration.jsonl [--only NAME ...]
        [--figure=docs/pictures/chromatic_aberration.png]

Doersch et al. 2015 found that a network trained on patches can tell their positions in the
photograph, and blamed chromatic aberration. Here the aberration is simulated, or left out, on
windows of photographs in which a patch's content says nothing about its position. Small networks
then learn where patches lie (`absolute_location`) and how the patches of a pair lie relative to
each other (`context_prediction`), from the same windows, with the colors kept, dropped or
projected. They are tested on parts of the photographs that were not used for training.

Each run appends a line to the output, and runs already in it are skipped, so an interrupted
experiment resumes where it stopped. Results and conclusions are in experiments/README.md.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from PIL import Image

from sslax import augment, models
from sslax.data.files.installed import photograph_parts
from sslax.figures import style
from sslax.methods.common import merge_views, split_views
from sslax.methods.representation.absolute_location import absolute_location
from sslax.methods.representation.context_prediction import context_prediction
from sslax.models.compose import Network, Parts
from sslax.training.step import init_state, train_step
from sslax.types import TrainState

SIDE = 96  # of a window, in pixels
MARGIN = 8  # rendered around it and cropped, so that border effects are not seen
WINDOWS = {"train": 4000, "test": 2000}
ASKED = 2000  # windows of each part to test on
HEIGHTS = (80, 128)  # of a shrunk photograph, in pixels: patches show more than texture
PATCH, GAP, JITTER = 24, 2, 1
EACH = 4  # pairs per window, or twice as many single patches
BINS = 3
ASK = 2  # seed of the test patches
# Windows per step. Weight decay is strong, since eight photographs are soon memorized.
BATCH, STEPS, RATE, DECAY = 24, 2000, 4e-3, 0.1
# For the figure: a test window, and the square of it that is enlarged.
EXAMPLE, CORNER, ZOOM = 27, (34, 14), 28


class Case(NamedTuple):
    """One run: the task, the magnification of red and blue, and what is done about colors."""

    task: str
    red: float = 1.0
    blue: float = 1.0
    colors: str = "keep"


# An achromat shifts red and blue away from green in the same direction, a single lens in opposite
# directions.
ACHROMAT, SINGLE = {"red": 1.02, "blue": 1.02}, {"red": 1.02, "blue": 0.98}
CASES = {
    "location, no aberration": Case("location"),
    "location, achromat": Case("location", **ACHROMAT),
    "location, achromat, drop": Case("location", **ACHROMAT, colors="drop"),
    "location, achromat, project": Case("location", **ACHROMAT, colors="project"),
    "context, no aberration": Case("context"),
    "context, achromat": Case("context", **ACHROMAT),
    "context, achromat, drop": Case("context", **ACHROMAT, colors="drop"),
    "context, achromat, project": Case("context", **ACHROMAT, colors="project"),
    "location, single lens": Case("location", **SINGLE),
    "location, single lens, drop": Case("location", **SINGLE, colors="drop"),
    "location, single lens, project": Case("location", **SINGLE, colors="project"),
    "location, achromat of 1 %": Case("location", 1.01, 1.01),
    "location, achromat of 0.5 %": Case("location", 1.005, 1.005),
}


class Windows(NamedTuple):
    """Pieces of photographs."""

    images: np.ndarray  # uint8 [N, SIDE + 2 MARGIN, SIDE + 2 MARGIN, 3]
    copies: np.ndarray  # int8 [N, SIDE, SIDE], which copy of the photograph a pixel belongs to
    photograph: np.ndarray  # [N], the number of the photograph


@functools.cache
def load_windows(part: str) -> Windows:
    """Random windows of a plane tiled with the "train" or "test" part of a shrunk photograph.

    Each position in a window is equally likely to show any piece of the photograph, so content does
    not tell the position. With plain crops it would: what lies at the top of a photograph is never
    at the bottom of a crop. The photograph alternates with its mirror image sideways, and repeats
    unchanged vertically, so that above and below keep their meaning.
    """
    rng = np.random.default_rng(part == "test")
    planes = [[shrunk(p, h) for h in scales()] for p in getattr(photograph_parts(), part)]
    photograph = rng.integers(len(planes), size=WINDOWS[part])
    scale = rng.integers(len(planes[0]), size=WINDOWS[part])
    windows = [window(rng, planes[p][s]) for p, s in zip(photograph, scale)]
    return Windows(*map(np.stack, zip(*windows)), photograph)


def scales() -> np.ndarray:
    """Heights of the shrunk photographs, in pixels."""
    return np.round(np.geomspace(*HEIGHTS, 8)).astype(int)


def shrunk(picture: np.ndarray, height: int) -> np.ndarray:
    """A photograph uint8 `[H, W, 3]` at that height, antialiased."""
    width = round(picture.shape[1] * height / picture.shape[0])
    small = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(small)


def window(rng: np.random.Generator, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A window with its margin, of the tiled plane; and the copy that each pixel belongs to."""
    height, width = picture.shape[:2]
    reach = np.arange(SIDE + 2 * MARGIN)
    rows, columns = rng.integers(height) + reach, rng.integers(2 * width) + reach
    copies = 16 * (rows // height)[:, None] + columns // width
    columns = columns % (2 * width)
    image = picture[rows % height][:, np.minimum(columns, 2 * width - 1 - columns)]
    return image, copies[MARGIN:-MARGIN, MARGIN:-MARGIN].astype(np.int8)


def views(rng: jax.Array, batch: dict) -> dict:
    """Windows seen through the batch's lenses, `[B, 1, SIDE, SIDE, 3]`."""
    del rng

    def view(image: jax.Array, lens: jax.Array) -> jax.Array:
        image = augment.to_float(image)
        image = augment.chromatic_aberration(image, scale_red=lens[0], scale_blue=lens[1])
        return image[MARGIN:-MARGIN, MARGIN:-MARGIN]

    return {**batch, "views": jax.vmap(view)(batch["image"], batch["lens"])[:, None]}


def find_unbroken(index: jax.Array, copies: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For the pairs of `Run.ask`: whether both patches lie in one copy, and the direction."""
    _, rng = jax.random.split(jax.random.key(ASK))

    def pair(key: jax.Array, copies: jax.Array) -> tuple[jax.Array, jax.Array]:
        key, _ = jax.random.split(key)
        place = {"patch": PATCH, "gap": GAP, "jitter": JITTER}
        both, direction = augment.patch_pair(key, copies[..., None], **place)
        return jnp.min(both) == jnp.max(both), direction

    def pairs(index: jax.Array, copies: jax.Array) -> tuple[jax.Array, jax.Array]:
        keys = jax.random.split(jax.random.fold_in(rng, index), EACH)
        return jax.vmap(pair, in_axes=(0, None))(keys, copies)

    return jax.vmap(pairs)(index, copies)


class Run(NamedTuple):
    """A network's compiled functions, shared by all lenses."""

    start: Callable  # batch -> state
    step: Callable  # (state, images, lens) -> (state, metrics)
    ask: Callable  # (state, batch) -> (guesses, truths), [B, EACH] or [B, 2 EACH]
    classes: int


def batch_of(images: jax.Array, index: jax.Array, lens: jax.Array) -> dict:
    """The windows with these indices, each with the magnifications `[2]` of red and blue."""
    lenses = jnp.broadcast_to(lens, (len(index), 2))
    return {"image": images[index], "index": index, "lens": lenses}


@functools.cache
def build(task: str, colors: str) -> Run:
    """The method, its network and optimizer."""
    section = models.defaults()
    section.update({"blocks": (1, 1), "width": 0.5, "patch_stem": 4})
    encoder = models.build_encoder(section)
    shared = {
        "augmentation": views,
        "evaluation_view": lambda x: x,
        "colors": colors,
        "patch": PATCH,
    }
    if task == "location":
        classifier = models.from_linen(models.Classifier(BINS**2))
        group, answer, classes = 0, "cell", BINS**2
        method = absolute_location(encoder, classifier, bins=BINS, patches=2 * EACH, **shared)
    else:
        classifier = models.from_linen(models.TileClassifier(8, embed=256, hidden=256))
        place = {"gap": GAP, "jitter": JITTER, "pairs": EACH}
        method = context_prediction(encoder, classifier, **place, down_up=0.0, **shared)
        group, answer, classes = 2, "direction", 8
    network = Network({"encoder": encoder, "classifier": classifier})

    def guess(net: Parts, patches: jax.Array) -> jax.Array:
        features = net.encoder(merge_views(patches)).features
        return net.classifier(split_views(features, group) if group else features)

    tx = optax.adamw(optax.cosine_decay_schedule(RATE, STEPS), weight_decay=DECAY)

    @partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, images: jax.Array, lens: jax.Array) -> tuple:
        key = jax.random.fold_in(jax.random.key(1), state.step)
        index = jax.random.randint(key, (BATCH,), 0, len(images))
        return train_step(method, tx, state, batch_of(images, index, lens))

    @jax.jit
    def ask(state: TrainState, batch: dict) -> tuple:
        batch = method.augment(jax.random.key(ASK), batch)
        logits, _ = network.apply(guess, state.variables, batch["input"])
        return jnp.argmax(logits, -1).reshape(batch[answer].shape), batch[answer]

    start = jax.jit(partial(init_state, method, tx, jax.random.key(0)))
    return Run(start, step, ask, classes)


def measure(case: Case) -> dict:
    """Trains a network and tests it on windows of both parts."""
    run, lens = build(case.task, case.colors), jnp.array([case.red, case.blue])
    images = jnp.asarray(load_windows("train").images)
    began = time.monotonic()
    state = run.start(batch_of(images, jnp.arange(BATCH), lens))
    for _ in range(STEPS):
        state, metrics = run.step(state, images, lens)
    jax.block_until_ready(metrics)
    seconds = time.monotonic() - began

    answers = {part: asked(run, state, part, lens) for part in WINDOWS}
    on_trained = np.mean(np.equal(*answers["train"]))
    guess, truth = answers["test"]
    right, photograph = np.mean(guess == truth, axis=1), load_windows("test").photograph[:ASKED]
    row = {
        "accuracy": round(float(right.mean()), 4),
        "chance": 1 / run.classes,
        "error": round(float(right.std() / len(right) ** 0.5), 4),  # standard error over windows
        "photographs": [round(float(right[photograph == p].mean()), 3) for p in range(8)],
        "on_trained": round(float(on_trained), 4),
        "seconds": round(seconds),
        "counts": count(guess, truth, run.classes),
    }
    if case.task == "context":
        row["unbroken"] = {part: count_unbroken(part, *pair) for part, pair in answers.items()}
    return row


def asked(run: Run, state: TrainState, part: str, lens: jax.Array) -> tuple:
    """Guesses and truths for the pairs or patches of the first windows of a part."""
    images = jnp.asarray(load_windows(part).images)
    hundreds = jnp.arange(ASKED).reshape(-1, 100)
    found = [run.ask(state, batch_of(images, index, lens)) for index in hundreds]
    return tuple(np.concatenate(column) for column in zip(*found))


def count(guess: np.ndarray, truth: np.ndarray, classes: int) -> list[list[int]]:
    """The confusion matrix, `[truth][guess]`."""
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (truth, guess), 1)
    return counts.tolist()


def count_unbroken(part: str, guess: np.ndarray, truth: np.ndarray) -> list[list[int]]:
    """`count` of the pairs whose patches lie in one copy of the photograph."""
    copies = jnp.asarray(load_windows(part).copies[:ASKED])
    unbroken, direction = map(np.asarray, find_unbroken(jnp.arange(ASKED), copies))
    assert np.array_equal(direction, truth), "these are not the pairs that were tested"
    return count(guess[unbroken], truth[unbroken], 8)


def draw(path: Path, results: dict[str, dict]) -> None:
    """The figure of experiments/README.md: examples, accuracies, and guesses by cell."""
    with style.page(path, 10.4, 5.6) as figure:
        style.heading(
            figure,
            "What a network reads off the colors of a lens",
            "accuracy on parts of the photographs that no network was trained on; dashed: chance",
        )
        grid = figure.add_gridspec(
            2,
            3,
            left=0.02,
            right=0.985,
            top=0.83,
            bottom=0.1,
            width_ratios=(1.25, 2, 1),
            hspace=0.55,
        )
        draw_examples(figure, grid[0, 0], load_windows("test").images[EXAMPLE])
        draw_guesses(figure, grid[1, 0], results)
        draw_bars(figure.add_subplot(grid[0, 1:]), results, "location", "Where was the patch?")
        draw_bars(
            figure.add_subplot(grid[1, 1]), results, "context", "On which side was the other?"
        )
        draw_strengths(figure.add_subplot(grid[1, 2]), results)


def draw_examples(figure: Figure, place: SubplotSpec, pixels: np.ndarray) -> None:
    """An image, and its marked corner with increasing aberration."""
    panels = place.subgridspec(3, 2, width_ratios=(3.2, 1), wspace=0, hspace=0.1)
    image = augment.to_float(jnp.asarray(pixels))

    def rendered(scale: float) -> np.ndarray:
        shown = augment.chromatic_aberration(image, scale_red=scale, scale_blue=scale)
        return np.asarray(shown)[MARGIN:-MARGIN, MARGIN:-MARGIN]

    whole = figure.add_subplot(panels[:, 0])
    style.draw_image(whole, rendered(1.02))
    whole.set_title("Rendered: achromat, 2 %")
    whole.set_anchor("W")
    top, left = CORNER
    box = {"width": ZOOM, "height": ZOOM, "fill": False, "color": "white", "linewidth": 1.5}
    whole.add_patch(Rectangle((left - 0.5, top - 0.5), **box))
    for row, scale in enumerate((1.0, 1.02, 1.08)):
        axes = figure.add_subplot(panels[row, 1])
        axes.set_anchor("W")
        style.draw_image(axes, rendered(scale)[top : top + ZOOM, left : left + ZOOM])
        axes.text(1.08, 0.5, f"{scale - 1:.0%}", transform=axes.transAxes, va="center", size=8)


def draw_guesses(figure: Figure, place: SubplotSpec, results: dict[str, dict]) -> None:
    """For each cell that patches came from, a grid of how often each cell was guessed."""
    panels = place.subgridspec(1, 2, wspace=0.12)
    for column, (name, title) in enumerate(
        (("location, achromat", "Guesses, kept"), ("location, achromat, drop", "One channel"))
    ):
        axes = figure.add_subplot(panels[column])
        counts = np.array(results[name]["counts"], float).reshape(BINS, BINS, BINS, BINS)
        shares = counts / counts.sum((2, 3), keepdims=True)
        # Each small grid has a border, and is placed where its patches came from.
        framed = np.pad(shares, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
        side = BINS * (BINS + 1)
        picture = framed.transpose(0, 2, 1, 3).reshape(side, side)[:-1, :-1]
        axes.imshow(picture, cmap="Blues", vmin=0, vmax=0.8)
        for cell in range(BINS**2):
            y, x = ((BINS + 2) * k for k in divmod(cell, BINS))
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, color=style.WRONG))
        axes.set_axis_off()
        axes.set_title(title)
        if column == 0:
            note = "each small grid: the guesses for patches of\nthe red cell, the darker the more"
            axes.text(0, -0.08, note, transform=axes.transAxes, va="top", size=8, color=style.FAINT)


def draw_bars(axes: Axes, results: dict[str, dict], task: str, title: str) -> None:
    """Accuracy in a task for each measured combination of lens and color treatment."""
    ticks, place = [], 0.0
    for lens, color in (("no aberration", 7), ("achromat", 0), ("single lens", 6)):
        rows = [
            (label, results[f"{task}, {lens}{suffix}"])
            for suffix, label in (
                ("", "kept"),
                (", drop", "one channel"),
                (", project", "projected"),
            )
            if f"{task}, {lens}{suffix}" in results
        ]
        for label, row in rows:
            axes.bar(place, row["accuracy"], 0.72, color=style.color(color))
            axes.text(place, row["accuracy"] + 0.015, f"{row['accuracy']:.1%}", ha="center", size=8)
            ticks.append((place, label))
            place += 1
        if rows:
            middle = place - (len(rows) + 1) / 2
            axes.text(middle, -0.2, lens, transform=axes.get_xaxis_transform(), ha="center", size=9)
            axes.axhline(rows[0][1]["chance"], color=style.FAINT, linestyle="--", linewidth=1)
        place += 0.5
    axes.set_xticks(*zip(*ticks))
    axes.tick_params(axis="x", length=0, labelsize=8)
    axes.grid(axis="x", visible=False)
    axes.set_ylim(0, 1.2 * max(row["accuracy"] for name, row in results.items() if task in name))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title(title)


def draw_strengths(axes: Axes, results: dict[str, dict]) -> None:
    """Location accuracy against the strength of the aberration."""
    names = ("no aberration", "achromat of 0.5 %", "achromat of 1 %", "achromat")
    rows = [results[f"location, {name}"] for name in names]
    strengths = [100 * (CASES[row["name"]].red - 1) for row in rows]
    axes.plot(strengths, [row["accuracy"] for row in rows], color=style.LINE, marker="o")
    axes.axhline(rows[0]["chance"], color=style.FAINT, linestyle="--", linewidth=1)
    axes.set_ylim(0, None)
    axes.set_xticks(strengths, [f"{strength:.2g}" for strength in strengths])
    axes.set_xlabel("magnification of red and blue, %")
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_title("Where, by strength")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", nargs="*", choices=sorted(CASES))
    parser.add_argument("--figure", type=Path, help="draws the finished experiment")
    arguments = parser.parse_args()
    lines = arguments.output.read_text().splitlines() if arguments.output.exists() else []
    results = {row["name"]: row for row in map(json.loads, lines)}
    for name in arguments.only or CASES:
        if name not in results:
            row = results[name] = {"name": name, **measure(CASES[name])}
            print({key: value for key, value in row.items() if key != "counts"}, flush=True)
            with arguments.output.open("a") as file:
                file.write(json.dumps(row) + "\n")
    if arguments.figure:
        draw(arguments.figure, results)


if __name__ == "__main__":
    main()
