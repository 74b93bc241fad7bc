"""Vision transformers: against torch.nn's modules, kept patches, frozen patches, sharding."""

import re
import zlib
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sslax.errors import UserError
from sslax.models import (
    MODELS,
    MAEDecoder,
    ViT,
    build_encoder,
    defaults,
    from_linen,
    is_vit,
    parameter_count,
    patchify,
    resize_positions,
    sincos_positions,
    unpatchify,
)
from sslax.models.vit import gelu

GOLDEN = np.load(Path(__file__).parent / "golden" / "vit.npz")
SMALL = ViT(patch=4, width=24, depth=2, heads=3)
DEEP = ViT(patch=4, width=8, depth=3, heads=2, drop_path=0.5)
KEEP = np.array([[4, 0, 3], [1, 5, 2]], np.int32)


def images(n=2, height=8, width=12, channels=3):
    return np.random.RandomState(0).rand(n, height, width, channels).astype(np.float32)


@pytest.fixture(scope="module")
def small():
    model = from_linen(SMALL)
    return model, *jax.jit(model.init)(jax.random.key(0), images())


@pytest.fixture(scope="module")
def apply(small):
    """One compiled function for all tests: outputs and gradients by parameters and images."""
    model, _, state = small

    @jax.jit
    def run(params, image, keep):
        def scalar(params, image):
            out, _ = model.apply(params, state, {"image": image, "keep": keep}, True)
            return jnp.sum(jnp.sin(3 * out.features)) + jnp.sum(
                jnp.sin(out.stages["tokens"][:, 1:])
            ), out

        gradients, out = jax.grad(scalar, argnums=(0, 1), has_aux=True)(params, image)
        return out, *gradients

    return run


# Torch's modules, their weights drawn as in experiments/golden/vit.py.


def fill(name, shape):
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = random.standard_normal(shape).astype(np.float32)
    if len(shape) > 1:
        return values * np.float32(1 / np.sqrt(np.prod(shape[1:])))
    if "norm" in name and name.endswith("weight"):
        return 1 + np.float32(0.2) * np.tanh(values)
    return np.float32(0.2) * values


def torch_name(prefix, path):
    """'block01/attention/qkv/kernel' -> 'encoder.layers.0.self_attn.in_proj_weight'."""
    name = re.sub(r"^block(\d+)", lambda m: f"layers.{int(m[1]) - 1}", path).replace("/", ".")
    name = re.sub(r"\.(kernel|scale)$", ".weight", name)
    name = name.replace("attention.qkv.", "self_attn.in_proj_")
    name = name.replace("attention.projection", "self_attn.out_proj")
    return f"{prefix}.{name}".replace("patch_embedding", "patches")


