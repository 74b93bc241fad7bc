"""Steps compiled for TPUs that are not here, where their compiler is installed."""

import importlib.util
import os

import pytest
from collectives import assert_modest

from sslax.methods import METHODS
from sslax.planning import measure, topologies
from sslax.planning.contents import contents_of
from sslax.planning.report import format_report

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: sslax[tpu]"
)


# A step takes from ten seconds to more than a minute to compile.
EVERY = os.environ.get("SSLAX_TPU") == "every"
# smurf_multi_frame starts from the weights of another run.
NAMES = (
    sorted(METHODS.keys() - {"smurf_multi_frame"}) if EVERY else ["simclr", "barlow_twins", "mae"]
)


@pytest.fixture
def programs(monkeypatch):
    """Grows by every program that is measured."""
    found, read = [], measure.hlo.Program

    def keep(text):
        found.append(read(text))
        return found[-1]

    monkeypatch.setattr(measure.hlo, "Program", keep)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_tiny_step_for_a_pod(name, load_config, programs):
    config = load_config(name, "tiny")
    topology = topologies.find("v5e:2x4")
    found = measure.measure(config, contents_of(config, "tiny"), topology)
    assert (found.devices, topology.hosts, topology.platform) == (8, 2, "tpu")
    assert found.memory.fits
    assert found.memory.peak >= found.memory.inputs + found.memory.state
    assert found.estimate.seconds > 0 and not found.estimate.bound
    assert any(place.startswith("sslax/") for place in found.cycles)
    text = format_report(config, found)
    assert "v5e:2x4: 8 x TPU v5e, 2 host(s)" in text
    assert "slowest lines of" in text
    (program,) = programs
    assert_modest(program, found.plan)
    # What the compiler counts of the whole program is the sum over the lines.
    total = sum(i.runs * i.cycles for i in program.instructions)
    assert sum(found.cycles.values()) == total


def test_arrangements_that_there_are_not():
    with pytest.raises(topologies.UserError, match="v5e:3x3 is not an arrangement of TPU v5e"):
        topologies.find("v5e:3x3")
