"""Slots of frames: which of them become values, and what exits say of them."""

from __future__ import annotations

import pytest
from support.placed_code import MEMORY, agree, verified

from ebpfjit.assembler import assemble
from ebpfjit.difftest.case import Input
from ebpfjit.isa.spec import REGISTER_COUNT
from ebpfjit.optimizer.build import build
from ebpfjit.optimizer.check import check
from ebpfjit.optimizer.slots import MOST_SLOTS, Slots, has_slots, slots_of
from ebpfjit.optimizer.text import to_text
from ebpfjit.program import Program

Bytes = tuple[int, int]


def slots(source: str) -> Slots:
    """Return the slots of a program."""
    ready = verified(source)
    return slots_of(ready, ready.liveness.ways)


def places(source: str, function: int = 0) -> list[Bytes]:
    """Return where the slots of a function are."""
    return [*slots(source).bytes.get(function, ())]


def agrees(source: str, *given: Input) -> None:
    """Assert that its Code ends as the program does, in the interpreter and as machine code."""
    code = build(verified(source))
    check(code)
    agree(code, given or [Input(MEMORY)])


TWO = """
    *(u64 *)(r10 - 8) = 5
    *(u32 *)(r10 - 12) = r1
    r0 = *(u64 *)(r10 - 8)
    r2 = *(s32 *)(r10 - 12)
    r0 += r2
    exit
"""


def test_loads_and_stores_of_one_size_are_values() -> None:
    found = slots(TWO)
    assert found.bytes == {0: [(-12, 4), (-8, 8)]}
    assert found.of == {0: REGISTER_COUNT + 1, 1: REGISTER_COUNT, 2: REGISTER_COUNT + 1, 3: REGISTER_COUNT}
    text = to_text(build(verified(TWO)))
    assert "*(" not in text
    assert "bound" not in text
    agrees(TWO)


@pytest.mark.parametrize(
    ("others", "left"),
    [
        ("*(u8 *)(r10 - 8) = 1", []),  # two sizes at one place
        ("r2 = *(u8 *)(r10 - 1)", []),  # its last byte
        ("r2 = *(u16 *)(r10 - 9)", []),  # a byte of it, and one before it
        ("r2 = *(u8 *)(r10 - 9)", [(-9, 1), (-8, 8)]),  # next to it
        ("*(u64 *)(r10 - 12) = 1\n*(u64 *)(r10 - 16) = 1", []),  # one overlaps two
        ("*(u64 *)(r10 - 24) = 1\n*(u64 *)(r10 - 20) = 1", [(-8, 8)]),
        ("r2 = *(u64 *)(r10 - 512)", [(-512, 8), (-8, 8)]),
    ],
)
def test_places_that_overlap_stay_in_memory(others: str, left: list[Bytes]) -> None:
    source = f"*(u64 *)(r10 - 8) = 258\n{others}\nr0 = *(u64 *)(r10 - 8)\nexit"
    assert places(source) == left
    agrees(source)


@pytest.mark.parametrize(
    "escape",
    [
        "r2 = r10",
        "r2 = 0\nr2 += r10",
        "*(u64 *)(r10 - 16) = r10",
        "*(u64 *)(r1 + 0) = r10",
        "if r10 == 0 goto +0",
        "if r2 > r10 goto +0",
        "r2 = 1\nlock *(u64 *)(r10 - 16) += r2",
        "r0 = atomic_fetch_add((u64 *)(r10 - 16), r0)",
        "r0 = cmpxchg_64(r10 - 16, r0, r0)",
        "r2 = load_acquire((u64 *)(r10 - 16))",
        "store_release((u64 *)(r10 - 16), r2)",
        "r2 = *(u64 *)(r10 + 0)",  # above the frame
        "*(u64 *)(r10 + 8) = 1",
        "r2 = *(u64 *)(r10 - 4)",  # half above it
        "*(u64 *)(r10 - 520) = 1",  # below the largest frame
    ],
)
def test_whatever_else_is_done_with_r10_keeps_all_frames_in_memory(escape: str) -> None:
    """In the function itself, or in another one: of frames of the same thread one reaches all."""
    body = "r2 = 0\nr0 = 0\n{}\n*(u64 *)(r10 - 8) = 7\nr0 = *(u64 *)(r10 - 8)\nexit\n"
    assert not slots(body.format(escape)).of
    for first, second in ((escape, "r3 = 1"), ("r3 = 1", escape)):
        source = f"*(u64 *)(r10 - 8) = 3\ncall f\n{body.format(first)}f: {body.format(second)}"
        assert not slots(source).of
        agrees(source)
    assert has_slots(verified(body.format("r3 = 1")))


