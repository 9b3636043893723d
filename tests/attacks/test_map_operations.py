"""Maps under attack: arguments that overlap what they change, and definitions that Linux refuses.

Both engines leave the same map, byte by byte, whatever keys and values lie in: the frame, the entry itself,
its neighbours, an entry that was deleted. `create` refuses what Linux refuses, flag by flag, size by size.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import ExecutionError, MapRefused, Program, VerifierError, kernel
from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.difftest import Case, Input
from ebpfjit.difftest.check import Checker
from ebpfjit.difftest.children import run_forked
from ebpfjit.difftest.compare import compare
from ebpfjit.kernel import syscalls
from ebpfjit.kernel.types import loaded
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.maps import MapDefinition, MapFlag, MapType, create, rules
from ebpfjit.vm import EbpfVmRaw
from tests.support.whole import WHOLE

ENGINES = ("interpreter", "jit")
U32 = (1 << 32) - 1
HERE = Environment(cpus=2, cpu=1)

# -- what overlaps ------------------------------------------------------------------------------------

SHAPES = [
    (MapType.ARRAY, 4, 16), (MapType.ARRAY, 4, 40), (MapType.ARRAY, 4, 13), (MapType.PERCPU_ARRAY, 4, 24),
    (MapType.HASH, 4, 16), (MapType.HASH, 8, 40), (MapType.HASH, 7, 3), (MapType.HASH, 16, 64),
    (MapType.LRU_HASH, 4, 24), (MapType.LRU_HASH, 8, 13), (MapType.PERCPU_HASH, 4, 24),
    (MapType.PERCPU_HASH, 8, 13), (MapType.LRU_PERCPU_HASH, 4, 20), (MapType.LPM_TRIE, 8, 24),
]  # fmt: skip
ENTRIES = 5
FLAGS = (0, 0, 0, 0, 1, 2, 3, 4, 5, 8, 1 << 31, "1 << 32", "1 << 63", "-1")


def made_map(kind: MapType, key_size: int, value_size: int) -> Any:
    """Return a map that is nearly full, the bytes of its values all different."""
    flags = int(MapFlag.NO_PREALLOC) if kind is MapType.LPM_TRIE else 0
    made: Any = create(MapDefinition("m", kind, key_size, value_size, ENTRIES, flags), environment=HERE)
    for number in range(ENTRIES - 1):
        value = bytes((17 * number + byte) % 251 for byte in range(value_size))
        # The start of each value is the key of another entry, so that pointers into values are keys too.
        value = (
            key_of(kind, key_size, (number + 1) % ENTRIES)[:value_size].ljust(value_size, b"\x77")[:4]
            + value[4:]
        )
        made[key_of(kind, key_size, number)] = value[:value_size]
    return made


def key_of(kind: MapType, size: int, number: int) -> bytes:
    """Return a key of a map."""
    if kind is MapType.LPM_TRIE:
        return struct.pack("<I", 24) + bytes([10, 0, number, 0])
    return number.to_bytes(size, "little")


def set_key(kind: MapType, size: int, number: int) -> list[str]:
    """Return instructions that write a key into the frame, and point r2 to it."""
    words = key_of(kind, size, number).ljust(16, b"\0")
    lines = []
    for at in (0, 4, 8, 12):
        lines.append(f"stw [r10-{32 - at}], {struct.unpack_from('<i', words, at)[0]}")
    return [*lines, "mov r2, r10", "add r2, -32"]


def generated(rng: random.Random, shape: tuple[MapType, int, int]) -> str:
    """Return a program that calls map helpers with pointers into the map's own values, kept in r7 and r8."""
    kind, key_size, value_size = shape
    lines = ["mov r6, r1", "mov r7, r10", "add r7, -64", "mov r8, r7", "mov r9, 0"]
    lines += [f"stdw [r10-{at}], {at}" for at in range(40, 200, 8)]

    def pointer(register: str) -> list[str]:
        base = rng.choice(("r7", "r7", "r8", "r8", "r10", "r6"))
        if base == "r10":
            far = rng.choice(
                (-4, -key_size, 1 - key_size, -value_size, 1 - value_size, -64, -120, -512, -513)
            )
            return [f"mov {register}, r10", f"add {register}, {far}"]
        far = rng.choice((0, 0, 1, 3, 4, 8, 9, -1, -4, -8, value_size, 1 - value_size, -value_size))
        return [f"mov {register}, {base}", f"add {register}, {far}"]

    for _ in range(rng.randrange(3, 9)):
        number = rng.randrange(ENTRIES + 1)
        helper = rng.choice((1, 1, 1, 2, 2, 2, 3, 195))
        wild = rng.random() < 0.4
        lines += pointer("r2") if wild and helper != 1 else set_key(kind, key_size, number)
        if helper == 2:
            lines += pointer("r3")
            flags = rng.choice(FLAGS)
            if isinstance(flags, str):
                lines += [f"lddw r4, {eval(flags) & ((1 << 64) - 1):#x}"]
            else:
                lines += [f"mov32 r4, {flags}"]
        if helper == 195:
            if kind.name.find("PERCPU") < 0:
                continue
            lines += [f"lddw r3, {rng.choice((0, 1, 2, 3, U32, 1 << 32, (1 << 32) + 1, 1 << 63)):#x}"]
        lines += ["lddw r1, map[idx:0]", f"call {helper}"]
        if helper in (1, 195):
            lines += ["jeq r0, 0, +3", f"mov {rng.choice(('r7', 'r8'))}, r0", "ldxb r0, [r0+0]", "ja +0"]
        lines += ["mul r9, 31", "add r9, r0"]
    return "\n".join([*lines, "mov r0, r9", "exit"])