def like_torch(params, prefix):
    """The parameters' names in torch, and functions to and from its layout."""

    def to_torch(path, value):
        if path == "patch_embedding/kernel":
            return value.reshape(4, 4, 3, -1).transpose(3, 2, 0, 1)
        return value.T if path.endswith("kernel") else value

    def from_torch(path, value):
        if path == "patch_embedding/kernel":
            return value.transpose(2, 3, 1, 0).reshape(-1, value.shape[0])
        return value.T if path.endswith("kernel") else value

    flat, tree = jax.tree.flatten_with_path(params)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in flat]
    shapes = [to_torch(path, np.empty(leaf.shape)).shape for path, (_, leaf) in zip(paths, flat)]
    values = [
        from_torch(path, fill(torch_name(prefix, path), shape))
        for path, shape in zip(paths, shapes)
    ]

    def check_gradients(gradients):
        for path, gradient in zip(paths, jax.tree.leaves(jax.device_get(gradients))):
            expected = GOLDEN[f"gradient/{torch_name(prefix, path)}"]
            ours = to_torch(path, gradient).ravel()
            ours = ours[:: -(-ours.size // 24)]
            scale = np.abs(expected).max()
            np.testing.assert_allclose(ours, expected, atol=2e-5 * scale, rtol=0, err_msg=path)

    return jax.tree.unflatten(tree, values), check_gradients


def assert_close(ours, golden, tolerance=1e-5):
    np.testing.assert_allclose(ours, golden, atol=tolerance * np.abs(golden).max(), rtol=0)


def test_outputs_and_gradients_equal_torch(small):
    model, like, state = small
    params, check_gradients = like_torch(like, "encoder")

    @jax.jit
    def run(params):
        def scalar(params):
            out, _ = model.apply(params, state, GOLDEN["images"], False)
            assert list(out.stages) == ["block01", "block02", "tokens"]
            tokens = out.stages["tokens"]
            return jnp.sum(jnp.sin(3 * out.features)) + jnp.sum(jnp.sin(tokens[:, 1:])), out

        return jax.grad(scalar, has_aux=True)(params)

    gradients, out = run(params)
    for name, stage in out.stages.items():
        assert_close(stage, GOLDEN[name.replace("block0", "block")])
    assert_close(out.features, GOLDEN["tokens"][:, 0])
    check_gradients(gradients)


def test_masked_autoencoder_equals_torch(small):
    model, like, state = small
    decoder = from_linen(MAEDecoder(patch=4, width=16, depth=1, heads=2))
    pixels, keep = GOLDEN["images"], GOLDEN["keep"]
    inputs = {"tokens": jnp.zeros((2, 4, 24)), "keep": keep, "like": pixels}
    like_decoder, decoder_state = jax.eval_shape(decoder.init, jax.random.key(0), inputs)
    params, _ = like_torch(like, "encoder")
    decoder_params, check_gradients = like_torch(like_decoder, "decoder")

    @jax.jit
    def run(params, decoder_params):
        def scalar(params, decoder_params):
            out, _ = model.apply(params, state, {"image": pixels, "keep": keep}, True)
            inputs = {"tokens": out.stages["tokens"], "keep": keep, "like": pixels}
            predicted, _ = decoder.apply(decoder_params, decoder_state, inputs, True)
            return jnp.sum(jnp.sin(predicted)), predicted

        return jax.grad(scalar, argnums=(0, 1), has_aux=True)(params, decoder_params)

    (gradient, of_decoder), predicted = run(params, decoder_params)
    assert_close(predicted, GOLDEN["predicted"])
    check_gradients(of_decoder)
    kernel = np.asarray(gradient["patch_embedding"]["kernel"])
    kernel = kernel.reshape(4, 4, 3, -1).transpose(3, 2, 0, 1)
    expected = GOLDEN["gradient/patches"]
    assert_close(kernel.ravel()[:: -(-kernel.size // 24)], expected, 2e-5)


def test_positions_equal_the_formula_in_float64():
    table = sincos_positions((3, 5), 16)
    assert table.dtype == np.float32
    np.testing.assert_allclose(table, GOLDEN["positions"], atol=1e-7)
    assert len(np.unique(table.round(5), axis=0)) == 15


def test_patches_hold_their_pixels_in_order():
    x = np.asarray(images())
    patches = np.asarray(patchify(jnp.asarray(x), 4))
    assert patches.shape == (2, 6, 48)
    for t in range(6):
        row, column = 4 * (t // 3), 4 * (t % 3)
        expected = x[:, row : row + 4, column : column + 4].reshape(2, -1)
        np.testing.assert_array_equal(patches[:, t], expected)
    np.testing.assert_array_equal(unpatchify(jnp.asarray(patches), 4, (8, 12)), x)
    with pytest.raises(ValueError, match="8 x 12 pixels"):
        patchify(jnp.asarray(x), 5)
    with pytest.raises(AssertionError):
        unpatchify(jnp.asarray(patches), 4, (8, 8))


def test_keeping_all_patches_in_any_order_is_keeping_none_back(small, apply):
    model, params, state = small
    plain, _ = jax.device_get(
        jax.jit(model.apply, static_argnums=3)(params, state, images(), False)
    )
    order = np.array([[5, 0, 3, 1, 2, 4], [0, 1, 2, 3, 4, 5]])
    kept, *_ = apply(params, images(), order)
    np.testing.assert_allclose(kept.features, plain.features, atol=1e-5)
    for name, stage in plain.stages.items():
        moved = np.take_along_axis(stage[:, 1:], order[..., None], axis=1)
        np.testing.assert_allclose(kept.stages[name][:, 1:], moved, atol=1e-5)


def test_hidden_patches_have_no_influence_and_no_gradient(small, apply):
    _, params, _ = small
    visible = np.zeros((2, 6, 48), bool)
    np.put_along_axis(visible, np.asarray(KEEP)[..., None], True, axis=1)
    visible = np.asarray(unpatchify(jnp.asarray(visible), 4, (8, 12)))
    out, of_params, of_image = apply(params, images(), KEEP)
    np.testing.assert_array_equal(np.any(np.asarray(of_image) != 0, axis=-1), visible[..., 0])
    others = apply(params, np.where(visible, images(), np.float32(7.0)), KEEP)
    for a, b in zip(jax.tree.leaves((out, of_params)), jax.tree.leaves(others[:2])):
        np.testing.assert_array_equal(a, b)  # which also says that it repeats to the bit
    assert out.features.shape == (2, 24) and out.stages["tokens"].shape == (2, 4, 24)


def test_every_parameter_has_a_gradient(small, apply):
    _, params, _ = small
    for leaf in jax.tree.leaves(jax.device_get(apply(params, images(), KEEP)[1])):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)


def test_frozen_patch_embedding_is_state_and_changes_nothing_else(small):
    _, params, _ = small
    model = from_linen(SMALL.clone(freeze_patch_embedding=True))
    frozen_params, state = jax.jit(model.init)(jax.random.key(0), images())
    assert set(params) - set(frozen_params) == {"patch_embedding"}
    shapes = jax.tree.map(jnp.shape, state["frozen"]["patch_embedding"])
    assert shapes == {"kernel": (48, 24), "bias": (24,)}
    assert np.std(state["frozen"]["patch_embedding"]["kernel"]) > 0.1
    rest = {name: value for name, value in params.items() if name != "patch_embedding"}
    state = {"frozen": {"patch_embedding": params["patch_embedding"]}}
    out, updated = jax.jit(lambda p, s: model.apply(p, s, images(), True))(rest, state)
    expected, _ = jax.jit(lambda p: from_linen(SMALL).apply(p, {}, images(), True))(params)
    np.testing.assert_array_equal(out.features, expected.features)
    state, updated = jax.device_get((state, updated))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(np.all(a == b)), state, updated))


def test_mean_pooling_leaves_the_class_token_out(small):
    _, params, _ = small
    mean = partial(SMALL.clone(pool="mean").apply, train=False)
    out = jax.jit(mean)({"params": params}, images())
    expected = np.asarray(out.stages["tokens"])[:, 1:].mean(1)
    np.testing.assert_allclose(out.features, expected, atol=1e-6)
    bare = SMALL.clone(pool="mean", class_token=False)
    rest = {name: value for name, value in params.items() if name != "class_token"}
    out = jax.eval_shape(partial(bare.apply, train=False), {"params": rest}, images())
    assert out.stages["tokens"].shape == (2, 6, 24) and out.features.shape == (2, 24)
    with pytest.raises(ValueError, match="needs the class token"):
        SMALL.clone(class_token=False).apply({"params": rest}, images(), train=False)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_padding_has_no_influence(small, pool):
    _, params, _ = small
    module = SMALL.clone(pool=pool)
    encode = jax.jit(lambda x: module.apply({"params": params}, x, train=True))
    expected = encode({"image": images(), "keep": KEEP})
    padded = {"image": images(), "keep": np.pad(KEEP, ((0, 0), (0, 2)), constant_values=1)}
    mask = np.pad(np.ones(KEEP.shape), ((0, 0), (0, 2)))
    out = encode({**padded, "keep_mask": mask})
    np.testing.assert_allclose(out.features, expected.features, atol=1e-5)
    for name, stage in expected.stages.items():
        np.testing.assert_allclose(out.stages[name][:, :4], stage, atol=1e-5)
    assert np.abs(encode(padded).features - expected.features).max() > 1e-3
    nothing = encode({**padded, "keep_mask": np.zeros_like(mask)})
    assert np.all(np.isfinite(nothing.features))


def test_config_does_without_a_class_token():
    config = defaults()
    config.update(name="vit_micro", patch=4, blocks=(1,), pool="mean", class_token=False)
    x = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    model = build_encoder(config)
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    assert "class_token" not in params
    out = jax.eval_shape(lambda p, x: model.apply(p, state, x, True)[0], params, x)
    assert out.stages["tokens"].shape == (2, 4, 128)


def test_learned_positions_are_resized_for_other_grids():
    model = from_linen(SMALL.clone(position="learned", depth=1))
    learned, state = jax.jit(model.init)(jax.random.key(0), images())
    assert learned["position"].shape == (2, 3, 24)
    assert 0.01 < np.std(learned["position"]) < 0.025
    fixed = from_linen(SMALL.clone(depth=1))
    rest = {name: value for name, value in learned.items() if name != "position"}
    as_table = {**learned, "position": sincos_positions((2, 3), 24).reshape(2, 3, 24)}
    out, _ = jax.jit(lambda p: model.apply(p, state, images(), True))(as_table)
    expected, _ = jax.jit(lambda p: fixed.apply(p, {}, images(), True))(rest)
    np.testing.assert_array_equal(out.features, expected.features)

    @jax.jit
    def at_other_size(params):
        return model.apply(params, state, images(2, 12, 16), True)[0].features

    ramp = np.linspace(0, 1, 24) + np.zeros((2, 3, 1))  # the same everywhere at every size
    same = at_other_size({**learned, "position": ramp})
    tiled = np.linspace(0, 1, 24) + np.zeros((3, 4, 1))
    np.testing.assert_allclose(same, at_other_size({**learned, "position": tiled}), atol=1e-5)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(at_other_size(p)))))(learned)
    assert np.all(np.any(np.asarray(gradient["position"]) != 0, axis=-1))


