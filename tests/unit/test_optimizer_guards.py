"""Which checks are left of a program, and why the others are gone."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.assembler import assemble
from ebpfjit.jit.audit import MEMORY
from ebpfjit.optimizer.build import build
from ebpfjit.optimizer.check import check
from ebpfjit.optimizer.code import BOUND, Code
from ebpfjit.optimizer.dead import remove_dead
from ebpfjit.optimizer.guards import guarded
from ebpfjit.optimizer.hoisting import LARGEST, hoisted
from ebpfjit.optimizer.rules.arithmetic import simplify
from ebpfjit.optimizer.rules.selects import select
from ebpfjit.optimizer.text import from_text, to_text
from ebpfjit.program import Program
from ebpfjit.runtime.maps.creation import create
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from ebpfjit.runtime.rights import Rights, table_of

MEASURED = Promises(argument_is_measured=True)


def verified(source: str) -> Verified:
    return prepare(Program.from_bytes(assemble(source)))


def less(source: str, promises: Promises = MEASURED, *, changing: bool = False) -> Code:
    """Return code with the checks that are left; runs may come in from other code where it is `changing`."""
    program = verified(source)
    code = guarded(build(program, program.tested if changing else ()), promises)[0]
    check(code)
    return code


def before_loops(source: str, *, changing: bool = False) -> Code:
    program = verified(source)
    code = hoisted(*guarded(build(program, program.tested if changing else ()), MEASURED))
    check(code)
    assert from_text(to_text(code), program) == code
    return code


def left(code: Code) -> list[str]:
    """Return the checks as text, without where they leave to."""
    return re.findall(r"^  ((?:bound|aligned) .*) else ", to_text(code), re.MULTILINE)


def simpler(code: Code) -> Code:
    """What guards see."""
    return remove_dead(simplify(select(code)))


def rules(code: Code) -> dict[int, list[str]]:
    return {pc: [proof.rule for proof in proofs] for pc, proofs in sorted(code.proofs.items())}


ONE_BASE = """
    r2 = *(u64 *)(r1 + 0)
    r3 = *(u32 *)(r2 + 4)
    r2 += 8
    *(u16 *)(r2 + 0) = r3
    r4 = *(u8 *)(r2 - 8)
    r0 = 0
    exit
"""


def test_checks_of_one_base_become_one() -> None:
    """The first stands for all, over the whole span, and is a store's where one of them is."""
    code = less(ONE_BASE, Promises())
    assert left(code) == ["bound load argument + 0..8", "bound store packet v1 + 0..10"]
    assert rules(code) == {3: ["covered"], 4: ["covered"]}
    (proof,) = code.proofs[3]
    assert (proof.low, proof.high, proof.stores, proof.by) == (8, 10, True, 1)


def test_where_structs_have_rights_only_the_same_bytes_cover_others() -> None:
    source = """
        r2 = *(u64 *)(r1 + 0)
        r3 = *(u32 *)(r2 + 4)
        r3 = *(u16 *)(r2 + 4)
        r3 = *(u32 *)(r2 + 4)
        *(u32 *)(r2 + 4) = r3
        r0 = 0
        exit
    """
    code = less(source, Promises(meets_rights=True))
    assert left(code)[1:] == [
        f"bound {access} packet v1 + 4..{end}" for access, end in (("load", 8), ("load", 6), ("store", 8))
    ]
    assert rules(code) == {3: ["covered"]}


FRAME = """
    r3 = *(u64 *)(r1 + 0)
    r3 &= 31
    r2 = r10
    r2 += -40
    r2 += r3
    *(u64 *)(r2 + 0) = 1
    *(u64 *)(r2 + 2) = 1
    r0 = *(u64 *)(r10 - 512)
    r0 = *(u64 *)(r10 - 513)
    exit
"""


def test_in_the_frame() -> None:
    """Offsets from -40 to -2 fit in 8 bytes up to the end, from -38 they do not; the frame has 512 bytes."""
    code = less(FRAME, Promises())
    assert left(code)[1:] == ["bound store stack v5 + 2..10", "bound load stack v1 + -513..-505"]
    assert rules(code) == {5: ["frame"], 7: ["frame"]}
    (proof,) = code.proofs[5]
    assert (proof.low, proof.high) == (-40, -1)


