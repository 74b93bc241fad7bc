"""A step of each method equals an independent reference's, and its views are what the labels say.

The references are made by experiments/golden/methods.py; the networks of both sides have the same
few weights and are written twice.
"""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from skimage import color

from sslax import methods, models
from sslax.training.step import init_state, train_step
from sslax.types import Encoding, Method, Model

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "steps.npz"))
RATE = 0.2  # of the gradient descent, the references' too
FILL = (0.5, 0.25, 0.75)


def given(name):
    """An input of the references."""
    return GOLDEN[f"inputs {name}"]


def weights(part):
    """The tree of a part's weights, from the paths of its leaves."""
    tree, start = {}, f"weights {part}/"
    for key in GOLDEN:
        if key.startswith(start):
            *above, leaf = key.removeprefix(start).split("/")
            node = tree
            for name in above:
                node = node.setdefault(name, {})
            node[leaf] = jnp.asarray(GOLDEN[key])
    return tree


# The references' networks once more, as models that start with the references' weights.


def model(part, apply):
    return Model(
        lambda rng, x: (weights(part), {}),
        lambda params, state, x, train: (apply(params, x), state),
    )


def linear(part):
    return model(part, lambda p, x: x.reshape(len(x), -1) @ p["kernel"] + p["bias"])


def perceptron(part):
    return model(part, layers)


def layers(p, x):
    return jax.nn.relu(x @ p["kernel1"] + p["bias1"]) @ p["kernel2"] + p["bias2"]


def normalized(part, groups):
    """The library's perceptron with batch norm, of as many groups as `build` gives the method."""
    made = models.from_linen(models.Projector(hidden=6, outputs=4, norm_groups=groups))
    return made._replace(init=lambda rng, x: (weights(part), made.init(rng, x)[1]))


def encoder(part="encoder"):
    """A convolution with 2 x 2 pixels without a border, tanh, and the mean over the places."""

    def apply(p, images):
        height, width = (side - 1 for side in images.shape[1:3])
        windows = {
            (i, j): images[:, i : i + height, j : j + width] for i in range(2) for j in range(2)
        }
        stage = sum(window @ p["kernel"][place] for place, window in windows.items())
        stage = jnp.tanh(stage + p["bias"])
        return Encoding(stage.mean((1, 2)), {"map": stage})

    return model(part, apply)


def cosines(kernel, x):
    unit = x / jnp.linalg.norm(x, axis=1, keepdims=True)
    return unit @ (kernel / jnp.linalg.norm(kernel, axis=0, keepdims=True))


def prototypes():
    return model("prototypes", lambda p, x: cosines(p["kernel"], x))


def dino_heads():
    last = model("dino_prototypes", lambda p, x: cosines(p["kernel"], x))
    return perceptron("dino_projector"), last


def painter():
    def apply(p, x):
        painting = x["features"].mean((1, 2)) @ p["kernel"] + p["bias"]
        return painting.reshape(-1, 4, 4, 3)

    return model("painter", apply)


def critic():
    return model("critic", lambda p, images: layers(p, images.reshape(len(images), -1))[:, 0])


def colorizer():
    return model("colorizer", lambda p, x: x["stages"]["map"] @ p["kernel"] + p["bias"])


def patch_encoder():
    """Of the patches of 2 x 2 pixels of images of 4 x 4."""

    def apply(p, x):
        cut = [x["image"][:, i : i + 2, j : j + 2] for i in (0, 2) for j in (0, 2)]
        patches = jnp.stack([patch.reshape(len(patch), -1) for patch in cut], axis=1)
        tokens = jnp.tanh(patches @ p["kernel"] + p["bias"] + p["position"])
        tokens = jnp.take_along_axis(tokens, x["keep"][..., None], axis=1)
        return Encoding(tokens.mean(1), {"tokens": tokens})

    return model("patch_encoder", apply)


def patch_decoder():
    def apply(p, x):
        context = x["tokens"].mean(1, keepdims=True)
        return jnp.tanh(context + p["position"]) @ p["kernel"] + p["bias"]

    return model("patch_decoder", apply)


# The methods, on what the references were given.


class Case(NamedTuple):
    """A method, the batches of its steps, and how exactly they equal the reference's.

    Attributes:
        method: of those networks.
        batches: arrays `[steps, B, ...]`.
        queue: in place of the random one, where there is one.
        tolerance: relative; looser where the method or its modules compute in float32.
    """

    method: Method
    batches: dict[str, np.ndarray]
    queue: np.ndarray | None = None
    tolerance: float = 1e-9