def test_bfloat16_keeps_parameters_and_outputs_in_float32(small):
    _, params, _ = small
    half = SMALL.clone(dtype=jnp.bfloat16)
    shapes = jax.eval_shape(lambda x: half.init(jax.random.key(0), x, train=True), images())
    out, exact = jax.jit(
        lambda p: [model.apply({"params": p}, images(), train=True) for model in (half, SMALL)]
    )(params)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((shapes, out)))
    assert 0 < np.abs(out.features - exact.features).max() < 0.05


def test_initialization_is_as_stated():
    module = ViT(patch=4, width=96, depth=1, heads=3)
    init = jax.jit(lambda key: module.init(key, images(), train=True))
    params = init(jax.random.key(0))["params"]
    qkv = np.asarray(params["block01"]["attention"]["qkv"]["kernel"])
    kernels = {
        "q": qkv[:, :96],
        "v": qkv[:, 192:],
        "mlp": params["block01"]["linear1"]["kernel"],
        "patches": params["patch_embedding"]["kernel"],
    }
    for name, kernel in jax.device_get(kernels).items():
        limit = np.sqrt(6 / sum(kernel.shape))
        assert 0.98 * limit < np.abs(kernel).max() <= limit, name
        np.testing.assert_allclose(np.std(kernel), limit / np.sqrt(3), rtol=0.05)
    np.testing.assert_allclose(np.std(params["class_token"]), 0.02, rtol=0.25)
    assert not np.any(params["block01"]["attention"]["qkv"]["bias"])