def test_what_is_promised_of_the_argument() -> None:
    source = "r2 = *(u32 *)(r1 + 4)\n*(u8 *)(r1 + 7) = r2\nr0 = *(u8 *)(r1 + 8)\nexit"
    assert rules(less(source, Promises(8))) == {0: ["argument"], 1: ["argument"]}
    assert rules(less(source, Promises(8, argument_writable=False))) == {0: ["argument"], 2: ["covered"]}
    rights = Rights("struct", table_of(16, [(4, 4, False), (8, 1, False)]), ())
    assert rules(less(source, Promises(16, argument_rights=rights))) == {0: ["argument"], 2: ["argument"]}


def test_no_promise_holds_where_the_start_is_called() -> None:
    """Whoever calls it gives it what it likes."""
    source = "start: r0 = *(u8 *)(r1 + 0)\nr1 = 0\nif r0 == 0 goto +1\ncall start\nexit"
    assert rules(less(source, Promises(8))) == {}


MEASURED_LOOP = """
    r0 = 0
    r3 = 0
    if r2 == 0 goto out
    loop: r4 = r1
    r4 += r3
    r5 = *(u8 *)(r4 + 0)
    r0 += r5
    r3 += 1
    if r3 < r2 goto loop
    out: exit
"""


@pytest.mark.parametrize("changing", [False, True])
@pytest.mark.parametrize("test", ["r3 < r2", "r3 != r2", "r2 > r3", "r3 s< r2"])
def test_below_the_length(test: str, changing: bool) -> None:
    source = MEASURED_LOOP.replace("r3 < r2", test)
    assert rules(less(source, changing=changing)) == {5: ["length"]}
    assert left(less(source, changing=changing)) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("r3 < r2", "r3 <= r2"),
        ("r3 += 1", "r3 += 2"),
        ("r4 + 0", "r4 + 1"),
        ("*(u8 *)", "*(u16 *)"),
        ("if r2 == 0 goto out", "r6 = 0"),
        ("if r3 < r2", "if w3 < w2"),
        ("r3 = 0", "r3 = *(u8 *)(r1 + 0)"),
    ],
)
def test_not_below_the_length(old: str, new: str) -> None:
    """Most of these read behind the end, the others may, for all that is known."""
    source = MEASURED_LOOP.replace(old, new, 1).replace("r3 != r2", new)
    source = source.replace("r3 < r2", "r3 != r2") if new == "r3 += 2" else source
    assert left(less(source))[-1].startswith("bound load argument v")


WORDS = """
    r0 = 0
    r6 = r2
    r6 >>= 2
    r3 = *(u32 *)(r1 + 0)
    if r3 >= r6 goto out
    r3 <<= 2
    r4 = r1
    r4 += r3
    r0 = *(u32 *)(r4 + 0)
    out: exit
"""


@pytest.mark.parametrize(
    ("old", "new", "fits"),
    [
        ("r0 = 0", "r0 = 1", True),
        ("r6 >>= 2", "r6 /= 4", True),
        ("r6 >>= 2", "r6 >>= 3", True),
        ("r6 >>= 2", "r6 >>= 1", False),
        ("r3 >= r6", "r3 > r6", False),
        ("r0 = *(u32 *)(r4 + 0)", "r0 = *(u32 *)(r4 + 1)", False),
        ("r0 = *(u32 *)(r4 + 0)", "r0 = *(u64 *)(r4 + 0)", False),
        ("r3 <<= 2", "r3 *= 4", True),
        ("r3 <<= 2", "r3 *= 5", False),
        ("if r3", "r3 += 1\n if r3", True),
        ("r3 <<= 2", "r3 += 1\n r3 <<= 2", False),
        ("r3 <<= 2", "r3 <<= 2\n r3 -= 4", False),
        ("r3 = *(u32 *)", "r3 = *(u64 *)", True),
    ],
)
def test_below_a_count_of_words(old: str, new: str, fits: bool) -> None:
    assert ("length" in str(rules(less(WORDS.replace(old, new, 1))))) is fits


def test_pointers_up_to_the_end() -> None:
    source = """
        r0 = 0
        r2 += r1
        if r1 == r2 goto out
        loop: r3 = *(u8 *)(r1 + 0)
        r0 += r3
        r1 += 1
        if r1 != r2 goto loop
        out: exit
    """
    assert rules(less(source)) == {3: ["length"]}
    assert left(less(source.replace("r1 += 1", "r1 += 2"))) == ["bound load argument v5 + 0..1"]


