"""What machine code relies on of a verdict: which checks are gone, and what is refused at the door."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import Environment, ExecutionError, JitFunction, MapError, Program, load
from ebpfjit.jit.entry import Compiled
from ebpfjit.listing.machine import explained
from ebpfjit.ready import ready
from ebpfjit.runner import run_on
from ebpfjit.runtime.execution import Execution
from ebpfjit.sealed import inside
from ebpfjit.verifier import Verdict

ROOT = Path(__file__).resolve().parents[2]
PACKETS = ROOT / "examples" / "packets"

GUARDED = """
    r2 = *(u32 *)(r1 + 0)
    r3 = *(u32 *)(r1 + 4)
    r4 = r2
    r4 += {compared}
    r0 = 0
    if r4 > r3 goto out
    r0 = *(u64 *)(r2 + 6)
    *(u64 *)(r10 - 8) = r0
    out: exit
"""
"""Loads eight bytes of a packet from the sixth on."""

FRAME = bytes(range(64))

ON_ITS_STACK = "*(u64 *)(r10 - 8) = 1\nr2 = r10\nr2 += -8\nr0 = *(u8 *)(r2 + 0)\nexit"


def _guarded(compared: int = 14) -> Program:
    return Program.from_assembly(GUARDED.format(compared=compared), type="xdp")


def _compiled(function: JitFunction) -> Compiled:
    compiled: Compiled = inside(function).plain.compiled
    return compiled


def _left(function: JitFunction) -> list[int]:
    """Return the slots of accesses that are checked."""
    notes = _compiled(function).listing.notes
    return [pc for pc, note in sorted(notes.items()) if note.startswith("checked")]


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("audit", [False, True])
def test_what_was_proven_is_not_checked(optimize: bool, audit: bool) -> None:
    program = _guarded()
    with_checks = program.compile(optimize=optimize)
    without = program.compile(optimize=optimize, audit=audit, verdict=program.verify())
    assert _left(with_checks)
    assert not _left(without)
    for size in (14, 15, 64):
        assert without(FRAME[:size]) == with_checks(FRAME[:size])


def test_the_listing_and_explain_say_so() -> None:
    program = _guarded()
    function = program.compile(optimize=False, verdict=program.verify())
    assert "no check: relied on the verdict" in str(function.listing())
    assert "3 accesses are not checked: the verdict is relied on" in function.explain()
    assert "verdict" not in program.compile(optimize=False).explain()


EXAMPLES = [
    (path.name, name) for path in sorted(PACKETS.glob("*.o")) for name in load(path).programs
]  # fmt: skip


@pytest.mark.parametrize(("file", "name"), EXAMPLES)
@pytest.mark.parametrize("optimize", [False, True])
def test_no_check_is_left_in_examples_but_of_memory_that_helpers_give(
    file: str, name: str, optimize: bool
) -> None:
    program = load(PACKETS / file).program(name)
    function = program.compile(optimize=optimize, verdict=program.verify())
    assert len(_left(function)) == {"log_connections": 8}.get(name, 0)  # what bpf_ringbuf_reserve gave


def test_without_a_verdict_everything_is_as_it_was() -> None:
    program = _guarded()
    assert _compiled(program.compile()).recipe.options.promises.proven == frozenset()


# -- facts are of all states --------------------------------------------------------------------------------

TWO_KINDS = """
    r6 = r1
    r2 = *(u32 *)(r1 + 0)
    r3 = *(u32 *)(r1 + 4)
    r4 = r2
    r4 += 14
    r0 = 0
    if r4 > r3 goto out
    r5 = *(u8 *)(r2 + 12)
    *(u64 *)(r10 - 8) = 5
    if r5 == 0 goto both
    r2 = r10
    r2 += -8
    both: r0 = *(u8 *)(r2 + 0)
    out: exit
