"""Flow methods against a restatement in numpy float64, and what must hold at their edges.

Stand-in networks: their parameters are the flows.
"""

import json
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from sslax import augment, ops
from sslax.data import scenes
from sslax.errors import UserError
from sslax.methods import schedules
from sslax.methods.flow import (
    arflow,
    from_config,
    fusion,
    matching,
    resolution,
    self_supervision,
    smurf,
    terms,
    uflow,
    unflow,
)
from sslax.types import Flow, FlowField, Model, Variables

B, H, W = 2, 24, 32
SIZE = (32, 48)  # of what is shared by several tests
IDENTITY = augment.make_frame_pairs(augment.FlowRecipe())


def pyramid(*flows):
    """A network whose levels are its parameters."""

    def init(rng, x):
        return {f"pyramid{i}": jnp.asarray(f, jnp.float32) for i, f in enumerate(flows)}, {}

    def apply(params, state, x, train):
        return tuple(params.values()), state

    return Model(init, apply)


def iterations(*flows):
    """The same in RAFT's form."""

    def init(rng, x):
        return {"flows": jnp.asarray(np.stack(flows, 2), jnp.float32)}, {}

    return Model(init, lambda params, state, x, train: (params["flows"], state))


def textured(seed=0, size=(H, W)):
    """Smooth frames with structure at several scales, `[B, 2, H, W, 3]`."""
    rng = np.random.default_rng(seed)
    noise = rng.uniform(size=(B, 2, *size, 3))
    for axis in (2, 3):
        noise = (np.roll(noise, 1, axis) + 2 * noise + np.roll(noise, -1, axis)) / 4
    return ((noise - noise.min()) / (noise.max() - noise.min())).astype(np.float32)


def wavy(seed, factor, amplitude=1.5, count=B):
    """Flows `[B, 2, h, w, 2]` of a level, roughly each other's inverse, some of it occluded."""
    rng = np.random.default_rng(seed)
    h, w = -(-H // factor), -(-W // factor)
    y, x = np.mgrid[:h, :w] * factor / 10.0
    phase = rng.uniform(0, 6, (count, 2, 2, 1, 1))
    field = amplitude * np.sin(x + phase[:, 0]) * np.cos(y + phase[:, 1]) / factor  # [B, 2, h, w]
    forward = np.moveaxis(field, 1, -1) + np.array([2.0, 1.0]) / factor
    other = rng.normal(0, 0.35 / factor, forward.shape)
    return np.stack([forward, -forward + other], 1).astype(np.float32)


def batch_of(frames, cropped=None, **more):
    cropped = frames if cropped is None else cropped
    index = jnp.arange(len(frames)) + 3
    return {"frames": jnp.asarray(frames), "input": jnp.asarray(cropped), "index": index, **more}


def value_and_gradient(method):
    """`(variables, batch, rng, step) -> ((loss, output), gradient)`."""

    def run(variables, *args):
        def loss(params):
            return method.loss(variables._replace(params=params), *args)

        return jax.value_and_grad(loss, has_aux=True)(variables.params)

    return run


def evaluate(method, batch, step=0, key=0):
    """Loss, metrics and gradient, compiled."""
    variables = method.init(jax.random.key(0), batch)
    run = jax.jit(value_and_gradient(method))
    (value, output), gradient = run(variables, batch, jax.random.key(key), jnp.int32(step))
    leaves = [value, *output.metrics.values(), *jax.tree.leaves(gradient)]
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    return float(value), {k: float(v) for k, v in output.metrics.items()}, gradient


# A restatement in numpy, float64, one image at a time.


def np_sample(image, x, y):
    height, width = image.shape[:2]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    i, j = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    u, v = (x - i)[..., None], (y - j)[..., None]
    top = (1 - u) * image[j, i] + u * image[j, i + 1]
    return (1 - v) * top + v * ((1 - u) * image[j + 1, i] + u * image[j + 1, i + 1]), inside


def np_warp(image, flow, offset=(0, 0)):
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float64)
    return np_sample(image, x + flow[..., 0] + offset[0], y + flow[..., 1] + offset[1])


def np_fb(forward, backward):
    back, inside = np_warp(backward, forward)
    difference = ((forward + back) ** 2).sum(-1)
    bound = 0.01 * ((forward**2).sum(-1) + (back**2).sum(-1)) + 0.5
    return (difference < bound) & inside


def np_arrivals(backward):
    height, width = backward.shape[:2]
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            a, b = x + backward[y, x, 0], y + backward[y, x, 1]
            for j in (int(np.floor(b)), int(np.floor(b)) + 1):
                for i in (int(np.floor(a)), int(np.floor(a)) + 1):
                    if 0 <= i < width and 0 <= j < height:
                        out[j, i] += (1 - abs(a - i)) * (1 - abs(b - j))
    return out


def np_census(a, b, mask, radius):
    """Error and valid, as `losses.census_error` defines them."""
    gray = np.array([0.299, 0.587, 0.114]) * 255
    a, b = a @ gray, b @ gray
    height, width = a.shape
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if (dy, dx) == (0, 0):
                continue
            for y in range(max(0, -dy), min(height, height - dy)):
                xs = np.arange(max(0, -dx), min(width, width - dx))
                there = mask[y + dy, xs + dx] > 0
                da, db = a[y + dy, xs + dx] - a[y, xs], b[y + dy, xs + dx] - b[y, xs]
                d = da / np.sqrt(0.81 + da**2) - db / np.sqrt(0.81 + db**2)
                total[y, xs] += there * d**2 / (0.1 + d**2)
                count[y, xs] += there
    valid = np.zeros((height, width), bool)
    valid[radius : height - radius, radius : width - radius] = True
    n = (2 * radius + 1) ** 2 - 1
    return total * n / np.maximum(count, 1), valid & (mask > 0)


def np_area(image, factor):
    height, width = image.shape[0] // factor, image.shape[1] // factor
    return image.reshape(height, factor, width, factor, -1).mean((1, 3))


