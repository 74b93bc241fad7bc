"""Depth measures against hand-computed cases and a float64 loop over images."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax.measures import depth, totals

median_ratio = jax.jit(depth.median_ratio)


@pytest.fixture(scope="module")
def problem():
    """Predictions off by a factor and noise; a sparse truth with every marker of unknown."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.5, 120, (3, 20, 30))
    predicted = (
        truth * rng.lognormal(0, 0.3, truth.shape) * np.array([0.2, 0.5, 3.0])[:, None, None]
    )
    known = rng.random(truth.shape) < 0.4
    truth[~known] = rng.choice([0.0, -1.0, np.nan, np.inf], (~known).sum())
    predicted[rng.random(truth.shape) < 0.5 * ~known] = np.nan
    return predicted.astype(np.float32), truth.astype(np.float32)


def reference(predicted, truth, *, scaling, crop=None, low=1e-3, high=80.0):
    """One image in float64: mask, crop, scale, clip, measure."""
    predicted, truth = predicted.astype(np.float64), truth.astype(np.float64)
    mask = np.isfinite(truth)
    mask[mask] = (truth[mask] > low) & (truth[mask] < high)
    if crop is not None:
        inside = np.zeros(mask.shape, bool)
        inside[crop[0] : crop[1], crop[2] : crop[3]] = True
        mask &= inside
    p, z = predicted[mask], truth[mask]
    ratio = np.median(z) / np.median(p)
    p = np.clip(p * (ratio if scaling == "median" else scaling), low, high)
    worse = np.maximum(p / z, z / p)
    return {
        "abs_rel": np.mean(np.abs(p - z) / z),
        "sq_rel": np.mean((p - z) ** 2 / z),
        "rmse": np.sqrt(np.mean((p - z) ** 2)),
        "rmse_log": np.sqrt(np.mean((np.log(p) - np.log(z)) ** 2)),
        "delta_1": np.mean(worse < 1.25),
        "delta_2": np.mean(worse < 1.25**2),
        "delta_3": np.mean(worse < 1.25**3),
    }, ratio


def mean(rows):
    return {name: np.mean([row[name] for row in rows]) for name in rows[0]}


def test_hand_computed():
    # Errors -1, +1, +5 of truths 2, 4, 5; the fourth pixel is unknown.
    truth = jnp.array([[[2.0, 4.0, 5.0, jnp.nan]]])
    errors = depth.depth_errors(jnp.array([[[1.0, 5.0, 10.0, jnp.nan]]]), truth, truth > 0)
    assert tuple(errors) == depth.MEASURES
    logs = (np.log(2) ** 2 + np.log(1.25) ** 2 + np.log(2) ** 2) / 3
    wanted = (1.75 / 3, (0.5 + 0.25 + 5) / 3, 3.0, np.sqrt(logs), 0.0, 1 / 3, 1 / 3)
    # Ratios are 2, 1.25 (which is not below 1.25) and 2; 1.25^3 is 1.95.
    for name, value in zip(depth.MEASURES, wanted):
        assert errors[name].value.item() == pytest.approx(value, rel=1e-6), name
        assert errors[name].pixels.item() == 3


@pytest.mark.parametrize("scaling", ["median", 2.0])
def test_equals_float64_loop(problem, scaling):
    predicted, truth = problem
    mask = depth.valid_depth(truth)
    ratio = median_ratio(predicted, truth, mask)
    scale = ratio if scaling == "median" else scaling
    errors = depth.depth_errors(predicted, truth, mask, scale=scale)
    for i in range(len(truth)):
        wanted, wanted_ratio = reference(predicted[i], truth[i], scaling=scaling)
        assert float(ratio[i]) == pytest.approx(wanted_ratio, rel=1e-6)
        for name, value in wanted.items():
            assert float(errors[name].value[i]) == pytest.approx(value, rel=1e-5), name
            assert int(errors[name].pixels[i]) == int(mask[i].sum())


