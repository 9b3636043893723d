"""Every helper with hostile arguments, made from the registry: nobody has to think of a new helper.

Each argument in turn is everything that is wrong (null, wrapping, straddling, read-only, overlapping, 4 GiB,
negative, huge flags) while the others are good, then all of them by lot. Engines run the very same memory,
each in a child with little address space to take. They must agree to the last letter of a fault; only an
EbpfError may come out, and no call may take a second.
"""

from __future__ import annotations

import inspect
import random
import time
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from types import FunctionType
from typing import Any

import pytest

from ebpfjit import EbpfError, Program
from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.difftest.children import run_forked
from ebpfjit.errors import ExecutionError
from ebpfjit.interpreter import interpret
from ebpfjit.jit.entry import compile_program
from ebpfjit.options import Options
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts import give_back, program_type, take
from ebpfjit.runtime.contexts.skb import SkbContext
from ebpfjit.runtime.environment import Environment, Task
from ebpfjit.runtime.execution import CODE_ADDRESS, Execution, HelperFunction
from ebpfjit.runtime.helpers import stock
from ebpfjit.runtime.helpers.maps import TAKES
from ebpfjit.runtime.helpers.table import bound, helpers
from ebpfjit.runtime.kfuncs.table import bound as kernel_functions
from ebpfjit.runtime.kfuncs.table import kfuncs
from ebpfjit.runtime.maps import MapDefinition, MapFlag, MapType, create
from ebpfjit.runtime.maps.bytecode import ARRAYS, HASHES
from ebpfjit.runtime.maps.events import PerfEventArray, RingBuffer
from ebpfjit.runtime.maps.user_ring import UserRingBuffer
from ebpfjit.runtime.memory import STACK_SIZE, Region, Stack
from ebpfjit.runtime.network import Interface, Network
from ebpfjit.runtime.objects import FIRST_OBJECT
from ebpfjit.runtime.sockets import Socket
from ebpfjit.runtime.world import World
from tests.support.limits import limit_memory
from tests.support.pace import within
from tests.support.whole import part

U64 = (1 << 64) - 1
LIMIT = 30_000
ROOM = 256 << 20  # bytes that a child may map more than it has
BY_LOT = 60
SAMPLES = 4  # in the user ring buffer
SECONDS = 60  # for all calls of a helper
MOST_SECONDS = 1.0  # for one of them

STOCK: dict[int, HelperFunction] = {
    1000 + number: function
    for number, (name, function) in enumerate(sorted(vars(stock).items()))
    if isinstance(function, FunctionType)
    and function.__module__ == stock.__name__
    and len(inspect.signature(function).parameters) == 5
    and function.__annotations__["return"] == "int"
    and name != "rand"  # which is asked for a random number
}
"""The helpers of rbpf, under numbers of our own."""

HERE = Environment(
    clock=lambda: 123_456_789_000,
    random=lambda: 0xCAFE_F00D,
    cpus=2,
    cpu=1,
    task=Task(pid=21, tgid=20, uid=1000, gid=100, comm="tester", cgroup_id=7),
    stack=(0x1000, 0x2000, 0x3000),
    sockets=(Socket("tcp", ("0.0.0.0", 0)), Socket("udp", ("0.0.0.0", 0))),
    network=Network(interfaces={1: Interface()}),
)
PACKET = bytes(12) + b"\x08\x00" + bytes([0x45]) + bytes(200)
SEGMENTS = (  # IPv6 with a segment routing header that has one segment, and room for what is no segment
    bytes(12) + b"\x86\xdd\x60\0\0\0\0\xb0\x2b\x40" + bytes(32) + bytes((59, 12, 4)) + bytes(173)
)
LIGHTWEIGHT = {"bpf_lwt_push": ("lwt_in", "tc"), "bpf_lwt_seg6": ("lwt_seg6local", "lwt_in")}
"""Types of programs for helpers, by how their names start."""
KERNEL = {
    3000 + number: kernel_functions()[name]
    for number, name in enumerate({each.function: each.name for each in kfuncs().values()}.values())
}
"""The kernel functions, called as helpers under numbers of our own: what they do is the same."""