def np_upsample(flow, factor):
    if factor == 1:
        return flow
    height, width = flow.shape[0] * factor, flow.shape[1] * factor
    y, x = np.mgrid[:height, :width].astype(np.float64)
    place = [np.clip((v + 0.5) / factor - 0.5, 0, n - 1) for v, n in zip((x, y), flow.shape[1::-1])]
    return factor * np_sample(flow, *place)[0]


def np_ssim(a, b):
    def mean(x):
        x = np.pad(x, ((1, 1), (1, 1), (0, 0)), mode="reflect")
        windows = [x[i : i + a.shape[0], j : j + a.shape[1]] for i in range(3) for j in range(3)]
        return sum(windows) / 9

    ma, mb = mean(a), mean(b)
    va, vb, vab = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    top = (2 * ma * mb + 0.01**2) * (2 * vab + 0.03**2)
    return top / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2))


def np_smoothness(flow, image, order, edge, penalty):
    """Edge-aware, both axes, the sum of two means."""
    total = 0.0
    for axis in (1, 0):
        weight = np.exp(-np.abs(edge * _difference(image, axis, order)).mean(-1, keepdims=True))
        change = np.diff(flow, order, axis)
        total += (weight * penalty(change)).mean()
    return total


def _difference(image, axis, stride):
    image = np.moveaxis(image, axis, 0)
    return np.moveaxis(image[stride:] - image[:-stride], 0, axis)


def directions(images, flows):
    """Each target with its source, its flow, and the flow the other way, float64."""
    images, flows = np.asarray(images, np.float64), np.asarray(flows, np.float64)
    for image, flow in zip(images, flows):
        for i in (0, 1):
            yield image[i], image[1 - i], flow[i], flow[1 - i]


def robust(x):
    return np.sqrt(x**2 + 1e-6)