@pytest.mark.parametrize("scaling", ["median", "global", "none", 2.0])
def test_set_equals_float64_loop(problem, scaling):
    pairs = list(zip(*problem))
    box = (int(0.40810811 * 20), int(0.99189189 * 20), int(0.03594771 * 30), int(0.96405229 * 30))
    numbers = depth.evaluate_depths(pairs, crop="garg", scaling=scaling)
    ratios = np.array([reference(*p, scaling=1.0, crop=box)[1] for p in pairs])
    used = {"none": 1.0, "global": np.median(ratios)}.get(scaling, scaling)
    wanted = mean([reference(*p, scaling=used, crop=box)[0] for p in pairs])
    wanted["images"] = 3
    if scaling in ("median", "global"):
        wanted["scale"] = np.median(ratios)
        wanted["scale_deviation"] = np.std(ratios / np.median(ratios))
    assert numbers == pytest.approx(wanted, rel=1e-5)


def test_bounds_of_valid_depth_are_exclusive():
    truth = np.array([0.5, 1.0, 1.5, 9.5, 10.0, 10.5], np.float32)
    valid = depth.valid_depth(truth, min_depth=1.0, max_depth=10.0)
    assert valid.tolist() == [False, False, True, True, False, False]


def test_medians():
    for count in (1, 2, 7, 8):
        values = np.random.default_rng(count).uniform(1, 9, (1, 2, 5)).astype(np.float32)
        mask = np.arange(10).reshape(1, 2, 5) < count
        found = median_ratio(np.ones_like(values), values, mask)
        assert found.item() == pytest.approx(np.median(values[mask]), rel=1e-6)


def test_perfect_is_zero_and_median_scaling_removes_scale(problem):
    predicted, truth = problem
    mask = depth.valid_depth(truth)
    for name, score in depth.depth_errors(truth, truth, mask).items():
        assert score.value.tolist() == [1.0 if name.startswith("delta") else 0.0] * 3
    numbers = [
        depth.evaluate_depths([(s * p, z) for p, z in zip(predicted, truth)])["abs_rel"]
        for s in (1.0, 0.01, 700.0)
    ]
    assert numbers == pytest.approx([numbers[0]] * 3, rel=1e-5) and numbers[0] > 0.1


