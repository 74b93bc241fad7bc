"""The second stage of SMURF: its pseudo-labels and its loss, its teacher, and a whole run.

Stand-in networks: their parameters are the flows.
"""

import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from miniature import with_pwc

import sslax
from sslax import augment, models
from sslax.errors import UserError
from sslax.methods.flow import fusion, smurf_multi_frame
from sslax.methods.flow.smurf_multi_frame import Settings
from sslax.tasks import evaluation
from sslax.training.fit import fit
from sslax.types import FlowField, Model

B, H, W = 2, 16, 24


def answering(flows):
    """A network that answers with its parameters, `[N, 2, I, H, W, 2]`."""
    start = {"flows": jnp.asarray(flows, jnp.float32)}
    return Model(lambda rng, x: (start, {}), lambda p, state, x, train: (p["flows"], state))


def method_of(student, teacher, **knobs):
    """The method with stand-ins: of the student's flows and the teacher's, `[B, 2, 2, H, W, 2]`.

    Those of the teacher lead to the next and then to the previous frame, forward and then backward.
    """
    teacher = np.float32(teacher).reshape(-1, 2, 1, *teacher.shape[3:])
    return smurf_multi_frame.smurf_multi_frame(
        answering(student), answering(teacher), augmentation=lambda rng, batch: batch, **knobs
    )


def batch_of(size=(H, W), **more):
    frames = jnp.asarray(np.random.default_rng(0).uniform(size=(B, 3, H, W, 3)), jnp.float32)
    batch = {"frames": frames, "input": frames[:, 1:, : size[0], : size[1]]}
    return {**batch, "index": jnp.arange(B) + 5, **more}


def value_and_gradient(method):
    """`(variables, batch, rng, step) -> ((loss, output), gradient)`, of params and of extra."""

    def run(variables, *args):
        def loss(params, extra):
            return method.loss(variables._replace(params=params, extra=extra), *args)

        gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        return gradient(variables.params, variables.extra)

    return run


