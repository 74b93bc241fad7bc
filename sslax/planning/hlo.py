"""Reads optimized HLO text: how often each instruction runs, what it moves, where it comes from.

The text is that of `Compiled.as_text()`. It names the source line of each instruction in a table of
stack frames, and for loops the number of trips where the compiler knew it.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

PACKAGE = Path(__file__).parents[1]
ELSEWHERE = "elsewhere"  # the place of what no line of the package asked for
REACH = 4  # operands of operands that are asked for a place

COLLECTIVES = (
    *("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all"),
    *("collective-permute", "collective-broadcast"),
)
_WITH_OPERANDS = ("all-gather", "reduce-scatter", "collective-permute")  # in an async's result
_HOST = ("infeed", "outfeed", "send", "recv")
_BITS = {"pred": 8, "token": 0, "opaque": 0}  # others have them in their name, as in bf16

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*->.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z0-9\-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\]")
_CALLED = re.compile(r"\b(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_LOOP = re.compile(r"\b(condition|body)=%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count"?:?\{"?n"?:"?(\d+)')
_CYCLES = re.compile(r'"estimated_cycles":"?(\d+)')
_UNKNOWN_CYCLES = 2**63 - 1
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")


class Array(NamedTuple):
    """An array in the result of an instruction."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> float:
        """Bytes, without the padding of the device's layout."""
        bits = _BITS.get(self.dtype)
        if bits is None:
            bits = int(re.search(r"\d+", self.dtype)[0])
        return self.size * bits / 8


def arrays(text: str) -> list[Array]:
    """The arrays of a type as HLO writes it.

    Example:
        >>> arrays("(bf16[2,8]{1,0:T(2,128)}, u32[])")
        [Array(dtype='bf16', shape=(2, 8)), Array(dtype='u32', shape=())]
    """
    found = []
    for dtype, dimensions in _ARRAY.findall(text):
        if dtype in _BITS or re.fullmatch(r"(?:s|u|f|bf|c)\d+\w*", dtype):
            shape = tuple(int(d.lstrip("<=")) for d in dimensions.split(",") if d)
            found.append(Array(dtype, shape))
    return found


class Instruction(NamedTuple):
    """One instruction of a computation that runs.

    Attributes:
        name: unique in the program.
        opcode: such as `fusion`, `all-reduce-start`.
        result: its type.
        rest: operands and attributes, as text.
        runs: how often it runs in a step. A branch of a conditional counts as if it was taken.
        calls: how often it would run if every loop had one trip, as XLA's own analysis counts.
        place: the innermost line of source in the stack that asked for it, or else for an operand,
            or for the loop that it is in: `sslax/losses/contrastive.py:120`; or `ELSEWHERE`.
    """

    name: str
    opcode: str
    result: str
    rest: str
    runs: int = 0
    calls: int = 0
    place: str = ELSEWHERE

    @property
    def operands(self) -> list[str]:
        """Names of its operands."""
        return re.findall(r"%([\w.\-]+)", self.rest.partition(")")[0])

    @property
    def op_name(self) -> str:
        """The path of JAX's transformations and primitives that led to it."""
        found = re.search(r'op_name="([^"]*)"', self.rest)
        return found[1] if found else ""

    @property
    def cycles(self) -> int:
        """The compiler's estimate for one run; 0 where it has none, as on CPUs and GPUs."""
        if self.opcode in ("while", "conditional", "call"):
            return 0  # that of their computations is counted by itself
        found = _CYCLES.search(self.rest)
        cycles = int(found[1]) if found else 0
        return 0 if cycles == _UNKNOWN_CYCLES else cycles

    @property
    def target(self) -> str:
        """What a custom call calls."""
        found = re.search(r'custom_call_target="([^"]*)"', self.rest)
        return found[1] if found else ""


class Collective(NamedTuple):
    """A communication between devices.

    Attributes:
        kind: one of `COLLECTIVES`.
        runs: how often it runs in a step.
        bytes: of the whole array, once: the sum of an all-reduce, the result of an all-gather, the
            operand of a reduce-scatter.
        devices: how many take part in a group.
        arrays: the arrays of its result.
        place: the line of source that asked for it.
        op_name: as in `Instruction`.
    """

    kind: str
    runs: int
    bytes: float
    devices: int
    arrays: tuple[Array, ...]
    place: str
    op_name: str

    @property
    def sent(self) -> float:
        """Bytes that each device sends in one run, by the algorithms on a ring."""
        others = (self.devices - 1) / max(self.devices, 1)
        factor = {"all-reduce": 2 * others, "collective-permute": 1.0, "collective-broadcast": 1.0}
        return self.bytes * factor.get(self.kind, others)