def test_gelu_is_exact():
    from scipy.special import ndtr

    x = np.linspace(-6, 6, 101)
    np.testing.assert_allclose(jax.jit(gelu)(np.float32(x)), x * ndtr(x), atol=1e-6)


# The usual networks' counts at 16-pixel patches, less their table of positions and classifier.
@pytest.mark.parametrize(
    "name, features, count",
    [
        ("vit_tiny", 192, 5_717_416 - 193_000 - 197 * 192),
        ("vit_small", 384, 22_050_664 - 385_000 - 197 * 384),
        ("vit_base", 768, 86_567_656 - 769_000 - 197 * 768),
        ("vit_large", 1024, 304_326_632 - 1_025_000 - 197 * 1024),
    ],
)
def test_sizes_are_the_usual_ones(name, features, count):
    config = defaults()
    config.name = name
    model = build_encoder(config)
    x = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    assert parameter_count(params) == count
    out, _ = jax.eval_shape(lambda p, s, x: model.apply(p, s, x, False), params, state, x)
    assert out.features.shape == (2, features)
    depth = {"vit_large": 24}.get(name, 12)
    assert list(out.stages) == [f"block{depth * i // 4:02}" for i in (1, 2, 3, 4)] + ["tokens"]
    assert {stage.shape for stage in out.stages.values()} == {(2, 197, features)}