def smooth(seed, amplitude=1.5):
    """Flows `[B, 2, 2, H, W, 2]` as a teacher's: roughly there and back again, not everywhere."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:H, :W] / 6.0
    phase = rng.uniform(0, 6, (B, 1, 2, 1, 1))
    ahead = np.moveaxis(amplitude * np.sin(x + phase) * np.cos(y - phase), 2, -1)
    ahead = ahead * np.reshape([1.0, -0.8], (2, 1, 1, 1)) + np.array([0.5, -0.3])  # [B, 2, H, W, 2]
    back = -ahead + rng.normal(0, 0.7, ahead.shape)
    return np.stack([ahead, back], 2)


# A restatement in numpy, float64.


def np_seen(ahead, back):
    """Visible by the forward-backward check, and within the frame."""
    y, x = np.mgrid[:H, :W].astype(np.float64)
    x, y = x + ahead[..., 0], y + ahead[..., 1]
    inside = (x >= 0) & (x <= W - 1) & (y >= 0) & (y <= H - 1)
    x, y = np.clip(x, 0, W - 1), np.clip(y, 0, H - 1)
    i, j = np.minimum(x.astype(int), W - 2), np.minimum(y.astype(int), H - 2)
    u, v = (x - i)[..., None], (y - j)[..., None]
    top = (1 - u) * back[j, i] + u * back[j, i + 1]
    met = (1 - v) * top + v * ((1 - u) * back[j + 1, i] + u * back[j + 1, i + 1])
    bound = 0.01 * ((ahead**2).sum(-1) + (met**2).sum(-1)) + 0.5
    return inside & (((ahead + met) ** 2).sum(-1) < bound), inside


def np_fuse(key, past, future, seen_past, seen_future, *, hidden, steps, stride, rate=1e-2):
    """`fusion.fuse_flows` with its derivatives by hand."""
    taught = seen_past & seen_future
    scale = np.sqrt((past**2).sum(-1)[taught].mean() + 1e-6)
    y, x = np.mgrid[:H, :W].astype(np.float64)
    place = 2 * np.stack([x / W, y / H], -1) - 1
    given = np.concatenate([past / scale, place], -1)
    sizes = [(4, hidden), (hidden, hidden), (hidden, 2)]
    draws = [jax.random.normal(k, s) for k, s in zip(jax.random.split(key, 3), sizes)]
    weights = []
    for i, (draw, (a, b)) in enumerate(zip(draws, sizes)):
        weights += [np.asarray(draw, np.float64) * (2 / a) ** 0.5 * (i < 2), np.zeros(b)]
    some = (slice(None, None, stride),) * 2
    rows, wanted = given[some][taught[some]], ((past + future) / scale)[some][taught[some]]
    means, squares = ([np.zeros_like(w) for w in weights] for _ in range(2))

    def layers(x):
        outputs = [x]
        for i in (0, 2, 4):
            x = x @ weights[i] + weights[i + 1]
            x = np.where(x > 0, x, 0.1 * x) if i < 4 else x
            outputs.append(x)
        return outputs

    for step in range(steps):
        outputs = layers(rows)
        gap = outputs[-1] - wanted
        slope = gap / np.sqrt(gap**2 + 1e-6) / gap.size
        gradient = [None] * 6
        for i in (4, 2, 0):
            before = outputs[i // 2]
            gradient[i], gradient[i + 1] = before.T @ slope, slope.sum(0)
            slope = (slope @ weights[i].T) * np.where(before > 0, 1.0, 0.1)
        now = rate * 0.5 * (1 + np.cos(np.pi * step / steps))
        for i, g in enumerate(gradient):
            means[i] = 0.9 * means[i] + 0.1 * g
            squares[i] = 0.999 * squares[i] + 0.001 * g**2
            m, s = means[i] / (1 - 0.9 ** (step + 1)), squares[i] / (1 - 0.999 ** (step + 1))
            weights[i] = weights[i] - now * m / (np.sqrt(s) + 1e-8)
    filled = seen_past & ~seen_future
    return np.where(filled[..., None], scale * layers(given)[-1] - past, future)


@pytest.mark.parametrize("border_occluded", [True, False])
def test_the_loss_is_its_definition(border_occluded):
    size, offset = (10, 14), np.array([[3, 5], [9, 0]])
    teacher = smooth(0)
    student = np.random.default_rng(1).normal(0, 1.5, (B, 2, 3, *size, 2))
    knobs = {"hidden": 6, "steps": 5, "stride": 2}
    method = method_of(
        student,
        teacher,
        border_occluded=border_occluded,
        gamma=0.7,
        **{f"fusion_{name}": value for name, value in knobs.items()},
    )
    batch = batch_of(size, offset=jnp.asarray(offset, jnp.float32))
    variables = method.init(jax.random.key(0), batch)
    rng = jax.random.key(3)
    value, output = jax.jit(method.loss)(variables, batch, rng, 0)

    fusion_key = jax.random.split(rng)[1]
    total, count, filled, distances = 0.0, 0, [], []
    for i, (corner, flows) in enumerate(zip(offset, np.float32(teacher).astype(np.float64))):
        seen = []
        for ahead, back in flows:  # to the next frame, to the previous one
            agrees, inside = np_seen(ahead, back)
            seen.append(agrees if border_occluded else agrees | ~inside)
        key = jax.random.fold_in(fusion_key, int(batch["index"][i]))
        fused = np_fuse(key, flows[1, 0], flows[0, 0], seen[1], seen[0], **knobs)
        part = tuple(slice(c, c + s) for c, s in zip(corner[::-1], size))
        mask = (seen[0] | seen[1])[part]
        error = np.abs(np.float32(student)[i, 0] - fused[part]).mean(-1)  # [I, h, w]
        total += (np.reshape([0.49, 0.7, 1.0], (3, 1, 1)) * error).sum(0)[mask].sum()
        count += mask.sum()
        distances.append(np.linalg.norm(student[i, 0, -1] - fused[part], axis=-1)[mask])
        filled.append((seen[1] & ~seen[0])[part])
    assert 0.05 < np.mean(filled) < 0.9 and count < B * size[0] * size[1]
    np.testing.assert_allclose(value, total / count, rtol=1e-4)
    np.testing.assert_allclose(output.metrics["filled"], np.mean(filled), rtol=1e-5)
    np.testing.assert_allclose(output.metrics["labeled"], count / B / np.prod(size), rtol=1e-5)
    np.testing.assert_allclose(
        output.metrics["distance"], np.concatenate(distances).mean(), rtol=1e-4
    )


@pytest.mark.parametrize("case", ["leaves", "disagrees"])
def test_where_nothing_is_visible_nothing_is_taught(case):
    teacher = np.full((B, 2, 2, H, W, 2), {"leaves": 100.0, "disagrees": 4.0}[case])
    method = method_of(np.ones((B, 2, 2, H, W, 2)), teacher, fusion_steps=3)
    batch = batch_of()
    variables = method.init(jax.random.key(0), batch)
    run = jax.jit(value_and_gradient(method))
    (value, output), (gradient, _) = run(variables, batch, jax.random.key(0), 0)
    assert value == 0.0 and output.metrics["labeled"] == 0.0
    assert not np.any(gradient["flows"])
    assert all(np.isfinite(metric) for metric in output.metrics.values())


def test_the_teacher_stays_as_it_is():
    method = method_of(np.ones((B, 2, 2, H, W, 2)), smooth(2), fusion_steps=3)
    batch = batch_of()
    variables = method.init(jax.random.key(0), batch)
    run = jax.jit(value_and_gradient(method))
    (_, output), (own, frozen) = run(variables, batch, jax.random.key(0), 0)
    assert np.any(own["flows"][:, 0]) and not np.any(own["flows"][:, 1])
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(frozen))
    after = method.update(variables._replace(extra=output.extra), 1)
    np.testing.assert_array_equal(
        after["teacher"].params["flows"], variables.extra["teacher"].params["flows"]
    )


def test_the_student_may_start_as_the_teacher():
    make = partial(
        smurf_multi_frame.smurf_multi_frame,
        answering(np.zeros((2 * B, 2, 1, H, W, 2))),
        answering(np.full((2 * B, 2, 1, H, W, 2), 3.0)),
        augmentation=lambda rng, batch: batch,
    )
    batch = batch_of()
    anew = make().init(jax.random.key(0), batch)
    same = make(start_from_teacher=True).init(jax.random.key(0), batch)
    assert not anew.params["flows"].any() and (same.params["flows"] == 3.0).all()
    assert (anew.extra["teacher"].params["flows"] == 3.0).all()
    assert jax.tree.structure(same) == jax.tree.structure(anew)


def test_the_teacher_is_a_reference_that_predicts():
    frames = np.random.default_rng(0).integers(0, 255, (B, 3, H, W, 3), dtype=np.uint8)
    batch = {"image": jnp.asarray(frames), "index": jnp.arange(B)}
    teacher = smooth(3)
    method = method_of(np.zeros((B, 2, 1, H, W, 2)), teacher, fusion_steps=3)
    variables = method.init(jax.random.key(0), batch_of())
    pictures = jax.jit(method.visualize)(variables, batch, jax.random.key(1))
    flows = {title: x for title, x in pictures.items() if isinstance(x, FlowField)}
    assert set(flows) == {"teacher", "pseudo-label", "flow"}
    np.testing.assert_allclose(flows["teacher"].values, teacher[:, 0, 0], rtol=1e-5)
    fastest = np.linalg.norm(flows["pseudo-label"].values, axis=-1).max((1, 2), keepdims=True)
    for column in flows.values():  # equal colors are equal motions
        np.testing.assert_allclose(column.max_radius, fastest, rtol=1e-5)
    # The teacher's own network stands in for one that has its weights.
    small = {"flows": variables.extra["teacher"].params["flows"][:B]}
    extra = {"teacher": variables.extra["teacher"]._replace(params=small)}
    (reference,) = method.references(variables._replace(extra=extra)).values()
    np.testing.assert_allclose(
        method.predict(reference, batch).flow, small["flows"][:, 0, 0], rtol=1e-5
    )


def seeing(gain):
    """A network whose flow depends on what each pixel shows, and on a parameter."""

    def apply(params, state, x, train):
        gray = jnp.mean(x["image"], axis=-1)
        change = params["gain"] * (gray - gray[:, ::-1])  # [N, 2, H, W]
        flow = jnp.stack([change, -2 * change], axis=-1)
        return flow[:, :, None], state

    return Model(lambda rng, x: ({"gain": jnp.float32(gain)}, {}), apply)


def test_the_order_of_examples_does_not_matter():
    recipe = augment.get_flow_recipe("smurf", size=(12, 16))
    method = smurf_multi_frame.smurf_multi_frame(
        seeing(1.0),
        seeing(4.0),
        augmentation=smurf_multi_frame.triplet_augmentation(augment.make_frame_pairs(recipe)),
        fusion_steps=4,
    )
    image = np.random.default_rng(3).integers(0, 255, (4, 3, H, W, 3), dtype=np.uint8)

    @jax.jit
    def of(batch):
        batch = method.augment(jax.random.key(1), batch)
        variables = method.init(jax.random.key(0), batch)
        run = value_and_gradient(method)
        (value, output), (gradient, _) = run(variables, batch, jax.random.key(2), 0)
        return value, gradient["gain"], output.metrics["filled"]

    order = np.array([2, 0, 3, 1])
    ours = of({"image": image, "index": np.arange(4)})
    theirs = of({"image": image[order], "index": np.arange(4)[order]})
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)
    assert ours[1] != 0.0 and 0.0 < ours[2] < 1.0
    # Another key gives other pseudo-labels, where the previous frame fills in.
    others = of({"image": image, "index": np.arange(4) + 9})
    assert abs(others[0] - ours[0]) > 1e-4


# What the past is good for.


def layered():
    """A box before a background, each at its own constant speed; flows and what is occluded."""
    speeds = {"box": np.array([4.0, 1.0]), "ground": np.array([-2.0, 0.0])}
    y, x = np.mgrid[:H, :W]

    def box(time):
        a, b = speeds["box"] * time
        return (x >= 8 + a) & (x < 15 + a) & (y >= 4 + b) & (y < 12 + b)

    def flow(time, sign):
        return sign * np.where(box(time)[..., None], speeds["box"], speeds["ground"])

    ahead = np.stack([flow(0, 1.0), flow(0, -1.0)])
    back = np.stack([flow(1, -1.0), flow(-1, 1.0)])
    at = [np.stack([x, y], -1) + f for f in ahead]
    hidden = []
    for place, time in zip(at, (1, -1)):
        i, j = (np.clip(place[..., c], 0, n - 1).astype(int) for c, n in ((0, W), (1, H)))
        hidden.append(box(time)[j, i] & ~box(0))
    return ahead, back, hidden


def affine():
    """A zoom about a point, the same in each step; a stripe is hidden in the next frame."""
    linear, center = np.array([[1.06, 0.03], [-0.03, 1.06]]), np.array([9.0, 7.0])
    y, x = np.mgrid[:H, :W]
    place = np.stack([x, y], -1) - center
    there, again = (place @ m.T - place for m in (linear, np.linalg.inv(linear)))
    hidden = (x >= 9) & (x < 13) & (y > 2)
    return np.stack([there, again]), np.stack([again, there]), [hidden, np.zeros_like(hidden)]


@pytest.mark.parametrize("motion", [layered, affine])
def test_the_past_tells_the_flow_of_what_is_occluded(motion):
    """True flows, spoiled where the next frame hides the pixel, as a teacher's are."""
    ahead, back, hidden = motion()
    spoiled = ahead.copy()
    spoiled[0][hidden[0]] += np.array([3.0, -2.0])
    spoiled[1][hidden[1]] += np.array([3.0, -2.0])
    given = jax.random.key(0)[None], jnp.float32(spoiled)[None], jnp.float32(back)[None]
    labels = smurf_multi_frame.pseudo_labels(*given, Settings(fusion_steps=300))
    flow, _, filled = (np.asarray(x[0]) for x in labels)
    assert (filled > 0)[hidden[0]].mean() > 0.8
    error = np.linalg.norm(flow - ahead[0], axis=-1)
    before = np.linalg.norm(spoiled[0] - ahead[0], axis=-1)
    where = hidden[0] & (filled > 0)
    assert error[where].mean() < 0.15 * before[where].mean()
    kept = filled == 0
    np.testing.assert_array_equal(flow[kept], np.float32(spoiled[0])[kept])
    # Of what leaves the frame, too, the past knows more than nothing.
    x = np.arange(W) + ahead[0, ..., 0]
    leaves = (x < 0) | (x > W - 1)
    assert leaves.any() and error[leaves & (filled > 0)].mean() < 0.5
    settings = Settings(fusion_steps=1, border_occluded=False)
    trusting = smurf_multi_frame.pseudo_labels(*given, settings)
    assert (np.asarray(trusting.filled[0]) == 0)[leaves].all()
    assert (np.asarray(trusting.mask[0]) == 1)[leaves].all()