HEADER = bytes(12) + b"\x60" + bytes(7) + bytes((2, 4, 5, 180))
"""A TCP header with one option."""
CONTEXTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bpf_sysctl_": (
        "cgroup_sysctl",
        {"write": 1, "name": "net/ipv4/ip_default_ttl", "current_value": b"64\n", "new_value": b"62"},
    ),
    "bpf_load_hdr_opt": ("sock_ops", {"op": 13, "skb_data": HEADER}),
    "bpf_store_hdr_opt": ("sock_ops", {"op": 15, "skb_data": HEADER}),
    "bpf_reserve_hdr_opt": ("sock_ops", {"op": 14}),
}
"""Contexts that are no packets, by how the names of their helpers start: the type, and what it is told."""

MOVING = frozenset(number for number, helper in helpers().items() if helper.ends_rights) | frozenset(KERNEL)


def definition(kind: MapType) -> MapDefinition:
    """Return a small map of a type."""
    key, value, entries, flags = 4, 8, 4, 0
    match kind:
        case MapType.QUEUE | MapType.STACK | MapType.BLOOM_FILTER:
            key = 0
        case MapType.RINGBUF | MapType.USER_RINGBUF:
            key, value, entries = 0, 0, 4096
        case MapType.ARENA:
            key, value, flags = 0, 0, int(MapFlag.MMAPABLE)
        case MapType.LPM_TRIE:
            key, flags = 8, int(MapFlag.NO_PREALLOC)
        case MapType.CPUMAP:
            entries = 2
        case MapType.SK_STORAGE | MapType.TASK_STORAGE | MapType.INODE_STORAGE | MapType.CGRP_STORAGE:
            entries, flags = 0, int(MapFlag.NO_PREALLOC)
        case MapType.CGROUP_STORAGE | MapType.PERCPU_CGROUP_STORAGE:
            key, entries = 16, 0
        case _ if kind.name.endswith(("PROG_ARRAY", "EVENT_ARRAY", "CGROUP_ARRAY", "XSKMAP", "OF_MAPS")):
            value = 4
    inner = MapDefinition("inner", MapType.ARRAY, 4, 8, 2) if kind.name.endswith("OF_MAPS") else None
    return MapDefinition(kind.name, kind, key, value, entries, flags, inner=inner)


KINDS = tuple(sorted({kind for kinds in TAKES.values() for kind in kinds} | {MapType.ARENA}))


@dataclass
class Arena:
    """The memory that all runs are given: the same for both engines, since they are forks of one process."""

    maps: dict[MapType, Any]
    mem: bytearray
    constants: bytes
    big: bytearray
    stack: bytearray
    arguments: bytearray
    regions: list[Region]

    @property
    def starts(self) -> dict[str, int]:
        """Where everything is, by name."""
        named = {region.name: region.start for region in self.regions}
        named |= {f"{kind.name} map": made.address for kind, made in self.maps.items()}
        for kind, made in self.maps.items():
            if made.regions:
                named[f"{kind.name} value"] = made.regions[0].start
        stack = Region.of_buffer("stack", self.stack)
        return named | {"frame": stack.stop - 512, "above": stack.stop, "below": stack.start}


