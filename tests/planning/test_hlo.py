"""Programs whose communication, loops and lines are known."""

import importlib.util
import math
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from sslax.planning import hlo
from sslax.planning.hlo import Program
from sslax.training import sharding


@pytest.fixture
def mesh():
    return sharding.make_mesh(jax.devices()[:8])


def program(function, *arguments, **options):
    compiled = jax.jit(function, **options).lower(*arguments).compile()
    return Program(compiled.as_text())


def test_a_sum_over_devices_is_an_all_reduce_of_its_result(mesh):
    x = jax.ShapeDtypeStruct((32, 16), jnp.float32, sharding=sharding.batch_sharding(mesh))
    found = program(lambda x: x.sum(0), x, out_shardings=sharding.replicated(mesh))
    (reduced,) = found.collectives
    assert (reduced.kind, reduced.runs, reduced.bytes, reduced.devices) == ("all-reduce", 1, 64, 8)
    assert reduced.sent == 2 * 7 / 8 * 64
    assert hlo.totals(found.collectives) == {"all-reduce": (1, 64)}


def test_a_gather_has_the_size_of_its_result(mesh):
    x = jax.ShapeDtypeStruct((32, 16), jnp.float32, sharding=sharding.batch_sharding(mesh))
    found = program(lambda x: 2 * x, x, out_shardings=sharding.replicated(mesh))
    (gathered,) = found.collectives
    assert (gathered.kind, gathered.bytes, gathered.devices) == ("all-gather", 32 * 16 * 4, 8)
    assert gathered.sent == 7 / 8 * 32 * 16 * 4


def test_one_device_has_nobody_to_talk_to():
    assert not program(lambda x: x.sum(0), jnp.ones((32, 16))).collectives


ASYNCHRONOUS = """HloModule written_by_hand

ENTRY %main (p: bf16[4,8]) -> bf16[32,8] {
  %p = bf16[4,8]{1,0:T(8,128)} parameter(0)
  %gather = (bf16[4,8]{1,0}, bf16[32,8]{1,0}) all-gather-start(%p), replica_groups=[1,8]<=[8]
  %gathered = bf16[32,8]{1,0} all-gather-done(%gather)
  %scatter = ((bf16[32,8]{1,0}), bf16[4,8]{1,0}) reduce-scatter-start(%gathered), \
replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  %permute = (bf16[4,8]{1,0}, bf16[4,8]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) \
collective-permute-start(%p), source_target_pairs={{0,1},{1,0}}
  ROOT %reduced = (f32[8]{0}, f32[2,3]{1,0}) all-reduce-start(%p, %p), \
replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, to_apply=%add
}

%add (a: bf16[], b: bf16[]) -> bf16[] {
  %a = bf16[] parameter(0)
  %b = bf16[] parameter(1)
  ROOT %sum = bf16[] add(%a, %b)
}
"""


def test_asynchronous_collectives_count_once_and_without_their_operands():
    found = {c.kind: (c.runs, c.bytes, c.devices) for c in Program(ASYNCHRONOUS).collectives}
    assert found == {
        "all-gather": (1, 32 * 8 * 2, 8),
        "reduce-scatter": (1, 32 * 8 * 2, 8),
        "collective-permute": (1, 4 * 8 * 2, 2),
        "all-reduce": (1, (8 + 6) * 4, 4),
    }


SCATTERED = """HloModule written_by_hand

%all-reduce-scatter.1 (input: bf16[32,8]) -> bf16[4,8] {
  %input = bf16[32,8]{1,0:T(8,128)(2,1)} parameter(0)
  %whole = bf16[32,8]{1,0:T(8,128)(2,1)} all-reduce(%input), \
replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  %zero = u32[] constant(0)
  ROOT %slice = bf16[4,8]{1,0:T(8,128)(2,1)} dynamic-slice(%whole, %zero, %zero), \
dynamic_slice_sizes={4,8}
}

%add (a: bf16[], b: bf16[]) -> bf16[] {
  %a = bf16[] parameter(0)
  %b = bf16[] parameter(1)
  ROOT %sum = bf16[] add(%a, %b)
}

ENTRY %main (p: bf16[32,8]) -> bf16[4,8] {
  %p = bf16[32,8]{1,0:T(8,128)} parameter(0)
  ROOT %scattered = bf16[4,8]{1,0:T(8,128)} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1
}
"""


def test_a_sum_of_which_each_device_keeps_a_slice_is_a_reduce_scatter_on_tpus():
    (found,) = Program(SCATTERED).collectives
    assert (found.kind, found.runs, found.bytes) == ("reduce-scatter", 1, 32 * 8 * 2)
    assert found.sent == 7 / 8 * 32 * 8 * 2


def powers(x, trips):
    return jax.lax.scan(lambda y, _: (jnp.tanh(y @ x), None), x, length=trips)[0]


def test_loops_multiply_what_is_in_them():
    found = program(lambda x: powers(x, 5), jnp.eye(16))
    assert [loop.trips for loop in found.loops] == [5]
    one = 2 * 16**3
    assert found.matrix_operations() == 5 * one
    assert found.repeated_operations() == 4 * one


def test_loops_in_loops():
    def outer(x):
        return jax.lax.scan(lambda y, _: (powers(y, 4), None), x, length=3)[0]

    found = program(outer, jnp.eye(16))
    assert sorted(loop.trips for loop in found.loops) == [3, 12]
    assert found.matrix_operations() == 12 * 2 * 16**3
    assert found.repeated_operations() == 11 * 2 * 16**3