def np_uflow(images, flow, *, factor, order=1, data="census", occlusion="range_map", offset=None):
    """Photometric term and smoothness of UFlow and, at factor 1, of SMURF."""
    errors, weights, smooth = [], [], []
    for number, (target, source, f, b) in enumerate(directions(images, flow)):
        full, back = np_upsample(f, factor), np_upsample(b, factor)
        at = (0, 0) if offset is None else offset[number // 2]
        warped, inside = np_warp(source, full, at)
        if offset is not None:
            x, y = (int(v) for v in at)
            target = target[y : y + full.shape[0], x : x + full.shape[1]]
        visible = {
            "none": lambda a, b: np.ones(a.shape[:2]),
            "range_map": lambda a, b: np.minimum(np_arrivals(b), 1),
            "forward_backward": np_fb,
        }[occlusion](full, back)
        _, stays = np_warp(full, full)
        weight = inside * np.where(stays, visible, 1)
        if data == "census":
            distance, valid = np_census(target, warped, weight, 3)
            errors.append((distance + 0.01) ** 0.4)
            weight = weight * valid
        elif data == "l1":
            errors.append(robust(target - warped).mean(-1))
        else:
            errors.append(np.clip((1 - np_ssim(target, warped)) / 2, 0, 1).mean(-1))
        weights.append(weight)
        small = np_area(target, factor)
        smooth.append(np_smoothness(f, small, order, 150, robust) / 2)
    errors, weights = np.stack(errors), np.stack(weights)
    return (errors * weights).sum() / weights.sum(), np.mean(smooth)


# Each loss against its restatement.


@pytest.mark.parametrize(
    ("data", "occlusion", "order"),
    [("census", "range_map", 1), ("l1", "forward_backward", 2), ("ssim", "none", 1)],
)
def test_uflow_is_its_definition(data, occlusion, order):
    images, flow = textured(), wavy(0, 4)
    # Little edges: with the paper's 150 nothing of the smoothness is left on such frames.
    images = 0.5 + 0.02 * images
    knobs = {"data": data, "occlusion": occlusion, "smoothness_order": order}
    method = uflow.uflow(
        pyramid(flow, wavy(1, 8)), augmentation=IDENTITY, selfsup_weight=0.0, **knobs
    )
    value, metrics, _ = evaluate(method, batch_of(images))
    photometric, smooth = np_uflow(
        images, flow, factor=4, data=data, occlusion=occlusion, order=order
    )
    np.testing.assert_allclose(metrics["photometric"], photometric, rtol=2e-4)
    np.testing.assert_allclose(metrics["smoothness"], smooth, rtol=1e-4)
    np.testing.assert_allclose(value, photometric + 4 * smooth, rtol=2e-4)
    assert smooth > 1e-3


def test_smurf_is_its_definition_in_whole_frames():
    size, offset = (16, 20), np.array([[3, 5], [12, 0]])
    images = 0.5 + 0.02 * textured(1)
    flows = [wavy(i, 1, count=B)[:, :, : size[0], : size[1]] for i in range(3)]
    crops = np.stack([x[:, b : b + size[0], a : a + size[1]] for x, (a, b) in zip(images, offset)])
    batch = batch_of(images, crops, offset=jnp.asarray(offset, jnp.float32))
    method = smurf.smurf(
        iterations(*flows), augmentation=IDENTITY, selfsup_weight=0.0, occlusion="forward_backward"
    )
    value, metrics, _ = evaluate(method, batch)
    terms = [
        np_uflow(images, flow, factor=1, occlusion="forward_backward", offset=offset)
        for flow in flows
    ]
    expected = sum(g * (d + 2.5 * s) for g, (d, s) in zip((0.64, 0.8, 1.0), terms))
    np.testing.assert_allclose(metrics["photometric"], terms[-1][0], rtol=2e-4)
    np.testing.assert_allclose(value, expected, rtol=2e-4)


def np_unflow_level(images, flow, radius, border=0.1):
    """Twice the means over visible pixels of both directions and all examples."""

    def charbonnier(x):
        return (x**2 + 1e-6) ** 0.45

    sums = {name: [0.0, 0.0] for name in ("census", "brightness", "gradient", "consistency")}
    sums |= {name: [0.0, 0.0] for name in ("smoothness", "occlusion")}

    def add(name, values, weight):
        sums[name][0] += (weight * values).sum()
        sums[name][1] += weight.sum()

    h, w = flow.shape[2:4]
    margin = int(np.ceil(border * min(h, w)))
    for target, source, f, b in directions(images, flow):
        warped, inside = np_warp(source, f)
        visible = np_fb(f, b) & inside
        weight = np.zeros((h, w))
        weight[margin : h - margin, margin : w - margin] = 1
        weight = weight * visible
        distance, valid = np_census(target, warped, weight, radius)
        add("census", charbonnier(distance), weight * valid)
        gap = 255 * (target - warped)
        add("brightness", charbonnier(gap).mean(-1), weight)
        padded = np.pad(gap, ((1, 1), (1, 1), (0, 0)), mode="edge")
        slopes = [
            (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2,
            (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2,
        ]
        add("gradient", charbonnier(np.concatenate(slopes, -1)).mean(-1), weight)
        back, _ = np_warp(b, f)
        add("consistency", charbonnier(f + back).mean(-1), weight)
        everywhere = np.ones((h, w))
        add("occlusion", 1.0 - visible, everywhere)
        curvature = np.zeros((h, w))
        for dy, dx in ((0, 1), (1, 0), (1, 1), (-1, 1)):
            for y in range(abs(dy), h - abs(dy)):
                for x in range(abs(dx), w - abs(dx)):
                    bend = f[y + dy, x + dx] - 2 * f[y, x] + f[y - dy, x - dx]
                    curvature[y, x] += charbonnier(bend).sum() / 4
        add("smoothness", curvature, everywhere)
    return {name: 2 * total / count for name, (total, count) in sums.items()}


def test_unflow_is_its_definition():
    images = textured(2)
    flows = [wavy(3, 4), wavy(4, 8)]
    weights = {"brightness_weight": 0.5, "gradient_weight": 0.25, "occlusion_weight": 12.4}
    method = unflow.unflow(
        pyramid(*flows),
        augmentation=IDENTITY,
        census_radii=(1, 1),
        level_weights=(12.7, 4.35),
        **weights,
    )
    value, metrics, _ = evaluate(method, batch_of(images))
    w = {"census": 1, "brightness": 0.5, "gradient": 0.25, "consistency": 0.2, "smoothness": 3}
    w["occlusion"] = 12.4
    expected = 0.0
    for scale, factor, flow in zip((12.7, 4.35), (4, 8), flows):
        small = np.stack([[np_area(x, factor) for x in np.float64(pair)] for pair in images])
        level = np_unflow_level(small, flow, 1)
        expected += scale * sum(w[name] * term for name, term in level.items())
        if factor == 4:
            finest = level
    assert all(finest[name] > 0.01 for name in w), finest
    photometric = sum(w[n] * finest[n] for n in ("census", "brightness", "gradient"))
    np.testing.assert_allclose(metrics["photometric"], photometric, rtol=2e-4)
    np.testing.assert_allclose(metrics["smoothness"], finest["smoothness"], rtol=2e-4)
    np.testing.assert_allclose(metrics["consistency"], finest["consistency"], rtol=2e-4)
    np.testing.assert_allclose(value, expected, rtol=2e-4)


# ARFlow, restated from what its authors' losses/loss_blocks.py and losses/flow_loss.py compute:
# channels last, one direction at a time.


def np_patches(image):
    """The 3 x 3 windows inside an image, `[9, h - 2, w - 2, ...]`."""
    h, w = image.shape[:2]
    return np.stack([image[i : h - 2 + i, j : w - 2 + j] for i in range(3) for j in range(3)])


def np_arflow_census(a, b):
    """The mean over 9 pixels of a soft Hamming distance, 0 on a border of one pixel."""
    transforms = []
    for image in (a, b):
        gray = 255 * (image @ np.array([0.2989, 0.5870, 0.1140]))
        change = np_patches(gray) - gray[1:-1, 1:-1]
        transforms.append(change / np.sqrt(0.81 + change**2))
    distance = (transforms[0] - transforms[1]) ** 2
    return np.pad((distance / (0.1 + distance)).mean(0), 1)


def np_arflow_ssim(a, b):
    """Structural dissimilarity of the windows inside the frame, of each channel."""
    ma, mb = np_patches(a).mean(0), np_patches(b).mean(0)
    va, vb = np_patches(a * a).mean(0) - ma**2, np_patches(b * b).mean(0) - mb**2
    vab = np_patches(a * b).mean(0) - ma * mb
    top = (2 * ma * mb + 0.01**2) * (2 * vab + 0.03**2)
    return np.clip((1 - top / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2))) / 2, 0, 1)


def np_arflow_photometric(target, warped, mask, data):
    hidden, seen = target * mask[..., None], warped * mask[..., None]
    if data == "census":
        total = np_arflow_census(hidden, seen).mean()
    else:
        total = 0.15 * (np.abs(target - warped) * mask[..., None]).mean()
        total += 0.85 * np_arflow_ssim(hidden, seen).mean()
    return total / mask.mean()


def np_arflow_smoothness(flow, image, order, alpha=10):
    total = 0.0
    for axis in (0, 1):
        weight = np.exp(-alpha * np.abs(np.diff(image, 1, axis)).mean(-1, keepdims=True))
        change = np.abs(np.diff(flow, order, axis))
        if order == 1:
            total += (weight * change / 2).mean() / 2
        else:  # the weight between the last two of the three pixels
            total += (np.delete(weight, 0, axis) * change).mean() / 2
    return total


def np_arflow(images, flows, *, data, occlusion, order, weight):
    """The loss of both directions at each level, and the finest level's smoothness."""
    total, masks = 0.0, [[], []]
    for level, flow in enumerate(flows):
        small = np.stack([[np_area(x, 2**level) for x in np.float64(p)] for p in images])
        enlarged = [[np_upsample(np.float64(f), 4) for f in pair] for pair in flow]
        sums = [[], []]  # of each direction: target, warped, mask of every example
        for number, (target, source, f, b) in enumerate(directions(small, enlarged)):
            warped, inside = np_warp(source, f)
            if level == 0:
                seen = np_fb(f, b) if occlusion == "forward_backward" else np_arrivals(b) >= 0.2
                masks[number % 2].append(np.float64(seen & inside))
                smooth = np_arflow_smoothness(f / H, target, order)
                total += weight * smooth / (2 * len(images))
            mask = masks[number % 2][number // 2][:: 2**level, :: 2**level]
            sums[number % 2].append((target, warped, mask))
        for direction in sums:  # a batch's mean error over its mean mask
            share = np.mean([mask.mean() for *_, mask in direction])
            errors = [np_arflow_photometric(*x, data) * x[2].mean() for x in direction]
            total += np.mean(errors) / share / 2
    return total


@pytest.mark.parametrize(
    ("data", "occlusion", "order", "weight"),
    [("ssim_l1", "range_map", 1, 50.0), ("census", "forward_backward", 2, 75.0)],
)
def test_arflow_is_its_authors_loss(data, occlusion, order, weight):
    images = textured(5)
    flows = [wavy(6, 4), wavy(7, 8)]
    knobs = {"smoothness_order": order, "smoothness_weight": weight, "analogy_weight": 0.0}
    method = arflow.arflow(
        pyramid(*flows), augmentation=IDENTITY, data=data, occlusion=occlusion, **knobs
    )
    value, _, _ = evaluate(method, batch_of(images))
    stage = {"data": data, "occlusion": occlusion}
    expected = np_arflow(images, flows, **stage, order=order, weight=weight)
    np.testing.assert_allclose(value, expected, rtol=5e-4)


def test_arflow_changes_its_data_term_and_its_occlusion_after_the_early_steps():
    """Values against NumPy, gradients against those of a method without early steps."""
    images, flows = textured(5), [wavy(6, 4)]
    make = partial(arflow.arflow, pyramid(*flows), augmentation=IDENTITY, analogy_weight=0.0)
    stages = [("ssim_l1", "range_map"), ("census", "forward_backward")]
    for step, (data, occlusion) in ((2, stages[0]), (3, stages[1])):
        value, _, gradient = evaluate(make(early_steps=3.0), batch_of(images), step)
        stage = {"data": data, "occlusion": occlusion}
        expected = np_arflow(images, flows, **stage, order=1, weight=50.0)
        np.testing.assert_allclose(value, expected, rtol=5e-4)
        _, _, alone = evaluate(make(**stage), batch_of(images))
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-8), gradient, alone)
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(alone)) > 0