def test_the_pseudo_labels_follow_the_augmentation():
    """All three frames move alike; the crop that the student sees begins at the offset."""
    recipe = augment.get_flow_recipe(
        "smurf", size=(8, 12), jitter=0.0, erase=0.0, affine={"flip": 0.5}
    )
    pairs = augment.make_frame_pairs(recipe)
    image = np.random.default_rng(4).integers(0, 255, (6, 3, H, W, 3), dtype=np.uint8)
    batch = {"image": image, "index": np.arange(6)}
    augmented = smurf_multi_frame.triplet_augmentation(pairs)(jax.random.key(0), batch)
    last = pairs(jax.random.key(0), {**batch, "image": image[:, 1:]})
    for name in ("input", "offset"):
        np.testing.assert_array_equal(augmented[name], last[name])
    np.testing.assert_array_equal(augmented["image"], image)
    frames = augmented["frames"]
    np.testing.assert_array_equal(frames[:, 1:], last["frames"])
    mirrored = [np.allclose(m, i[..., ::-1, :] / 255) for m, i in zip(frames, image)]
    straight = [np.allclose(m, i / 255) for m, i in zip(frames, image)]
    assert all(m != s for m, s in zip(mirrored, straight)) and 0 < sum(mirrored) < 6
    flow = jnp.moveaxis(frames[:, 1], -1, 0)[:2]
    labels = smurf_multi_frame.PseudoLabels(
        jnp.moveaxis(flow, 0, -1), frames[:, 1, ..., 0], frames[:, 1, ..., 1]
    )
    part = smurf_multi_frame.crop_labels(labels, augmented["offset"], (8, 12))
    np.testing.assert_array_equal(part.flow, augmented["input"][:, 0, ..., :2])
    np.testing.assert_array_equal(part.mask, augmented["input"][:, 0, ..., 0])
    np.testing.assert_array_equal(part.filled, augmented["input"][:, 0, ..., 1])
    with pytest.raises(UserError, match='target_frame="second"'):
        smurf_multi_frame.triplet_augmentation(pairs)(
            jax.random.key(0), {**batch, "image": image[:, 1:]}
        )