def program_on(text: str, made: Any) -> Program:
    """Return a program that names one map."""
    code = assemble(text)
    references = {
        insn.pc: made.address
        for insn in Program.from_bytes(code).instructions
        if insn.row is not None and insn.row.operation == "LDDW_MAP_IDX"
    }
    return Program(code, references=references, maps=(made,))


def left_by(engine: str, text: str, made: Any) -> tuple[Any, ...]:
    """Return how a run ended, and every byte of the map's values."""
    ended: tuple[Any, ...]
    try:
        result = program_on(text, made).run(bytes(range(64)), engine=engine, environment=HERE, limit=10_000)
        ended = ("returned", result.return_value)
    except ExecutionError as error:
        ended = (type(error).__name__, error.pc, getattr(error, "size", None), getattr(error, "access", None))
    return ended, sorted(made.items()), [bytes(region.view) for region in made.regions]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_overlaps_is_copied_as_if_it_did_not(shape: tuple[MapType, int, int]) -> None:
    rng = random.Random(str(shape))
    returned = 0
    for number in range(60 if WHOLE else 20):
        text = generated(rng, shape)
        first, second = (left_by(engine, text, made_map(*shape)) for engine in ENGINES)
        assert first == second, (number, text)
        returned += first[0][0] == "returned"
    assert returned > (15 if WHOLE else 0)


OVERLAPS = """
    stw [r10-4], 0
    lddw r1, map[idx:0]
    mov r2, r10
    add r2, -4
    call 1
    mov r3, r0
    add r3, {distance}
    stw [r10-4], 1
    lddw r1, map[idx:0]
    mov r2, r10
    add r2, -4
    mov r4, 0
    call 2
    exit
"""


@pytest.mark.parametrize("distance", [1, 3, 4, 7, 8, 9, 15, 17, 24, 39])
def test_a_value_moves_over_itself(distance: int) -> None:
    for kind, engine in itertools.product((MapType.ARRAY, MapType.HASH, MapType.LRU_HASH), ENGINES):
        made: Any = create(MapDefinition("m", kind, 4, 40, 4))
        whole = bytes(range(160))
        for index in range(4):
            made[index] = whole[40 * index : 40 * index + 40]
        program_on(OVERLAPS.format(distance=distance), made).run(bytes(64), engine=engine)
        assert made[1] == whole[distance : distance + 40], (kind, engine)


# -- what Linux refuses -------------------------------------------------------------------------------

needs_kernel = pytest.mark.skipif(
    kernel.unavailable_reason() is not None, reason=str(kernel.unavailable_reason())
)