@pytest.mark.parametrize("data", ["ssim_l1", "census"])
def test_arflow_with_masked_errors_and_a_wide_robust_census(data):
    """The switches: whole frames are compared, and what is occluded is left out of the mean."""
    images, flows = textured(5), [wavy(6, 4)]
    knobs = {"masking": "errors", "census_radius": 3, "census_robust": True, "edge_stride": 2}
    method = arflow.arflow(
        pyramid(*flows),
        augmentation=IDENTITY,
        data=data,
        analogy_weight=0.0,
        smoothness_order=2,
        **knobs,
    )
    value, _, _ = evaluate(method, batch_of(images))
    sums, smooth = [[0.0, 0.0], [0.0, 0.0]], []
    enlarged = [[np_upsample(np.float64(f), 4) for f in pair] for pair in flows[0]]
    for number, (target, source, f, b) in enumerate(directions(images, enlarged)):
        warped, inside = np_warp(source, f)
        weight = np.float64(np_fb(f, b) & inside)
        smooth.append(np_smoothness(f / H, target, 2, 10, np.abs) / 2)
        if data == "census":
            distance, valid = np_census(target, warped, weight, 3)
            error, weight = (distance / 49 + 0.01) ** 0.4, weight * valid
        else:
            structure = np.clip((1 - np_ssim(target, warped)) / 2, 0, 1).mean(-1)
            error = 0.85 * structure + 0.15 * np.abs(target - warped).mean(-1)
        sums[number % 2][0] += (error * weight).sum()
        sums[number % 2][1] += weight.sum()
    expected = np.mean([total / count for total, count in sums]) + 50 * np.mean(smooth)
    np.testing.assert_allclose(value, expected, rtol=5e-4)


def test_arflow_smoothness_and_census_of_a_ramp_and_of_noise():
    """Numbers that can be checked by hand, or come from the restatement on unmasked frames."""
    ramp = np.broadcast_to(np.arange(8.0)[:, None], (1, 2, 8, 8, 2)).astype(np.float32)
    flat = np.zeros((1, 2, 8, 8, 3), np.float32)
    smoothness = jax.jit(
        partial(arflow.smoothness, edge_weight=10.0, edge_stride=1), static_argnames="order"
    )
    # Every step of x is 1, of y 0: a half of (1 + 0) / 2, over a side of 8.
    assert smoothness(flat, 8 * ramp, order=1) == 0.25
    assert smoothness(flat, 8 * ramp**2, order=2) == 1.0
    a, b = np.random.default_rng(0).uniform(size=(2, 1, 1, 12, 14, 3))
    census = jax.jit(partial(arflow.census, masking="frames", radius=1, robust=False))
    term = census(a, b, np.ones((1, 1, 12, 14)))
    np.testing.assert_allclose(term, np_arflow_census(a[0, 0], b[0, 0]).mean(), rtol=1e-4)


# What holds for all of them.


@cache
def rooms():
    """Two rendered pairs with their exact flow, `[B, 2, H, W, ...]`."""
    textures = scenes.textures("train", count=6, side=32)
    sample = partial(scenes.flow, size=SIZE, boxes=2, speed=0.7)
    scene = scenes.sampler(sample, textures, seed=1)(jnp.arange(B))
    return {name: np.asarray(scene[name]) for name in ("image", "flow", "visible")}


LATER = schedules.linear(0.0, 0.3, 6.0, first=5.0)  # second passes from step 5 on
TEACHING = {"selfsup_weight": LATER, "occlusion": "forward_backward"}
METHODS = {
    "unflow": (unflow.unflow, (4, 8), {"census_radii": (1, 1), "border": 0.0}),
    "uflow": (uflow.uflow, (4, 8), TEACHING),
    "arflow": (arflow.arflow, (4, 8), {"analogy_weight": LATER}),
    "smurf": (smurf.smurf, (1, 1), TEACHING),
}


BUILD = {
    "unflow": unflow.build,
    "uflow": uflow.build,
    "arflow": arflow.build,
    "smurf": smurf.build,
}