# From configs.


@pytest.mark.parametrize("variant", ["", "tiny", "sintel", "kitti", "video"])
def test_configs_build(variant, load_config):
    config = load_config("smurf_multi_frame", variant)
    assert config.data.frames == 3 and config.data.target_frame == "second"
    own = config.smurf_multi_frame
    first = load_config("smurf", variant)  # the network has to be the same
    assert first.model == config.model
    assert first.smurf.network == own.network
    own.teacher_from = None  # as for a run whose checkpoints have the teacher
    method = smurf_multi_frame.build(config, 100)
    size = tuple(config.data.size) or (436, 1024)
    batch = {
        "image": jax.ShapeDtypeStruct((1, 3, *size, 3), jnp.uint8),
        "index": jax.ShapeDtypeStruct((1,), jnp.int32),
    }
    augmented = jax.eval_shape(method.augment, jax.random.key(0), batch)
    assert augmented["input"].shape == (1, 2, *config.augment.size, 3)
    if variant != "tiny":
        return
    variables = jax.eval_shape(method.init, jax.random.key(0), augmented)
    for frames in (2, 3):
        images = jax.ShapeDtypeStruct((1, frames, *size, 3), jnp.uint8)
        predicted = jax.eval_shape(method.predict, variables, {"image": images})
        assert predicted.flow.shape == (1, *size, 2)