_CREATE = struct.Struct("=IIIIIII16sIIIIIQ")  # union bpf_attr of BPF_MAP_CREATE, as far as map_extra
BITS = (0, *(1 << bit for bit in range(32)))
TOKEN = 1 << 16  # BPF_F_TOKEN_FD, which is looked at elsewhere
SIZES = (
    0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 24, 32, 64, 128, 256, 259, 260, 261, 511, 512, 513, 1015, 1016, 1017,
    1024, 2048, 4063, 4064, 4065, 4096, 32767, 32768, 32769, 65535, 65536, 65537,
    *((1 << 22) - less for less in range(279, 282)),
    (1 << 22) - 257, (1 << 22) - 256, *((1 << 22) - less for less in range(46, 58)),
    (1 << 22) - 1, 1 << 22, (1 << 22) + 1, 1 << 31, U32 - 7, U32 - 1, U32,
)  # fmt: skip
EXTRAS = (0, 1, 2, 5, 14, 15, 16, 17, 255, 1 << 31, 1 << 32, (1 << 32) + 1, 1 << 40, 1 << 63, (1 << 64) - 1)
USUAL = {
    "RINGBUF": (0, 0, 4096), "QUEUE": (0, 8, 4), "STACK": (0, 8, 4), "BLOOM_FILTER": (0, 8, 4),
    "LPM_TRIE": (8, 8, 4), "CPUMAP": (4, 8, 1), "USER_RINGBUF": (0, 0, 4096), "ARENA": (0, 0, 4),
    **dict.fromkeys((kind.name for kind in rules.STORAGES), (4, 8, 0)),
    **dict.fromkeys((kind.name for kind in rules.CGROUP_STORAGES), (16, 8, 0)),
}  # fmt: skip
NEVER_PREALLOCATED = {MapType.LPM_TRIE, *rules.STORAGES}
USUAL_FLAGS = {**dict.fromkeys(NEVER_PREALLOCATED, MapFlag.NO_PREALLOC), MapType.ARENA: MapFlag.MMAPABLE}
KINDS = [kind for kind in rules.SHAPES if not kind.name.endswith("OF_MAPS")]


@cache
def nodes() -> int:
    """Return how many NUMA nodes there are."""
    return len(list(Path("/sys/devices/system/node").glob("node[0-9]*"))) or 1


def types_for(size: int) -> int:
    """Return the descriptor of types without which local storage is not made: int, char, char[size]."""
    names = b"\0int\0char\0"
    types = struct.pack("=4I", 1, 1 << 24, 4, 1 << 24 | 32)
    types += struct.pack("=4I", 5, 1 << 24, 1, 1 << 24 | 8)
    types += struct.pack("=6I", 0, 3 << 24, 0, 2, 1, size)
    made = loaded(
        struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(names)) + types + names
    )
    return made.fd if made is not None else 0


def in_linux(d: MapDefinition, node: int = 0) -> int:
    """Return 0 where Linux makes the map, else -errno."""
    types = (types_for(d.value_size), 1, 3) if d.type in rules.STORAGES else (0, 0, 0)
    words = (d.type, d.key_size, d.value_size, d.max_entries, d.flags, 0, node, b"", 0, *types, 0, d.extra)
    result, _ = syscalls._call(syscalls.MAP_CREATE, _CREATE.pack(*words))
    if result >= 0:
        os.close(result)
    return min(result, 0)


def definitions(kind: MapType) -> Iterator[MapDefinition]:
    """Yield definitions of a type near all that there are rules for; none takes much of Linux's memory."""
    key, value, entries = USUAL.get(kind.name, (4, 8, 4))
    if not rules.SHAPES[kind][1].allows(value):
        value = 4
    usual = MapDefinition("m", kind, key, value, entries, int(USUAL_FLAGS.get(kind, 0)))
    for one, other in itertools.combinations_with_replacement(BITS, 2):
        yield replace(usual, flags=one | other)
        yield replace(usual, flags=one | other | usual.flags)
    for three in itertools.combinations(BITS[1:16], 3):
        yield replace(usual, flags=sum(three) | usual.flags)
    for size in SIZES:
        for flags in {usual.flags, usual.flags | MapFlag.STACK_BUILD_ID, usual.flags | MapFlag.NO_PREALLOC}:
            for sizes in ((size, value), (key, size), (size, size)):
                yield MapDefinition("m", kind, *sizes, 1, int(flags))
    counts = (0, 1, 2) if kind is MapType.CPUMAP else (0, 1, 2, 3, 4095, 4096, 4097, 5000, 8192, 12288, 65536)
    for count in counts:
        if count or kind is not MapType.PERF_EVENT_ARRAY:  # libbpf makes it as many as there are processors
            yield replace(usual, max_entries=count)
    if kind in rules.HASHES or kind in (MapType.DEVMAP_HASH, MapType.STACK_TRACE):
        yield from (replace(usual, max_entries=count) for count in ((1 << 31) + 1, U32 - 1, U32))
    if kind is MapType.ARENA:
        yield from (replace(usual, max_entries=count) for count in (1 << 20, (1 << 20) + 1, U32))
    for extra in EXTRAS:
        yield replace(usual, extra=extra)
        yield replace(usual, extra=extra, key_size=0)