class Tried(NamedTuple):
    """A method with a stand-in for its network, compiled once."""

    name: str
    method: Any
    run: Any  # (params, batch, step) -> (loss, metrics, gradient)
    look: Any  # (params, batch) -> (predictions, pictures)

    def params(self, flow, scale=1.0):
        """Parameters that answer with `scale` times a flow `[B, 2, H, W, 2]`."""
        levels = []
        for factor in METHODS[self.name][1]:
            size = tuple(side // factor for side in flow.shape[2:4])
            small = ops.resize(jnp.asarray(flow, jnp.float32), size, method="area")
            levels.append(scale * small / factor)
        if self.name == "smurf":
            return {"flows": jnp.stack(levels, 2)}
        return {f"pyramid{i}": level for i, level in enumerate(levels)}


@pytest.fixture(scope="module", params=sorted(METHODS))
def tried(request):
    factory, _, knobs = METHODS[request.param]
    network = iterations if request.param == "smurf" else pyramid
    method = factory(network(*[np.zeros((B, 2, 1, 1, 2))] * 2), augmentation=IDENTITY, **knobs)

    @jax.jit
    def run(params, batch, step):
        loss = value_and_gradient(method)
        variables = Variables(params, {}, {})
        (value, output), gradient = loss(variables, batch, jax.random.key(0), step)
        return value, output.metrics, gradient

    def finite(params, batch, step=0):
        value, metrics, gradient = run(params, batch, jnp.int32(step))
        leaves = [value, *metrics.values(), *jax.tree.leaves(gradient)]
        assert all(np.isfinite(leaf).all() for leaf in leaves)
        return float(value), {k: float(v) for k, v in metrics.items()}, gradient

    @jax.jit
    def look(params, batch):
        variables = Variables(params, {}, {})
        pictures = method.visualize(variables, batch, jax.random.key(0))
        return method.predict(variables, batch), pictures

    return Tried(request.param, method, finite, look)


def test_the_exact_flow_is_better_than_none_and_the_gradient_points_to_it(tried):
    scene = rooms()
    batch = batch_of(scene["image"])
    exact = tried.params(scene["flow"])
    truth, metrics, _ = tried.run(exact, batch)
    chance, at_zero, gradient = tried.run(tried.params(scene["flow"], 0.0), batch)
    assert truth < 0.95 * chance
    # UnFlow compares 8 x 12 pixels, most of them on an edge.
    share = 0.9 if tried.name == "unflow" else 0.75
    assert metrics["photometric"] < share * metrics["photometric_at_chance"]
    np.testing.assert_allclose(at_zero["loss_at_chance"], chance, rtol=1e-4)
    np.testing.assert_allclose(metrics["loss_at_chance"], chance, rtol=1e-4)
    assert metrics["visible"] < 1.0 and at_zero["visible"] == 1.0
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(exact))
    assert sum(float(jnp.vdot(slope, way)) for slope, way in pairs) < 0


def test_gradient_descent_leaves_zero(tried):
    """Frames one pixel apart: a few steps of the gradient find some of it."""
    image = textured(8, (SIZE[0], SIZE[1] + 1))[:, 0]
    for _ in range(3):
        image = (np.roll(image, 1, 2) + 2 * image + np.roll(image, -1, 2)) / 4
    batch = batch_of(np.stack([image[:, :, 1:], image[:, :, :-1]], 1))  # moves by (1, 0)
    params = tried.params(np.zeros((B, 2, *SIZE, 2)))
    for _ in range(20):
        gradient = tried.run(params, batch)[2]
        step = jax.tree.map(lambda g: 0.02 * g / (np.abs(g).mean() + 1e-12), gradient)
        params = jax.tree.map(np.subtract, params, step)
    predicted, _ = tried.look(params, {"image": batch["frames"]})
    forward, backward = (x[:, 4:-4, 4:-4] for x in (predicted.flow, predicted.backward))
    assert np.median(forward[..., 0]) > 0.1 and np.median(backward[..., 0]) < -0.1
    assert abs(np.median(forward[..., 1])) < 0.5 * np.median(forward[..., 0])


def test_swapped_frames_swap_the_directions(tried):
    scene = rooms()
    batch, swapped = batch_of(scene["image"]), batch_of(scene["image"][:, ::-1])
    step = 0 if tried.name == "arflow" else 9  # both frames are not moved alike
    one, _, gradient = tried.run(tried.params(scene["flow"]), batch, step)
    two, _, mirrored = tried.run(tried.params(scene["flow"][:, ::-1]), swapped, step)
    np.testing.assert_allclose(one, two, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(mirrored)):
        np.testing.assert_allclose(a, b[:, ::-1], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("case", ["equal", "black", "out", "inconsistent"])
def test_nothing_breaks_at_the_edges(tried, case):
    """Equal and black frames, flows that leave the frame everywhere, and that never agree."""
    image = textured(11, SIZE)[:, :1].repeat(2, axis=1) * (case != "black")
    flow = np.full((B, 2, *SIZE, 2), {"out": 1000.0, "inconsistent": 8.0}.get(case, 0.0))
    for step in (0, 9):
        _, metrics, gradient = tried.run(tried.params(flow), batch_of(image), step)
        if case == "out":
            assert metrics["inside"] == metrics["visible"] == metrics["photometric"] == 0.0
        elif case == "inconsistent":  # nothing is visible, and still there is a way out
            assert metrics["visible"] == 0.0 and metrics["photometric"] > 0.0
            assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) > 1e-5
        else:
            assert metrics["visible"] == 1.0
            if step == 0:  # ARFlow's second pass moves the frames apart
                # Gray values of both frames may be rounded apart; moving frames give 1e-2.
                assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) < 3e-4