@cache
def arena() -> Arena:
    """Make the memory, once."""
    maps: dict[MapType, Any] = {kind: create(definition(kind), environment=HERE) for kind in KINDS}
    for kind in (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS):
        maps[kind][1] = create(definition(kind).inner, environment=HERE)  # type: ignore[arg-type]
    for kind in (MapType.HASH, MapType.LRU_HASH, MapType.DEVMAP, MapType.QUEUE):
        if hasattr(maps[kind], "push"):
            maps[kind].push(5)
        else:
            maps[kind][1] = 5
    for _ in range(SAMPLES):
        maps[MapType.USER_RINGBUF].submit(bytes(16))
    for kind in (MapType.TASK_STORAGE, MapType.INODE_STORAGE, MapType.CGRP_STORAGE):
        maps[kind][FIRST_OBJECT] = 5
    maps[MapType.SK_STORAGE][HERE.sockets[0]] = 5
    mem, constants, big = bytearray(256), bytes(range(64)), bytearray(1 << 17)
    stack, arguments = bytearray(STACK_SIZE), bytearray(40)
    regions = [
        Region.of_buffer("mem", mem),
        Region.of_buffer("constants", constants),
        Region.of_buffer("big", big),
        Region.of_buffer("arguments", arguments),
    ]
    return Arena(maps, mem, constants, big, stack, arguments, regions)


def makes_its_answer_first(destination: int, size: int, unused3: int, unused4: int, unused5: int) -> int:
    """A helper as it must not be: `size` bytes are made before their place is checked."""
    memory.write(destination, bytes(size & 0xFFFF_FFFF))
    return 0


def reads_what_it_is_given(address: int, unused2: int, unused3: int, unused4: int, unused5: int) -> int:
    """A helper as it must not be: it looks into a table with a number of the program's."""
    return (1, 2, 3)[address & 0xFF]


def counts_to_what_it_is_given(count: int, unused2: int, unused3: int, unused4: int, unused5: int) -> int:
    """A helper as it must not be: it does what nobody pays for."""
    return sum(1 for _ in range(min(count, 1 << 25)))


CARELESS: dict[int, HelperFunction] = {
    2000: makes_its_answer_first, 2001: reads_what_it_is_given, 2002: counts_to_what_it_is_given,
}  # fmt: skip


# -- programs ---------------------------------------------------------------------------------------

CALL = """
    lddw r6, {arguments:#x}
    lddw r0, called_back
    mov r9, r10  # so what is in the frame lies there, for helpers to find
    stxdw [r9-512], r0
    {target}
    ldxdw r2, [r6+8]
    ldxdw r3, [r6+16]
    ldxdw r4, [r6+24]
    ldxdw r5, [r6+32]
    call {number}
    exit
called_back:
    mov r0, 0
    exit
"""
FUNCTION = CODE_ADDRESS + 14


def calling(number: int, map_: Any = None) -> Program:
    """Return a program that calls a helper with the arena's five numbers; r1 may be a map that it names."""
    target = "ldxdw r1, [r6+0]" if map_ is None else "lddw r1, map[idx:0]"
    start = arena().starts["arguments"]
    code = assemble(CALL.format(arguments=start, target=target, number=number))
    bare = Program.from_bytes(code)
    references = {
        insn.pc: map_.address
        for insn in bare.instructions
        if insn.row is not None and insn.row.operation == "LDDW_MAP_IDX"
    }
    return replace(bare, references=references, maps=() if map_ is None else (map_,))


# -- arguments --------------------------------------------------------------------------------------

Arguments = tuple[Any, ...]  # numbers, or (name, offset)

NUMBERS = (0, 1, 2, 3, 7, 8, 16, 64, 512, 513, 4097, 65535, 65536, 1 << 17, (1 << 24) - 1, 1 << 24, 1 << 30,
           (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 32) + 8, 1 << 47, 1 << 63, (1 << 63) - 1,
           U64, U64 - 7, U64 - 4095, 0xFFFF_FFFF_0000_0010, FUNCTION, FUNCTION - 1)  # fmt: skip
PLACES = (
    ("mem", 0), ("mem", -1), ("mem", 1), ("mem", 240), ("mem", 249), ("mem", 255), ("mem", 256),
    ("constants", 0), ("constants", 60), ("big", 0), ("big", (1 << 17) - 8), ("big", -8),
    ("frame", 0), ("frame", -1), ("above", -8), ("above", -1), ("above", 0), ("below", 0), ("arguments", 8),
    ("HASH value", 0), ("HASH value", 24), ("HASH value", 29), ("ARRAY value", 4), ("ARRAY value", 1 << 32),
    ("HASH map", 0), ("HASH map", 8), ("ARRAY map", 0), ("RINGBUF map", 0), ("QUEUE map", 0),
    ("PROG_ARRAY map", 0), ("context", 0), ("context", 4), ("packet", 0), ("packet", -1), ("packet", 200),
)  # fmt: skip
HOSTILE: Arguments = (*NUMBERS, *PLACES)