def disagreements(kind: MapType) -> tuple[int, int, list[str]]:
    """Return how many definitions both make, how many both refuse, and on which they disagree."""
    made = refused = 0
    found = []
    for definition in definitions(kind):
        theirs, ours = in_linux(definition), 0
        if theirs in (-errno.ENOMEM, -errno.ENOSPC):
            continue
        try:
            rules.check(definition)
        except MapRefused as error:
            ours = -error.errno
        if ours == theirs or (ours and theirs and definition.flags & TOKEN):
            made, refused = made + (not ours), refused + bool(ours)
        else:
            found.append(f"{definition!r}: ours {ours}, Linux {theirs}")
    return made, refused, found


@needs_kernel
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_linux_makes_what_we_make_and_refuses_what_we_refuse(kind: MapType) -> None:
    ended = run_forked(lambda: disagreements(kind), 60)
    assert ended.value is not None, ended
    made, refused, found = ended.value
    assert not found, found[:5]
    assert made > 5
    assert refused > 500


F, EINVAL, ENOTSUPP = MapFlag, errno.EINVAL, rules.ENOTSUPP
# What Linux 6.18 says: 0, or the number of the error.
IN_LINUX = (
    #                                HASH    LRU_HASH  PERCPU_HASH  LRU_PERCPU_HASH  ARRAY   PERCPU_ARRAY
    (F.NUMA_NODE,                   (0,      0,        EINVAL,      EINVAL,          0,      EINVAL)),
    (F.NO_COMMON_LRU,               (EINVAL, 0,        EINVAL,      0,               EINVAL, EINVAL)),
    (F.NO_COMMON_LRU | F.NUMA_NODE, (EINVAL, EINVAL,   EINVAL,      EINVAL,          EINVAL, EINVAL)),
    (F.NO_PREALLOC,                 (0,      ENOTSUPP, 0,           ENOTSUPP,        EINVAL, EINVAL)),
    (F.NO_PREALLOC | F.NUMA_NODE,   (0,      ENOTSUPP, EINVAL,      ENOTSUPP,        EINVAL, EINVAL)),
    (F.RDONLY | F.WRONLY,           (EINVAL, EINVAL,   EINVAL,      EINVAL,          EINVAL, EINVAL)),
    (F.RDONLY_PROG | F.WRONLY_PROG, (EINVAL, EINVAL,   EINVAL,      EINVAL,          EINVAL, EINVAL)),
    (F.ZERO_SEED,                   (0,      0,        0,           0,               EINVAL, EINVAL)),
)  # fmt: skip
IN_COLUMNS = ("HASH", "LRU_HASH", "PERCPU_HASH", "LRU_PERCPU_HASH", "ARRAY", "PERCPU_ARRAY")


@pytest.mark.parametrize(("flags", "said"), IN_LINUX, ids=str)
def test_flags_are_refused_as_linux_did(flags: MapFlag, said: tuple[int, ...]) -> None:
    """Where there is no kernel to ask, too."""
    for name, number in zip(IN_COLUMNS, said, strict=True):
        definition = MapDefinition("m", MapType[name], 4, 8, 4, int(flags))
        if not number:
            create(definition)
            continue
        with pytest.raises(MapRefused) as refused:
            create(definition)
        assert refused.value.errno == number, name


def test_flags_without_a_name_are_refused_everywhere() -> None:
    for kind in rules.SHAPES:
        key, value, entries = USUAL.get(kind.name, (4, 4, 4))
        for bit in (1 << 13, 1 << 20, 1 << 31):
            with pytest.raises(MapRefused, match="takes no"):
                create(MapDefinition("m", kind, key, value, entries, bit))


# -- nothing at all -----------------------------------------------------------------------------------


def test_an_empty_program_is_refused_by_whatever_takes_programs() -> None:
    empty = Program(b"")
    nothing = (
        lambda: prepare(empty),
        lambda: compare(empty),
        lambda: compare(b""),
        lambda: empty.run(bytes(8)),
        lambda: empty.run(bytes(8), engine="interpreter"),
        empty.compile,
        lambda: empty.compile(optimize=True),
        lambda: Program(b"", type="xdp").run(bytes(64)),
        lambda: EbpfVmRaw(b""),
    )
    for job in nothing:
        with pytest.raises(VerifierError, match="the program is empty"):
            job()


@pytest.mark.parametrize("type_", ["", "xdp"])
def test_an_empty_case_is_no_finding(type_: str) -> None:
    for engine in ("jit", "gate", "tiered"):
        assert Checker(("interpreter", engine)).check(Case(b"", (Input(bytes(64)),), type=type_)) is None


def test_a_verifier_that_takes_everything_does_not_make_an_empty_program_run() -> None:
    vm = EbpfVmRaw(None)
    vm.set_verifier(lambda code: None)
    with pytest.raises(VerifierError, match="the program is empty"):
        vm.set_program(b"")