def test_images_without_valid_pixels_are_left_out():
    truth = np.array([[[0.0, np.nan]], [[2.0, 0.0]]], np.float32)
    predicted = np.array([[[np.nan, 1.0]], [[3.0, np.inf]]], np.float32)
    mask = depth.valid_depth(truth)
    assert median_ratio(predicted, truth, mask).tolist() == pytest.approx([0.0, 2 / 3])
    errors = depth.depth_errors(predicted, truth, mask)
    for score in errors.values():
        assert score.value[0] == 0 and score.pixels.tolist() == [0, 1]
    assert totals.image_means(totals.totals(errors))["abs_rel"] == 0.5  # not 0.25
    both = depth.evaluate_depths(list(zip(predicted, truth)), scaling="global")
    assert both["images"] == 1 and both["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert both["scale"] == pytest.approx(2 / 3)
    for scaling in ("median", "global", "none"):
        none = depth.evaluate_depths([(predicted[0], truth[0])], scaling=scaling)
        assert none == {"images": 0}
    assert depth.evaluate_depths([]) == {"images": 0}


def test_nan_predictions_propagate():
    truth = jnp.full((1, 1, 2), 4.0)
    known = jnp.ones((1, 1, 2), bool)
    for name, score in depth.depth_errors(truth.at[0, 0, 0].set(jnp.nan), truth, known).items():
        assert jnp.isnan(score.value[0]), name
    infinite = depth.depth_errors(truth.at[0, 0, 0].set(jnp.inf), truth, known)
    assert infinite["abs_rel"].value.item() == (80 - 4) / 4 / 2
    assert median_ratio(jnp.zeros_like(truth), truth, known).tolist() == [0.0]


def test_cap_truth():
    truth, predicted = np.array([[100.0, 10.0]]), np.array([[100.0, 10.0]])
    capped = depth.evaluate_depths([(predicted, truth)], scaling="none")
    assert capped["abs_rel"] == 0
    uncapped = depth.evaluate_depths([(predicted, truth)], scaling="none", cap_truth=False)
    assert uncapped["abs_rel"] == pytest.approx(0.2 / 2)  # 100 is predicted, but clipped to 80


@pytest.mark.parametrize(
    ("crop", "size", "bounds"),
    [
        # Truncated products by hand: 0.40810811 * 375 = 153.04, ...
        ("garg", (375, 1242), (153, 371, 44, 1197)),
        ("garg", (370, 1224), (151, 366, 43, 1180)),
        ("eigen", (375, 1242), (124, 342, 44, 1197)),
        ("eigen", (370, 1224), (122, 337, 43, 1180)),  # 0.91351351 * 370 = 337.999999
    ],
)
def test_crops(crop, size, bounds):
    rows, columns = np.nonzero(depth.crop_mask(*size, crop))
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == bounds
    assert len(rows) == (bounds[1] - bounds[0]) * (bounds[3] - bounds[2])


def test_disparity_errors_by_hand():
    # Errors 0, 3, 3.5, 3.5, 8: of 3.5 the second is below 5 % of 80.
    truth = np.float32([[[10.0, 10.0, 10.0, 80.0, 100.0, 0.0, np.inf]]])
    predicted = truth + np.float32([0.0, 3.0, -3.5, 3.5, 8.0, 50.0, 0.0])
    disparity_errors = jax.jit(depth.disparity_errors)
    errors = disparity_errors(predicted, truth)
    assert [score.pixels.item() for score in errors.values()] == [5] * 3
    values = {name: score.value.item() for name, score in errors.items()}
    assert values == pytest.approx({"mean_error": 3.6, "above_3px": 0.6, "d1": 0.4})
    masked = disparity_errors(predicted, truth, (truth == 10).astype(np.float32))
    assert masked["d1"].value.item() == pytest.approx(1 / 3)
    wrong = disparity_errors(np.full((1, 1, 1), np.nan), np.ones((1, 1, 1)))
    assert all(np.isnan(score.value[0]) for score in wrong.values())


def test_flip_average_by_hand():
    # 21 columns: l = 0, 0.05, 0.1, ... The ramp is 1, 1, 0, 0, ... and mirrored at the right.
    disparity, mirrored = np.zeros((1, 21)), np.arange(21.0)[None]
    wanted = 0.5 * np.arange(20, -1, -1.0)  # the mean with the mirrored prediction
    wanted[:2] = 20, 19
    wanted[-2:] = 0, 0
    found = jax.jit(depth.flip_average)(disparity, mirrored)
    np.testing.assert_allclose(found[0], wanted, atol=1e-4)


def test_flip_average_equals_the_published_formula():
    rng = np.random.default_rng(3)
    first, second = rng.random((2, 2, 5, 64))
    column = np.tile(np.linspace(0, 1, 64), (5, 1))
    left = 1.0 - np.clip(20 * (column - 0.05), 0, 1)
    right, back = left[:, ::-1], second[..., ::-1]
    middle = (1 - left - right) * 0.5 * (first + back)
    found = jax.jit(depth.flip_average)(first.astype(np.float32), second.astype(np.float32))
    np.testing.assert_allclose(found, right * first + left * back + middle, atol=1e-5)


def test_resizing():
    depths = 1 / np.linspace(0.1, 1.0, 8, dtype=np.float32).reshape(2, 4)
    inner = 1 / np.asarray(jax.jit(partial(depth.resize_depth, size=(2, 8)))(depths))
    # Half-pixel centers: column 1 of 8 lies at 0.25 of the old ones, column 2 at 0.75.
    np.testing.assert_allclose(inner[0, 1], 0.75 / depths[0, 0] + 0.25 / depths[0, 1], rtol=1e-6)
    disparity = jax.jit(partial(depth.resize_disparity, size=(3, 10)))(np.full((3, 2, 4), 5.0))
    assert disparity.shape == (3, 3, 10)
    np.testing.assert_allclose(disparity, 12.5, rtol=1e-6)
    truth = np.full((4, 8), 7.0)
    assert depth.evaluate_depths([(np.full((2, 4), 0.7), truth)])["abs_rel"] < 1e-6


def test_under_jit(problem):
    predicted, truth = problem

    @jax.jit
    def step(predicted, truth):
        mask = depth.valid_depth(truth)
        scale = depth.median_ratio(predicted, truth, mask)
        return depth.depth_errors(predicted, truth, mask, scale=scale)["abs_rel"].value

    mask = depth.valid_depth(truth)
    scale = depth.median_ratio(predicted, truth, mask)
    eager = depth.depth_errors(predicted, truth, mask, scale=scale)["abs_rel"].value
    np.testing.assert_allclose(step(predicted, truth), eager, rtol=1e-6)
    half = depth.depth_errors(
        jnp.ones((1, 1, 9), jnp.bfloat16), truth[:1, :1, :9], mask[:1, :1, :9]
    )
    assert half["abs_rel"].value.dtype == jnp.float32


def test_errors(problem):
    predicted, truth = problem
    with pytest.raises(ValueError, match="scaling is 'mean'"):
        depth.evaluate_depths([], scaling="mean")
    with pytest.raises(ValueError, match="not a generator"):
        depth.evaluate_depths(((p, p) for p in predicted), scaling="global")
    with pytest.raises(ValueError, match="crop is 'center'"):
        depth.crop_mask(4, 4, "center")
    with pytest.raises(AssertionError):
        depth.depth_errors(predicted[:, 1:], truth, truth > 0)


def test_totals_merge_in_any_order():
    rng = np.random.default_rng(4)
    value, count = rng.random(10).astype(np.float32), rng.integers(0, 5, 10)
    assert (count == 0).any()
    whole = totals.totals({"x": totals.Score(jnp.asarray(value), jnp.asarray(count))})
    parts = [
        totals.totals({"x": totals.Score(value[i], count[i])})
        for i in (slice(7, 10), slice(0, 2), slice(2, 7))
    ]
    parts.append(totals.totals({"y": totals.Score(value[:1], count[:1] * 0)}))
    merged = totals.merge(*parts)
    assert merged["x"] == pytest.approx(whole["x"])
    used = count > 0
    assert totals.image_means(merged) == pytest.approx({"x": value[used].mean()})  # and no y
    assert totals.pixel_means(merged) == pytest.approx({"x": np.average(value, weights=count)})
    assert totals.merge() == {}


@pytest.mark.parametrize(("ratio", "radius"), [(1.1, 3), (2.0, 1)])
def test_near_boundary_equals_a_loop(ratio, radius):
    rng = np.random.default_rng(1)
    truth = rng.choice([1.0, 1.05, 1.2, 3.0], (2, 12, 15), p=[0.85, 0.05, 0.05, 0.05])
    truth[rng.random(truth.shape) < 0.1] = 0.0
    truth[0, 3, 3], truth[1, 0, 0] = np.nan, np.inf
    wanted = np.zeros(truth.shape, bool)
    for b, i, j in np.ndindex(truth.shape):
        for di, dj in ((0, 1), (1, 0)):
            k, m = i + di, j + dj
            if k >= 12 or m >= 15:
                continue
            z, other = truth[b, i, j], truth[b, k, m]
            if not (0 < z < np.inf and 0 < other < np.inf and max(z / other, other / z) > ratio):
                continue
            for y, x in ((i, j), (k, m)):
                rows = slice(max(y - radius + 1, 0), y + radius)
                wanted[b, rows, max(x - radius + 1, 0) : x + radius] = True
    assert 0 < wanted.mean() < 1
    found = jax.jit(partial(depth.near_boundary, ratio=ratio, radius=radius))(truth)
    np.testing.assert_array_equal(found, wanted)
    inverse = 5 / np.where(truth > 0, truth, np.inf)
    of_inverse = depth.near_boundary(inverse, ratio=ratio, radius=radius)
    np.testing.assert_array_equal(of_inverse, wanted)


@pytest.mark.parametrize("knobs", [{"ratio": 1.0}, {"ratio": np.nan}, {"radius": 0}])
def test_near_boundary_refuses(knobs):
    with pytest.raises(ValueError, match=f"near_boundary: {next(iter(knobs))}"):
        depth.near_boundary(np.ones((1, 4, 4)), **knobs)