def test_stores_below_the_length_ask_once_whether_they_may() -> None:
    source = MEASURED_LOOP.replace("r5 = *(u8 *)(r4 + 0)", "*(u8 *)(r4 + 0) = 1\n*(u8 *)(r4 + 0) = 2")
    code = less(source)
    assert left(code) == ["bound store argument + 0..0"]
    assert rules(code) == {5: ["writable"], 6: ["writable"]}


def test_tables_in_the_argument() -> None:
    """Whatever the index is, it is asked for the whole table, which is the same each time."""
    source = """
        r3 = *(u8 *)(r1 + 0)
        r3 <<= 1
        r4 = r1
        r4 += r3
        r5 = *(u16 *)(r4 + 8)
        r5 &= 15
        r6 = r1
        r6 += r5
        r0 = *(u8 *)(r6 + 100)
        exit
    """
    code = less(source)
    assert left(code) == ["bound load argument + 0..520"]
    assert rules(code) == {4: ["covered"], 8: ["covered"]}


def test_values_of_maps() -> None:
    made = create(MapDefinition("m", MapType.ARRAY, 4, 16, 2))
    lookup = """
        *(u32 *)(r10 - 4) = 0
        r2 = r10
        r2 += -4
        r1 = map ll
        call 1
        if r0 == 0 goto out
        r3 = *(u64 *)(r0 + 8)
        r3 = *(u64 *)(r0 + 9)
        out: r3 = *(u8 *)(r0 + 0)
        r0 = 0
        exit
    """.replace("map ll", f"{made.address} ll")
    program = replace(Program.from_bytes(assemble(lookup)), maps=(made,))
    code = guarded(build(prepare(program)), Promises(lookups=frozenset({1})))[0]
    assert rules(code) == {0: ["frame"], 7: ["map value"]}
    assert left(code) == ["bound load v6 + 9..17", "bound load v6 + 0..1"]


def test_memory_that_moves() -> None:
    """What was checked before such a call is not checked behind it; nor where one way leads through it."""
    source = """
        r6 = *(u64 *)(r1 + 0)
        r0 = *(u8 *)(r6 + 0)
        if r0 == 0 goto same
        call 44
        r0 = *(u8 *)(r6 + 0)
        same: r0 = *(u8 *)(r6 + 0)
        exit
    """
    assert rules(less(source, Promises())) == {4: ["covered"], 5: ["covered"]}
    assert rules(less(source, Promises(moving=frozenset({44})))) == {}


def test_between_two_calls_that_move_memory() -> None:
    """What is checked there is gone behind the second, in the blocks behind as well."""
    source = """
        r6 = *(u64 *)(r1 + 0)
        call 44
        r0 = *(u8 *)(r6 + 0)
        call 44
        if r0 == 0 goto +1
        r0 = 1
        r0 = *(u8 *)(r6 + 0)
        exit
    """
    assert rules(less(source, Promises(moving=frozenset({44})))) == {}
    assert rules(less(source, Promises())) == {6: ["covered"]}


def test_a_load_is_asked_for_the_store_that_follows() -> None:
    source = """
        r3 = *(u64 *)(r1 + 0)
        r0 = *(u32 *)(r3 + 8)
        if r0 == 0 goto out
        *(u16 *)(r3 + 10) = r0
        out: exit
    """
    code = less(source, Promises())
    assert left(code)[1:] == ["bound store packet v1 + 8..12"]
    assert rules(code) == {3: ["covered"]}
    assert rules(less(source, Promises(meets_rights=True))) == {}


def test_a_pointer_into_the_frame_that_is_below_the_argument_is_not_in_it() -> None:
    source = """
        r7 = r1
        r7 += r2
        r8 = r10
        r8 += -8
        loop: r0 = *(u8 *)(r8 + 0)
        r8 += 1
        if r8 < r7 goto loop
        exit
    """
    assert rules(less(source)) == {}


def test_what_holds_on_one_way_only_covers_nothing() -> None:
    source = """
        if r2 == 0 goto other
        r0 = *(u8 *)(r1 + 0)
        other: r0 = *(u8 *)(r1 + 0)
        exit
    """
    assert rules(less(source, Promises())) == {}