def test_mistakes_about_the_teacher_are_named(load_config, tmp_path, first_stage):
    def error(source, **changes):
        config = with_pwc(load_config("smurf_multi_frame", "tiny"))
        config.smurf_multi_frame.teacher_from = str(source)
        config.update_from_flattened_dict(changes)
        with pytest.raises(UserError) as caught:
            start(config)
        return str(caught.value)

    def start(config):
        method = smurf_multi_frame.build(config, 10)
        batch = {"input": jnp.zeros((1, 2, 24, 40, 3))}
        jax.jit(method.init).lower(jax.random.key(0), batch)

    assert "python -m sslax.main --config=configs/smurf.py" in error("")
    assert "holds no finished run" in error(tmp_path / "nowhere")
    assert "holds no finished run" in error(tmp_path)  # one that was stopped
    file = tmp_path / "network.safetensors"
    models.save_weights(file, {"bias": np.zeros(3)}, {}, {"method": "simclr"})
    for source in (tmp_path, file):
        assert "simclr, which learns no flow" in error(source)
    assert "is another one" in error(first_stage, **{"model.width": 0.25})
    assert "occlusion" in error(first_stage, **{"smurf_multi_frame.occlusion": "none"})
    config = with_pwc(load_config("smurf_multi_frame", "tiny"))
    config.smurf_multi_frame.teacher_from = str(first_stage / "network.safetensors")
    start(config)


