"""Flow measures against hand-computed cases and a float64 loop over pixels."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import ops
from sslax.measures import flow, totals


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1, (2, 9, 11, 2)) * rng.choice([3.0, 20.0, 60.0], (2, 9, 11, 1))
    predicted = truth + rng.normal(0, 1, truth.shape) * rng.choice([0.1, 5.0], (2, 9, 11, 1))
    unknown = rng.random((2, 9, 11)) < 0.3
    truth[unknown] = rng.choice([np.nan, np.inf, 1e10], (unknown.sum(), 2))
    visible = rng.random((2, 9, 11)) < 0.7
    return predicted.astype(np.float32), truth.astype(np.float32), ~unknown, visible


def reference(predicted, truth, mask, visible):
    """One image, pixel by pixel: name -> (mean, count)."""
    cells = {}
    for p, t, known, seen in zip(
        predicted.reshape(-1, 2), truth.reshape(-1, 2), mask.ravel(), visible.ravel()
    ):
        if not known:
            continue
        error = float(np.hypot(*(p.astype(np.float64) - t)))
        speed = float(np.hypot(*t.astype(np.float64)))
        outlier = float(error > 3 and error / speed > 0.05)
        part = "visible" if seen else "occluded"
        band = "s0_10" if speed < 10 else "s10_40" if speed < 40 else "s40"
        cell = {"epe": error, "fl": outlier, f"epe_{band}": error}
        cell |= {f"epe_{part}": error, f"fl_{part}": outlier}
        cell |= {f"above_{k}px": float(error > k) for k in (1, 3, 5)}
        for name, value in cell.items():
            cells.setdefault(name, []).append(value)
    return {name: (np.mean(values), len(values)) for name, values in cells.items()}


def test_equals_float64_loop(problem):
    predicted, truth, mask, visible = problem
    errors = flow.flow_errors(predicted, truth, visible=visible)
    for i in range(2):
        wanted = reference(predicted[i], truth[i], mask[i], visible[i])
        assert wanted.keys() == errors.keys()  # all bins are filled
        for name, (value, count) in wanted.items():
            assert float(errors[name].value[i]) == pytest.approx(value, rel=1e-5), name
            assert int(errors[name].pixels[i]) == count, name


def test_hand_computed():
    # Speeds 5, 10, 40, 100; errors 5, 3, 0, 4. Only the first exceeds both thresholds of Fl.
    truth = jnp.array([[[[3.0, 4.0], [0.0, 10.0], [40.0, 0.0], [0.0, -100.0]]]])
    predicted = truth + jnp.array([[-3.0, -4.0], [3.0, 0.0], [0.0, 0.0], [0.0, 4.0]])
    errors = flow.flow_errors(predicted, truth)
    values = {name: score.value.item() for name, score in errors.items()}
    assert values == {
        "epe": 3.0,
        "fl": 0.25,
        "above_1px": 0.75,
        "above_3px": 0.5,
        "above_5px": 0.0,
        "epe_s0_10": 5.0,
        "epe_s10_40": 3.0,
        "epe_s40": 2.0,
    }
    by_pixel = totals.pixel_means(
        totals.totals(flow.flow_errors(predicted, truth, truth[..., 0] > 0))
    )
    assert by_pixel == {
        "epe": 2.5,
        "fl": 0.5,
        "above_1px": 0.5,
        "above_3px": 0.5,
        "above_5px": 0.0,
        "epe_s0_10": 5.0,
        "epe_s40": 0.0,  # no pixel has a speed in between
    }


def test_bins_add_up(problem):
    predicted, truth, _, visible = problem
    means = totals.totals(flow.flow_errors(predicted, truth, visible=visible))
    whole = means["epe"]
    for parts in (("epe_visible", "epe_occluded"), ("epe_s0_10", "epe_s10_40", "epe_s40")):
        assert sum(means[name].pixels for name in parts) == whole.pixels
        assert sum(means[name].pixel_sum for name in parts) == pytest.approx(whole.pixel_sum)


def test_perfect_is_zero_and_empty_is_left_out(problem):
    _, truth, mask, _ = problem
    clean = np.where(mask[..., None], truth, 0)
    for score in flow.flow_errors(clean, truth).values():
        assert score.value.tolist() == [0.0, 0.0]
    nothing = flow.flow_errors(clean, truth, np.zeros_like(mask))
    for score in nothing.values():
        assert score.value.tolist() == [0.0, 0.0] and score.pixels.tolist() == [0, 0]
    assert totals.image_means(totals.totals(nothing)) == {}


def test_nan_predictions_propagate():
    truth = jnp.ones((1, 1, 2, 2))
    wrong = truth.at[0, 0, 0, 0].set(jnp.nan)
    errors = flow.flow_errors(wrong, truth)
    for name in ("epe", "fl", "above_1px", "epe_s0_10"):
        assert jnp.isnan(errors[name].value[0]), name
    masked = flow.flow_errors(wrong, truth, jnp.array([[[0, 1]]]))
    assert masked["epe"].value.item() == 0


def test_two_means_of_a_set():
    """KITTI's Fl is a mean over pixels: an image with more ground truth has more weight."""
    truth = jnp.zeros((2, 1, 4, 2))
    mask = jnp.array([[[1, 0, 0, 0]], [[1, 1, 1, 1]]])
    predicted = truth.at[0].set(10.0)
    summed = totals.totals(flow.flow_errors(predicted, truth, mask))
    assert totals.image_means(summed)["fl"] == 0.5
    assert totals.pixel_means(summed)["fl"] == 0.2