MEETING = """
    r3 = *(u64 *)(r1 + 0)
    if r2 == 0 goto other
    r0 = *(u32 *)(r3 + 0)
    goto on
    other: r0 = *(u16 *)(r3 + 0)
    r4 = *(u8 *)(r3 + 5)
    on: r5 = *(u16 *)(r3 + 0)
    exit
"""


@pytest.mark.parametrize(
    ("old", "new", "covered"),
    [
        ("r5 = *(u16 *)(r3 + 0)", "r5 = *(u8 *)(r3 + 1)", True),
        ("r5 = *(u16 *)(r3 + 0)", "r5 = *(u8 *)(r3 + 5)", False),  # on one way only
        ("r5 = *(u16 *)(r3 + 0)", "*(u8 *)(r3 + 0) = 1", True),  # loads were asked for: now stores are
        ("r0 = *(u32 *)(r3 + 0)", "r0 = *(u8 *)(r3 + 0)", False),
        ("r0 = *(u32 *)(r3 + 0)", "r3 += 8\nr0 = *(u32 *)(r3 + 0)", False),  # of another pointer
        ("r0 = *(u32 *)(r3 + 0)", "r0 = *(u32 *)(r3 + 0)\nif r0 == 0 goto out", True),
        ("r0 = *(u32 *)(r3 + 0)", "if r0 == 0 goto on\nr0 = *(u32 *)(r3 + 0)", False),  # a third way
        ("on: ", "on: r6 = r3\ncall 5\nr3 = r6\n", True),
        ("goto on", "r6 = r3\ncall 6\nr3 = r6\ngoto on", False),  # which moves memory
        ("exit", "r2 += -1\nif r2 != 0 goto on\nexit", False),  # a way that goes back
        ("exit", "r3 += 1\nr2 += -1\nif r2 != 0 goto on\nexit", False),
    ],
)
def test_what_is_covered_on_all_ways_that_meet(old: str, new: str, covered: bool) -> None:
    source = MEETING.replace(old, new).replace("exit\n", "out: exit\n" if "goto out" in new else "exit\n")
    code = less(source, Promises(moving=frozenset({6})))
    accesses = [
        insn.pc for insn in code.verified.program.instructions if insn.row and insn.row.kind in MEMORY
    ]
    assert ("covered" in rules(code).get(accesses[-1], [])) is covered


ENTERED = """\
entry 0: b0 (r1, r2)
entry 3: b3 (r1)
b0 pc 0 (v0, v1):
  if v1 == 0 goto b1() else b2()
b1 pc 1 ():
  bound load v0 + 0..4 else leave 1 (r1 = v0)
  v2 = *(u32 *)(v0 + 0) ; 1
  goto b3(v0)
b2 pc 2 ():
  bound load v0 + 0..4 else leave 2 (r1 = v0)
  v3 = *(u32 *)(v0 + 0) ; 2
  goto b3(v0)
b3 pc 3 (v4):
  bound load v4 + 0..4 else leave 3 (r1 = v4)
  v5 = *(u32 *)(v4 + 0) ; 3
  exit v5 ; 4
"""


@pytest.mark.parametrize("is_entered", [True, False])
def test_nothing_is_covered_where_runs_come_in_between(is_entered: bool) -> None:
    text = ENTERED if is_entered else ENTERED.replace("entry 3: b3 (r1)\n", "")
    code = guarded(from_text(text, verified("r0 = 0\n" * 4 + "exit")), Promises())[0]
    assert rules(code) == ({} if is_entered else {3: ["covered"]})


def test_a_loop_that_is_entered_in_the_middle_keeps_no_condition_of_one_way() -> None:
    """r7 is 0 on the one way to pc 2, and any number on the way round."""
    source = """
        r7 = *(u64 *)(r1 + 0)
        if r7 != 0 goto middle
        head: r3 = r10
        r3 += r7
        *(u8 *)(r3 - 1) = 0
        middle: r2 += 1
        if r2 < 10 goto head
        r0 = 0
        exit
    """
    assert "bound store stack v" in "".join(left(less(source)))


SWEPT = """
    r3 = *(u64 *)(r1 + 0)
    r4 = *(u32 *)(r1 + 8)
    r0 = 0
    loop: r5 = *(u16 *)(r3 + 0)
    r0 += r5
    r3 += 4
    r4 += -1
    if r4 != 0 goto loop
    exit
"""