@pytest.fixture(scope="module")
def second_stage(load_config, first_stage, tmp_path_factory):
    """A teacher, and a run of four steps that learned from it, with its config and last state."""
    folder = tmp_path_factory.mktemp("second_stage")
    teacher = folder / "teacher"
    shutil.copytree(first_stage, teacher)
    config = with_pwc(load_config("smurf_multi_frame", "tiny"))
    config.smurf_multi_frame.teacher_from = str(teacher)
    config.update({"duration": "4 steps", "log_every": "2 steps", "checkpoint_every": "2 steps"})
    config.evaluate.update(figures=False)
    return teacher, config, folder / "run", fit(config, folder / "run")


def test_a_run_goes_on_to_the_bit_without_the_folder_of_its_teacher(second_stage, tmp_path):
    teacher, config, workdir, undisturbed = second_stage
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    away = teacher.rename(tmp_path / "teacher")
    resumed = fit(config, tmp_path / "run")
    away.rename(teacher)
    assert int(resumed.step) == 4
    ours, theirs = (jax.tree.leaves(s._replace(rng=s.step)) for s in (resumed, undisturbed))
    for a, b in zip(ours, theirs):
        np.testing.assert_array_equal(a, b)


def test_the_teacher_is_evaluated_too_and_not_needed_afterwards(second_stage):
    teacher, _, workdir, state = second_stage
    params, _, _ = models.read_variables(teacher / "network.safetensors")
    for a, b in zip(jax.tree.leaves(state.extra["teacher"].params), jax.tree.leaves(params)):
        np.testing.assert_array_equal(a, b)
    shutil.rmtree(teacher)
    numbers = evaluation.evaluate_run(workdir)
    for name in ("epe", "epe_occluded", "epe_visible"):
        assert {name, f"{name}_teacher", f"{name}_untrained", f"{name}_trivial"} <= numbers.keys()
    assert numbers["epe"] != numbers["epe_teacher"] != numbers["epe_untrained"]
    pair = np.random.default_rng(0).integers(0, 255, (2, 40, 60, 3), dtype=np.uint8)
    assert sslax.load(workdir)(pair).flow.shape == (40, 60, 2)


def test_the_fusion_is_trained_on_some_of_the_pixels():
    flows = jnp.float32(smooth(6)[0, :, 0])
    seen = np.ones((H, W), bool)
    hole = seen.copy()
    hole[4:9, 6:14] = False
    fuse = partial(fusion.fuse_flows, jax.random.key(0), flows[1], visible_past=seen, steps=300)
    all_of_them = fuse(flows[0], visible_future=hole)
    some = fuse(flows[0], visible_future=hole, stride=2)
    for flow in (all_of_them, some):
        assert (
            np.abs(flow - flows[0])[~hole].mean() < 0.3 * np.abs(flows[1] + flows[0])[~hole].max()
        )
    assert np.abs(some - all_of_them)[~hole].max() > 0.0