#  what is good, by the end of an argument's name; anything else is a place
GOOD: tuple[tuple[tuple[str, ...], Arguments], ...] = (
    (("context",), (("context", 0),)),
    (("size", "first_size"), (16, 4, 64)),
    (("flags", "offset", "index", "cpu", "netns", "mode", "level", "start", "seed", "old"), (0, 1)),
    (("ifindex", "rounds", "distance", "difference", "room", "protocol", "type", "tag"), (1, 8)),
    (("function",), (FUNCTION,)),
    (("task", "inode", "cgroup"), (FIRST_OBJECT,)),
    (("socket",), (("sock", 0),)),
)
GOOD_PLACES: Arguments = (("mem", 64), ("mem", 0), ("frame", 0), ("constants", 8))


@cache
def named_context(helper: str) -> Any:
    """Return the context that a helper is for, where that is no packet's: one for all runs."""
    found = [given for start, given in CONTEXTS.items() if helper.startswith(start)]
    return take(program_type(found[0][0]), memoryview(b""), found[0][1]) if found else None


def good(name: str, helper: str) -> Arguments:
    """Return what an argument of a helper may well be."""
    if name.endswith("map_address"):
        taken = TAKES.get(helper) or KINDS
        return tuple((f"{kind.name} map", 0) for kind in sorted(taken))
    return next((numbers for ends, numbers in GOOD if name.endswith(ends)), GOOD_PLACES)


def argument_lists(helper: str, names: list[str]) -> Iterator[Arguments]:
    """Yield the arguments of all calls of a helper: each in turn hostile, then by lot."""
    rng = random.Random(helper)
    choices = [good(name, helper) for name in names]
    usual = [options[0] for options in choices]
    yield from (
        (*usual[:at], option, *usual[at + 1 :]) for at, options in enumerate(choices) for option in options
    )
    for at in range(len(names)):
        for value in HOSTILE:
            yield (*(rng.choice(options) for options in choices[:at]), value,
                   *(rng.choice(options) for options in choices[at + 1 :]))  # fmt: skip
    for _ in range(BY_LOT if names else 1):
        yield tuple(rng.choice(options) if rng.random() < 0.5 else rng.choice(HOSTILE) for options in choices)


# -- runs -------------------------------------------------------------------------------------------

Seen = tuple[Any, ...]
Run = Callable[[Execution], int]