def as_it_is(factory, *networks, **knobs):
    """A method whose views are what the batch has."""
    same = {"augmentation": lambda rng, batch: batch, "evaluation_view": lambda images: images}
    return factory(*networks, **same, **knobs)


def of_views(steps, factory, *heads, queue=None, tolerance=1e-9, local=False, **knobs):
    """Steps of a method of two views."""
    batches = {"views": given("images")[:steps]}
    if local:
        batches["local_views"] = given("local")[:steps]
    method = as_it_is(factory, encoder(), *heads, **knobs)
    return Case(method, batches, queue, tolerance)


def of_task(method, steps=1, tolerance=1e-9, **batch):
    """Steps of a method whose task is made already: the views are left out."""
    batches = {name: array.reshape(steps, -1, *array.shape[1:]) for name, array in batch.items()}
    method = method._replace(augment=lambda rng, batch: batch)
    return Case(method, batches, tolerance=tolerance)


def of_images(method, images, tolerance=1e-9):
    """Steps of a method that makes its task of images `[steps, B, S, S, C]` without chance."""
    index = np.zeros(images.shape[:2], np.int32)
    return Case(method, {"views": images[:, :, None], "index": index}, tolerance=tolerance)


# In float32 are the first prior of colors, the cross-entropy of classes, and batch norm.
UNIFORM, CLASSIFIED, NORMALIZED = 1e-7, 1e-5, 1e-4


def simclr_case():
    return of_views(1, methods.simclr.simclr, perceptron("projector"), temperature=0.5)


def simclr_norm_case():
    head = normalized("norm_projector", 1)
    return of_views(1, methods.simclr.simclr, head, temperature=0.5, tolerance=NORMALIZED)


def sup_con_case():
    case = of_views(1, methods.sup_con.sup_con, perceptron("projector"), temperature=0.5)
    return case._replace(batches={**case.batches, "label": given("labels")[None]})


def barlow_twins_case():
    knobs = {"off_diagonal_weight": 0.01, "scale": 0.25}
    return of_views(1, methods.barlow_twins.barlow_twins, perceptron("projector"), **knobs)


def vicreg_case():
    knobs = {"invariance_weight": 20.0, "variance_weight": 15.0, "covariance_weight": 2.0}
    return of_views(1, methods.vicreg.vicreg, perceptron("projector"), **knobs)


def simsiam_case():
    heads = perceptron("projector"), perceptron("predictor")
    return of_views(1, methods.simsiam.simsiam, *heads)


def byol_case():
    heads = perceptron("projector"), perceptron("predictor")
    return of_views(3, methods.byol.byol, *heads, momentum=0.8)


def byol_norm_case():
    heads = normalized("norm_projector", 2), normalized("norm_predictor", 2)
    return of_views(2, methods.byol.byol, *heads, momentum=0.8, tolerance=NORMALIZED)


def moco_case(symmetric=False):
    queue = given("queue")[: 24 if symmetric else 12]
    knobs = {"queue_size": len(queue), "temperature": 0.3, "momentum": 0.8, "symmetric": symmetric}
    return of_views(3, methods.moco.moco, perceptron("projector"), encoder(), queue=queue, **knobs)


def moco_v3_case():
    heads = perceptron("projector"), perceptron("predictor")
    knobs = {"temperature": 0.3, "momentum": lambda step: 1 - 0.4 / (1 + step)}
    return of_views(3, methods.moco_v3.moco_v3, *heads, **knobs)


def swav_case(steps, **knobs):
    heads = perceptron("projector"), prototypes()
    return of_views(steps, methods.swav.swav, *heads, temperature=0.2, epsilon=0.1, **knobs)


def dino_case():
    return of_views(
        3,
        methods.dino.dino,
        *dino_heads(),
        local=True,
        student_temperature=0.25,
        teacher_temperature=lambda step: 2.0**step / 16,
        momentum=0.8,
        center_momentum=0.7,
        freeze_steps=1,
    )


def rotation_case():
    method = as_it_is(methods.rotation.rotation, encoder(), linear("rotation"))
    return of_images(method, given("images")[:1, :, 0], CLASSIFIED)


