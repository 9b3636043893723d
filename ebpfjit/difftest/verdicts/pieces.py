"""Pieces of programs, one function each: packets, maps, the stack, numbers, pointers, contexts.

A piece writes its text with a `Writer`. r6 is the context before and after it.
"""

from __future__ import annotations

from collections.abc import Callable

from ebpfjit.difftest.verdicts.writer import DATA, FIELDS, LETTERS, PACKETS, SIZES, TYPES, VALUES, Writer

Piece = Callable[[Writer], None]
PIECES: dict[str, tuple[Piece, tuple[str, ...], int]] = {}
"""Pieces by name: what writes one, the types that it is for, how often."""


def piece(types: tuple[str, ...] = TYPES, weight: int = 2) -> Callable[[Piece], Piece]:
    """Register a piece for programs of some types."""

    def register(function: Piece) -> Piece:
        PIECES[function.__name__] = function, types, weight
        return function

    return register


# -- memory ------------------------------------------------------------------------------------------


@piece(weight=8)
def memory_used(w: Writer) -> None:
    """Memory of any kind, accessed some times."""
    memory = w.memory("r7")
    for _ in range(w.rng.randrange(1, 4)):
        w.use("r7", memory)
    w.say(memory.finish)


@piece(weight=3)
def copied_between(w: Writer) -> None:
    """Bytes from one memory to another."""
    first = w.memory("r7", ("map", "stack", "direct", "packet"))
    second = w.memory("r8", ("map", "stack", "direct"))
    size = w.pick([size for size in SIZES if size <= min(first.size, second.size)])
    if first.readable or w.oops():
        w.access("r7", w.near(0), size, first, "r9")
    else:
        w.say("r9 = 7")
    if second.writable or w.oops():
        w.say(
            f"*({LETTERS[size]} *)(r8 + {w.near(second.size - size) if second.kind != 'stack' else 0}) = r9"
        )


@piece(PACKETS, 6)
def header_in_header(w: Writer) -> None:
    """A header whose length is in the one before."""
    w.packet("r7", w.pick((14, 34)))
    w.say(f"r1 = *(u8 *)(r7 + {w.pick((0, 13))})")
    form = w.rng.randrange(4)
    if form == 0:
        w.say("r1 &= 15; r1 <<= 2")
    elif form == 1:
        w.say("w1 &= 15; w1 *= 4")
    elif form == 2:
        w.say(f"if r1 > {w.pick((60, 40, 255))} goto {w.skip}")
    elif w.oops():
        w.say("r1 <<= 60")
    w.say(w.pick(("r7 += r1", "r7 += r1; r7 += 14", "r1 += r7; r7 = r1")))
    size = w.pick((1, 2, 4, 8, 20))
    _, end, _ = DATA[w.type]
    w.say(f"r3 = *(u32 *)(r6 + {end}); r2 = r7; r2 += {w.near(size)}")
    w.compared("r2", "r3")
    width = w.pick([each for each in SIZES if each <= size])
    w.say(f"r0 = *({LETTERS[width]} *)(r7 + {w.near(size - width)})")


@piece(PACKETS, 4)
def packet_copies(w: Writer) -> None:
    """Copies of a packet pointer; the one that is tested is not the one that is used."""
    data, end, _ = DATA[w.type]
    size = w.pick((4, 14, 20))
    w.say(f"r2 = *(u32 *)(r6 + {data}); r3 = *(u32 *)(r6 + {end}); r7 = r2")
    back = w.pick((0, 0, 4, 8))
    w.say(f"r7 += {back}; r4 = r7; r4 += {w.near(size)}" if not w.oops() else "r4 = r2; r4 += 1")
    w.compared("r4", "r3")
    place = w.pick(("r7", "r2", "r4"))
    offset = {"r7": w.near(size - 4), "r2": w.near(back + size - 4), "r4": -w.near(4)}[place]
    w.say(f"r0 = *(u32 *)({place} {'+' if offset >= 0 else '-'} {abs(offset)})")