def test_predictions_and_pictures(tried):
    scene = rooms()
    images = jnp.asarray(np.round(255 * scene["image"]), jnp.uint8)
    predicted, pictures = tried.look(tried.params(scene["flow"]), {"image": images})
    assert predicted.flow.shape == predicted.backward.shape == (B, *SIZE, 2)
    for flow, truth in zip((predicted.flow, predicted.backward), np.moveaxis(scene["flow"], 1, 0)):
        error = np.linalg.norm(flow - truth, axis=-1)
        assert np.median(error) < 0.5 * np.median(np.linalg.norm(truth, axis=-1))
    agree = (np.asarray(predicted.visible) > 0.5) == scene["visible"][:, 0]
    assert agree.mean() > 0.8 and 0.3 < np.mean(predicted.visible) < 1.0
    assert set(pictures) == {"first", "second", "flow", "warped second", "error", "visible"}
    colored = pictures.pop("flow")
    assert isinstance(colored, FlowField) and colored.max_radius is None
    np.testing.assert_array_equal(colored.values, predicted.flow)
    for column in pictures.values():
        assert column.shape[:3] == (B, *SIZE)
        assert column.min() >= 0 and column.max() <= 1


# Occlusion, whole frames, self-supervision, analogy.


def test_occlusion_may_start_later():
    match = jax.jit(matching.match_frames)(textured(), wavy(30, 1))
    visible, inside = match.visible, np.float32(match.inside)
    assert 0 < visible.mean() < inside.mean() < 1
    np.testing.assert_array_equal(matching.pixel_weights(match, jnp.int32(9), 10.0), inside)
    np.testing.assert_array_equal(matching.pixel_weights(match, jnp.int32(10), 10.0), visible)
    np.testing.assert_array_equal(matching.pixel_weights(match), visible)


def test_an_estimate_that_leaves_less_than_half_of_a_frame_is_not_trusted():
    inside = np.ones((3, 4, 5), bool)
    inside[2, :, 3:] = False
    visible = np.zeros((3, 4, 5), np.float32)
    visible[0, :2] = 1.0  # a half
    visible[1, :2, 1:] = 1.0  # less
    visible[2, :2, :3] = 1.0  # a half of what stays inside
    match = matching.Match(None, None, jnp.asarray(inside), jnp.asarray(visible))
    weight = matching.pixel_weights(match)
    for i, expected in enumerate((visible[0], inside[1], visible[2])):
        np.testing.assert_array_equal(weight[i], expected)


def test_a_match_beyond_the_cut_is_found_in_the_whole_frame():
    """A pan of six pixels: the last columns of the cut are matched in the frame alone."""
    wide = textured(12, (H, W + 6))[:, 0]
    whole = jnp.asarray(np.stack([wide[:, :, 6:], wide[:, :, :-6]], 1))  # moves by (6, 0)
    offset = jnp.full((B, 2), jnp.array([4.0, 2.0]))
    cut = whole[:, :, 2:18, 4:20]
    flows = (
        np.zeros((B, 2, 16, 16, 2)) + np.array([6.0, 0]) * np.array([1, -1])[:, None, None, None]
    )
    flows = jnp.asarray(flows, jnp.float32)
    match = jax.jit(matching.match_frames)(whole, flows, offset=offset)
    alone = jax.jit(matching.match_frames)(cut, flows)
    forward = slice(0, None, 2)
    assert bool(match.inside[forward].all()) and bool((match.visible[forward] == 1).all())
    np.testing.assert_allclose(match.warped[forward], match.target[forward], atol=1e-5)
    np.testing.assert_allclose(match.target, matching.merge_pairs(cut), atol=1e-6)
    assert alone.visible[forward].mean() == pytest.approx(10 / 16)
    # Back by six from the cut's first column, the fourth of the frame: two columns leave it.
    assert match.visible[1::2].mean() == pytest.approx(14 / 16)
    # Without an offset it is the same as a cut of the frame's size.
    zero = matching.match_frames(cut, flows, offset=jnp.zeros((B, 2)))
    for a, b in zip(zero, alone):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_the_ramp_is_a_function_of_the_step():
    def ramp(weight, start, length):
        knobs = {"selfsup_weight": weight, "selfsup_start": start, "selfsup_ramp": length}
        return from_config.pop_ramp(knobs, "selfsup", 1000)

    steps = jnp.array([0, 99, 100, 110, 150, 10_000])
    weights = jax.vmap(ramp(0.6, 0.1, 0.05))(steps)
    np.testing.assert_allclose(weights, [0, 0, 0, 0.12, 0.6, 0.6], rtol=1e-6)
    np.testing.assert_allclose(ramp(0.6, 0.005, 0.0)(6), 0.6, rtol=1e-6)
    assert ramp(0.0, 0.1, 0.05) == 0.0  # no second pass at all