def context_prediction_case():
    networks = encoder(), linear("context_prediction")
    method = as_it_is(methods.context_prediction.context_prediction, *networks, pairs=2)
    task = {"input": given("patches"), "direction": given("direction")}
    return of_task(method, tolerance=CLASSIFIED, **task)


def jigsaw_case():
    permutations = np.zeros((6, 4), int)  # the step needs their shape alone
    method = as_it_is(methods.jigsaw.jigsaw, encoder(), linear("jigsaw"), permutations)
    return of_task(method, tolerance=CLASSIFIED, input=given("patches"), order=given("order"))


def absolute_location_case():
    networks = encoder(), linear("absolute_location")
    method = as_it_is(methods.absolute_location.absolute_location, *networks, bins=2)
    return of_task(method, tolerance=CLASSIFIED, input=given("patches"), cell=given("cell"))


def inpainting_method(**knobs):
    networks = encoder(), painter(), critic()
    return as_it_is(
        methods.inpainting.inpainting, *networks, adversarial_weight=0.3, fill=FILL, **knobs
    )


def inpainting_case():
    return of_images(inpainting_method(overlap=1), given("square"))


def inpainting_region_case():
    hidden, target = given("region")[..., None], given("square")[0, :, :4, :4]
    task = {"input": (1 - hidden) * target, "target": target, "weight": hidden}
    return of_task(inpainting_method(hole="region"), **task)


def colorization_case():
    networks = encoder("gray_encoder"), colorizer()
    knobs = {"sigma": 5.0, "neighbors": 3, "gamma": 0.4, "prior_momentum": 0.8}
    method = as_it_is(methods.colorization.colorization, *networks, given("bins"), **knobs)
    task = {"input": given("lightness"), "ab": given("ab"), "colored": given("colored")}
    task = {name: array.reshape(-1, *array.shape[2:]) for name, array in task.items()}
    return of_task(method, steps=2, tolerance=UNIFORM, **task)


def mae_case(normalize=True):
    networks = patch_encoder(), patch_decoder()
    method = as_it_is(methods.mae.mae, *networks, patch=2, normalize=normalize)
    keep = given("keep")
    hidden = ~(keep[:, :, None] == np.arange(4)).any(axis=1)
    return of_task(method, input=given("square")[0, :, :4, :4], keep=keep, hidden=hidden)


CASES = {
    "simclr": simclr_case,
    "simclr_norm": simclr_norm_case,
    "sup_con": sup_con_case,
    "barlow_twins": barlow_twins_case,
    "vicreg": vicreg_case,
    "simsiam": simsiam_case,
    "byol": byol_case,
    "byol_norm": byol_norm_case,
    "moco": moco_case,
    "moco_symmetric": partial(moco_case, symmetric=True),
    "moco_v3": moco_v3_case,
    "swav": partial(swav_case, 2, local=True, freeze_steps=1),
    "swav_queue": partial(swav_case, 4, queue_size=12),
    "dino": dino_case,
    "rotation": rotation_case,
    "context_prediction": context_prediction_case,
    "jigsaw": jigsaw_case,
    "absolute_location": absolute_location_case,
    "inpainting": inpainting_case,
    "inpainting_region": inpainting_region_case,
    "colorization": colorization_case,
    "mae": mae_case,
    "mae_pixels": partial(mae_case, normalize=False),
}


def trained(case):
    """The loss and the parameters of each step, the first parameters, and the last state."""
    tx = optax.sgd(RATE)

    def accurate(leaf):
        return leaf.astype(float if jnp.issubdtype(leaf.dtype, jnp.floating) else int)

    def run(batches):
        first = jax.tree.map(lambda x: x[0], batches)
        state = init_state(case.method, tx, jax.random.key(0), first)
        if case.queue is not None:
            state = state._replace(extra={**state.extra, "queue": case.queue})
        state = state._replace(
            **{
                name: jax.tree.map(accurate, getattr(state, name))
                for name in ("step", "params", "model_state", "extra")
            }
        )

        def step(state, batch):
            state, metrics = train_step(case.method, tx, state, batch)
            return state, (metrics["loss"], state.params)

        last, (losses, params) = jax.lax.scan(step, state, batches)
        return losses, state.params, params, last

    return jax.jit(run)(case.batches)


def by_path(tree):
    """The leaves of a tree in the order of their paths, which the references have as well."""
    flat = jax.tree.leaves_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}
    return {path: np.asarray(named[path]) for path in sorted(named)}


