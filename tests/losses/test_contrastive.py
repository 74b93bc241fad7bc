"""Contrastive losses against references, tiled and dense, on one device and on eight."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sslax import losses

LABELS = jnp.array([0, 1, 2, 0, 1, 3, 0, 4] * 3)


def embeddings(n, dimensions=3, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((n, dimensions))
    b = a + rng.standard_normal(a.shape)
    return jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32)


def sup_con_of_two_views(a, b, *, axis_name=None, **options):
    """The supervised loss of both views, with the labels of each device's part of the batch."""
    labels = LABELS[: a.shape[0]]
    if axis_name is not None:
        first = jax.lax.axis_index(axis_name) * a.shape[0]
        labels = jax.lax.dynamic_slice_in_dim(LABELS, first, a.shape[0])
    both = jnp.concatenate([a, b], axis=1).reshape(-1, a.shape[1])
    return losses.sup_con(both, jnp.repeat(labels, 2), axis_name=axis_name, **options)


QUEUE = embeddings(10, seed=5)[0]
ALL_TRANSFORMS = ("nt_xent", 2), ("info_nce", 2)
LOSSES = {
    "info_nce": losses.info_nce,
    "info_nce_queue": partial(losses.info_nce, negatives=QUEUE),
    "nt_xent": losses.nt_xent,
    "decoupled": partial(losses.decoupled_contrastive, sigma=0.5),
    "sup_con": sup_con_of_two_views,
    "sigmoid": partial(losses.sigmoid_contrastive, bias=-1.0),
}


REFERENCES = {  # name: (loss, inputs)
    "nt_xent": (losses.nt_xent, "ab"),
    "decoupled_contrastive": (losses.decoupled_contrastive, "ab"),
    "decoupled_contrastive_weighted": (partial(losses.decoupled_contrastive, sigma=0.4), "ab"),
    "info_nce": (losses.info_nce, "ab"),
    "info_nce_queue": (lambda a, b, q, **k: losses.info_nce(a, b, negatives=q, **k), "abq"),
    "sup_con": (lambda a, **k: losses.sup_con(a, jnp.array([0, 1, 0, 2, 0, 1]), **k), "a"),
    "sigmoid_contrastive": (partial(losses.sigmoid_contrastive, bias=-3.0), "ab"),
}
DENSE = "decoupled_contrastive", "info_nce_queue", "sigmoid_contrastive"


@pytest.mark.parametrize(
    ("name", "tile"), [(x, 2) for x in REFERENCES] + [(x, None) for x in DENSE]
)
def test_equals_reference(check_golden, representation, name, tile):
    arrays = {"a": representation["a"], "b": representation["b"], "q": representation["queue"]}
    loss, inputs = REFERENCES[name]
    loss = partial(loss, temperature=0.2, tile=tile)
    check_golden(loss, name, *(arrays[x] for x in inputs))


def test_triplet_equals_reference(check_golden, representation):
    a, b = representation["a"], representation["b"]
    check_golden(losses.triplet, "triplet", a, b, a[::-1])


def test_nt_xent_equals_optax():
    a, b = embeddings(9)
    labels = np.tile(np.arange(9), 2)
    reference = jax.jit(partial(optax.losses.ntxent, temperature=0.2))
    expected = reference(np.concatenate([a, b]), labels)
    ours = jax.jit(partial(losses.nt_xent, temperature=0.2))
    np.testing.assert_allclose(np.mean(ours(a, b)), expected, rtol=1e-5)


def test_nt_xent_orders_first_views_before_second_views():
    a, b = embeddings(7)
    ours = jax.jit(partial(losses.nt_xent, temperature=0.2))
    loss, swapped = np.asarray(ours(a, b)), np.asarray(ours(b, a))
    np.testing.assert_allclose(loss, np.roll(swapped, 7), rtol=1e-5)
    assert not np.allclose(loss[:7], loss[7:])


