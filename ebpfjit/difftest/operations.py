"""Programs that do to each type of map what programs may: all results, for all three engines.

    r6  the context      r9  all that was seen, mixed
    r10-8   a key, or the first half of one      r10-16   a value, what is popped, a record
    r10-24  what a callback has seen

Behind the program are the functions that bpf_for_each_map_elem calls (VISITORS).

As in `packets` every step is whole in itself. Linux's verifier accepts all of them. The LRU maps are so large
that none evicts: what Linux evicts, and when, is its own (`tests/differential/test_maps_as_linux.py`).
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Mapping

from ebpfjit.difftest.generate import EXIT, copy, encoded, plain
from ebpfjit.difftest.operation_maps import DEFINITIONS, INDEX
from ebpfjit.difftest.packets import ADDITIONS, MIXES, STORES, guarded, map_of
from ebpfjit.isa.table import BY_NAME
from ebpfjit.program import SLOT_SIZE
from ebpfjit.runtime.helpers.names import DELETE, LOOKUP, NUMBERS, UPDATE
from ebpfjit.runtime.maps.definition import MapType

OF_MAPS = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)

_KEYED = tuple(
    index for index, each in enumerate(DEFINITIONS) if each.type <= MapType.LPM_TRIE and each.value_size == 8
)
_TARGETS = tuple(
    INDEX[kind] for kind in (MapType.DEVMAP, MapType.DEVMAP_HASH, MapType.CPUMAP, MapType.XSKMAP)
)
_DEVICES = (INDEX[MapType.DEVMAP], INDEX[MapType.DEVMAP_HASH])
_SOCKETS = (INDEX[MapType.SOCKMAP], INDEX[MapType.SOCKHASH])
_VISITED = tuple(index for index in _KEYED if DEFINITIONS[index].type != MapType.LPM_TRIE)
_ARRAYS = (MapType.ARRAY, MapType.PERCPU_ARRAY)
_PERCPU = tuple(INDEX[kind] for kind in (MapType.PERCPU_ARRAY, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH))
_ENDS = (INDEX[MapType.QUEUE], INDEX[MapType.STACK])
_BLOOM, _RING = INDEX[MapType.BLOOM_FILTER], INDEX[MapType.RINGBUF]

KEY, VALUE, SEEN = -8, -16, -24
FLAGS = (0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 8, -1)
PUSH_FLAGS = (0, 0, 0, 2, 2, 1, 3, 4)
PREFIXES = (0, 1, 8, 24, 31, 32, 33, 99)
NO_CPU = 4000
VISIT_FLAGS = (0, 0, 0, 0, 1, -1)
SENT_FLAGS = (0, 1, 2, 3, 3, 4, 8, 9, 17, 24, 32, -1)
EVENT_FLAGS = (-1, -1, -1, 0, 4, 99)
PACKET_BYTES = (0, 0, 1, 14, 60, 4000)
PUSH, POP, PEEK, LOOKUP_PERCPU = (
    NUMBERS[f"bpf_map_{name}_elem"] for name in ("push", "pop", "peek", "lookup_percpu")
)
FOR_EACH, SEND, TAIL_CALL, RELEASE, EVENT, UNDER_CGROUP = (
    NUMBERS[f"bpf_{name}"]
    for name in (
        "for_each_map_elem", "redirect_map", "tail_call", "sk_release", "perf_event_output",
        "skb_under_cgroup",
    )
)  # fmt: skip
OUTPUT, RESERVE, SUBMIT, DISCARD, QUERY = (
    NUMBERS[f"bpf_ringbuf_{name}"] for name in ("output", "reserve", "submit", "discard", "query")
)


def _seen(register: int) -> bytes:
    """A number, mixed into what was seen."""
    return plain("MUL64_K", 9, imm=31) + plain("XOR64_X", 9, register)


def _address(register: int, offset: int) -> bytes:
    return copy(register, 10) + plain("ADD64_K", register, imm=offset)


def _number(rng: random.Random, register: int, most: int) -> bytes:
    """A number up to `most` (2**n - 1), known or one that was seen."""
    if rng.random() < 0.6:
        return plain("MOV64_K", register, imm=rng.randrange(most + 1))
    return copy(register, 9) + plain("AND64_K", register, imm=most)


def _key(rng: random.Random, index: int) -> bytes:
    """A key, at r10-8; its address in r2."""
    if DEFINITIONS[index].type == MapType.LPM_TRIE:
        data = rng.choice((0x0000000A, 0xFF02010A, 0x00000080)) ^ rng.randrange(4) << 24
        code = plain("STW", 10, 0, KEY, rng.choice(PREFIXES))
        return code + plain("STW", 10, 0, KEY + 4, data - (data >> 31 << 32)) + _address(2, KEY)
    return _number(rng, 2, 7) + plain("STXW", 10, 2, KEY) + _address(2, KEY)


def _with_value(rng: random.Random) -> bytes:
    """What is done with a value that was found: read, and stored to in some way."""
    row = rng.choice(STORES)
    change = copy(3, 9) + encoded(rng.choice(ADDITIONS), 0, 3)
    return plain("LDXDW", 1, 0) + _seen(1) + (change if rng.random() < 0.5 else encoded(row, 0, 9, 0, 77))


def _on_map(rng: random.Random, index: int, load_map: bytes) -> bytes:
    """An operation on a map with keys, whose address is put into r1 behind everything else."""
    operation = rng.choice((LOOKUP, LOOKUP, UPDATE, UPDATE, UPDATE, DELETE))
    code = _key(rng, index)
    if operation == UPDATE:
        code += plain("STXDW", 10, 9, VALUE) + _address(3, VALUE)
        code += plain("MOV64_K", 4, imm=rng.choice(FLAGS))
    code += load_map + plain("CALL", imm=operation)
    if operation == LOOKUP:
        return code + guarded(plain("JEQ_K", 0), _with_value(rng))
    return code + _seen(0)


def _keyed(rng: random.Random) -> bytes:
    index = rng.choice(_KEYED)
    return _on_map(rng, index, map_of(1, index))


def _inside(rng: random.Random) -> bytes:
    """A map inside of another, and an operation on it."""
    outer = INDEX[rng.choice(OF_MAPS)]
    body = copy(7, 0) + _on_map(rng, INDEX[MapType.HASH], copy(1, 7))
    code = _key(rng, outer) + map_of(1, outer) + plain("CALL", imm=LOOKUP)
    return code + guarded(plain("JEQ_K", 0), body)


def _device(rng: random.Random) -> bytes:
    """A lookup where only user space stores."""
    index = rng.choice(_DEVICES)
    code = _key(rng, index) + map_of(1, index) + plain("CALL", imm=LOOKUP)
    return code + guarded(plain("JEQ_K", 0), plain("LDXW", 1, 0) + _seen(1))


def _socket(rng: random.Random) -> bytes:
    """A socket looked for, or taken out, where there is none."""
    index = rng.choice(_SOCKETS)
    code = _key(rng, index) + map_of(1, index)
    if rng.random() < 0.5:
        return code + plain("CALL", imm=DELETE) + _seen(0)
    given_back = plain("MOV64_K", 9, imm=1) + copy(1, 0) + plain("CALL", imm=RELEASE)
    return code + plain("CALL", imm=LOOKUP) + guarded(plain("JEQ_K", 0), given_back)


def _send(rng: random.Random) -> bytes:
    """A packet sent to what a map holds, or to nothing."""
    code = _number(rng, 2, 7) + map_of(1, rng.choice(_TARGETS))
    return code + plain("MOV64_K", 3, imm=rng.choice(SENT_FLAGS)) + plain("CALL", imm=SEND) + _seen(0)


def _event(rng: random.Random) -> bytes:
    """An event for user space, perhaps with bytes of the packet."""
    code = plain("STXDW", 10, 9, VALUE) + copy(1, 6) + map_of(2, INDEX[MapType.PERF_EVENT_ARRAY])
    code += plain("MOV32_K", 3, imm=rng.choice(EVENT_FLAGS))
    if size := rng.choice(PACKET_BYTES):
        code += plain("MOV64_K", 4, imm=size) + plain("LSH64_K", 4, imm=32) + plain("OR64_X", 3, 4)
    code += _address(4, VALUE) + plain("MOV64_K", 5, imm=rng.randrange(1, 9))
    return code + plain("CALL", imm=EVENT) + _seen(0)


def _tail_call(rng: random.Random) -> bytes:
    """A tail call of a program that is not there."""
    code = _number(rng, 3, 7) + copy(1, 6) + map_of(2, INDEX[MapType.PROG_ARRAY])
    return code + plain("CALL", imm=TAIL_CALL)


def _cgroup(rng: random.Random) -> bytes:
    """Whether the packet is of a cgroup that is not there."""
    code = _number(rng, 3, 7) + copy(1, 6) + map_of(2, INDEX[MapType.CGROUP_ARRAY])
    return code + plain("CALL", imm=UNDER_CGROUP) + _seen(0)


#    what is done with each entry: r1 the map, r2 its key, r3 its value, r4 -> what was seen so far
_LOOK = b"".join((
    plain("LDXW", 5, 2), plain("MUL64_K", 5, imm=1021), plain("LDXDW", 0, 3), plain("XOR64_X", 5, 0),
    plain("LDXDW", 0, 4), plain("ADD64_X", 0, 5), plain("STXDW", 4, 0),
))  # fmt: skip
"""Added up, so that the order of a hash does not matter."""
_GO_ON = plain("MOV64_K", 0, imm=0) + EXIT
VISITORS = (
    _LOOK + _GO_ON,
    _LOOK + plain("LDXDW", 0, 3) + plain("MUL64_K", 0, imm=3) + plain("STXDW", 3, 0) + _GO_ON,
    _LOOK + plain("CALL", imm=DELETE) + _GO_ON,
    _LOOK + plain("MOV64_K", 0, imm=1) + EXIT,  # of an array: it has an order
)
"""Functions that look at an entry; that change its value; that take it out; that end the walk."""
_TAKES_OUT, _ENDS_WALK = 2, 3


def _visit(rng: random.Random) -> bytes:
    """A function called for each entry; its address is put in when all is written (`_with_visitors`)."""
    index = rng.choice(_VISITED)
    visitors = [0, 1, _ENDS_WALK if DEFINITIONS[index].type in _ARRAYS else _TAKES_OUT]
    function = encoded(_FUNCTION, 2, imm=rng.choice(visitors)) + bytes(SLOT_SIZE)
    code = plain("STDW", 10, 0, SEEN) + map_of(1, index) + function + _address(3, SEEN)
    code += plain("MOV64_K", 4, imm=rng.choice(VISIT_FLAGS)) + plain("CALL", imm=FOR_EACH) + _seen(0)
    return code + plain("LDXDW", 1, 10, SEEN) + _seen(1)


_FUNCTION = BY_NAME["LDDW_CODE"]


def _with_visitors(code: bytes) -> bytes:
    """Return a program with the visitors that it names behind it."""
    made, places = bytearray(code), dict[int, int]()
    for at in range(0, len(code), SLOT_SIZE):
        opcode, registers, _, number = struct.unpack_from("<BBhi", code, at)
        if opcode != _FUNCTION.opcode or registers >> 4 != _FUNCTION.src:
            continue
        if number not in places:
            places[number] = len(made) // SLOT_SIZE
            made += VISITORS[number]
        struct.pack_into("<i", made, at + 4, places[number] - at // SLOT_SIZE - 1)
    return bytes(made)


def _of_a_cpu(rng: random.Random) -> bytes:
    """The value that a processor has: the one that runs, or one that is not there."""
    index = rng.choice(_PERCPU)
    cpu = plain("MOV64_K", 3, imm=rng.choice((0, 0, NO_CPU)))
    code = _key(rng, index) + map_of(1, index) + cpu + plain("CALL", imm=LOOKUP_PERCPU)
    return code + guarded(plain("JEQ_K", 0), _with_value(rng))


def _ends(rng: random.Random) -> bytes:
    """Push, pop or peek."""
    index = rng.choice(_ENDS)
    code = plain("STXDW", 10, 9, VALUE) + map_of(1, index) + _address(2, VALUE)
    if rng.random() < 0.5:
        return code + plain("MOV64_K", 3, imm=rng.choice(PUSH_FLAGS)) + plain("CALL", imm=PUSH) + _seen(0)
    code += plain("CALL", imm=rng.choice((POP, PEEK))) + _seen(0)
    return code + plain("LDXDW", 1, 10, VALUE) + _seen(1)


def _bloom(rng: random.Random) -> bytes:
    """A value put into a Bloom filter, or asked for."""
    code = _number(rng, 1, 7) + plain("STXDW", 10, 1, VALUE) + map_of(1, _BLOOM) + _address(2, VALUE)
    if rng.random() < 0.5:
        return (
            code
            + plain("MOV64_K", 3, imm=rng.choice((0, 0, 0, 1, 2, 4)))
            + plain("CALL", imm=PUSH)
            + _seen(0)
        )
    return code + plain("CALL", imm=PEEK) + _seen(0)


def _ring(rng: random.Random) -> bytes:
    """A record put in whole, or reserved and handed over or dropped; a question."""
    pick = rng.random()
    if pick < 0.3:
        code = map_of(1, _RING) + plain("MOV64_K", 2, imm=rng.randrange(6)) + plain("CALL", imm=QUERY)
        return code + _seen(0)
    if pick < 0.6:
        code = plain("STXDW", 10, 9, VALUE) + map_of(1, _RING) + _address(2, VALUE)
        code += plain("MOV64_K", 3, imm=rng.randrange(1, 9)) + plain("MOV64_K", 4)
        return code + plain("CALL", imm=OUTPUT) + _seen(0)
    size = rng.choice((8, 16, 24, 1000, 4080, 4089))
    filled = (
        b"".join(plain("STXDW", 0, 9, 8 * word) for word in range(size // 8))
        if size < 100
        else plain("STXDW", 0, 9)
    )
    if size >= 100:
        return (
            map_of(1, _RING)
            + plain("MOV64_K", 2, imm=size)
            + plain("MOV64_K", 3)
            + plain("CALL", imm=RESERVE)
            + guarded(plain("JEQ_K", 0), copy(1, 0) + plain("MOV64_K", 2) + plain("CALL", imm=DISCARD))
        )
    body = filled + copy(1, 0) + plain("MOV64_K", 2) + plain("CALL", imm=rng.choice((SUBMIT, DISCARD)))
    code = map_of(1, _RING) + plain("MOV64_K", 2, imm=size) + plain("MOV64_K", 3) + plain("CALL", imm=RESERVE)
    return code + guarded(plain("JEQ_K", 0), body)


def _arithmetic(rng: random.Random) -> bytes:
    """Some operation on what was seen."""
    return copy(1, 9) + encoded(rng.choice(MIXES), 9, 1, imm=rng.randrange(1, 1 << 31) | 1)


Step = Callable[[random.Random], bytes]
STEPS: tuple[tuple[Step, int], ...] = (
    (_keyed, 12),
    (_inside, 3),
    (_device, 1),
    (_of_a_cpu, 2),
    (_ends, 3),
    (_bloom, 1),
    (_ring, 2),
    (_visit, 3),
    (_socket, 1),
    (_event, 1),
    (_tail_call, 1),
    (_arithmetic, 1),
)
"""What programs consist of, and how often."""

OF_TYPE: Mapping[str, tuple[tuple[Step, int], ...]] = {"xdp": ((_send, 2),), "tc": ((_cgroup, 1),)}
"""The types of programs, and what only programs of each may do."""


def program(rng: random.Random, type_: str = "xdp") -> bytes:
    """Return a program on all the maps; the first entry of the array is what it has seen."""
    start = copy(6, 1) + plain("MOV64_K", 9, imm=rng.randrange(1 << 31)) + plain("STDW", 10, 0, KEY)
    steps, weights = zip(*STEPS, *OF_TYPE[type_], strict=True)
    body = b"".join(step(rng) for step in rng.choices(steps, weights, k=rng.randrange(2, 24)))
    last = plain("STW", 10, 0, KEY) + map_of(1, 0) + _address(2, KEY)
    last += plain("CALL", imm=LOOKUP) + guarded(plain("JEQ_K", 0), plain("STXDW", 0, 9))
    return _with_visitors(start + body + last + copy(0, 9) + plain("AND64_K", 0, imm=3) + EXIT)