@pytest.mark.parametrize("changing", [False, True])
def test_a_pointer_that_steps_is_checked_before_its_loop(changing: bool) -> None:
    code = before_loops(SWEPT, changing=changing)
    before, after = left(code)
    assert before == "bound load argument + 0..12"
    assert re.fullmatch(r"bound load packet v\d+ \.\. v\d+ \+ 0\.\.2", after)
    assert rules(code)[3] == ["loop"]
    assert ("entry 3: b3" in to_text(code)) is changing  # who comes in is checked as well


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("if r4 != 0", "if r0 != 0"),  # no counter
        ("r4 += -1", "r4 += -3"),  # it may step over its bound
        ("r3 += 4", "r3 += r5"),  # no step
        ("if r4 != 0", "call 5\nif r4 != 0"),  # a call
    ],
)
def test_what_is_not_checked_before_a_loop(old: str, new: str) -> None:
    assert "loop" not in str(rules(before_loops(SWEPT.replace(old, new))))


def test_a_pointer_that_steps_by_what_stays_as_it_is() -> None:
    """A column of a matrix: by as much as rows are long, where that has 31 bits."""
    source = """
        r3 = *(u64 *)(r1 + 0)
        r4 = *(u32 *)(r1 + 8)
        r6 = *(u16 *)(r1 + 12)
        r0 = 0
        loop: r5 = *(u32 *)(r3 + 0)
        r0 += r5
        r3 += r6
        r4 += -1
        if r4 != 0 goto loop
        exit
    """
    for changing in (False, True):
        assert rules(before_loops(source, changing=changing))[4] == ["loop"]
    assert "loop" not in str(rules(before_loops(source.replace("u16", "u32"))))
    assert "loop" not in str(rules(before_loops(source.replace("r3 += r6", "r3 += r6\nr6 += 1"))))


def test_a_counter_that_may_wrap_is_looked_at() -> None:
    """Up by 4 below r4: where r4 is within 3 of 2**64, adding 4 leads to small numbers again."""
    source = """
        r3 = *(u64 *)(r1 + 0)
        r4 = *(u64 *)(r1 + 8)
        r6 = 0
        loop: r5 = *(u16 *)(r3 + 0)
        r3 += 4
        r6 += 4
        if r6 < r4 goto loop
        r0 = 0
        exit
    """
    text = to_text(before_loops(source))
    assert re.search(r"if v\d+ > -4 goto", text)
    assert re.search(r"if v\d+ > 2147483647 goto", text)
    assert "> -4" not in to_text(before_loops(source.replace("*(u64 *)(r1 + 8)", "*(u32 *)(r1 + 8)")))


CLAMPED = """
    r3 = *(u64 *)(r1 + 0)
    if r3 <= 8 goto small
    r3 = 8
    small: r4 = r10
    r4 += r3
    *(u8 *)(r4 - 16) = 5
    r5 = *(u64 *)(r1 + 8)
    if r5 < r3 goto below
    r5 = r3
    below: r4 = r10
    r4 += r5
    *(u8 *)(r4 - 16) = 6
    exit
"""


def test_a_choice_knows_what_it_depends_on() -> None:
    """As a branch does, of each of its values."""
    code = simpler(build(verified(CLAMPED)))
    assert to_text(code).count(" if v") == 2
    code = guarded(code, MEASURED)[0]
    assert [bound for bound in left(code) if "store" in bound] == []


@pytest.mark.parametrize(("size", "shift", "is_asked"), [("u8", 0, False), ("u16", 1, True)])
def test_before_a_loop_is_counted_from_what_the_counter_starts_with(
    size: str, shift: int, is_asked: bool
) -> None:
    """Where nothing is multiplied, what wraps is seen where the first and the last address are."""
    code = before_loops(
        f"""
        r6 = *(u64 *)(r1 + 0)
        r3 = 0
        loop: r4 = r3
        r4 <<= {shift}
        r4 += r1
        r5 = *({size} *)(r4 + 0)
        r0 ^= r5
        r3 += 1
        if r3 < r6 goto loop
        exit
        """
    )
    (front,) = (
        block for block in code.blocks if any(len(op.args) == 2 for op in block.ops if op.row is BOUND)
    )
    assert (front.end.imm == LARGEST) is is_asked
    assert len(front.ops) == (4 if is_asked else 3)  # n - 1, so many bytes, the last address, the bound