def test_kept_patches_of_a_sharded_batch_move_no_image(small):
    model, params, state = small
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    data, replicated = (NamedSharding(mesh, PartitionSpec(*p)) for p in (("data",), ()))
    x = {"image": images(8), "keep": np.tile(KEEP, (4, 1))}

    @jax.jit
    def run(params, x):
        def scalar(params):
            out, _ = model.apply(params, state, x, True)
            return jnp.sum(jnp.sin(3 * out.stages["tokens"])), out.features

        return jax.value_and_grad(scalar, has_aux=True)(params)

    placed = jax.device_put(params, replicated), jax.device_put(x, data)
    text = run.lower(*placed).compile().as_text()
    assert "all-reduce" in text
    assert not re.search(r"all-gather|all-to-all|collective-permute", text)
    (_, features), gradient = run(*placed)
    (_, expected), expected_gradient = run(params, x)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected_gradient)):
        np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(b).max())


# Options of masked-image methods.


def norm(x, p):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def dense(x, p):
    return x @ p["kernel"] + p["bias"]


def reference_block(x, p, heads, post_norm=False, turns=None):
    """A block of one image's tokens `[T, width]`, head by head, with layer scale and SwiGLU; and
    the output of its MLP. Queries and keys are turned by complex numbers `[T, width/heads/2]`."""
    before = [(lambda x: x) if post_norm else partial(norm, p=p[f"norm{i}"]) for i in (1, 2)]
    after = [partial(norm, p=p[f"norm{i}"]) if post_norm else (lambda x: x) for i in (1, 2)]
    q, k, v = np.split(dense(before[0](x), p["attention"]["qkv"]), 3, axis=1)
    outputs = []
    for columns in np.split(np.arange(x.shape[1]), heads):
        query, key = q[:, columns], k[:, columns]
        if turns is not None:
            query, key = turned(query, turns), turned(key, turns)
        scores = np.exp(query @ key.T / np.sqrt(len(columns)))
        outputs.append(scores / scores.sum(1, keepdims=True) @ v[:, columns])
    attended = dense(np.concatenate(outputs, axis=1), p["attention"]["projection"])
    x = after[0](x + p["scale1"] * attended)
    gate, value = np.split(dense(before[1](x), p["linear1"]), 2, axis=1)
    mlp = dense(gate / (1 + np.exp(-gate)) * value, p["linear2"])
    return after[1](x + p["scale2"] * mlp), mlp


def turned(x, turns):
    first, second = np.split(x, 2, axis=1)
    z = (first + 1j * second) * turns
    return np.concatenate([z.real, z.imag], axis=1)


def random_like(params):
    random = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: 0.3 * random.normal(size=leaf.shape), params)


@pytest.mark.parametrize(("class_token", "post_norm"), [(True, False), (False, True)])
def test_mask_token_registers_layer_scale_swiglu_and_post_norm(class_token, post_norm):
    module = SMALL.clone(
        depth=1,
        post_norm=post_norm,
        mlp_stages=1,
        mask_token=True,
        registers=2,
        layer_scale=0.1,
        swiglu=True,
        class_token=class_token,
        pool="mean",
    )
    masked = np.array([[1, 0, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0]], bool)
    with jax.enable_x64(True):
        module = module.clone(dtype=jnp.float64)
        x = {"image": jnp.asarray(images(), jnp.float64), "masked": masked}
        first = jax.jit(partial(module.init, train=True))(jax.random.key(0), x)["params"]
        params = random_like(first)
        out = jax.jit(partial(module.apply, train=True))({"params": params}, x)
        out = jax.device_get(out)
    block = first["block01"]
    assert block["linear1"]["kernel"].shape == (24, 2 * 64)  # 4 · 24 · 2/3 = 64
    np.testing.assert_allclose(block["scale1"], 0.1, rtol=1e-6)
    assert block["scale2"].shape == (24,) and not np.any(first["mask_token"])
    tokens = dense(np.asarray(patchify(images(), 4), np.float64), params["patch_embedding"])
    tokens = np.where(masked[..., None], params["mask_token"], tokens)
    tokens = tokens + sincos_positions((2, 3), 24)
    before = [params["class_token"][None]] if class_token else []
    for i, image in enumerate(tokens):
        image = np.concatenate([*before, params["registers"], image])
        image = norm(image, params["embedding_norm"]) if post_norm else image
        image, mlp = reference_block(image, params["block01"], 3, post_norm)
        image = image if post_norm else norm(image, params["norm"])
        expected, mlp = (np.delete(x, [len(before), len(before) + 1], axis=0) for x in (image, mlp))
        np.testing.assert_allclose(out.stages["tokens"][i], expected, atol=1e-5)
        np.testing.assert_allclose(out.stages["mlp01"][i], mlp, atol=1e-5)
        np.testing.assert_allclose(out.features[i], expected[len(before) :].mean(0), atol=1e-5)
    assert out.stages["block01"].shape == out.stages["tokens"].shape