def test_a_collective_in_a_loop_runs_in_every_trip(mesh):
    def step(x):
        def body(total, _):
            return total / 2 + x.sum(0) * total.mean(), None

        return jax.lax.scan(body, jnp.ones(16), length=6)[0]

    x = jax.ShapeDtypeStruct((32, 16), jnp.float32, sharding=sharding.batch_sharding(mesh))
    found = program(step, x, out_shardings=sharding.replicated(mesh))
    assert sum(c.runs for c in found.collectives if c.kind == "all-reduce") in (1, 6)


def test_what_is_called_twice_is_no_loop():
    text = """HloModule written_by_hand

%product (a: f32[4,4]) -> f32[4,4] {
  %a = f32[4,4]{1,0} parameter(0)
  ROOT %dot = f32[4,4]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main (x: f32[4,4]) -> f32[4,4] {
  %x = f32[4,4]{1,0} parameter(0)
  %once = f32[4,4]{1,0} call(%x), to_apply=%product
  ROOT %twice = f32[4,4]{1,0} call(%once), to_apply=%product
}
"""
    assert Program(text).matrix_operations() == 2 * (2 * 4**3)
    assert Program(text).repeated_operations() == 0
    assert Program("").instructions == []


def test_trips_that_depend_on_a_value_are_unknown():
    found = program(lambda n: jax.lax.fori_loop(0, n, lambda i, x: jnp.sin(x + i), 1.0), 3)
    assert None in {loop.trips for loop in found.loops}


def test_operations_of_convolutions():
    x, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 6))

    def convolve(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=numbers)

    assert program(convolve, x, kernel).matrix_operations() == 2 * (2 * 6 * 6 * 6) * (3 * 3 * 4)


@pytest.mark.parametrize(
    "knobs",
    [
        {"window_strides": (1, 1), "padding": "SAME"},
        {"window_strides": (2, 1), "padding": [(3, 0), (-1, 2)], "rhs_dilation": (1, 2)},
        {"window_strides": (1, 1), "padding": [(2, 1), (0, 2)], "lhs_dilation": (2, 3)},
        {"window_strides": (1, 2), "padding": "VALID", "feature_group_count": 2},
    ],
)
def test_operations_of_convolutions_are_those_that_xla_counts(knobs):
    x, kernel = (
        jnp.ones((2, 9, 8, 4)),
        jnp.ones((3, 5, 4 // knobs.get("feature_group_count", 1), 6)),
    )
    numbers = ("NHWC", "HWIO", "NHWC")
    convolve = partial(jax.lax.conv_general_dilated, dimension_numbers=numbers, **knobs)
    compiled = jax.jit(convolve).lower(x, kernel).compile()
    assert Program(compiled.as_text()).matrix_operations() == compiled.cost_analysis()["flops"]


def test_operations_of_a_batched_product_that_a_tpu_has_as_a_convolution():
    text = """HloModule written_by_hand

ENTRY %main (a: f32[2,5,9,7], b: f32[2,5,7,4]) -> f32[2,5,9,4] {
  %a = f32[2,5,9,7]{3,2,1,0} parameter(0)
  %b = f32[2,5,7,4]{3,2,1,0} parameter(1)
  ROOT %c = f32[2,5,9,4]{3,2,1,0} convolution(%a, %b), window={size=2x5 stride=1x4 lhs_dilate=2x5}, dim_labels=01bf_01io->01bf
}
"""  # noqa: E501
    assert Program(text).matrix_operations() == 2 * (2 * 5) * (9 * 7 * 4)


def test_cycles_that_the_compiler_does_not_know_count_as_none():
    text = """HloModule written_by_hand

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %b = f32[8]{0} negate(%a), backend_config={"estimated_cycles":"120"}
  ROOT %c = f32[8]{0} sort(%b), backend_config={"estimated_cycles":"9223372036854775807"}
}
"""
    assert sum(Program(text).cycles_by_place().values()) == 120


SOURCE = """import jax

def inner(x):
    return jax.nn.logsumexp(x * 3.0, axis=0)


def outer(x):
    return inner(x)
"""


def test_places_are_the_innermost_line_of_the_package(tmp_path, mesh):
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("module", package / "module.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x = jax.ShapeDtypeStruct((32, 16), jnp.float32, sharding=sharding.batch_sharding(mesh))
    compiled = jax.jit(module.outer, out_shardings=sharding.replicated(mesh)).lower(x).compile()
    found = Program(compiled.as_text(), package=package).collectives
    assert found
    assert {c.place for c in found} == {"package/module.py:4"}
    assert {c.place for c in Program(compiled.as_text()).collectives} == {hlo.ELSEWHERE}


def test_callbacks_and_double_precision_are_seen():
    def wait(x):
        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((), jnp.float32), x)

    assert program(wait, jnp.float32(1)).host_transfers()
    assert not program(jnp.sin, jnp.float32(1)).host_transfers()
    assert "f64" not in program(jnp.sin, jnp.float32(1)).dtypes()
    with jax.enable_x64(True):
        assert "f64" in program(jnp.sin, jnp.ones((), jnp.float64)).dtypes()


def test_bytes_of_types():
    text = "(pred[3], bf16[2,3]{1,0:T(2,128)(2,1)S(1)}, s4[4], f8e4m3fn[8], c64[2], token[], f32[])"
    sizes = [array.bytes for array in hlo.arrays(text)]
    assert sizes == [3, 12, 2, 8, 16, 0, 4]
    assert math.prod(hlo.arrays("f32[<=8,2]")[0].shape) == 16