@piece(PACKETS, 3)
def packet_backwards(w: Writer) -> None:
    """Compare data_end with what was subtracted from, or a size with a difference."""
    data, end, _ = DATA[w.type]
    size = w.pick((8, 14, 40))
    w.say(f"r7 = *(u32 *)(r6 + {data}); r3 = *(u32 *)(r6 + {end})")
    if w.chance(0.5):
        w.say(f"r4 = r3; r4 -= r7; if r4 < {size} goto {w.skip}; if r4 s< {size} goto {w.skip}")
    else:
        w.say(f"r4 = r7; r4 -= {w.pick((4, 1))}; r4 += {size}; if r4 > r3 goto {w.skip}")
    w.say(f"r0 = *(u8 *)(r7 + {w.pick((0, size - 8, size - 1))})")


@piece(("xdp", "tc"), 3)
def metadata(w: Writer) -> None:
    """What lies in front of the packet."""
    data, end, meta = DATA[w.type]
    size = w.pick((4, 8))
    limit = data if not w.oops() else end
    w.say(f"r7 = *(u32 *)(r6 + {meta}); r3 = *(u32 *)(r6 + {limit}); r2 = r7; r2 += {w.near(size)}")
    w.compared("r2", "r3")
    w.say(w.pick((f"r0 = *(u{8 * size} *)(r7 + 0)", f"*(u32 *)(r7 + {w.near(size - 4)}) = 1")))


@piece(PACKETS, 3)
def packet_moved(w: Writer) -> None:
    """A helper that may move the packet, between test and access."""
    memory = w.packet("r7")
    w.say({
        "xdp": w.pick(("r1 = r6; r2 = 0; call 44", "r1 = r6; r2 = -4; call 65", "r1 = r6; r2 = -8; call 54")),
        "tc": w.pick(("r1 = r6; r2 = 60; call 39", "r1 = r6; r2 = 8; r3 = 0; call 18", "r1 = r6; r2 = 60; r3 = 0; call 38")),
        "cgroup_skb": "r1 = r6; call 46",
        "sk_skb": w.pick(("r1 = r6; r2 = 60; call 39", "r1 = r6; r2 = 60; r3 = 0; call 38")),
        "lwt_xmit": w.pick(("r1 = r6; r2 = 60; call 39", "r1 = r6; r2 = 8; r3 = 0; call 43")),
    }[w.type])  # fmt: skip
    if not w.oops():
        memory = w.packet("r7")
    w.use("r7", memory)


@piece(PACKETS, 2)
def packet_spilled(w: Writer) -> None:
    """A packet pointer on the stack, tested before or after it is back."""
    data, end, _ = DATA[w.type]
    w.say(f"r2 = *(u32 *)(r6 + {data}); r3 = *(u32 *)(r6 + {end})")
    w.say("*(u64 *)(r10 - 8) = r2; *(u64 *)(r10 - 16) = r3")
    if w.oops():
        w.say(w.pick(("*(u8 *)(r10 - 5) = 1", "*(u32 *)(r10 - 16) = 0", "*(u64 *)(r10 - 8) = 5")))
    if w.chance(0.5):
        w.say("r4 = *(u64 *)(r10 - 8); r3 = *(u64 *)(r10 - 16); r2 = r4; r4 += 8")
    else:
        w.say("r4 = r2; r4 += 8")
    w.compared("r4", "r3")
    w.say(w.pick(("r7 = *(u64 *)(r10 - 8); r0 = *(u64 *)(r7 + 0)", f"r0 = *(u8 *)(r2 + {w.near(7)})")))


@piece(PACKETS, 2)
def packet_loop(w: Writer) -> None:
    """Options one after the other, up to a number of them."""
    data, end, _ = DATA[w.type]
    again, done = w.label(), w.label()
    w.say(f"r7 = *(u32 *)(r6 + {data}); r8 = *(u32 *)(r6 + {end}); r9 = 0")
    w.say(f"{again}: r2 = r7; r2 += 2; if r2 > r8 goto {done}; r0 = *(u8 *)(r7 + {w.near(1)})")
    if not w.oops():
        w.say(w.pick(("r0 &= 7", "w0 &= 63", f"if r0 > 40 goto {done}")))
    w.say(f"r7 += r0; r9 += 1; if r9 < {w.pick((4, 8, 10))} goto {again}; {done}:")


# -- the stack ---------------------------------------------------------------------------------------


