"""Why can a network tell where in a photograph a patch was? Because of the lens, and its colours.

    python experiments/chromatic_aberration.py --output=aberration.jsonl [--only NAME ...]
        [--figure=docs/pictures/chromatic_aberration.png]

Doersch et al. 2015 found that a network trained on patches knows their places in the photograph,
and blamed chromatic aberration. Here the lens is ours: crops of photographs, in which what a patch
shows says nothing of where it lies, get none or a known aberration; then small networks learn where
patches lie (`absolute_location`) and how pairs lie to each other (`context_prediction`), with the
colours kept, dropped or projected, and are asked on parts of the photographs they never saw.

Each run appends a line to the output; runs that are already in it are skipped, so the experiment
can be broken off and gone on with. What was measured, and concluded from it, is in
experiments/README.md.
"""

import argparse
import json
import time
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

from sslax import augment, data, models, train
from sslax.figures import style
from sslax.methods import common
from sslax.methods.absolute_location import absolute_location
from sslax.methods.context_prediction import context_prediction

SIDE = 96  # of an image, in pixels
MARGIN = 8  # rendered around it and cut off, so that the border of the rendering is not seen
BINS = 3
IMAGES = 24  # a step
STEPS = {"location": 200, "context": 500}
RATES = {"location": 2e-3, "context": 4e-3}  # of AdamW, at the start of a cosine to 0
# Of the picture: a test image, and the square of it that is shown apart.
EXAMPLE, CORNER, ZOOM = 205, (36, 10), 28


class Case(NamedTuple):
    """One run: the task, by how much red and blue are magnified, what is done about colours."""

    task: str
    red: float = 1.0
    blue: float = 1.0
    colors: str = "keep"


# An achromat brings red and blue together and leaves both off green; a single lens has them on
# either side of green.
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


def make_views(case: Case) -> common.Views:
    """Images as a lens shows them, `[B, 1, SIDE, SIDE, 3]`."""

    def view(key: jax.Array, image: jax.Array) -> jax.Array:
        image = augment.to_float(image)
        if case.task == "location":
            image = scatter(key, image)
        image = augment.render_aberration(image, scale_red=case.red, scale_blue=case.blue)
        return image[MARGIN:-MARGIN, MARGIN:-MARGIN]

    def views(rng: jax.Array, batch: dict) -> dict:
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, batch["index"])
        return {**batch, "image": jax.vmap(view)(keys, batch["image"])[:, None]}

    return views


def scatter(key: jax.Array, image: jax.Array) -> jax.Array:
    """A window, anywhere, of the plane that the image and its mirror images tile.

    Each place of the window is then as likely to show one part of the image as any other. A crop
    alone is not so: what lies at the top of a photograph is never at the bottom of a crop.
    """

    def places(key: jax.Array, size: int) -> jax.Array:
        place = (jax.random.randint(key, (), 0, 2 * size) + jnp.arange(size)) % (2 * size)
        return jnp.minimum(place, 2 * size - 1 - place)

    rows, columns = (places(k, n) for k, n in zip(jax.random.split(key), image.shape[:2]))
    return image[rows][:, columns]