"""
"""One load is from the packet or from the stack."""


def test_an_access_of_two_kinds_is_proven_where_both_are() -> None:
    program = Program.from_assembly(TWO_KINDS, type="xdp")
    function = program.compile(optimize=False, verdict=program.verify())
    assert not _left(function)
    assert [function(bytes([7]) * 12 + bytes([kind, 0])) for kind in (0, 1)] == [7, 5]


def test_one_state_of_a_kind_that_is_not_known_keeps_the_check() -> None:
    program = load(PACKETS / "event_logger.o").program("log_connections")
    verdict = program.verify()
    assert verdict.proven is not None
    others = {pc for pc, reach in verdict.proven.reaches.items() if reach.others}
    left = set(_left(program.compile(optimize=False, verdict=verdict)))
    assert others
    assert others == left


# -- at the door --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["accepted", True, 1, object()])
def test_what_is_no_verdict_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"verdict= is what program\.verify"):
        _guarded().compile(verdict=wrong)


def test_only_acceptances_are_relied_on() -> None:
    program = _guarded(compared=13)
    verdict = program.verify(seconds=0)
    with pytest.raises(ValueError, match=r"relies on acceptances only, .* is refused"):
        program.compile(verdict=verdict)


def test_an_acceptance_that_nobody_proved_is_none() -> None:
    program = _guarded(compared=13)
    claimed = replace(program.verify(seconds=0), status="accepted", errors=())
    with pytest.raises(ValueError, match="has no proofs"):
        program.compile(verdict=claimed)
    with pytest.raises(ValueError, match="has no proofs"):
        program.compile(verdict=Verdict("accepted"))


def test_a_kernel_that_lacks_something_accepts_nothing() -> None:
    program = load(PACKETS / "nat.o").program("translate")
    verdict = program.verify("4.19", seconds=0)
    assert verdict.proven is None


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (Program.from_assembly(GUARDED.format(compared=13), type="xdp"), "instructions"),
        (Program.from_assembly(GUARDED.format(compared=14), type="tc"), "type"),
        (replace(_guarded(), section="xdp.frags"), "section"),
    ],
)
def test_a_verdict_is_on_one_program(other: Program, what: str) -> None:
    with pytest.raises(ValueError, match=f"other {what}; verify it again"):
        other.compile(verdict=_guarded().verify())


def test_a_verdict_is_on_these_maps() -> None:
    first, second = (load(PACKETS / "nat.o").program("translate") for _ in range(2))
    with pytest.raises(ValueError, match="other maps"):
        second.compile(verdict=first.verify())


def test_a_copy_of_the_program_is_the_same() -> None:
    program = _guarded()
    again = Program.from_bytes(program.to_bytes(), name="copy", type="xdp")
    assert not _left(again.compile(optimize=False, verdict=program.verify()))


def test_read_only_variables_that_were_set_since() -> None:
    obj = load(PACKETS / "rate_limiter.o")
    program = obj.program("limit")
    name = next(name for name in obj.globals if isinstance(obj.globals[name], int))
    verdict = program.verify()
    obj.globals[name] += 1
    with pytest.raises(ValueError, match="values of its read-only maps"):
        program.compile(verdict=verdict)


def test_read_only_values_stay_that_are_relied_on() -> None:
    obj = load(PACKETS / "rate_limiter.o")
    program = obj.program("limit")
    rodata = next(map_ for map_ in program.maps if map_.definition.is_readonly)
    before = rodata[0]
    program.compile(verdict=program.verify())
    for change in (
        lambda: rodata.put(0, bytes(len(before))),
        lambda: rodata.__setitem__(0, bytes(len(before))),
        lambda: rodata.typed.__setitem__(0, bytes(len(before))),
        rodata.clear,
    ):
        with pytest.raises(MapError, match="machine code relies on these values"):
            change()
    assert rodata.update(bytes(4), bytes(len(before))) < 0
    with pytest.raises(AttributeError):
        rodata.is_relied_on = False
    assert rodata[0] == before


def test_helpers_of_the_users() -> None:
    program = load(PACKETS / "nat.o").program("translate")
    verdict = program.verify()
    with pytest.raises(ValueError, match="Linux's bpf_map_lookup_elem, and a function of yours"):
        program.compile(helpers={"bpf_map_lookup_elem": lambda *_: 0}, verdict=verdict)
    program.compile(helpers={77: lambda *_: 0}, verdict=verdict)  # it calls no such


def test_without_checks_there_is_nothing_to_rely_on() -> None:
    program = _guarded()
    with pytest.raises(ValueError, match="with checked=False there are none"):
        program.compile(checked=False, verdict=program.verify())


# -- programs that rely on nothing --------------------------------------------------------------------------


def _why(function: JitFunction) -> str:
    """Return why nothing is relied on, as the function says; "" where something is."""
    compiled = _compiled(function)
    said = [line for line in explained(compiled).splitlines() if "nothing is relied on" in line]
    assert bool(said) == (compiled.recipe.options.promises.proven == frozenset())
    return said[0] if said else ""


def test_plain_memory_may_be_of_any_size() -> None:
    program = Program.from_assembly("r0 = *(u64 *)(r1 + 0)\nexit")
    function = program.compile(verdict=program.verify(context_size=8))
    assert "given memory of any size" in _why(function)
    with pytest.raises(ExecutionError):
        function(bytes(7))


@pytest.mark.parametrize("text", ["call 14\nr0 = 0\nexit", "r0 = 0\nexit"])
def test_contexts_that_callers_lay_out(text: str) -> None:
    program = Program.from_assembly(text, type="kprobe")
    assert "for their callers to say" in _why(program.compile(verdict=program.verify()))


def test_bounds_that_are_those_of_linux() -> None:
    text = "call 8\nr1 = r10\nr1 += -8\nr0 = 0\n*(u64 *)(r1 + 0) = 0\nexit"
    program = Program.from_assembly(text, type="xdp")
    verdict = program.verify()
    assert _why(program.compile(verdict=verdict, environment=Environment(cpus=8192))) == ""
    many = program.compile(verdict=verdict, environment=Environment(cpu=8192, cpus=8193))
    assert "within bounds that are Linux's" in _why(many)


# -- runs ---------------------------------------------------------------------------------------------------


def test_a_context_that_lies_is_refused() -> None:
    program = _guarded()
    function = program.compile(optimize=False, verdict=program.verify())
    compiled = _compiled(function)

    def lying(start: Any, execution: Execution) -> int:
        assert execution.argument is not None
        end = int.from_bytes(execution.argument.view[4:8], "little") + 8
        execution.argument.view[4:8] = end.to_bytes(4, "little")
        return compiled.run(execution)

    with pytest.raises(ExecutionError, match="a context that says where its packet is"):
        run_on(lying, program, FRAME[:14], None, None, Environment())
    honest = run_on(
        lambda _, execution: compiled.run(execution), program, FRAME[:14], None, None, Environment()
    )
    assert honest.return_value == int.from_bytes(FRAME[6:10], "little")


@pytest.mark.parametrize(
    "type_", ["xdp", "tc", "sched_act", "socket_filter", "cgroup_skb", "lwt_in", "lwt_xmit"]
)
def test_contexts_of_all_types_say_where_their_packets_are(type_: Any) -> None:
    program = Program.from_assembly(ON_ITS_STACK, type=type_)
    compiled = _compiled(program.compile(optimize=False, verdict=program.verify()))
    assert compiled.recipe.options.promises.proven
    result = run_on(lambda _, run: compiled.run(run), program, FRAME, None, None, Environment())
    assert result.return_value == 1


def test_a_call_that_is_prepared_in_python() -> None:
    program = _guarded()
    function = program.compile(optimize=False, context={"ingress_ifindex": 1}, verdict=program.verify())
    assert function(FRAME[:14]) == int.from_bytes(FRAME[6:10], "little")


def test_other_memory_than_a_context_is_refused() -> None:
    program = _guarded()
    compiled = _compiled(program.compile(optimize=False, verdict=program.verify()))
    plain = Program.from_assembly("r0 = 0\nexit")
    with pytest.raises(ExecutionError, match="was compiled for"):
        run_on(lambda _, execution: compiled.run(execution), plain, bytes(64), None, None, Environment())


def test_other_ways_to_run_check_all() -> None:
    program = _guarded()
    program.compile(verdict=program.verify())
    assert ready(program).proven == frozenset()
    assert ready(program).machine_code(Environment()).recipe.options.promises.proven == frozenset()


def test_such_code_is_not_kept(tmp_path: Path) -> None:
    program = _guarded()
    function = program.compile(verdict=program.verify(), cache=tmp_path)
    assert not list(tmp_path.glob("*.ebpfjit"))
    with pytest.raises(Exception, match="relies on a verdict"):
        function.save(tmp_path / "function.ebpfjit")


def test_tiers_rely_on_it_both() -> None:
    program = _guarded()
    function = program.compile(verdict=program.verify())
    before = _compiled(function).recipe.options.promises.proven
    function.explain()  # the best there will be
    assert before == _compiled(function).recipe.options.promises.proven != frozenset()


def test_a_verdict_that_was_pickled_is_of_other_maps() -> None:
    program = _guarded()
    again = pickle.loads(pickle.dumps(program.verify()))
    assert not _left(program.compile(optimize=False, verdict=again))
    nat = load(PACKETS / "nat.o").program("translate")
    with pytest.raises(ValueError, match="other"):
        nat.compile(verdict=pickle.loads(pickle.dumps(nat.verify())))