@piece(weight=4)
def stack_words(w: Writer) -> None:
    """Stores of some sizes, loads of others, in the same words."""
    at = -8 * w.rng.randrange(1, 5)
    for _ in range(w.rng.randrange(1, 4)):
        size = w.pick(SIZES)
        offset = at + w.rng.randrange(8 // size) * size
        w.say(
            w.pick(
                (
                    f"*({LETTERS[size]} *)(r10 {offset}) = {w.rng.randrange(99)}",
                    f"r1 = *(u32 *)(r6 + {w.pick(FIELDS[w.type])}); *({LETTERS[size]} *)(r10 {offset}) = r1",
                )
            )
        )
    if not w.oops():
        w.say(f"r2 = {w.rng.randrange(5)}; *(u64 *)(r10 {at}) = r2")
        size = w.pick(SIZES)
        w.say(f"*({LETTERS[size]} *)(r10 {at}) = 3")
    size = w.pick(SIZES)
    offset = at + w.rng.randrange(8 // size) * size
    w.say(f"r0 = *({LETTERS[size]} *)(r10 {w.near(offset):+d})")
    if w.chance(0.3):
        w.say("r7 = map[single][0]+0; r0 &= 31; r7 += r0; r0 = *(u8 *)(r7 + 1)")


@piece(weight=3)
def pointers_spilled(w: Writer) -> None:
    """Pointers on the stack, whole or in part."""
    what = w.pick(("r6", "r10", "map", "number"))
    reg = what
    if what == "map":
        w.lookup("r7", *w.pick(VALUES[:4]))
        reg = "r7"
    elif what == "number":
        w.bounded("r7", 40)
        reg = "r7"
    at = -8 * w.rng.randrange(3, 7)
    w.say(f"*(u64 *)(r10 {at}) = {reg}")
    if w.oops():
        size = w.pick((1, 2, 4))
        w.say(
            w.pick(
                (
                    f"*({LETTERS[size]} *)(r10 {at + w.rng.randrange(8 // size) * size}) = 0",
                    f"r0 = *({LETTERS[size]} *)(r10 {at})",
                )
            )
        )
    w.say(f"r8 = *(u64 *)(r10 {at})")
    use = {"r6": f"r0 = *(u32 *)(r8 + {w.pick(FIELDS[w.type])})", "r10": "*(u64 *)(r8 - 8) = 1",
           "map": "r0 = *(u8 *)(r8 + 7)", "number": "r0 = map[single][0]+0; r0 += r8; r0 = *(u8 *)(r0 + 23)"}  # fmt: skip
    w.say(use[what] if not w.oops() else "r0 = *(u64 *)(r8 + 0)")


@piece(weight=2)
def stack_far(w: Writer) -> None:
    """Offsets at the ends of the frame, constant or not, aligned or not."""
    form = w.rng.randrange(5)
    size = w.pick(SIZES)
    if form == 0:
        w.say(
            f"*({LETTERS[size]} *)(r10 {w.pick((-512, -size, -504, -8, -256)) + (w.pick((size, -size, 1)) if w.oops() else 0):+d}) = 1"
        )
    elif form == 1:
        w.say(
            f"r2 = r10; r2 += {w.pick((-512, -64, -8))}; *({LETTERS[size]} *)(r2 {w.pick(('+ 0', '+ 0', '- 8'))}) = 1"
        )
    else:
        words = w.pick((1, 2, 4))
        for index in range(words + 1):
            if not w.oops():
                w.say(f"*(u64 *)(r10 {-8 * (index + 1)}) = 0")
        w.number("r1")
        w.say(
            f"r1 &= {8 * words - 1 if not w.oops() else 8 * words + 7}; r1 += {-8 * words - 8}; r2 = r10; r2 += r1"
        )
        w.say(
            w.pick(
                (
                    "r0 = *(u8 *)(r2 + 0)",
                    "*(u8 *)(r2 + 0) = 1",
                    "r0 = *(u8 *)(r2 + 7)",
                    "r0 = *(u64 *)(r2 + 0)",
                )
            )
        )
        if w.chance(0.4):
            w.say("r0 = *(u64 *)(r10 - 8)")


# -- numbers -----------------------------------------------------------------------------------------

_OPERATIONS = ("+", "-", "*", "|", "&", "^", "<<", ">>", "s>>", "/", "%", "s/", "s%")


@piece(weight=6)
def arithmetic(w: Writer) -> None:
    """A number through some operations, compared now and then, then the index of an array."""
    w.number("r1")
    w.number("r2")
    for _ in range(w.rng.randrange(1, 7)):
        letter = w.pick(("r", "r", "w"))
        a, b = w.pick((("1", "2"), ("2", "1"), ("1", "1")))
        form = w.rng.randrange(9)
        if form < 4:
            operation = w.pick(_OPERATIONS)
            shift = operation in ("<<", ">>", "s>>")
            value = (
                w.pick((1, 3, 8, 16, 31))
                if shift
                else w.pick((1, 2, 3, 7, 15, 63, 255, -1, -8, 4096, 2**31 - 1))
            )
            w.say(f"{letter}{a} {operation}= {value}")
        elif form == 4:
            w.say(f"{letter}{a} {w.pick(_OPERATIONS[:9])}= {letter}{b}")
        elif form == 5:
            compared = w.pick((1, 7, 40, 255, -1, 2**31 - 1))
            w.say(
                f"if {letter}{a} {w.pick(('>', '<', 's>', 's<', '==', '>=', 's<='))} {compared} goto {w.skip}"
            )
        elif form == 6:
            w.say(f"if {letter}{a} {w.pick(('>', '<', 's>', 's<=', '=='))} {letter}{b} goto {w.skip}")
        elif form == 7:
            w.say(
                w.pick(
                    (
                        f"{letter}{a} = -{letter}{a}",
                        f"r{a} = (s{w.pick((8, 16, 32))})r{b}",
                        f"w{a} = (s{w.pick((8, 16))})w{a}",
                        f"r{a} = {w.pick(('be16', 'be32', 'le16', 'le32', 'bswap16', 'bswap32'))} r{a}",
                    )
                )
            )
        else:
            w.say(f"{letter}{a} = {letter}{b}")
    if w.chance(0.75):
        w.say(
            w.pick(
                (
                    "r1 &= 31",
                    f"if r1 > 47 goto {w.skip}",
                    "w1 %= 40",
                    "w1 >>= 27",
                    f"if w1 > 40 goto {w.skip}; w1 = w1",
                )
            )
        )
    w.say("r7 = map[single][0]+0; r7 += r1; r0 = *(u8 *)(r7 + 0)")


@piece(weight=3)
def related(w: Writer) -> None:
    """Two numbers that are known to be related: copies, sums, differences."""
    w.bounded("r7", w.pick((15, 31, 40)))
    w.say(
        w.pick(("r8 = r7; r8 += 4", "r8 = r7; r8 <<= 1", "r8 = r7", "w8 = w7; w8 += 1", "r8 = r7; r8 -= 1"))
    )
    w.say(
        w.pick(
            (
                f"if r8 > {w.pick((20, 30, 43, 63))} goto {w.skip}",
                f"if r8 s< 0 goto {w.skip}",
                f"if r8 > r7 goto {w.skip}",
                f"if r7 != r8 goto {w.skip}",
            )
        )
    )
    w.say(f"r1 = map[array]; r2 = r10; r2 += -4; *(u32 *)(r10 - 4) = 1; call 1; if r0 == 0 goto {w.skip}")
    reg = w.pick(("r7", "r8"))
    w.say(f"r0 += {reg}; r1 = *(u8 *)(r0 + {w.pick((0, 0, 7, 15))})")


@piece(weight=2)
def joined(w: Writer) -> None:
    """Another number, or another pointer, on two ways that come together."""
    on, other = w.label(), w.label()
    w.number("r1")
    form = w.rng.randrange(4)
    if form == 0:
        w.say(f"r7 = {w.pick((3, 40, 63))}; if r1 > 9 goto {on}; r7 = {w.near(w.pick((0, 12)))}; {on}:")
        w.say("r8 = map[single][0]+0; r8 += r7; r0 = *(u8 *)(r8 + 0)")
    elif form == 1:
        w.say(
            f"r7 = map[single][0]+8; if r1 s> 0 goto {on}; r7 = map[constants][0]+0; {on}: r0 = *(u8 *)(r7 + {w.near(31)})"
        )
    elif form == 2:
        w.say(
            f"*(u64 *)(r10 - 8) = 1; r7 = r10; if r1 == 3 goto {on}; r7 = map[single][0]+{8 if not w.oops() else 0}; goto {other}; {on}: r7 += -8; {other}: r0 = *(u64 *)(r7 + 0)"
        )
    else:
        w.say(f"if r1 & 1 goto {on}; r7 = 5; {on}:")
        if not w.oops():
            w.say("r7 = 6")
        w.say("r0 = r7")


# -- maps --------------------------------------------------------------------------------------------


@piece(weight=4)
def null_tests(w: Writer) -> None:
    """A value that may be null, tested by itself, a copy, a spilled copy, at 32 bits."""
    name, size, key = w.pick(VALUES[:6])
    w.key(name, key)
    w.say(f"r1 = map[{name}]; call 1")
    form = w.rng.randrange(7)
    if form == 0:
        w.say(f"r7 = r0; if r7 == 0 goto {w.skip}; r0 = *(u8 *)(r0 + 0)")
    elif form == 1:
        w.say(
            f"*(u64 *)(r10 - 64) = r0; if r0 == 0 goto {w.skip}; r1 = *(u64 *)(r10 - 64); r0 = *(u8 *)(r1 + 0)"
        )
    elif form == 2:
        w.say(f"if w0 == 0 goto {w.skip}; r0 = *(u8 *)(r0 + 0)")
    elif form == 3:
        on = w.label()
        w.say(f"r7 = r0; if r0 == 0 goto {on}; r1 = *(u8 *)(r7 + {w.near(size - 1)}); {on}: r0 = 0")
        if w.oops():
            w.say("r0 = *(u8 *)(r7 + 0)")
    elif form == 4:
        w.say(f"r0 += {w.pick((1, 4))}; if r0 == 0 goto {w.skip}; r1 = *(u8 *)(r0 + 0)")
    elif form == 5:
        w.say(
            f"r8 = r0; r2 = r10; r2 += -{8 * w.rng.randrange(1, 4)}; r1 = map[{name}]; call 1; if r0 == 0 goto {w.skip}; "
            f"{'' if w.oops() else f'if r8 == 0 goto {w.skip};'} r1 = *(u8 *)(r8 + 0)"
        )
    else:
        w.null_test("r0")
        w.say(f"r1 = *({LETTERS[w.pick([s for s in SIZES if s <= size])]} *)(r0 + 0)")


@piece(weight=4)
def updates(w: Writer) -> None:
    """Updates, and deletions, with keys and values from the stack, the packet, another map."""
    name, size, key = w.pick(VALUES)
    if size > 400:
        name, size, key = VALUES[0]
    where = w.pick(("stack", "map", "direct", *(("packet",) if w.type in PACKETS else ())))
    if where == "packet":
        w.packet("r7", w.near(size))
    elif where == "map":
        w.lookup("r7", *w.pick([each for each in VALUES if each[1] >= size] if not w.oops() else VALUES))
    elif where == "direct" and size <= 32:
        w.say(f"r7 = map[constants][0]+{w.near(0) & 31}")
    else:
        words = -(-size // 8)
        for index in range(words):
            if not w.oops():
                w.say(f"*(u64 *)(r10 {-200 + 8 * index}) = {index}")
        w.say(f"r7 = r10; r7 += {w.near(-200)}")
    w.key(name, key)
    w.say(f"r1 = map[{name}]; r3 = r7; r4 = {w.pick((0, 0, 1, 2, 4))}; call 2")
    if w.chance(0.3):
        w.key(name, key)
        w.say(f"r1 = map[{name}]; call 3")


@piece()
def queues(w: Writer) -> None:
    """Queues, stacks and bloom filters."""
    name, size = w.pick((("queue", 16), ("stack", 8), ("bloom", 8)))
    helper = w.pick((87, 88, 89) if name != "bloom" or w.oops() else (87, 89))
    if helper == 87 or not w.chance(0.5):
        for index in range(size // 8):
            if not w.oops():
                w.say(f"*(u64 *)(r10 {-size + 8 * index}) = 1")
    w.say(f"r1 = map[{name}]; r2 = r10; r2 += {-w.near(size)}; r3 = {w.pick((0, 0, 2))}; call {helper}")
    if w.chance(0.5):
        w.say("r0 = *(u64 *)(r10 - 8)")


@piece()
def maps_in_maps(w: Writer) -> None:
    """A map that is in a map, looked into."""
    name = w.pick(("outer", "outer_hash"))
    w.key(name, 4)
    w.say(f"r1 = map[{name}]; call 1")
    w.null_test("r0")
    w.say("r7 = r0")
    w.key("inner", 4)
    w.say("r1 = r7; call 1")
    w.null_test("r0")
    w.say(
        w.pick(
            (
                f"r1 = *(u64 *)(r0 + {w.near(8)})",
                f"*(u32 *)(r0 + {w.near(12)}) = 1",
                "r1 = *(u32 *)(r7 + 0)" if w.oops() else "r1 = 0",
            )
        )
    )


@piece()
def map_pointers(w: Writer) -> None:
    """What is done to the address of a map itself."""
    name = w.pick(("array", "hash", "ring", "perf"))
    w.say(f"r7 = map[{name}]")
    if w.oops():
        w.say(
            w.pick(
                (
                    "r7 += 4; r2 = r10; r1 = r7; call 1",
                    "r0 = *(u32 *)(r7 + 0)",
                    "*(u32 *)(r7 + 0) = 1",
                    "r7 = -r7",
                    "w7 = w7; r1 = r7; r2 = r10; r2 += -8; call 1",
                )
            )
        )
    else:
        w.say(
            w.pick(
                (
                    "r0 = r7",
                    f"if r7 == 0 goto {w.skip}",
                    "*(u64 *)(r10 - 8) = r7; r1 = *(u64 *)(r10 - 8)",
                    "r1 = *(u32 *)(r7 + 24)",
                )
            )
        )


@piece()
def per_processor(w: Writer) -> None:
    """The values of another processor."""
    name, size, key = w.pick((("percpu_array", 24, 4), ("percpu_hash", 8, 4), ("array", 48, 4)))
    if name == "array" and not w.oops():
        name, size = "percpu_array", 24
    w.key(name, key)
    w.say(f"r1 = map[{name}]; r3 = {w.pick((0, 1, 5))}; call 195")
    w.null_test("r0")
    w.say(f"r1 = *(u8 *)(r0 + {w.near(size - 1)})")


# -- pointers ----------------------------------------------------------------------------------------


@piece(weight=4)
def pointer_arithmetic(w: Writer) -> None:
    """Operations on pointers that are numbers' only, or that are allowed."""
    memory = w.memory("r7", ("map", "stack", "direct", "packet"))
    if w.chance(0.45):
        w.say(w.pick((
            "r7 += 4; r7 -= 4", "r1 = r7; r1 -= r7", "r1 = r7; r1 += 1; r0 = r7", "r7 |= 8", "r7 &= -8", "r7 ^= 1", "r7 <<= 1",
            "r7 *= 2", "r7 = -r7", "w7 += 4", "w7 = w7", "r7 = be64 r7", "r1 = 4; r1 -= r7", "r1 = r10; r1 -= r7", "r1 = r7; r1 += r7",
            "r7 /= 2", "r7 s>>= 1", "r1 = (s8)r7", "r1 = (s32)r7", f"r1 = r7; r1 += {w.pick((2**29, 2**31 - 1, -2**29))}; r1 -= 8",
            "r1 = 5; r1 += r7; r7 = r1; r7 -= 5", "r1 = r7; w1 -= 1", "r1 = r7; r1 -= r10", "r1 = r6; r1 += 4; r0 = *(u32 *)(r1 + 0)",
            "r1 = r6; r2 = r7; r1 -= r2",
        )))  # fmt: skip
    if w.chance(0.3):
        w.say(w.pick((
            f"if r7 == 0 goto {w.skip}", f"if r7 > r10 goto {w.skip}", f"r1 = r7; if r1 == r7 goto {w.skip}", f"if r7 > 5 goto {w.skip}",
            f"if r7 == r6 goto {w.skip}", f"if r7 != 7 goto {w.skip}", f"if w7 == 1 goto {w.skip}", f"if r7 s> 0 goto {w.skip}", f"if r7 & 1 goto {w.skip}",
        )))  # fmt: skip
    w.use("r7", memory)


@piece(weight=2)
def pointers_stored(w: Writer) -> None:
    """Pointers put where everybody sees them."""
    memory = w.memory("r7", ("map", "direct", "packet", "stack"))
    if not memory.writable:
        return
    pointer = w.pick(("r6", "r10", "r7", "r1"))
    w.say("r1 = map[array]" if pointer == "r1" else "")
    w.say(
        w.pick(
            (
                f"*(u64 *)(r7 + 0) = {pointer}",
                f"lock *(u64 *)(r7 + 0) += {pointer}",
                f"r8 = {pointer}; *(u32 *)(r7 + 0) = r8",
                f"r0 = {pointer}",
                f"*(u32 *)(r6 + {w.pick(FIELDS[w.type])}) = {pointer}",
            )
        )
    )


@piece(weight=3)
def atomics(w: Writer) -> None:
    """Atomic operations on memory, aligned or not."""
    memory = w.memory("r7", ("map", "stack", "direct", *(("packet",) if w.oops() else ())))
    size = w.pick((4, 8)) if memory.size >= 8 else 4
    if memory.size < size or not (memory.writable and memory.readable):
        return
    offset = w.near(w.rng.randrange(memory.size // size) * size)
    place = f"({LETTERS[size]} *)(r7 {'+' if offset >= 0 else '-'} {abs(offset)})"
    letter = "w" if size == 4 else "r"
    if w.oops():
        w.say("r1 = r10" if w.chance(0.5) else "")
    else:
        w.say("r1 = 3; r0 = 2")
    w.say(
        w.pick(
            (
                f"lock *{place} += {letter}1",
                f"lock *{place} |= {letter}1",
                f"{letter}1 = atomic_fetch_xor({place}, {letter}1)",
                f"{letter}1 = xchg{'32_32' if size == 4 else '_64'}(r7 {'+' if offset >= 0 else '-'} {abs(offset)}, {letter}1)",
                f"{letter}0 = cmpxchg{'32_32' if size == 4 else '_64'}(r7 {'+' if offset >= 0 else '-'} {abs(offset)}, {letter}0, {letter}1)",
                f"r1 = load_acquire({place})" if size == 8 else f"w1 = load_acquire({place})",
                f"store_release({place}, {letter}1)",
            )
        )
    )
    if w.chance(0.4):
        w.say("r1 &= 31; r2 = map[single][0]+0; r2 += r1; r0 = *(u8 *)(r2 + 0)")


# -- contexts ----------------------------------------------------------------------------------------

_SIZES_OF = {
    "xdp": 24, "kprobe": 176, "tracepoint": 80, "raw_tracepoint": 104, "perf_event": 192, "cgroup_sock_addr": 80,
    "cgroup_device": 16, "cgroup_sysctl": 16, "cgroup_sockopt": 48, "sock_ops": 240, "sk_lookup": 80,
    "sk_msg": 88, "sk_reuseport": 64,
}  # fmt: skip
"""Bytes of contexts, or some more; struct __sk_buff has 192."""


@piece(weight=4)
def context_fields(w: Writer) -> None:
    """Loads and stores of context fields, right and wrong ones."""
    if w.chance(0.6):
        offset, size = w.pick(FIELDS[w.type]), 4
        if w.oops():
            size = w.pick(SIZES)
    else:
        size = w.pick((4, 4, 4, 1, 2, 8))
        offset = w.rng.randrange(_SIZES_OF.get(w.type, 192) // size) * size
        offset = w.near(offset)
    letters, place = LETTERS[size], f"(r6 {'+' if offset >= 0 else '-'} {abs(offset)})"
    if w.chance(0.6):
        w.say(f"r0 = *({letters} *){place}")
    elif w.chance(0.6) and w.type not in _SIZES_OF:
        offset = w.pick((8, 48, 52, 56, 60, 64, 32, 44, 72, 152))
        w.say(f"r1 = 5; *(u{64 if offset == 152 else 32} *)(r6 + {offset}) = r1")
    else:
        w.say(
            w.pick(
                (
                    f"*({letters} *){place} = 1",
                    f"r1 = 1; lock *(u32 *){place} += w1",
                    "r1 = r6; r1 += 4; r0 = *(u32 *)(r1 + 0)",
                    "r1 = *(u32 *)(r6 + 16); r2 = r6; r2 += r1; r0 = *(u32 *)(r2 + 0)",
                    f"r0 = *(s32 *){place}",
                )
            )
        )


@piece(("tc", "socket_filter"), 2)
def packet_loads(w: Writer) -> None:
    """LDABS and LDIND."""
    if w.oops():
        w.say(w.pick(("r8 = 1; r6 = r8" if w.chance(0.2) else "", "r3 = 7", "")))
    size = w.pick((1, 2, 4))
    if w.chance(0.5):
        w.say(f"r0 = *({LETTERS[size]} *)skb[{w.pick((0, 12, 14, 23, 2**20))}]")
    else:
        w.say(f"r7 = *(u32 *)(r6 + 0); r7 &= 63; r0 = *({LETTERS[size]} *)skb[r7]")
    w.say(w.pick(("r7 = r0", "r1 = r0", "r0 = r1" if w.oops() else "r0 &= 3")))