@pytest.mark.parametrize("offset", [0, 8, 16, 24])
def test_a_callee_sees_the_frame_of_its_caller(offset: int) -> None:
    """As it always could: r10 and up is where that lies. It had found a zero there."""
    source = (
        "*(u64 *)(r10 - 8) = 77\n*(u64 *)(r10 - 16) = 78\ncall f\nr1 = *(u64 *)(r10 - 8)\nr0 += r1\nexit\n"
    )
    source += f"f: r0 = *(u64 *)(r10 + {offset})\n*(u64 *)(r10 + {offset}) = 5\nexit"
    agrees(source)


def test_each_function_has_its_own() -> None:
    source = "*(u64 *)(r10 - 8) = 3\ncall f\nr1 = *(u64 *)(r10 - 8)\nr0 += r1\nexit\n"
    source += "f: *(u32 *)(r10 - 8) = 5\nr0 = *(u32 *)(r10 - 8)\nr1 = *(u16 *)(r10 - 16)\nr0 += r1\nexit"
    assert places(source) == [(-8, 8)]
    assert places(source, 5) == [(-16, 2), (-8, 4)]
    agrees(source)


@pytest.mark.parametrize(
    "source",
    [
        # a block of two functions
        "*(u64 *)(r10 - 8) = 3\ncall f\nboth: r0 = *(u64 *)(r10 - 8)\nexit\nf: r1 = 4\ngoto both",
        # a jump to the start of a function
        "*(u64 *)(r10 - 8) = 3\nif r1 == 0 goto f\ncall f\nexit\nf: r0 = *(u64 *)(r10 - 8)\nexit",
        # function 0 is called, and starts with what it has in its frame
        "r0 = *(u64 *)(r10 - 8)\n*(u64 *)(r10 - 8) = 4\nr3 = 1\nif r3 == 0 goto -4\nexit",
    ],
)
def test_blocks_that_are_no_one_function_s(source: str) -> None:
    assert not slots(source).of
    agrees(source)


def test_there_is_a_most() -> None:
    source = "\n".join(f"*(u32 *)(r10 - {4 * each}) = {each}" for each in range(1, MOST_SLOTS + 20))
    source += "\nr0 = 0\n" + "\n".join(
        f"r2 = *(u32 *)(r10 - {4 * each})\nr0 *= 3\nr0 += r2" for each in range(1, MOST_SLOTS + 20)
    )
    assert len(places(f"{source}\nexit")) == MOST_SLOTS
    agrees(f"{source}\nexit")


def test_frames_start_as_zero() -> None:
    """Also that of a function that is called again, behind what the call before left there."""
    source = "call f\nr6 = r0\ncall f\nr0 += r6\nexit\n"
    source += "f: r0 = *(u64 *)(r10 - 8)\nr0 += 1\n*(u64 *)(r10 - 8) = r0\nr0 = *(u64 *)(r10 - 8)\nexit"
    assert places(source, 5) == [(-8, 8)]
    agrees(source)


@pytest.mark.parametrize("size", [8, 16, 32, 64])
@pytest.mark.parametrize("sign", "us")
def test_a_load_makes_of_a_value_what_memory_would(size: int, sign: str) -> None:
    if (sign, size) == ("s", 64):
        return  # there is none
    load = f"*({sign}{size} *)(r10 - 8)"
    agrees(f"r1 = *(u64 *)(r1 + 56)\nr1 <<= 1\nr1 ^= -1\n*(u{size} *)(r10 - 8) = r1\nr0 = {load}\nexit")
    agrees(f"*(u{size} *)(r10 - 8) = -3\nr0 = {load}\nexit")


def exits_of(source: str) -> dict[int, set[Bytes]]:
    """Return the places of slots that each exit of a program names, by where it goes on."""
    found: dict[int, set[Bytes]] = {}
    for block in build(verified(source)).blocks:
        for op in block.all_ops:
            if op.exit is not None:
                named = zip(op.exit.slots, op.exit.registers[REGISTER_COUNT:], strict=True)
                found.setdefault(op.exit.pc, set()).update(
                    place for place, value in named if value is not None
                )
    return found