def test_under_jit(problem):
    predicted, truth, _, visible = problem
    step = jax.jit(lambda *a: flow.flow_errors(*a[:2], visible=a[2]))
    compiled, eager = (
        f(predicted, truth, visible)
        for f in (step, lambda *a: flow.flow_errors(*a[:2], visible=a[2]))
    )
    for name, score in compiled.items():
        np.testing.assert_allclose(score.value, eager[name].value, rtol=1e-6)
    assert flow.endpoint_error(jnp.ones(2, jnp.bfloat16), jnp.zeros(2)).dtype == jnp.float32


def test_resizing_a_field_of_expansion():
    """The flow (0.1 x, 0.2 y) about the image's corner is the same field at any resolution."""

    def field(height, width):
        y, x = np.mgrid[:height, :width] + 0.5  # from the edge, which resizing keeps fixed
        return np.stack([0.1 * x, 0.2 * y], -1).astype(np.float32)

    large = np.asarray(jax.jit(partial(flow.resize_flow, size=(12, 24)))(field(6, 8)))
    np.testing.assert_allclose(large[1:-1, 2:-2], field(12, 24)[1:-1, 2:-2], rtol=1e-5)


def test_occlusion_by_hand():
    visible = jnp.array([[[0.0, 0.4, 0.6, 1.0, 0.0, 0.0]], [[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]]])
    truth = jnp.array([[[0, 0, 0, 1, 1, 0]], [[0, 1, 1, 1, 1, 1]]])
    mask = jnp.array([[[1, 1, 1, 1, 1, 0]], [[1, 1, 1, 1, 1, 1]]])
    counts = flow.occlusion_counts(visible, truth, mask)
    assert [c.tolist() for c in counts] == [[2, 0], [1, 0], [1, 1]]
    scores = flow.occlusion_scores(counts)
    assert scores == pytest.approx({"precision": 2 / 3, "recall": 0.5, "f1": 4 / 7})
    p, r = scores["precision"], scores["recall"]
    assert scores["f1"] == pytest.approx(2 * p * r / (p + r))
    strict = flow.occlusion_counts(visible, truth, mask, threshold=0.7)
    assert [c.tolist() for c in strict] == [[3, 0], [1, 0], [0, 1]]
    nothing = flow.occlusion_counts(jnp.ones((1, 2, 2)), jnp.ones((1, 2, 2)))
    assert flow.occlusion_scores(nothing) == {}
    missed = flow.occlusion_counts(jnp.ones((1, 2, 2)), jnp.zeros((1, 2, 2)))
    assert flow.occlusion_scores(missed) == {"recall": 0.0, "f1": 0.0}


def test_occlusion_of_a_known_motion():
    """Three of eight columns leave the frame; exact flow predicts exactly these as occluded."""
    forward = np.full((1, 4, 8, 2), np.float32([3.0, 0.0]))
    truth = np.arange(8) < 5
    visible = jax.jit(ops.forward_backward_mask)(forward, -forward)
    counts = flow.occlusion_counts(visible, jnp.asarray(np.broadcast_to(truth, (1, 4, 8))))
    assert flow.occlusion_scores(counts) == {"precision": 1.0, "recall": 1.0, "f1": 1.0}


def test_errors(problem):
    predicted, truth, mask, visible = problem
    with pytest.raises(AssertionError):
        flow.flow_errors(predicted, truth, mask[:, 1:])
    with pytest.raises(AssertionError):
        flow.flow_errors(predicted, truth, visible=visible[:1])
    with pytest.raises(AssertionError):
        flow.endpoint_error(jnp.zeros((2, 3)), jnp.zeros((2, 3)))