def assert_equal(tree, expected, tolerance, what):
    leaves = by_path(tree)
    sizes = [leaf.size for leaf in leaves.values()]
    assert sum(sizes) == len(expected), what
    scale = np.abs(expected).max()
    parts = np.split(expected, np.cumsum(sizes)[:-1])
    for (path, leaf), theirs in zip(leaves.items(), parts):
        np.testing.assert_allclose(
            leaf.ravel(), theirs, rtol=tolerance, atol=tolerance * scale, err_msg=f"{what} {path}"
        )


@pytest.mark.parametrize("name", CASES)
def test_steps_equal_the_reference(name):
    with jax.enable_x64(True):
        case = CASES[name]()
        losses, start, params, last = trained(case)
        after = jax.tree.map(lambda leaf: np.asarray(leaf)[0], params)
        gradient = jax.tree.map(lambda p, q: (np.asarray(p) - q) / RATE, start, after)
        np.testing.assert_allclose(losses, GOLDEN[f"{name} loss"], rtol=case.tolerance)
        assert_equal(gradient, GOLDEN[f"{name} gradient"], case.tolerance, "gradient of")
        if len(losses) > 1:
            assert_equal(last.params, GOLDEN[f"{name} parameters"], case.tolerance, "parameter")
        for what in ("extra", "model_state"):
            if jax.tree.leaves(getattr(last, what)):
                expected = GOLDEN[f"{name} {what}"]
                assert_equal(getattr(last, what), expected, case.tolerance, what)


def test_every_method_has_a_reference():
    elsewhere = {"monodepth", "monodepth2", "sfm_learner"}  # test_depth_methods.py
    elsewhere |= {"arflow", "smurf", "uflow", "unflow"}  # test_flow_methods.py
    elsewhere |= {"smurf_multi_frame"}  # test_smurf_multi_frame.py
    # test_emp_ssl.py, and so on; test_ibot.py for both
    elsewhere |= {"emp_ssl", "ijepa", "lejepa", "mmcr", "nnclr", "tico", "visreg", "w_mse"}
    elsewhere |= {"data2vec2", "deepcluster_v2", "dinov2", "ibot", "msn", "simmim", "supervised"}
    assert set(methods.METHODS) <= set(CASES) | elsewhere


# What the views make of images, and whether it is what they say it is.


def made(method, images):
    """The task that a method's views make of images `[B, H, W, C]`."""
    batch = {"views": images[:, None], "index": np.arange(len(images), dtype=np.int32)}
    return jax.tree.map(np.asarray, jax.jit(method.augment)(jax.random.key(0), batch))


def places(patches, image):
    """First row and column of each patch `[..., p, p, C]` in an image of noise `[H, W, C]`.

    The patches are standardized, so each window of the image is as well, to find it again.
    """
    side = patches.shape[-2]
    windows = np.lib.stride_tricks.sliding_window_view(image, (side, side), axis=(0, 1))
    windows = np.moveaxis(windows, 2, -1)
    windows = windows - windows.mean((-3, -2), keepdims=True)
    windows = windows / windows.std((-3, -2), keepdims=True)
    distance = np.abs(patches[..., None, None, :, :, :] - windows).max((-3, -2, -1))
    flat = distance.reshape(*distance.shape[:-2], -1)
    assert flat.min(-1).max() < 1e-3 < np.sort(flat)[..., 1].min()
    return np.stack(np.unravel_index(flat.argmin(-1), distance.shape[-2:]), axis=-1)


def test_each_turn_is_a_quarter_counter_clockwise():
    method = as_it_is(methods.rotation.rotation, encoder(), linear("rotation"))
    image = np.zeros((1, 5, 5, 1), np.float32)
    image[0, 0, 4] = 1.0  # the upper right corner comes to the upper left one, and so on
    views = made(method, image)["input"][0, ..., 0]
    corners = [np.unravel_index(view.argmax(), view.shape) for view in views]
    assert corners == [(0, 4), (0, 0), (4, 0), (4, 4)]