@pytest.mark.parametrize(("name", "tile"), [("nt_xent", 5), ("info_nce", 100)])
def test_tiles_equal_dense(name, tile):
    """An odd number of tiles, the last one padded, and a single tile."""
    a, b = embeddings(21)
    weights = jnp.asarray(np.linspace(0.5, 1.5, 42), jnp.float32)

    def total(a, b, temperature, **options):
        rows = LOSSES[name](a, b, temperature=temperature, **options)
        return (rows * weights[: len(rows)]).sum()

    @jax.jit
    def both(*arguments):
        dense, tiled = (partial(total, tile=t) for t in (None, tile))
        return [jax.value_and_grad(f, (0, 1, 2))(*arguments) for f in (dense, tiled)]

    for theirs, ours in zip(*map(jax.tree.leaves, both(a, b, 0.3))):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "tile"),
    [(x, None if x == "sup_con" else 2) for x in LOSSES] + [("nt_xent", None)],
)
def test_one_device_equals_eight(check_parallel, name, tile):
    def loss(temperature, weights, a, b, axis_name):
        options = {"temperature": temperature, "tile": tile, "axis_name": axis_name}
        if name == "info_nce_queue":
            options["negatives"] = QUEUE @ weights  # the same on all devices, with a gradient
        return LOSSES[name](a @ weights, b @ weights, **options)

    check_parallel(loss, *embeddings(24), all_transforms=(name, tile) in ALL_TRANSFORMS)


@pytest.mark.parametrize("score", ["dot", "bilinear", "learned"])
def test_info_nce_takes_any_score(score):
    a, b = embeddings(6)
    weights = jnp.asarray(np.eye(3) + 0.2, jnp.float32)

    def distance(weights):
        return lambda x, y: -jnp.square((x @ weights)[:, None] - y).sum(-1)

    scores = {"dot": lambda w: losses.dot, "bilinear": losses.bilinear, "learned": distance}
    score = scores[score]

    def ours(weights, negatives, **options):
        options = {"score": score(weights), "temperature": 2.0, "negatives": negatives, **options}
        return losses.info_nce(a, b, **options)

    @jax.jit
    def expected(weights):
        matrix = score(weights)(a, b) / 2.0
        in_batch = jax.nn.logsumexp(matrix, axis=1) - jnp.diagonal(matrix)
        others = score(weights)(a, QUEUE) / 2.0
        logits = jnp.concatenate([jnp.diagonal(matrix)[:, None], others], axis=1)
        return in_batch, jax.nn.logsumexp(logits, axis=1) - logits[:, 0]

    for negatives, theirs in zip((None, QUEUE), expected(weights)):
        np.testing.assert_allclose(jax.jit(ours)(weights, negatives), theirs, rtol=1e-5)
    if score is not scores["dot"]:
        gradient = jax.jit(jax.grad(lambda w: ours(w, None).sum()))(weights)
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


@pytest.mark.parametrize("tile", [None, 3])
def test_first_and_second_derivatives(check_derivatives, tile):
    a, b = embeddings(4)

    def loss(a, b, temperature):
        return losses.nt_xent(a, b, temperature=temperature, tile=tile)

    check_derivatives(loss, a, b, jnp.array(0.4), order=2)
    if tile:
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jit(lambda a: jax.jvp(lambda a: loss(a, b, 0.4), (a,), (a,)))(a)


def test_first_and_second_derivatives_of_a_rectangular_matrix(check_derivatives):
    a, b = embeddings(4)

    def loss(a, b, temperature):
        return losses.info_nce(a, b, temperature=temperature, tile=3)

    check_derivatives(loss, a, b, jnp.array(0.4), order=2)


@pytest.mark.parametrize("tile", [None, 3])
def test_equal_and_zero_embeddings(check_derivatives, tile):
    """Indistinguishable embeddings have the loss of chance, and finite gradients."""
    a, b = embeddings(4)
    same = np.ones((4, 3), np.float32)

    @jax.jit
    def loss(a, b):
        return losses.nt_xent(a, b, tile=tile)

    np.testing.assert_allclose(loss(same, same), np.log(7.0), rtol=1e-5)
    np.testing.assert_allclose(loss(0 * a, 0 * b), np.log(7.0), rtol=1e-5)
    check_derivatives(loss, same, same)
    # Vectors shorter than epsilon = 1e-6 are scaled by a constant; the step stays below it.
    check_derivatives(loss, a.at[1].set(0), b, step=1e-8, rtol=1e-4)