class Caller:
    """Calls one helper on one engine, each time with the world as new but for the maps."""

    def __init__(self, helper: str, run: Run) -> None:
        self.arena = arena()
        kinds = ("xdp", "tc") if "xdp" in helper else LIGHTWEIGHT.get(helper[:12], ("tc", "xdp"))
        self.types = [program_type(name) for name in kinds]
        self.named = named_context(helper)
        self.packet = SEGMENTS if "seg6" in helper else PACKET
        self.run = run
        self.slowest = 0.0

    def outcome(self, arguments: Arguments, number: int) -> Seen:
        """Call once; return all that there is to see afterwards."""
        held = self.arena
        usual = take(self.types[number % 5 == 4], memoryview(self.packet), None)
        context = usual if self.named is None or number % 5 == 4 else self.named
        starts = held.starts | {"context": context.argument.start, "packet": usual.packet.start}
        starts["sock"] = context.sock.start if isinstance(context, SkbContext) else 0
        numbers = [value if isinstance(value, int) else starts[value[0]] + value[1] for value in arguments]
        words = [(number & U64).to_bytes(8, "little") for number in (*numbers, *[U64] * (5 - len(numbers)))]
        held.mem[:], held.arguments[:] = bytes(range(256)), b"".join(words)
        stack = Stack(held.stack)
        stack.reset()
        world = World(HERE, {made.address: made for made in held.maps.values()}, context=context)
        world.run_program = lambda program: 77
        execution = Execution(
            context.arguments,
            [*context.regions, *held.regions, *(r for made in held.maps.values() for r in made.regions)],
            packet=context.packet,
            argument=context.argument,
            helpers=bound() | STOCK | CARELESS | KERNEL,
            world=world,
            limit=LIMIT,
            stack=stack,
        )  # fmt: skip
        started = time.process_time()
        try:
            value = self.run(execution)
            left: Seen = ("returned", "somewhere" if 1 << 32 <= value < 1 << 47 else value)
        except ExecutionError as error:
            left = (type(error).__name__, str(error), error.pc, getattr(error, "address", None))
        except EbpfError as error:
            left = (type(error).__name__, str(error))
        except BaseException as error:
            left = ("NOT AN EBPF ERROR", repr(error), traceback.format_exc(limit=-2))
        self.slowest = max(self.slowest, time.process_time() - started)
        parts = [held.mem, held.stack, *(r.view for r in context.regions)]
        parts += [region.view for made in held.maps.values() for region in made.regions]
        left += (execution.budget_left, [zlib.crc32(part) for part in parts], world.output, world.events)
        for made in held.maps.values():
            if isinstance(made, RingBuffer | PerfEventArray):
                made.consume()
            while isinstance(made, UserRingBuffer) and len(made) < SAMPLES:
                made.submit(bytes(16))
        give_back(usual)
        return left


@dataclass(frozen=True)
class Target:
    """One helper, the names of its arguments, the program that calls it, and one in how many calls is made:
    others for the next number.
    """

    helper: str
    names: list[str]
    program: Program
    number: int
    one_in: int = 1

    def calls(self) -> list[Arguments]:
        return list(part(list(argument_lists(self.helper, self.names)), self.one_in, self.number))

    def engines(self) -> dict[str, Run]:
        """Return how it is called, by engine."""
        functions = bound() | STOCK | CARELESS | KERNEL
        maps = frozenset({1, 2, 3}) if self.program.maps else frozenset[int]()
        verified = prepare(self.program)
        options = Options(promises=Promises(moving=MOVING), map_helpers=maps)
        compiled = compile_program(verified, options, {self.number: functions[self.number]})
        return {
            "interpreter": lambda execution: interpret(verified, execution),
            "machine code": compiled.run,
        }


def outcomes(target: Target, run: Run) -> tuple[list[Seen], float]:
    """Return the outcomes of a helper's calls, up to one that takes too long; the time of the slowest."""
    caller = Caller(target.helper, run)
    seen = []
    for number, arguments in enumerate(target.calls()):
        seen.append(caller.outcome(arguments, number))
        if not within(MOST_SECONDS, caller.slowest):
            break
    return seen, caller.slowest


def in_child(targets: list[Target], runs: list[Run]) -> list[tuple[list[Seen], float]]:
    """Return the outcomes of helpers, one after the other, in a process that may not take much memory."""
    limit_memory(ROOM)
    return [outcomes(target, run) for target, run in zip(targets, runs, strict=True)]