@pytest.mark.parametrize("factor", [1, 4])
def test_self_supervision_is_its_definition(factor):
    h, w, margin = H // factor, W // factor, 4
    rng = np.random.default_rng(0)
    teacher = wavy(20, factor) + rng.normal(0, 0.02, (B, 2, h, w, 2)).astype(np.float32)
    student = wavy(21, factor) + rng.normal(0, 0.5, (B, 2, h, w, 2)).astype(np.float32)
    run = jax.jit(partial(self_supervision.self_supervision, margin=margin, size=(H, W)))
    error, mask = run(student, teacher)

    def confidence(forward, backward, sigma):
        back, inside = np_warp(backward, forward)
        square = ((forward + back) ** 2).sum(-1)
        return inside * np.exp(-square / (sigma**2 * (h**2 + w**2)))

    def center(x):
        y, z = np.mgrid[:h, :w].astype(np.float64)
        m = margin / factor
        rows = np.clip(m + (y + 0.5) * (h - 2 * m) / h - 0.5, 0, h - 1)
        columns = np.clip(m + (z + 0.5) * (w - 2 * m) / w - 0.5, 0, w - 1)
        return np_sample(x, columns, rows)[0]

    growth = np.array([W / (W - 2 * margin), H / (H - 2 * margin)])
    errors, masks = [], []
    for pair, taught in zip(np.float64(student), np.float64(teacher)):
        for i in (0, 1):
            sure = center(confidence(taught[i], taught[1 - i], 0.003)[..., None])[..., 0]
            unsure = 1 - confidence(pair[i], pair[1 - i], 0.03)
            masks.append(sure * unsure)
            errors.append(robust(pair[i] - growth * center(taught[i])))
    masks, errors = np.stack(masks), np.stack(errors)
    assert 0.02 < masks.mean() < 0.9
    np.testing.assert_allclose(mask, masks, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(error, (masks[..., None] * errors).mean(), rtol=2e-3)


def seeing(gain, images, consistent):
    """A flow that depends on the frames: a gain times their mean, and back again or not."""
    level = gain * jnp.mean(images, axis=(1, 2, 3, 4))[:, None, None, None, None]
    shape = (len(images), 1, images.shape[2] // 4, images.shape[3] // 4, 2)
    flow = jnp.broadcast_to(level, shape)
    return jnp.concatenate([flow, -flow if consistent else flow], axis=1)


def test_the_student_learns_and_the_teacher_does_not():
    """Only the student's pass has a gradient, and only after the start."""
    calls = []

    def apply(params, state, x, train):
        calls.append((train, x["image"].shape, "key" in x))
        return (seeing(params["gain"], x["image"], not train),), state

    network = Model(lambda rng, x: ({"gain": jnp.float32(2.0)}, {}), apply)
    weight = schedules.linear(0.0, 0.3, 6.0, first=4.0)
    method = uflow.uflow(
        network,
        augmentation=IDENTITY,
        data_weight=0.0,
        smoothness_weight=0.0,
        selfsup_weight=weight,
    )
    images = textured(13)
    images[:, :, 4:-4, 4:-4] *= 0.2  # the center, which the student sees, is darker
    batch = batch_of(images)
    variables = method.init(jax.random.key(0), batch)
    run = jax.jit(value_and_gradient(method))
    results = [run(variables, batch, jax.random.key(0), jnp.int32(step)) for step in (4, 5, 6)]
    values = [float(value) for (value, _), _ in results]
    slopes = [float(gradient["gain"]) for _, gradient in results]
    assert values[0] == slopes[0] == 0.0
    np.testing.assert_allclose(values[1], values[2] / 2, rtol=1e-5)
    assert (False, (B, 2, H, W, 3), False) in calls  # the teacher: clean, without dropout
    assert (True, (B, 2, H, W, 3), True) in calls
    term = results[2][0][1].metrics["self_supervision"]
    assert term > 0.01 and slopes[2] != 0.0

    def of_student(gain):
        teacher = seeing(2.0, batch["frames"], True)
        margin = self_supervision.crop_margin((H, W), 1 / 6)
        student = seeing(gain, self_supervision.zoom_center(batch["frames"], margin), False)
        return self_supervision.self_supervision(student, teacher, margin=margin, size=(H, W))[0]

    np.testing.assert_allclose(slopes[2], 0.3 * jax.jit(jax.grad(of_student))(2.0), rtol=1e-4)


def test_a_term_with_a_weight_that_changes_has_its_value_and_gradient():
    params = {"a": jnp.arange(3.0), "b": jnp.float32(2.0)}

    def term(params):
        return params["b"] * jnp.sum(params["a"] ** 3)

    def weighted(params, weight):
        return weight * terms.when_needed(weight, term, params)

    run = jax.jit(jax.value_and_grad(weighted))
    for weight in (0.0, 0.5):
        value, gradient = run(params, jnp.float32(weight))
        np.testing.assert_allclose(value, weight * 18.0)
        np.testing.assert_allclose(gradient["a"], weight * 6 * params["a"] ** 2, rtol=1e-6)
        np.testing.assert_allclose(gradient["b"], weight * 9.0, rtol=1e-6)
        assert weighted(params, weight) == value  # a plain number


def test_the_analogy_is_exact_for_a_network_that_follows():
    """A network whose flow is right for all transformed frames has nothing to learn: still ones."""
    images = textured(14)[:, :1].repeat(2, axis=1)
    still = np.zeros((B, 2, H // 4, W // 4, 2))
    affine = augment.AffineRecipe(flip=0.5, zoom=(1.1, 1.4), rotate=0.2, translate=0.1)
    knobs = {"appearance": None, "occluder": True, "analogy_weight": 1.0}
    method = arflow.arflow(pyramid(still), augmentation=IDENTITY, spatial=affine, **knobs)
    _, metrics, _ = evaluate(method, batch_of(images))
    np.testing.assert_allclose(metrics["analogy"], 0.0, atol=1e-4)
    relative = augment.RelativeAffine(zoom=(1.0, 1.1), rotate=0.06, translate=0.03)
    apart = arflow.arflow(
        pyramid(still), augmentation=IDENTITY, spatial=affine._replace(relative=relative), **knobs
    )
    _, moved, _ = evaluate(apart, batch_of(images))
    assert moved["analogy"] > 0.05


def test_the_analogy_counts_what_the_first_pass_sees_after_the_transformation():
    """Flows that agree in the left half alone: with a flip, the right half counts."""
    flow = np.zeros((B, 2, H, W, 2))
    flow[:, :, :, W // 2 :] = np.array([0.0, 8.0])  # both ways down: never back
    flip = augment.AffineRecipe(flip=1.0)
    given = []

    def apply(params, state, x, train):
        given.append(x["image"])
        student = jnp.zeros((B, 2, 1, H, W, 2)).at[..., W // 2 :, 0].set(3.0)
        first = jnp.asarray(flow, jnp.float32)[:, :, None]
        return (params["one"] * (first if len(given) == 1 else student)), state

    network = Model(lambda rng, x: ({"one": jnp.float32(1.0)}, {}), apply)
    method = arflow.arflow(
        network,
        augmentation=IDENTITY,
        spatial=flip,
        appearance=None,
        occluder=False,
        analogy_weight=1.0,
    )
    batch = batch_of(textured(15))
    loss = jax.jit(method.loss)
    _, output = loss(Variables({"one": 1.0}, {}, {}), batch, jax.random.key(0), 0)
    assert len(given) == 2
    # The right half is where the student is three pixels off, in x alone.
    np.testing.assert_allclose(output.metrics["analogy"], 1.5, rtol=0.05)


def test_occluded_flow_is_filled_in_from_the_past():
    """A field whose way back is half its way on, and a hole in it."""
    y, x = np.mgrid[:H, :W].astype(np.float64)
    future = np.stack([2.0 + 0.05 * x, -1.0 + 0.03 * y], -1).astype(np.float32)
    past = (-0.5 * future).astype(np.float32)
    visible = np.ones((H, W), np.float32)
    hole = np.zeros((H, W), bool)
    hole[8:14, 10:20] = True
    occluded = np.where(hole, 0.0, visible)
    spoiled = np.where(hole[..., None], np.float32(40.0), future)
    fuse = jax.jit(partial(fusion.fuse_flows, steps=300))
    filled = fuse(jax.random.key(0), past, spoiled, visible_past=visible, visible_future=occluded)
    np.testing.assert_array_equal(np.asarray(filled)[~hole], future[~hole])
    assert np.abs(np.asarray(filled) - future)[hole].mean() < 0.1
    # Where neither frame shows a pixel nothing is known, and with no pixel at all nothing breaks.
    kept = fuse(jax.random.key(0), past, spoiled, visible_past=occluded, visible_future=occluded)
    np.testing.assert_array_equal(kept, spoiled)
    none = np.zeros((H, W), np.float32)
    nothing = fuse(jax.random.key(0), past, future, visible_past=visible, visible_future=none)
    assert np.isfinite(nothing).all()
    np.testing.assert_allclose(nothing, -past, atol=1e-4)  # the motion goes on


# Small things.


def test_levels_of_frames_that_are_no_multiples():
    flow = jnp.ones((1, 2, 4, 6, 2))  # of 14 x 23, pixels of four
    assert resolution.level_factor(flow, (14, 23)) == 4
    full = resolution.upsample(flow, (14, 23))
    assert full.shape == (1, 2, 14, 23, 2)
    np.testing.assert_allclose(full, 4.0)
    images = np.broadcast_to(np.arange(23.0)[:, None], (1, 2, 14, 23, 3))
    small = jax.jit(resolution.downsample)(images, flow)
    np.testing.assert_allclose(small[0, 0, 0, :, 0], [1.5, 5.5, 9.5, 13.5, 17.5, 21.25], rtol=1e-5)


@pytest.mark.parametrize("name", ["unflow", "uflow", "arflow", "smurf"])
@pytest.mark.parametrize("variant", ["", "tiny", "chairs", "sintel", "kitti", "video"])
def test_configs_build(name, variant, load_config):
    config = load_config(name, variant)
    method = BUILD[name](config, 100)
    size = tuple(config.data.size) or (436, 1024)
    batch = {
        "image": jax.ShapeDtypeStruct((1, 2, *size, 3), jnp.uint8),
        "index": jax.ShapeDtypeStruct((1,), jnp.int32),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    augmented = jax.eval_shape(method.augment, key, batch)
    crop = tuple(config.augment.size) or size
    assert augmented["input"].shape == (1, 2, *crop, 3)
    assert method.task == Flow()
    if variant != "tiny":
        return
    variables = jax.eval_shape(method.init, key, augmented)
    predicted = jax.eval_shape(method.predict, variables, batch)
    assert predicted.flow.shape == (1, *size, 2)
    features, _ = method.encoder(variables)
    assert features and len(features) < len(variables.params)


@pytest.mark.parametrize("name", ["unflow", "uflow", "arflow"])
def test_channels_of_the_network_are_knobs_of_the_config(load_config, name):
    config = load_config(name, "tiny")
    config.update_from_flattened_dict(
        {
            "model.width": 1.0,
            f"{name}.network.decoder": (6, 5),
            f"{name}.network.context": ((7, 2),),
        }
    )
    images = {"image": jax.ShapeDtypeStruct((1, 2, 16, 16, 3), jnp.float32)}
    as_a_run_keeps_it = ConfigDict(json.loads(config.to_json_best_effort()))
    for given in (config, as_a_run_keeps_it):
        network = from_config.build_network(given)
        params, _ = jax.eval_shape(network.init, jax.random.key(0), images)
        outputs = [params[f"{layer}_1"]["bias"].size for layer in ("decoder2", "decoder3")]
        assert outputs == [6, 6] and params["decoder2_2"]["bias"].size == 5
        assert "decoder2_3" not in params and "context2" not in params
        assert params["context1"]["bias"].size == 7


def test_mistakes_in_configs_are_named(load_config):
    for knob, value, message in [
        ("uflow.data", "censu", "config.uflow.data"),
        ("uflow.occlusion", "brox", "config.uflow.occlusion"),
        ("model.name", "pwd", "pwc"),
        ("model.dtype", "float16", "config.model.dtype"),
    ]:
        config = load_config("uflow", "tiny")
        config.update_from_flattened_dict({knob: value})
        with pytest.raises(UserError, match=message):
            uflow.build(config, 10)
    config = load_config("smurf", "tiny")
    config.model.name = "pwc"
    with pytest.raises(UserError, match=r"no config\.smurf\.network\.\w+: "):
        smurf.build(config, 10)
    config = load_config("arflow", "tiny")
    with config.unlocked():
        config.arflow.spatial.rotat = 0.1
    with pytest.raises(UserError, match='did you mean "rotate"'):
        arflow.build(config, 10)


@pytest.mark.parametrize(
    ("name", "features"), [("pwc", ["pyramid1_1"]), ("raft", ["feature_encoder"])]
)
def test_the_feature_encoder_is_what_is_taken_away(name, features, load_config):
    config = load_config("uflow", "tiny")
    config.model.name = name
    parts = {"pyramid1_1": 1, "decoder": 2, "feature_encoder": 3}
    variables = Variables(parts, {"batch_stats": {"context_encoder": 4, **parts}}, {})
    params, state = from_config.feature_encoder(config.model)(variables)
    assert [*params] == [*state["batch_stats"]] == features


def test_mistakes_are_named():
    batch = batch_of(np.zeros((1, 3, 8, 8, 3), np.float32))
    with pytest.raises(UserError, match="two frames"):
        uflow.uflow(pyramid(wavy(0, 4)), augmentation=IDENTITY).init(jax.random.key(0), batch)
    network = pyramid(wavy(0, 4), wavy(0, 8))
    for factory in (unflow.unflow, arflow.arflow):
        with pytest.raises(UserError, match="level_weights"):
            evaluate(
                factory(network, augmentation=IDENTITY, level_weights=(1.0,)), batch_of(textured())
            )