@pytest.mark.parametrize("name", ["nt_xent", "info_nce", "sigmoid"])
def test_sharp_logits_stay_finite(name):
    """A temperature of 0.01, where exp(1 / temperature) overflows, and bfloat16."""
    a, b = embeddings(8, dimensions=16)

    @jax.jit
    def both(a, b):
        def total(a, tile):
            rows = LOSSES[name](a, b, temperature=0.01, tile=tile)
            return rows.sum(), rows

        dense, tiled = (jax.value_and_grad(total, has_aux=True)(a, tile) for tile in (None, 3))
        coarse = LOSSES[name](a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), temperature=0.2)
        return dense, tiled, coarse, LOSSES[name](a, b, temperature=0.2)

    dense, tiled, coarse, fine = both(a, b)
    for ours, theirs in zip(jax.tree.leaves(tiled), jax.tree.leaves(dense)):
        assert np.isfinite(ours).all()
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    assert coarse.dtype == jnp.float32
    np.testing.assert_allclose(coarse, fine, atol=0.1)


def test_vmap_over_batches():
    a, b = embeddings(12)
    a, b = a.reshape(2, 6, 3), b.reshape(2, 6, 3)

    @jax.jit
    def gradient(a, b):
        return jax.grad(lambda a: losses.nt_xent(a, b, tile=4).sum())(a)

    for ours, x, y in zip(jax.jit(jax.vmap(gradient))(a, b), a, b):
        np.testing.assert_allclose(ours, gradient(x, y), rtol=1e-5, atol=1e-6)


def test_a_large_batch_does_not_form_the_matrix():
    """65,536 embeddings: their similarity matrix would take 16 GiB, the loss takes 128 MiB."""
    a = jax.ShapeDtypeStruct((32_768, 64), jnp.float32)
    step = jax.jit(jax.value_and_grad(lambda a, b: losses.nt_xent(a, b).mean(), (0, 1)))
    memory = step.lower(a, a).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 128 * 2**20


def test_sup_con_with_one_label_per_image_is_nt_xent():
    a, b = embeddings(5)
    expected = jax.jit(losses.nt_xent)(a, b)
    ours = jax.jit(losses.sup_con)(np.concatenate([a, b]), np.tile(np.arange(5), 2))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


def test_sup_con_without_positives_is_zero():
    a, _ = embeddings(4)
    total = jax.jit(jax.value_and_grad(lambda a: losses.sup_con(a, jnp.arange(4)).sum()))
    loss, gradient = total(a)
    assert loss == 0 and (gradient == 0).all()


def test_triplet_at_equal_embeddings():
    a, b = embeddings(4)
    for margin in (1.0, None):
        loss = jax.jit(partial(losses.triplet, margin=margin))
        gradient = jax.jit(jax.grad(lambda a, loss=loss: loss(a, a, b).sum()))(b)
        assert np.isfinite(gradient).all()
        assert np.isfinite(loss(a, a, a)).all()
    far = loss(a, b, a)  # without a margin
    np.testing.assert_allclose(far, jax.nn.softplus(np.linalg.norm(a - b, axis=1)), rtol=1e-5)


def test_errors():
    a, b = embeddings(4)
    with pytest.raises(ValueError, match="temperature"):
        losses.nt_xent(a, b, temperature=0.0)
    with pytest.raises(ValueError, match="no negatives"):
        losses.decoupled_contrastive(a[:1], b[:1])
    with pytest.raises(AssertionError, match="nt_xent expects"):
        losses.nt_xent(a, b[:3])
    with pytest.raises(AssertionError, match="info_nce expects"):
        losses.info_nce(a[None], b[None])
    with pytest.raises(AssertionError, match="info_nce expects"):
        losses.info_nce(a, b, negatives=QUEUE[:, :2])


def test_the_mean_of_sup_con_counts_well_separated_anchors():
    """Their loss rounds to 0, so `loss > 0` would drop them."""
    labels = np.array([0, 0, 1, 1, 2])
    embeddings = np.float32([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0.6, 0.8], [0, 0, 1]])
    loss = np.asarray(jax.jit(partial(losses.sup_con, temperature=0.02))(embeddings, labels))
    assert loss[0] == loss[4] == 0
    mean = jax.jit(losses.masked_mean)(loss, (labels[:, None] == labels).sum(1) > 1)
    z = np.float64(embeddings)
    s = z @ z.T / 0.02
    np.fill_diagonal(s, -np.inf)
    total = np.log(np.exp(s - s.max(1, keepdims=True)).sum(1)) + s.max(1)
    expected = [total[i] - s[i, j] for i, j in ((0, 1), (1, 0), (2, 3), (3, 2))]
    np.testing.assert_allclose(mean, np.mean(expected), rtol=1e-5)