def test_a_direction_is_where_the_second_patch_lies():
    patch, gap, jitter = 4, 3, 1
    method = as_it_is(
        methods.context_prediction.context_prediction,
        encoder(),
        linear("context_prediction"),
        pairs=8,
        patch=patch,
        gap=gap,
        jitter=jitter,
        colors="keep",
        down_up=0.0,
        smallest=1,
    )
    images = np.random.default_rng(0).random((6, 24, 26, 2), np.float32)
    task = made(method, images)
    sides = [[0, 1, 2], [3, None, 4], [5, 6, 7]]  # above left, above, above right, left, ...
    found = []
    for patches, directions, image in zip(task["input"], task["direction"], images):
        first, second = np.moveaxis(places(patches.reshape(8, 2, 4, 4, 2), image), 1, 0)
        step = np.rint((second - first) / (patch + gap)).astype(int)
        assert np.abs(second - first - step * (patch + gap)).max() <= jitter
        assert [sides[y + 1][x + 1] for y, x in step] == directions.tolist()
        found += directions.tolist()
    assert set(found) == set(range(8))


def test_an_order_is_that_of_the_tiles():
    permutations = np.array([[0, 1, 2, 3], [1, 2, 3, 0], [3, 1, 0, 2], [2, 3, 1, 0]])
    method = as_it_is(
        methods.jigsaw.jigsaw,
        encoder(),
        linear("jigsaw"),
        permutations,
        tile=4,
        jitter=1,
        color_jitter=0.0,
    )
    rows, columns = np.mgrid[:12, :12] / np.float32(12)
    images = np.broadcast_to(np.stack([rows, columns], -1), (16, 12, 12, 2))
    task = made(method, images)
    cells = (task["input"].mean((2, 3)) * 12 // 6).astype(int)  # of the tile in each place
    np.testing.assert_array_equal(2 * cells[..., 0] + cells[..., 1], permutations[task["order"]])
    assert set(task["order"].tolist()) == set(range(4))


def test_a_cell_is_where_the_patch_was():
    method = as_it_is(
        methods.absolute_location.absolute_location,
        encoder(),
        linear("absolute_location"),
        bins=2,
        patches=5,
        patch=4,
    )
    images = np.random.default_rng(0).random((4, 13, 11, 2), np.float32)
    task = made(method, images)
    for patches, cells, image in zip(task["input"], task["cell"], images):
        down, right = np.moveaxis(places(patches, image), -1, 0)
        assert (2 * (2 * down >= 9) + (2 * right >= 7)).tolist() == cells.tolist()
    assert set(task["cell"].ravel().tolist()) == set(range(4))


def test_a_region_is_hidden_from_the_network_and_counts():
    images = np.random.default_rng(0).random((4, 16, 20, 3), np.float32)
    task = made(inpainting_method(hole="region"), images)
    hidden = task["weight"] == 1
    np.testing.assert_array_equal(task["input"], np.where(hidden, np.float32(FILL), images))
    np.testing.assert_array_equal(task["target"], images)
    share = hidden.mean((1, 2, 3))
    assert share.min() > 0.19 and share.max() < 0.31 and len(np.unique(share)) > 1


def test_lightness_colors_and_whether_there_are_any():
    images = np.random.default_rng(0).random((4, 4, 6, 3), np.float32)
    images[1] = images[1].mean(-1, keepdims=True)
    images[2] = images[1] + np.float32([0.02, 0.0, 0.0])  # tinted, but too weakly
    images[3, 1:], images[3, 0, :5] = 0.5, 0.5  # one pixel in color
    networks = encoder("gray_encoder"), colorizer()
    method = as_it_is(methods.colorization.colorization, *networks, given("bins"), downsample=1)
    task = made(method, images)
    lab = color.rgb2lab(images)
    assert 1 < np.abs(lab[2, ..., 1:]).max() < 5 < np.abs(lab[3, ..., 1:]).max()
    np.testing.assert_allclose(100 * task["input"], lab[..., :1], atol=0.02)
    np.testing.assert_allclose(task["ab"], lab[..., 1:], atol=0.02)
    assert task["colored"].tolist() == [True, False, False, True]


def test_the_mask_is_where_nothing_is_kept():
    networks = patch_encoder(), patch_decoder()
    method = as_it_is(methods.mae.mae, *networks, patch=2, mask_ratio=0.75)
    images = np.zeros((5, 8, 12, 3), np.float32)
    task = made(method, images)
    assert task["keep"].shape == (5, 6) and task["hidden"].shape == (5, 24)
    for keep, mask in zip(task["keep"], task["hidden"]):
        np.testing.assert_array_equal(np.flatnonzero(mask == 0), np.sort(keep))
    assert len(np.unique(task["keep"], axis=0)) > 1
