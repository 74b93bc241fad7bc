"""Depth and pose networks: PyTorch's values, sizes, gradients, the builders."""

import re
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sslax import models
from sslax.errors import UserError
from sslax.models import (
    DepthDecoder,
    DispNetDecoder,
    DispNetEncoder,
    PoseCNN,
    PoseDecoder,
    ResNet,
    UpConv,
    build_depth_decoder,
    build_encoder,
    build_pose_network,
    from_linen,
    parameter_count,
)
from sslax.models.compose import Network
from sslax.models.pose import Features, coarse_flow
from sslax.ops import se3_exp

GOLDEN = np.load(Path(__file__).parent / "golden" / "depth.npz")


def fill(name, shape):
    """As in experiments/golden/depth.py, which made the golden numbers from the same weights."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    scale = np.sqrt(2 / np.prod(shape[:3])) if len(shape) == 4 else 0.2
    return (values * scale).astype(np.float32)


def draw(name, *shape):
    return np.random.RandomState(zlib.crc32(name.encode())).rand(*shape).astype(np.float32)


def filled(model, scope, x):
    """Variables whose parameters are filled by their names."""
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)

    def path(keys):
        return "/".join([scope, jax.tree_util.keystr(keys, simple=True, separator="/")])

    return jax.tree.map_with_path(lambda keys, leaf: fill(path(keys), leaf.shape), params), state


def output(model, scope, x):
    params, state = filled(model, scope, x)
    return jax.jit(lambda p: model.apply(p, state, x, True)[0])(params)


def close(out, name, subset=np.s_[:]):
    golden = GOLDEN[name]
    assert golden.std() > 0
    np.testing.assert_allclose(np.asarray(out)[subset], golden, atol=1e-4 * golden.std())


SPARSE = np.s_[:, ::3, ::5]


def test_depth_decoder_equals_pytorch():
    sizes = {"stage0": (11, 15, 3), "stage1": (6, 8, 5), "stage2": (3, 4, 7)}
    x = {"stages": {name: draw(name, 2, *size) for name, size in sizes.items()}}
    x["like"] = jnp.zeros((2, 22, 30, 3))
    decoder = from_linen(DepthDecoder(widths=(4, 6, 8), scales=3, outputs=2))
    for i, out in enumerate(output(decoder, "decoder", x)):
        close(out, f"decoder{i}")


def test_pose_decoder_equals_pytorch():
    model = from_linen(PoseDecoder(motions=2, width=6))
    close(output(model, "pose", {"stages": {"stage": draw("stacked", 2, 3, 4, 5)}}), "pose")
    frames = draw("each", 6, 3, 4, 5).reshape(2, 3, 3, 4, 5)
    close(output(model, "shared", {"stages": {"stage": frames}}), "pose_shared")


def test_dispnet_equals_pytorch():
    network = of_parts(
        from_linen(DispNetEncoder(width=0.125)),
        from_linen(DispNetDecoder(widths=(2, 4, 8, 16, 32, 64))),
    )
    for i, out in enumerate(output(network, "dispnet", draw("images", 1, 66, 130, 3))):
        close(out, f"dispnet{i}", SPARSE)


def test_pose_cnn_equals_pytorch():
    model = from_linen(PoseCNN(motions=2, explainability=4, width=0.25))
    twists, masks = output(model, "posecnn", draw("frames", 2, 34, 50, 9))
    close(twists, "posecnn")
    for i, mask in enumerate(masks):
        close(mask, f"mask{i}", SPARSE)


@pytest.mark.parametrize("side", [1, 3, 5, 7])
def test_transposed_convolution_scatters_its_kernel(side):
    x = np.random.RandomState(0).randn(1, 2, 3, 2).astype(np.float32)
    layer = UpConv(3, side)
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    kernel, r = np.asarray(variables["params"]["kernel"]), side // 2
    canvas = np.zeros((1, 4 + 2 * side, 6 + 2 * side, 3))
    for i in range(2):
        for j in range(3):
            rows, columns = (slice(side + 2 * k - r, side + 2 * k + r + 1) for k in (i, j))
            canvas[:, rows, columns] += np.einsum("nc,abck->nabk", x[:, i, j], kernel)
    expected = canvas[:, side : side + 4, side : side + 6]
    np.testing.assert_allclose(jax.jit(layer.apply)(variables, x), expected, atol=1e-5)


def of_parts(encoder, decoder):
    """An encoder and a depth decoder as one model of images."""

    def forward(net, images):
        return net.decoder({"stages": net.encoder(images).stages, "like": images})

    return Network({"encoder": encoder, "decoder": decoder}).as_model(forward)


def depth_network(config, **knobs):
    return of_parts(build_encoder(config, stem_stage=True), build_depth_decoder(config, **knobs))


def section(**changes):
    config = models.defaults()
    config.update(changes)
    return config


def shapes(model, *shape):
    """Of the variables and the output, without computing."""
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    out, _ = jax.eval_shape(lambda p, s, x: model.apply(p, s, x, True), params, state, x)
    return params, out


def test_resnet18_has_the_sizes_of_monodepth2():
    params, maps = shapes(depth_network(section()), 1, 192, 640, 3)
    assert parameter_count(params["decoder"]) == 3_152_724
    assert parameter_count(params["encoder"]) == 11_689_512 - 513_000
    assert [m.shape for m in maps] == [
        (1, 192, 640, 1),
        (1, 96, 320, 1),
        (1, 48, 160, 1),
        (1, 24, 80, 1),
    ]


def test_pose_network_has_the_sizes_of_monodepth2():
    network = build_pose_network(section(), name="resnet10", frames=3)
    params, twists = shapes(network, 2, 192, 640, 9)
    # 1x1 and two 3x3 convolutions to 256 channels, 1x1 to 12, their biases.
    assert parameter_count(params["decoder"]) == 512 * 256 + 18 * 256**2 + 256 * 12 + 3 * 256 + 12
    assert params["encoder"]["conv1"]["kernel"].shape == (7, 7, 9, 64)
    assert twists.shape == (2, 2, 6) and twists.dtype == jnp.float32


@pytest.mark.parametrize(
    "changes, size, sides",
    [
        ({"name": "resnet10", "small_stem": True}, (24, 40), [24, 12, 6]),
        ({"name": "resnet10", "patch_stem": 4}, (32, 64), [32, 16, 8]),
        ({"name": "resnet10", "dtype": "bfloat16"}, (33, 70), [33, 17, 9]),
        ({"name": "dispnet", "dtype": "bfloat16"}, (33, 70), [33, 17, 9]),
    ],
)
def test_maps_halve_the_images_size_for_every_encoder(changes, size, sides):
    network = depth_network(section(width=0.125, **changes), outputs=2, scales=3)
    _, maps = shapes(network, 2, *size, 3)
    assert [m.shape[1] for m in maps] == sides
    assert all(m.shape[-1] == 2 and m.dtype == jnp.float32 for m in maps)


@pytest.fixture(scope="module")
def networks():
    """Small ones of every kind: what each gives at the start, and its gradient."""
    encoder = from_linen(ResNet(blocks=(1,), width=0.125, stem_stage=True))
    decoder = from_linen(DepthDecoder(widths=(4, 8), scales=2, bias=-1.0))
    rng, images = jax.random.key(0), draw("batch", 2, 24, 40, 3)
    pairs = draw("pairs", 2, 24, 40, 6)
    stages = {"stages": {"stage1": draw("stage", 2, 3, 5, 8)}}
    made = {
        "depth": (of_parts(encoder, decoder), images),
        "dispnet": (depth_network(section(name="dispnet", width=0.125)), images),
        "pose": (from_linen(PoseDecoder(width=8)), stages),
        "posecnn": (
            build_pose_network(section(width=0.125), name="posecnn", explainability=4),
            pairs,
        ),
        "correlation": (
            build_pose_network(
                section(), name="correlation", frames=3, decoder_width=8, explainability=2
            ),
            np.concatenate([pairs, pairs[..., :3]], axis=-1),  # the last equals the first
        ),
    }

    @jax.jit
    def run():
        results = {}
        for name, (model, x) in made.items():
            # The many draws of DispNet's would take longer to compile than the network.
            params, state = filled(model, "", x) if name == "dispnet" else model.init(rng, x)

            def loss(params, model=model, state=state, x=x):
                out, _ = model.apply(params, state, x, True)
                return sum(jnp.sum(jnp.sin(30 * leaf + 1)) for leaf in jax.tree.leaves(out)), out

            (_, out), gradient = jax.value_and_grad(loss, has_aux=True)(params)
            results[name] = out, gradient
        return results

    return jax.device_get(run())


@pytest.mark.parametrize("name", ["depth", "dispnet", "pose", "posecnn", "correlation"])
def test_every_parameter_has_a_gradient_at_the_start(networks, name):
    for path, leaf in jax.tree.leaves_with_path(networks[name][1]):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0), path


def test_starts_with_a_nearly_flat_map_and_standing_still(networks):
    for out in networks["depth"][0]:
        np.testing.assert_allclose(out, jax.nn.sigmoid(-1.0), atol=0.1)
    standing = networks["pose"][0], networks["posecnn"][0][0], networks["correlation"][0][0]
    for twists in standing:
        assert np.max(np.abs(twists)) > 0
        poses = np.asarray(jax.jit(se3_exp)(twists))
        np.testing.assert_allclose(poses, np.eye(4)[None, None] + 0 * poses, atol=0.01)


def test_correlation_treats_every_other_frame_alike():
    """Two other frames in the other order give the motions and the masks in the other order."""
    knobs = {"frames": 3, "decoder_width": 8, "explainability": True}
    model = build_pose_network(section(), name="correlation", **knobs)
    a, b, c = (draw(name, 1, 24, 40, 3) for name in "abc")

    @jax.jit
    def run(frames):
        return model.apply(*model.init(jax.random.key(0), frames), frames, False)[0]

    twists, masks = jax.device_get(run(np.concatenate([a, b, c], -1)))
    swapped, swapped_masks = run(np.concatenate([a, c, b], -1))
    assert twists.shape == (1, 2, 6) and np.abs(twists[:, 0] - twists[:, 1]).max() > 1e-6
    np.testing.assert_allclose(swapped, twists[:, ::-1], rtol=1e-5, atol=1e-9)
    for i, (mask, other) in enumerate(zip(masks, swapped_masks)):
        assert mask.shape == (1, 24 >> i, 40 >> i, 2)
        np.testing.assert_allclose(other, mask[..., ::-1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("factor, shift", [(1, (4, -2)), (2, (12, -8)), (1, (0, 0))])
def test_random_features_know_how_far_a_frame_was_moved(factor, shift):
    """The flow that the pose network reads, before any training, of a shift by (x, y) pixels."""
    x, y = shift
    first = np.random.default_rng(0).random((1, 64, 96, 3)).astype(np.float32)
    second = np.roll(first, (y, x), axis=(1, 2))
    model = Features(width=32)

    @jax.jit
    def found(frames):
        a, b = jnp.split(model.init_with_output(jax.random.key(0), frames)[0], 2)
        assert a.shape == (1, 32, 48, 32)
        return coarse_flow(a, b, 40.0, 3, factor)

    inner = np.asarray(found(np.concatenate([first, second])))[0, 8:-8, 8:-8]
    np.testing.assert_allclose(inner.mean((0, 1))[:2], [x / 2, y / 2], atol=0.05)
    assert inner[..., 2].mean() > 0.9


def test_a_search_at_a_lower_resolution_keeps_places_where_sizes_do_not_divide():
    """Displacements are in places of the map that was given, along each side by its own factor."""
    find = jax.jit(coarse_flow, static_argnums=(2, 3, 4))
    a = np.random.default_rng(1).normal(size=(2, 9, 14, 6)).astype(np.float32)
    low = np.asarray(find(a, a, 1e4, 2, 4))
    assert low.shape == (2, 9, 14, 3)
    np.testing.assert_allclose(low, np.broadcast_to([0.0, 0.0, 1.0], low.shape), atol=1e-5)
    thirds = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)  # of the width, a feature each
    thirds = np.tile(thirds, (1, 9, 1, 1))
    flow = np.asarray(find(thirds, np.roll(thirds, -4, axis=2), 1e4, 1, 4))
    np.testing.assert_allclose(flow[0, :, 6:, 0], -4.0, atol=1e-4)


def test_equal_frames_of_a_shared_encoder_can_be_stacked_or_not():
    """What the first convolution gives of one frame, as a stage of its own and as one of one."""
    model = from_linen(PoseDecoder(width=4))
    stage = draw("one", 2, 2, 3, 5)
    params, state = jax.jit(model.init)(jax.random.key(0), {"stages": {"a": stage}})
    apply = jax.jit(lambda stages: model.apply(params, state, {"stages": stages}, False)[0])
    alone, framed = apply({"a": stage}), apply({"0": stage, "a": stage[:, None]})
    np.testing.assert_array_equal(alone, framed)


def test_stem_is_a_stage_only_where_asked_for():
    x = jnp.zeros((1, 32, 32, 3))
    one, other = (from_linen(ResNet(blocks=(1,), width=0.125, stem_stage=s)) for s in (True, False))
    variables = jax.eval_shape(one.init, jax.random.key(0), x)
    assert variables == jax.eval_shape(other.init, jax.random.key(0), x)
    found = [
        jax.eval_shape(lambda p, s, m=m: m.apply(p, s, x, False)[0], *variables).stages
        for m in (one, other)
    ]
    assert list(found[0]) == ["stage0", "stage1"] and list(found[1]) == ["stage1"]
    assert found[0]["stage0"].shape == (1, 16, 16, 8)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: depth_network(section(name="vit_tiny")), "decoded from the stages"),
        (lambda: depth_network(section(name="resnet")), "did you mean"),
        (lambda: depth_network(section(name="dispnet", blocks=(1,))), "leave it ()"),
        (lambda: depth_network(section(name="dispnet", small_stem=True)), "set it back"),
        (lambda: depth_network(section(), scale=3), 'no "scale": did you mean "scales"'),
        (lambda: build_pose_network(section(), name="pose_cnn"), 'did you mean "posecnn"'),
        (lambda: build_pose_network(section(name="vit_tiny")), 'no pose network "vit_tiny"'),
        (lambda: build_pose_network(section(), explainability=4), 'Only "posecnn"'),
        (lambda: build_pose_network(section(), factors=(1, 4)), 'Only "correlation"'),
        (lambda: build_pose_network(section(), name="correlation", factors=(4, 0)), "each >= 1"),
        (
            lambda: shapes(depth_network(section(patch_stem=4)), 1, 30, 32, 3),
            "no halving of the images' (30, 32)",
        ),
        (lambda: shapes(depth_network(section(), scales=6), 1, 64, 64, 3), "6 scales"),
        (lambda: shapes(depth_network(section()), 1, 1, 1, 3), "4 scales"),
        (lambda: shapes(depth_network(section()), 1, 0, 0, 3), "the images' (0, 0)"),
    ],
)
def test_what_cannot_be_built_says_why(build, message):
    with pytest.raises(UserError, match=re.escape(message)):
        build()


def test_width_scales_both_halves_of_dispnet_unless_told_otherwise():
    config = section(name="dispnet", width=0.125)
    params, _ = shapes(depth_network(config), 1, 32, 32, 3)
    assert params["encoder"]["conv1"]["kernel"].shape == (7, 7, 3, 4)
    assert params["decoder"]["conv0"]["bias"].shape == (2,)
    params, _ = shapes(depth_network(config, widths=(3, 5)), 1, 32, 32, 3)
    assert [params["decoder"][f"conv{i}"]["bias"].shape for i in (0, 1, 4)] == [(3,), (5,), (5,)]


def test_pose_network_goes_with_the_depth_network():
    params, _ = shapes(build_pose_network(section(name="dispnet", width=0.125)), 1, 32, 32, 6)
    assert "conv7" in params
    params, _ = shapes(build_pose_network(section(width=0.125), name="resnet10"), 1, 32, 32, 6)
    assert set(params) == {"encoder", "decoder"} and "layer1_1" not in params["encoder"]