def attack(targets: list[Target], seconds: float = SECONDS) -> None:
    """Call some with everything hostile, or a part of it, on both engines: a child each."""
    engines = [target.engines() for target in targets]
    for target in targets:
        named_context(target.helper)
    for kind in ("tc", "xdp", "lwt_in", "lwt_seg6local"):  # both children take these, at their addresses
        give_back(take(program_type(kind), memoryview(PACKET), None))
    seen: dict[str, list[list[Seen]]] = {}
    for engine in engines[0]:
        runs = [each[engine] for each in engines]
        ended = run_forked(lambda runs=runs: in_child(targets, runs), seconds)  # type: ignore[misc]
        if ended.value is None and len(targets) > 1:
            for target in targets:  # which of them?
                attack([target], seconds)
        helper = ", ".join(target.helper for target in targets)
        assert not ended.signal, f"{helper} on {engine} ends the process: {ended.signal}"
        assert not ended.hangs, f"{helper} on {engine} does not end"
        assert ended.value is not None, f"{helper} on {engine}: the child raised"
        for target, (_, slowest) in zip(targets, ended.value, strict=True):
            assert within(MOST_SECONDS, slowest), f"{target.helper} on {engine}: a call takes {slowest:.1f} s"
        seen[engine] = [found for found, _ in ended.value]
    for target, *both in zip(targets, *seen.values(), strict=True):
        for arguments, one, other in zip(target.calls(), *both, strict=True):
            assert one[0] != "NOT AN EBPF ERROR", f"{target.helper}{arguments}: {one[1]}\n{one[2]}"
            assert one == other, f"{target.helper}{arguments}"


# -- the tests --------------------------------------------------------------------------------------


TOGETHER = 7
"""Helpers whose calls a child makes: a fork for each would take longer than the calls."""


def some_of(numbers: Iterable[int]) -> list[list[int]]:
    """Return the numbers in groups; those of one kind, which follow each other, are in different ones."""
    every = list(numbers)
    count = -(-len(every) // TOGETHER)
    return [every[at::count] for at in range(count)]


@pytest.mark.parametrize("numbers", some_of(helpers()), ids=lambda numbers: helpers()[numbers[0]].name)
def test_helpers_of_linux(numbers: list[int]) -> None:
    targets = []
    for number in numbers:
        helper = helpers()[number]
        names = list(inspect.signature(helper.function).parameters)[1:]
        assert len(names) == helper.arguments
        targets.append(Target(helper.name, names, calling(number), number, one_in=5))
    attack(targets)


def test_helpers_of_rbpf() -> None:
    attack([
        Target(function.__name__, list(inspect.signature(function).parameters), calling(number), number, 5)
        for number, function in STOCK.items()
    ])  # fmt: skip


@pytest.mark.parametrize("numbers", some_of(KERNEL), ids=lambda numbers: KERNEL[numbers[0]].__name__)
def test_kernel_functions(numbers: list[int]) -> None:
    targets = []
    for number in numbers:
        entry = kfuncs()[KERNEL[number].__name__]
        names = list(inspect.signature(entry.function).parameters)[1:]
        targets.append(Target(entry.name, names, calling(number), number, one_in=10))
    attack(targets)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_calls_that_machine_code_does_by_itself(number: int) -> None:
    names = ["map_address", "key", "value", "flags"][: 4 if number == 2 else 2]
    attack([
        Target(helpers()[number].name, names, calling(number, arena().maps[kind]), number, one_in=3)
        for kind in sorted(HASHES | ARRAYS)
    ])  # fmt: skip


@pytest.mark.parametrize("number", CARELESS, ids=lambda number: CARELESS[number].__name__)
def test_careless_helpers_are_found(number: int) -> None:
    function = CARELESS[number]
    names = list(inspect.signature(function).parameters)
    with pytest.raises(AssertionError, match=r"MemoryError|IndexError|a call takes|does not end"):
        attack([Target(function.__name__, names, calling(number), number)], seconds=2 * MOST_SECONDS)


def test_what_is_good_gets_through() -> None:
    """Most helpers do what they are for in some of the calls: they are not all refused at the door."""
    done = set()
    for number, helper in helpers().items():
        names = list(inspect.signature(helper.function).parameters)[1:]
        program = prepare(calling(number))
        caller = Caller(helper.name, lambda execution, program=program: interpret(program, execution))  # type: ignore[misc]
        for at, arguments in enumerate(argument_lists(helper.name, names)):
            if at < 40 and caller.outcome(arguments, at)[0] == "returned":
                done.add(helper.name)
                break
    assert len(done) > 0.9 * len(helpers()), sorted({helper.name for helper in helpers().values()} - done)