def measure(case: Case, images: data.Dataset) -> dict:
    """Trains a network and asks it about the test images."""
    section = models.defaults()
    section.update({"blocks": (1, 1, 1), "width": 0.25, "small_stem": True})
    encoder = models.build_encoder(section)
    shared = {"views": make_views(case), "evaluation_view": lambda x: x, "colors": case.colors}
    if case.task == "location":
        head = models.from_linen(models.Classifier(BINS**2))
        method = absolute_location(encoder, head, bins=BINS, patch=32, patches=4, **shared)
        classes, answer = BINS**2, "cell"
    else:
        classifier = models.from_linen(models.TileClassifier(8, embed=64, hidden=64))
        place = {"patch": 16, "gap": 0, "jitter": 0, "pairs": 4}
        method = context_prediction(encoder, classifier, **place, down_up=0.0, **shared)
        head, classes, answer = common.on_groups(classifier, 2), 8, "direction"
    network = common.chain(encoder=encoder, classifier=head)
    steps = STEPS[case.task]
    rate = optax.cosine_decay_schedule(RATES[case.task], steps)
    tx = optax.adamw(rate, weight_decay=1e-3)

    def batch_of(pixels: jax.Array, index: jax.Array) -> dict:
        return {"image": pixels[index], "index": index}

    @partial(jax.jit, donate_argnums=0)
    def step(state: train.TrainState, pixels: jax.Array) -> tuple:
        key = jax.random.fold_in(jax.random.key(1), state.step)
        index = jax.random.randint(key, (IMAGES,), 0, len(pixels))
        return train.train_step(method, tx, state, batch_of(pixels, index))

    @jax.jit
    def asked(state: train.TrainState, pixels: jax.Array, index: jax.Array) -> tuple:
        batch = method.views(jax.random.key(2), batch_of(pixels, index))
        patches = common.merge_views(batch["image"])
        (_, logits), _ = network.apply(state.params, state.model_state, patches, False)
        return jnp.argmax(logits, -1), batch[answer].ravel()

    pixels = jnp.asarray(images.train.images)
    began = time.monotonic()
    start = jax.jit(partial(train.init_state, method, tx))
    state = start(jax.random.key(0), batch_of(pixels, jnp.arange(IMAGES)))
    for _ in range(steps):
        state, metrics = step(state, pixels)
    jax.block_until_ready(metrics)
    seconds = time.monotonic() - began

    pixels = jnp.asarray(images.test.images)
    parts = jnp.arange(len(pixels)).reshape(-1, 100)
    found = [asked(state, pixels, part) for part in parts]
    guess, truth = (np.concatenate(column) for column in zip(*found))
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (truth, guess), 1)
    return {
        "accuracy": round(float(np.mean(guess == truth)), 4),
        "chance": 1 / classes,
        "seconds": round(seconds),
        "counts": counts.tolist(),  # [truth][guess]
    }


def load_images() -> data.Dataset:
    """Crops of photographs, of whose regions the test has its own."""
    config = data.defaults()
    config.source, config.labels, config.device = "photographs", False, "resident"
    config.image_size = SIDE + 2 * MARGIN
    return data.load(config)


def draw(path: Path, results: dict[str, dict], images: data.Dataset) -> None:
    """The page of experiments/README.md: what was rendered, how well it is read, and where."""
    with style.page(path, 10.4, 5.6) as figure:
        style.heading(
            figure,
            "What a network reads off the colours of a lens",
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
        draw_examples(figure, grid[0, 0], images.test.images[EXAMPLE])
        draw_guesses(figure, grid[1, 0], results)
        draw_bars(figure.add_subplot(grid[0, 1:]), results, "location", "Where was the patch?")
        draw_bars(
            figure.add_subplot(grid[1, 1]), results, "context", "On which side was the other?"
        )
        draw_strengths(figure.add_subplot(grid[1, 2]), results)


def draw_examples(figure: Figure, place: SubplotSpec, pixels: np.ndarray) -> None:
    """An image, and its marked corner with more and more aberration."""
    panels = place.subgridspec(3, 2, width_ratios=(3.2, 1), wspace=0, hspace=0.1)
    image = augment.to_float(jnp.asarray(pixels))

    def rendered(scale: float) -> np.ndarray:
        shown = augment.render_aberration(image, scale_red=scale, scale_blue=scale)
        return np.asarray(shown)[MARGIN:-MARGIN, MARGIN:-MARGIN]

    whole = figure.add_subplot(panels[:, 0])
    style.show(whole, rendered(1.02))
    whole.set_title("Rendered: achromat, 2 %")
    whole.set_anchor("W")
    top, left = CORNER
    box = {"width": ZOOM, "height": ZOOM, "fill": False, "color": "white", "linewidth": 1.5}
    whole.add_patch(Rectangle((left - 0.5, top - 0.5), **box))
    for row, scale in enumerate((1.0, 1.02, 1.08)):
        axes = figure.add_subplot(panels[row, 1])
        axes.set_anchor("W")
        style.show(axes, rendered(scale)[top : top + ZOOM, left : left + ZOOM])
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
        # Each little grid has a rim, and stands where its patches were.
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
    """Accuracy in a task, of each lens and each treatment of the colours that were measured."""
    ticks, place = [], 0.0
    for lens, colour in (("no aberration", 7), ("achromat", 0), ("single lens", 6)):
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
            axes.bar(place, row["accuracy"], 0.72, color=style.colour(colour))
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
    """Accuracy in location against the strength of the aberration."""
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
    images = load_images()
    for name in arguments.only or CASES:
        if name not in results:
            row = results[name] = {"name": name, **measure(CASES[name], images)}
            print({key: value for key, value in row.items() if key != "counts"}, flush=True)
            with arguments.output.open("a") as file:
                file.write(json.dumps(row) + "\n")
    if arguments.figure:
        draw(arguments.figure, results, images)


if __name__ == "__main__":
    main()