class Loop(NamedTuple):
    """A loop: its trips in a step, None where the text does not say, and its line of source."""

    trips: int | None
    place: str


class Program:
    """A compiled program.

    Args:
        text: optimized HLO.
        package: the folder whose source lines are of interest.

    Attributes:
        instructions: those that run, fusions and what is inside of them alike.
        loops: those that run.
    """

    def __init__(self, text: str, *, package: Path = PACKAGE) -> None:
        self._package = package
        self._tables = _read_tables(text)
        self._computations, entry = _read_computations(text)
        self._named = {i.name: i for group in self._computations.values() for i in group}
        self._places: dict[tuple[str, int], str | None] = {}
        self._frames: dict[int, str | None] = {}
        self.loops: list[Loop] = []
        # By computation: runs, calls, and the place of the first caller.
        self._runs: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._callers: dict[str, str] = {}
        if entry:
            self._visit(entry, 1, 1, ELSEWHERE)
        self.instructions = [
            instruction._replace(
                runs=self._runs[name],
                calls=self._calls[name],
                place=self._place(instruction, caller),
            )
            for name, caller in self._callers.items()
            for instruction in self._computations[name]
        ]

    @cached_property
    def collectives(self) -> list[Collective]:
        """All communication; of an asynchronous one its start.

        A reduce-scatter is, in a TPU's program, a computation of that name that seems to reduce the
        whole array and to take a slice of it.
        """
        found = []
        for instruction in self.instructions:
            kind = instruction.opcode.removesuffix("-start")
            if kind in COLLECTIVES:
                scattered = instruction.name in self._scattered
                found.append(self._collective(instruction, "reduce-scatter" if scattered else kind))
        return found

    def cycles_by_place(self) -> Counter[str]:
        """The compiler's cycles in a step by line of source; empty where it has no estimates."""
        by_place: Counter[str] = Counter()
        for instruction in self.instructions:
            if cycles := instruction.cycles:
                by_place[instruction.place] += cycles * instruction.runs
        return by_place

    def matrix_operations(self) -> float:
        """Floating-point operations of convolutions and matrix products in a step."""
        return sum(i.runs * self._matrix_operations(i) for i in self.instructions)

    def repeated_operations(self) -> float:
        """Those of all trips of loops but the first, which XLA's own analysis leaves out."""
        return sum(
            (i.runs - i.calls) * self._matrix_operations(i)
            for i in self.instructions
            if i.runs != i.calls
        )

    def dtypes(self) -> set[str]:
        """Types of all arrays."""
        return {a.dtype for result in {i.result for i in self.instructions} for a in arrays(result)}

    def host_transfers(self) -> list[str]:
        """What leaves the device in mid-step: opcodes, or targets of custom calls."""
        found = [i.opcode for i in self.instructions if i.opcode.startswith(_HOST)]
        calls = [i.target for i in self.instructions if i.opcode == "custom-call"]
        return found + [target for target in calls if "callback" in target.lower()]

    def _visit(self, name: str, times: int, calls: int, caller: str) -> None:
        """Counts the runs of a computation, and of those that it calls."""
        self._runs[name] += times
        self._calls[name] += calls
        self._callers.setdefault(name, caller)
        for instruction in self._computations[name]:
            if instruction.opcode == "while":
                place = self._place(instruction, caller)
                parts = dict(_LOOP.findall(instruction.rest))
                trips = self._trips(instruction, parts["condition"])
                self.loops.append(Loop(None if trips is None else times * trips, place))
                self._visit(parts["body"], times * (1 if trips is None else trips), calls, place)
            elif called := _called(instruction):
                place = self._place(instruction, caller)
                for computation in called:
                    self._visit(computation, times, calls, place)

    def _place(self, instruction: Instruction, caller: str) -> str:
        """The line of the instruction, or else of an operand, or else the caller's.

        The compiler joins small all-reduces and forgets where they are from; operands know.
        """
        return self._own_place(instruction.name, REACH) or caller

    def _own_place(self, name: str, reach: int) -> str | None:
        key = (name, reach)
        if key not in self._places and (instruction := self._named.get(name)):
            found = re.search(r"stack_frame_id=(\d+)", instruction.rest)
            place = self._innermost(int(found[1])) if found else None
            if place is None and reach and instruction.opcode != "parameter":
                places = (self._own_place(operand, reach - 1) for operand in instruction.operands)
                place = next(filter(None, places), None)
            self._places[key] = place
        return self._places.get(key)

    def _innermost(self, frame: int) -> str | None:
        """The innermost line of the package in the stack of a frame."""
        if frame not in self._tables["StackFrames"]:
            return None
        if frame not in self._frames:
            fields = _fields(self._tables["StackFrames"][frame])
            location = _fields(self._tables["FileLocations"][fields["file_location_id"]])
            file = Path(self._tables["FileNames"][location["file_name_id"]].strip('"'))
            if file.is_relative_to(self._package):
                place = f"{file.relative_to(self._package.parent)}:{location['line']}"
            else:  # the parent is written one too high, so that 1 is none
                place = self._innermost(fields.get("parent_frame_id", 0) - 1)
            self._frames[frame] = place
        return self._frames[frame]

    def _trips(self, instruction: Instruction, condition: str) -> int | None:
        """A loop's trips: what the compiler says, or the bound that its condition compares with."""
        if known := _TRIPS.search(instruction.rest):
            return int(known[1])
        bounds = [
            int(inner.rest.partition(")")[0])
            for inner in self._inside(condition)
            if inner.opcode == "constant" and re.match(r"\d+\)", inner.rest)
        ]
        return max(bounds, default=None)

    def _inside(self, name: str) -> Iterator[Instruction]:
        """Instructions of a computation and of all that it calls."""
        for instruction in self._computations[name]:
            yield instruction
            for called in _called(instruction):
                yield from self._inside(called)

    def _collective(self, instruction: Instruction, kind: str) -> Collective:
        found = arrays(instruction.result)
        if instruction.opcode != kind and kind in _WITH_OPERANDS:
            found = [array for array in found if array.shape]  # without the contexts
            found = found[len(found) // 2 :]
        devices = _group_size(instruction.rest)
        size = sum(array.bytes for array in found)
        return Collective(
            kind=kind,
            runs=instruction.runs,
            bytes=size * devices if instruction.opcode.startswith("reduce-scatter") else size,
            devices=devices,
            arrays=tuple(found),
            place=instruction.place,
            op_name=instruction.op_name,
        )

    @cached_property
    def _scattered(self) -> set[str]:
        """Names of the all-reduces of which each device computes its slice alone."""
        names = [name for name in self._callers if name.startswith("all-reduce-scatter")]
        return {i.name for name in names for i in self._computations[name]}

    @cached_property
    def _results(self) -> dict[str, list[Array]]:
        return {i.name: arrays(i.result) for i in self.instructions}

    def _matrix_operations(self, instruction: Instruction) -> float:
        """Floating-point operations of one run; 0 for what is no matrix product."""
        kind = instruction.opcode
        if kind not in ("dot", "convolution") and not instruction.target.startswith("__cu"):
            return 0.0
        shapes = [self._results[name][0] for name in instruction.operands]
        output = self._results[instruction.name][0]
        if kind == "convolution":
            return 2.0 * _multiply_adds(shapes[0], shapes[1], output, instruction.rest)
        if labels := re.search(r"dim_labels=\w+_(\w+)->", instruction.rest):
            # cuDNN's calls for gradients describe the convolution that they are of.
            if "convBackwardInput" in instruction.target:
                output = shapes[0]
            kernel = shapes[1]
            if "convBackwardFilter" in instruction.target:
                output, kernel = shapes[1], output
            return 2.0 * output.size * kernel.size / kernel.shape[labels[1].index("o")]
        contracted = re.search(
            r'lhs_contracting_dim(?:s|ensions)"?[=:][\[{]([\d,"]*)', instruction.rest
        )
        if not contracted:
            return 0.0
        axes = [int(axis) for axis in re.findall(r"\d+", contracted[1])]
        return 2.0 * output.size * math.prod(shapes[0].shape[axis] for axis in axes)


def _multiply_adds(image: Array, kernel: Array, output: Array, attributes: str) -> int:
    """Those of a convolution, without the ones with padding and with the zeros of a dilated image.

    TPUs have all products as convolutions, where a batched one has its batch as an axis of the
    window, dilated so that each output meets one element alone.
    """
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
    assert labels, attributes
    of_image, of_kernel, of_output = labels.groups()
    window = _window(attributes)
    count = output.shape[of_output.index("b")] * output.shape[of_output.index("f")]
    count *= kernel.shape[of_kernel.index("i")]
    for axis in range(len(of_output) - 2):
        name = str(axis)
        stride, low, dilation, step = (
            window[part][axis] if part in window else neutral
            for part, neutral in (("stride", 1), ("pad", 0), ("lhs_dilate", 1), ("rhs_dilate", 1))
        )
        starts = stride * np.arange(output.shape[of_output.index(name)]) - low
        places = starts[:, None] + step * np.arange(kernel.shape[of_kernel.index(name)])
        end = dilation * image.shape[of_image.index(name)]
        count *= int(np.sum((places >= 0) & (places < end) & (places % dilation == 0)))
    return count


def _window(attributes: str) -> dict[str, list[int]]:
    """The numbers of a convolution's window, axis by axis; of its padding those before the image.

    Example:
        >>> _window("window={size=3x5 pad=1_1x-2_0 rhs_dilate=2x1}, dim_labels=")
        {'size': [3, 5], 'pad': [1, -2], 'rhs_dilate': [2, 1]}
    """
    found = re.search(r"\bwindow=\{([^}]*)\}", attributes)
    parts = (part.split("=") for part in (found[1].split() if found else []))
    return {
        name: [int(number.partition("_")[0]) for number in numbers.split("x")]
        for name, numbers in parts
    }


def _called(instruction: Instruction) -> list[str]:
    """Computations that an instruction calls, but for those of a loop."""
    branches = _BRANCHES.search(instruction.rest)
    names = [name.strip(" %") for name in branches[1].split(",")] if branches else []
    return names + _CALLED.findall(instruction.rest)


def _read_computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Instructions by computation, and the name of the first that runs."""
    computations: dict[str, list[Instruction]] = {}
    entry, name = "", None
    for line in text.splitlines():
        if name is None:
            if header := _COMPUTATION.match(line):
                name = header[2]
                computations[name] = []
                entry = name if header[1] else entry
        elif line.startswith("}"):
            name = None
        elif found := _INSTRUCTION.match(line):
            computations[name].append(Instruction(found[1], found[3], found[2], found[4], 0))
    return computations, entry


def _read_tables(text: str) -> dict[str, dict[int, str]]:
    """The tables of files, functions, lines and stack frames in front of the program."""
    tables: dict[str, dict[int, str]] = {name: {} for name in _TABLES}
    current = None
    for line in text.splitlines():
        if line in _TABLES:
            current = line
        elif current and (row := re.match(r"(\d+) (.*)", line)):
            tables[current][int(row[1])] = row[2]
        elif _COMPUTATION.match(line):
            break
    return tables


def _fields(row: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"\b(\w+)=(\d+)", row)}


def _group_size(rest: str) -> int:
    """Devices in each group of a collective.

    Example:
        >>> _group_size("replica_groups=[2,4]<=[8], x"), _group_size("replica_groups={{0,1},{2,3}}")
        (4, 2)
        >>> _group_size("replica_groups=mesh['a'=2,'b'=4] {'b'}, channel_id=1")
        4
    """
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        return math.prod(sizes[name] for name in re.findall(r"'(\w+)'", mesh[2]))
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=", rest):
        return int(iota[1].split(",")[-1])
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
        return len(listed[1].split(","))
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", rest):
        return pairs[1].count("{")
    return 1


def totals(collectives: Iterable[Collective]) -> dict[str, tuple[int, float]]:
    """How many run in a step, and their bytes, by kind."""
    found: dict[str, tuple[int, float]] = {}
    for collective in collectives:
        count, size = found.get(collective.kind, (0, 0.0))
        runs = collective.runs
        found[collective.kind] = (count + runs, size + runs * collective.bytes)
    return found