def test_exits_say_what_is_read_later() -> None:
    source = """
        *(u64 *)(r10 - 8) = 1
        *(u64 *)(r10 - 16) = 2
        r2 = *(u8 *)(r1 + 0)
        r0 = *(u64 *)(r10 - 8)
        r2 = *(u8 *)(r1 + 1)
        *(u64 *)(r10 - 8) = 3
        r2 = *(u8 *)(r1 + 2)
        r3 = *(u64 *)(r10 - 8)
        exit
    """
    found = exits_of(source)
    assert found[2] == {(-8, 8)}  # nothing reads the other
    assert found[4] == set()  # it is written before it is read
    assert found[6] == {(-8, 8)}
    agrees(source, Input(MEMORY), *(Input(MEMORY[:size]) for size in range(3)))  # where it leaves, it faults


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_baseline_code_finds_them_in_memory(size: int) -> None:
    """In the frame of the function that leaves, which is not that of function 0, and in no other byte."""
    source = f"""
        r6 = r1
        *(u64 *)(r10 - 8) = 11
        *(u64 *)(r10 - 24) = 12
        call f
        r1 = *(u64 *)(r10 - 8)
        r0 += r1
        r1 = *(u64 *)(r10 - 24)
        r0 += r1
        exit
        f: r7 = 3
        again: *(u{8 * size} *)(r10 - 16) = r7
        r2 = *(u8 *)(r10 - 17)
        r3 = *(u8 *)(r10 - {16 - size})
        r2 += r3
        r7 -= 1
        r4 = *(u8 *)(r1 + 5)
        r5 = *(u{8 * size} *)(r10 - 16)
        r0 += r2
        r0 += r5
        r0 <<= 8
        if r7 != 0 goto again
        exit
    """
    agrees(source, Input(MEMORY), *(Input(MEMORY, limit) for limit in range(1, 50)))


def test_slots_of_many_values_leave_from_the_stack() -> None:
    """What is on the machine's stack is stored to the frame from there."""
    count = 24
    lines = ["r0 = 0", "r6 = 3"]
    for each in range(1, count):
        lines.append(f"r2 = *(u8 *)(r1 + {each})\n*(u32 *)(r10 - {4 * each}) = r2")
    lines.append("again: r4 = r1\nr4 += r6\nr3 = *(u8 *)(r4 + 20)")
    for each in range(1, count):
        lines.append(
            f"r2 = *(u32 *)(r10 - {4 * each})\nr0 *= 5\nr0 += r2\nr2 += r3\n*(u32 *)(r10 - {4 * each}) = r2"
        )
    lines += ["r6 -= 1", "if r6 != 0 goto again", "exit"]
    source = "\n".join(lines)
    agrees(source, Input(MEMORY), *(Input(MEMORY[:size]) for size in (24, 23, 22, 21, 1)))
    agrees(source, *(Input(MEMORY, limit) for limit in range(50, 420, 7)))


def test_slots_stay_in_the_frame_where_their_values_find_no_place() -> None:
    """The program is optimised all the same."""
    count = 60
    lines = ["r3 = *(u8 *)(r1 + 0)", "r0 = 0"]
    for each in range(count):
        lines.append(f"r4 = r3\nr4 *= {each + 3}\n*(u64 *)(r10 - {8 * each + 8}) = r4")
    for each in range(count):
        lines.append(f"if r3 > {each * 5} goto behind{each}\nr4 = r3\nr4 += {each}\nr4 *= {each}")
        lines.append(f"*(u64 *)(r10 - {8 * each + 8}) = r4\nbehind{each}:")
    for each in range(count):
        lines.append(f"r4 = *(u64 *)(r10 - {8 * each + 8})\nr0 *= 3\nr0 += r4")
    program = Program.from_bytes(assemble("\n".join([*lines, "exit"])))
    function = program.compile(optimize=True)
    first, *others = function.explain().splitlines()
    assert first == "optimised code"
    assert any("slots leaves the program alone" in line for line in others)
    for byte in (0, 3, 77, 255):
        memory = bytes([byte])
        assert function(memory) == program.run(memory, engine="interpreter").return_value