# Rotary positions.


ROPE = SMALL.clone(position="rope", registers=2, layer_scale=0.1, swiglu=True)


def reference_turns(rows, columns, channels):
    """A number at a time, as the paper describes them: `[2 registers, class token and patches]`."""
    turns = [[1] * (channels // 2)] * 3
    for row in range(rows):
        for column in range(columns):
            y, x = (row + 0.5) / rows * 2 - 1, (column + 0.5) / columns * 2 - 1
            waves = [
                2 * np.pi * at * 100 ** (-k / (channels // 4))
                for at in (y, x)
                for k in range(channels // 4)
            ]
            turns.append([np.exp(1j * wave) for wave in waves])
    return np.array(turns)


@pytest.fixture(scope="module")
def rope():
    params = jax.jit(partial(ROPE.init, train=True))(jax.random.key(0), images())["params"]
    params = jax.tree.map(np.float32, random_like(params))
    return params, jax.jit(partial(ROPE.apply, train=False))


@pytest.mark.parametrize("size", [(8, 12), (12, 4)])
def test_rotary_positions_equal_the_formula(rope, size):
    params, encode = rope
    assert "position" not in params
    out = jax.device_get(encode({"params": params}, images(2, *size)))
    params = jax.tree.map(np.float64, params)
    tokens = dense(np.asarray(patchify(images(2, *size), 4), np.float64), params["patch_embedding"])
    turns = reference_turns(size[0] // 4, size[1] // 4, 8)
    for i, image in enumerate(tokens):
        image = np.concatenate([params["class_token"][None], params["registers"], image])
        for name in ("block01", "block02"):
            image, _ = reference_block(image, params[name], 3, turns=turns)
        expected = np.delete(norm(image, params["norm"]), [1, 2], axis=0)
        np.testing.assert_allclose(out.stages["tokens"][i], expected, atol=2e-5)
        np.testing.assert_allclose(out.features[i], expected[0], atol=2e-5)


def test_rotary_positions_belong_to_patches_that_are_kept(rope):
    params, encode = rope
    plain = encode({"params": params}, images())
    order = np.array([[5, 0, 3, 1, 2, 4], [0, 1, 2, 3, 4, 5]])
    kept = encode({"params": params}, {"image": images(), "keep": order})
    np.testing.assert_allclose(kept.features, plain.features, atol=1e-5)
    moved = np.take_along_axis(plain.stages["tokens"][:, 1:], order[..., None], axis=1)
    np.testing.assert_allclose(kept.stages["tokens"][:, 1:], moved, atol=1e-5)
    expected = encode({"params": params}, {"image": images(), "keep": KEEP})
    padded = np.pad(KEEP, ((0, 0), (0, 3)), constant_values=1)
    mask = np.pad(np.ones(KEEP.shape), ((0, 0), (0, 3)))
    out = encode({"params": params}, {"image": images(), "keep": padded, "keep_mask": mask})
    np.testing.assert_allclose(out.features, expected.features, atol=1e-5)
    assert np.abs(expected.features - plain.features).max() > 1e-3


def test_rotary_positions_are_exported_for_any_batch(rope):
    params, encode = rope
    batch = jax.export.symbolic_shape("b")
    shapes = jax.ShapeDtypeStruct((*batch, 8, 12, 3), jnp.float32)
    exported = jax.export.export(jax.jit(lambda x: encode({"params": params}, x).features))(shapes)
    for n in (1, 3):
        expected = encode({"params": params}, images(n)).features
        np.testing.assert_allclose(exported.call(images(n)), expected, atol=1e-5)


def test_rotary_positions_in_bfloat16(rope):
    params, encode = rope
    half = ROPE.clone(dtype=jnp.bfloat16)
    out = jax.jit(partial(half.apply, train=False))({"params": params}, images())
    exact = encode({"params": params}, images()).features
    assert out.features.dtype == jnp.float32
    assert 0 < np.abs(out.features - exact).max() < 0.1


def test_resized_positions_average_to_what_they_were():
    table = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 8)), jnp.float32)
    assert resize_positions(table, (4, 6), antialias=False) is table
    for antialias in (False, True):
        flat = resize_positions(jnp.ones((4, 6, 8)), (7, 3), antialias=antialias)
        np.testing.assert_allclose(flat, 1.0, atol=1e-5)


def test_stages_of_the_last_mlps(small):
    _, params, _ = small
    for count, names in ((0, set()), (1, {"mlp02"}), (2, {"mlp01", "mlp02"})):
        module = SMALL.clone(mlp_stages=count)
        out = jax.eval_shape(partial(module.apply, train=True), {"params": params}, images())
        found = {name: stage for name, stage in out.stages.items() if name.startswith("mlp")}
        assert set(found) == names
        assert all(stage.shape == (2, 7, 24) for stage in found.values())


def test_registers_are_attended_to_beside_padding(small):
    module = SMALL.clone(registers=2)
    params = module.init(jax.random.key(0), images(), train=False)
    encode = jax.jit(partial(module.apply, train=False))
    expected = encode(params, {"image": images(), "keep": KEEP})
    padded = np.pad(KEEP, ((0, 0), (0, 2)), constant_values=1)
    mask = np.pad(np.ones(KEEP.shape), ((0, 0), (0, 2)))
    out = encode(params, {"image": images(), "keep": padded, "keep_mask": mask})
    np.testing.assert_allclose(out.features, expected.features, atol=1e-5)
    params["params"]["registers"] += np.sin(np.arange(24.0))
    others = encode(params, {"image": images(), "keep": KEEP})
    assert np.abs(others.features - expected.features).max() > 1e-3


def test_options_that_are_off_have_no_parameters(small):
    _, params, _ = small
    assert set(params) == {"class_token", "norm", "patch_embedding", "block01", "block02"}
    assert set(params["block01"]) == {"attention", "linear1", "linear2", "norm1", "norm2"}
    masked = {"image": images(), "masked": np.zeros((2, 6), bool)}
    with pytest.raises(UserError, match=r"config\.model\.mask_token is False"):
        SMALL.apply({"params": params}, masked, train=False)


@pytest.mark.parametrize(("width", "units"), [(384, 1024), (1536, 4096), (128, 344)])
def test_swiglu_has_the_hidden_units_of_dinov2(width, units):
    module = ViT(patch=4, width=width, depth=1, heads=4, swiglu=True)
    shapes = jax.eval_shape(partial(module.init, train=True), jax.random.key(0), images())
    block = shapes["params"]["block01"]
    assert block["linear1"]["kernel"].shape == (width, 2 * units)
    assert block["linear2"]["kernel"].shape == (units, width)


def test_image_of_a_dictionary_is_normalized(small):
    plain, params, state = small
    scaled = from_linen(SMALL, mean=(0.5, 0.25, 0.75), std=(2.0, 0.5, 1.0))
    x = {"image": images(), "keep": KEEP}
    normal = (images() - np.float32([0.5, 0.25, 0.75])) / np.float32([2.0, 0.5, 1.0])
    out, _ = jax.jit(lambda p: scaled.apply(p, state, x, False))(params)
    expected, _ = jax.jit(lambda p: plain.apply(p, state, {**x, "image": normal}, False))(params)
    np.testing.assert_allclose(out.features, expected.features, atol=1e-6)


def test_epsilon_of_the_norms_is_a_knob(small):
    _, params, _ = small
    flat = np.full((1, 8, 12, 3), 0.5, np.float32)
    tiny = jax.tree.map(lambda leaf: 1e-3 * leaf, params)
    encode = [
        jax.jit(partial(SMALL.clone(norm_epsilon=e).apply, train=False))({"params": tiny}, flat)
        for e in (1e-6, 1e-5)
    ]
    assert np.abs(encode[0].features - encode[1].features).max() > 1e-7
    config = defaults()
    config.update(name="vit_micro", norm_epsilon=0.0)
    with pytest.raises(UserError, match="norm_epsilon"):
        build_encoder(config)


def test_config_scales_a_transformer():
    config = defaults()
    config.update(name="vit_micro", patch=4, width=0.25, blocks=(2,), pool="mean")
    x = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    params, _ = jax.eval_shape(build_encoder(config).init, jax.random.key(0), x)
    assert params["block02"]["linear1"]["kernel"].shape == (32, 128) and "block03" not in params
    config.width = 0.01
    params, _ = jax.eval_shape(build_encoder(config).init, jax.random.key(0), x)
    assert params["class_token"].shape == (4,)
    assert [name for name in MODELS if is_vit(name)] == [name for name in MODELS if "vit" in name]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"name": "vit_micro", "small_stem": True}, "small_stem is True, but only a ResNet"),
        ({"name": "vit_micro", "blocks": (1, 1)}, "has one stage"),
        ({"name": "resnet18", "patch": 4}, "patch is 4, but only a ViT has"),
        ({"name": "resnet18", "pool": "mean"}, "set it back to 'cls'"),
    ],
)
def test_fields_of_the_other_family_are_refused(change, message):
    config = defaults()
    config.update(change)
    with pytest.raises(UserError, match=re.escape(message)):
        build_encoder(config)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"patch": 16}, "8 x 12 pixels do not divide into patches of 16"),
        ({"pool": "max"}, "Known: cls, mean"),
        ({"position": "none"}, "Known: learned, rope, sincos"),
        ({"position": "rope", "heads": 4}, "multiple of 4, not 6"),
        ({"heads": 5}, "5 heads do not divide a width of 24"),
        ({"width": 21}, "multiple of 4"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    module = SMALL.clone(**change)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=True), images())


def test_paths_are_dropped_per_example_and_at_a_rate_that_rises_with_depth():
    """Rates 0, 0.25 and 0.5: what is left of the branches is scaled, so that means stay."""
    keys = jax.random.split(jax.random.key(0), 4096)
    factors = np.asarray(DEEP.bind({})._branch_factors(keys))
    np.testing.assert_array_equal(factors[:, 0], 1.0)
    for block, rate in ((1, 0.25), (2, 0.5)):
        assert set(np.unique(factors[:, block])) == {np.float32(0), np.float32(1 / (1 - rate))}
        np.testing.assert_allclose((factors[:, block] == 0).mean(0), rate, atol=0.03)
    assert abs(np.corrcoef(factors[:, 2].T)[0, 1]) < 0.05  # the two branches on their own
    uniform = np.asarray(DEEP.clone(drop_path_uniform=True).bind({})._branch_factors(keys))
    np.testing.assert_allclose((uniform == 0).mean(0), 0.5, atol=0.03)


def test_drop_path_leaves_evaluation_alone_and_skips_branches_in_training():
    model = from_linen(DEEP)
    x = {"image": images(64), "key": jax.random.split(jax.random.key(5), 64)}
    params, state = jax.jit(model.init)(jax.random.key(0), x)
    run = jax.jit(model.apply, static_argnums=3)
    plain = from_linen(DEEP.clone(drop_path=0.0))
    full = jax.jit(plain.apply, static_argnums=3)(params, state, x["image"], False)[0]
    np.testing.assert_array_equal(run(params, state, x["image"], False)[0].features, full.features)
    trained = run(params, state, x, True)[0]
    factors = np.asarray(DEEP.bind({})._branch_factors(x["key"]))
    np.testing.assert_array_equal(trained.stages["block01"], full.stages["block01"])
    skipped = (factors[:, 1] == 0).all(-1)  # both branches of the second block
    same = (np.asarray(trained.stages["block02"]) == full.stages["block01"]).all((1, 2))
    np.testing.assert_array_equal(same, skipped)
    assert skipped.any() and not skipped.all()
    with pytest.raises(UserError, match=r"drop_path is 0\.5, which this method does not support"):
        model.apply(params, state, x["image"], True)
