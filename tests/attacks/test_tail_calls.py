"""What r1 points to: programs of a prog_array have one type, and code gets what it was promised.

Machine code of a typed program reads its context without checks. So no way in may lead from a program to one
of another type (Linux's rule for the owner of a prog_array), and code that was promised more memory than a
run has is refused where the run starts.
"""

from __future__ import annotations

import errno
import itertools
import re
import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from ebpfjit import EbpfVmFixedMbuff, EbpfVmMbuff, EbpfVmNoData, EbpfVmRaw
from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.elf import load
from ebpfjit.elf.tail_calls import Slot, fill, find_slots, is_tail_section
from ebpfjit.errors import BudgetExhausted, EbpfError, ExecutionError, LoadError, MapError
from ebpfjit.jit import entry
from ebpfjit.jit.entry import compile_program
from ebpfjit.jit.gate import Gate, Mbuff, why_not
from ebpfjit.kernel import unavailable_reason
from ebpfjit.options import Options
from ebpfjit.program import Program
from ebpfjit.runtime.execution import Execution
from ebpfjit.runtime.maps.creation import create
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from ebpfjit.runtime.maps.references import ProgArray
from ebpfjit.runtime.memory import Region
from ebpfjit.runtime.world import current

needs_kernel = pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))
engines = pytest.mark.parametrize("engine", ["interpreter", "jit"])

TYPES = (None, "xdp", "xdp.frags", "tc", "classifier", "socket_filter", "kprobe", "lwt_xmit", "cgroup_sock")
SAME = {"classifier": "tc"}
LOAD_MAP = struct.pack("<BBhiBBhi", 0x18, 5 << 4 | 2, 0, 0, 0, 0, 0, 0)
PACKET = bytes(12) + b"\x08\x00" + bytes(50)


def array(entries: int = 2) -> Any:
    return create(MapDefinition("jumps", MapType.PROG_ARRAY, 4, 4, entries))


def target(type_: str | None, value: int = 7) -> Program:
    """Return a program that reads the last field of the largest context, if its type has one."""
    reads = {"tc": 164, "classifier": 164, "socket_filter": 164, "lwt_xmit": 164, "xdp": 20, "xdp.frags": 20}
    load_ = f"ldxw r0, [r1+{reads[type_]}]" if type_ in reads else ""
    return Program(assemble(f"{load_}\nmov r0, {value}\nexit"), name="target", type=type_)


def caller(type_: str | None, jumps: Any) -> Program:
    code = LOAD_MAP + assemble("mov r3, 0\ncall 12\nmov r0, 9\nexit")
    return Program(code, name="caller", type=type_, references={0: jumps.address}, maps=(jumps,))


def called(program: Program) -> list[Any]:
    """Return a program as functions of a packet: each way into it that there is."""
    return [
        lambda data: program.run(data, engine="interpreter").return_value,
        lambda data: program.run(data, engine="jit").return_value,
        lambda data: program.compile()(data),
        lambda data: program.compile(optimize=False)(data),
        lambda data: program.compile(release_gil=True)(data),
        lambda data: program.compile().map([data, data])[1],
        lambda data: program.compile().call(data),
    ]


WAYS = range(len(called(target(None))))


def assert_refused(job: Callable[[], object]) -> None:
    with pytest.raises(MapError, match=r"belongs to|holds program") as refused:
        job()
    assert refused.value.errno == errno.EINVAL


@pytest.mark.parametrize(("first", "second"), list(itertools.product(TYPES, TYPES)))
def test_a_program_goes_into_an_array_of_its_type_only(first: str | None, second: str | None) -> None:
    """The first one that is put in decides; of what uses the array afterwards all else is refused."""
    same = SAME.get(str(first), first) == SAME.get(str(second), second)
    jumps = array()
    jumps[0] = target(first)
    if same:
        jumps[1] = target(second)
        for way in called(caller(second, jumps)):
            assert way(PACKET) == 7
        return
    assert_refused(lambda: jumps.__setitem__(1, target(second)))
    assert list(jumps) == [bytes(4)]
    for way in called(caller(second, jumps)):
        assert_refused(lambda way=way: way(PACKET))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("type_", [None, "tc", "kprobe", "xdp"])
def test_the_first_run_decides(way: int, type_: str | None) -> None:
    """An array that a program was run with takes no program of another type, empty as it may be."""
    jumps = array()
    run = called(caller(type_, jumps))[way]
    assert run(PACKET) == 9
    for other in TYPES:
        if other != type_ and SAME.get(str(other)) != type_:
            assert_refused(lambda other=other: jumps.put(0, target(other)))
    jumps[0] = target(type_)
    assert run(PACKET) == 7
    jumps.clear()
    assert_refused(lambda: jumps.put(1, target("sched_act")))  # for good


def test_flags_and_indices_that_are_refused_decide_nothing() -> None:
    jumps = array()
    for index, flags in ((9, 0), (0, 1)):
        with pytest.raises(MapError):
            jumps.put(index, target("tc"), flags)
    assert jumps.owner is None
    jumps[0] = None
    assert jumps.owner is None
    jumps[0] = target("xdp")
    assert str(jumps.owner) == "xdp programs"


def test_sections_tell_of_packets_in_pieces() -> None:
    """xdp_has_frags of Linux: such a program's packet may not all lie there."""
    jumps = array()
    code = assemble("mov r0, 1\nexit")
    jumps[0] = Program(code, type="xdp", section="xdp.frags")
    assert_refused(lambda: jumps.put(1, Program(code, type="xdp", section="xdp")))
    jumps[1] = Program(code, type="xdp.frags")


@pytest.mark.parametrize("way", WAYS)
def test_a_chain_of_arrays_has_one_type(way: int) -> None:
    """A program brings the arrays that it uses: two of them never join programs of two types."""
    one, two = array(), array()
    two[0] = target("tc")
    assert_refused(lambda: one.put(0, caller("xdp", two)))
    one[1] = target("xdp")
    assert_refused(lambda: called(caller("tc", one))[way](PACKET))


@pytest.mark.parametrize("machine", [EbpfVmNoData, EbpfVmRaw, EbpfVmMbuff])
def test_machines_are_refused_as_well(machine: Any) -> None:
    jumps = array()
    jumps[0] = target("tc")
    assert_refused(lambda: machine(caller(None, jumps)))
    assert_refused(lambda: machine().set_program(caller("xdp", jumps)))
    assert_refused(lambda: EbpfVmFixedMbuff(caller(None, jumps), 0, 8))


@needs_kernel
def test_so_it_is_in_linux() -> None:
    """The kernel engine refuses what the others do, and so does Linux behind it."""
    jumps = array()
    jumps[0] = target("tc")
    assert caller("tc", jumps).run(PACKET, engine="kernel").return_value == 7
    assert_refused(lambda: caller("xdp", jumps).run(PACKET, engine="kernel"))
    jumps = array()
    assert caller("xdp", jumps).run(PACKET, engine="kernel").return_value == 9
    assert_refused(lambda: jumps.put(0, target("tc")))


def test_a_prog_array_is_in_no_map_of_maps() -> None:
    inner = MapDefinition("inner", MapType.PROG_ARRAY, 4, 4, 1)
    with pytest.raises(LoadError, match="cannot be inside"):
        create(MapDefinition("outer", MapType.ARRAY_OF_MAPS, 4, 4, 1, inner=inner))
    plain = create(
        MapDefinition(
            "outer", MapType.ARRAY_OF_MAPS, 4, 4, 1, inner=MapDefinition("inner", MapType.ARRAY, 4, 4, 1)
        )
    )
    with pytest.raises(MapError):
        plain[0] = array(1)


def test_threads_agree_on_the_owner() -> None:
    """Of two types that come at once one is refused, whichever."""
    for _ in range(50):
        jumps, barrier, refused = array(), threading.Barrier(2), set[str]()
        job = partial(_put_with_others, jumps, barrier, refused)
        threads = [threading.Thread(target=job, args=pair) for pair in ((0, "tc"), (1, "xdp"))]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(refused) == 1
        assert {jumps[key].type for key in jumps} | refused == {"tc", "xdp"}


def _put_with_others(
    jumps: Any, barrier: threading.Barrier, refused: set[str], index: int, type_: str
) -> None:
    barrier.wait()
    try:
        jumps[index] = target(type_)
    except MapError:
        refused.add(type_)


@pytest.mark.parametrize("optimize", [True, False])
def test_what_a_helper_puts_in_meanwhile_is_held_to_the_same(optimize: bool) -> None:
    """In the middle of a run, in the program that is about to jump."""
    jumps = array()
    text = "mov r6, r1\ncall 77\nmov r1, r6\n"
    code = assemble(text) + LOAD_MAP + assemble("mov r3, 0\ncall 12\nmov r0, 9\nexit")
    main = Program(code, type="kprobe", references={3: jumps.address}, maps=(jumps,))
    for type_, outcome in (("tc", None), ("kprobe", 7)):

        def replace(*_: int, type_: str = type_) -> int:
            jumps[0] = target(type_)
            return 0

        fn = main.compile(helpers={77: replace}, optimize=optimize)
        if outcome is None:
            assert_refused(lambda fn=fn: fn(b"\1" * 8))
        else:
            assert fn(b"\1" * 8) == outcome


@pytest.mark.parametrize("type_", [None, "kprobe", "tc"])
def test_a_helper_that_runs_a_program_of_another_type_is_refused(type_: str | None) -> None:
    """World.run_program has no array to ask: what it starts is held against what is there."""
    table = create(MapDefinition("table", MapType.ARRAY, 4, 4, 1))

    def jump(*_: int) -> int:
        world = current()
        assert world is not None
        assert world.run_program is not None
        return world.run_program(target("xdp"))

    code = assemble("call 77\nexit")
    main = Program(code, type=type_, maps=(table,))
    with pytest.raises(ExecutionError, match="another context than it expects"):
        main.compile(helpers={77: jump})(PACKET)


# -- what an object has in its arrays -----------------------------------------------------------------


def test_an_object_with_two_types_in_an_array_is_refused() -> None:
    jumps = array()
    programs = {"one": target("tc"), "two": target("xdp")}
    slots = [Slot("jumps", 0, "one"), Slot("jumps", 1, "two")]
    refusals = fill("x.o", slots, {"jumps": jumps}, programs)
    assert re.search(r"jumps.*index 1.*does not fit.*tc programs", str(refusals["jumps"]))
    refusals = fill("x.o", [Slot("jumps", 2, "one")], {"jumps": array()}, programs)
    assert "does not fit" in str(refusals["jumps"])


@pytest.mark.parametrize("way", WAYS)
def test_a_program_of_another_type_from_the_same_object(way: int) -> None:
    """As clang makes them, put in from Python: the run is refused, or what comes second is."""
    obj = load("tests/elf/tail_call_two_types.o")
    jumps, main, other = obj.maps["jumps"], *map(obj.program, ("caller", "target"))
    jumps[1] = other
    assert_refused(lambda: called(main)[way](PACKET))
    obj = load("tests/elf/tail_call_two_types.o")
    assert called(obj.program("caller"))[way](PACKET) == 9
    assert_refused(lambda: obj.maps["jumps"].__setitem__(1, obj.program("target")))
    assert called(obj.program("target"))[way](PACKET) == 1000  # by itself it is as good as any


@engines
@pytest.mark.parametrize("used_by", ["kprobe", "xdp", None, "lsm"])
@pytest.mark.parametrize("held", ["tc", "kprobe", "xdp"])
def test_what_an_object_put_in_is_not_run_as_another_type(
    engine: str, used_by: str | None, held: str
) -> None:
    jumps = array()
    fill("x.o", [Slot("jumps", 0, "one")], {"jumps": jumps}, {"one": target(held)})
    main = caller(used_by, jumps)
    if used_by == held:
        assert main.run(PACKET, engine=engine).return_value == 7
    else:
        assert_refused(lambda: main.run(PACKET, engine=engine))
        assert jumps.owner is None


@engines
@pytest.mark.parametrize("used_by", ["tc", "kprobe", "xdp", "xdp.frags"])
def test_programs_whose_section_tells_nothing_have_the_type_of_who_uses_them(
    engine: str, used_by: str
) -> None:
    jumps = array()
    code = assemble("ldxw r0, [r1+4]\nmov r0, 7\nexit")
    programs = {"one": Program(code, name="one", section="odd"), "two": target(None)}
    fill("x.o", [Slot("jumps", 0, "one"), Slot("jumps", 1, "two")], {"jumps": jumps}, programs)
    assert caller(used_by, jumps).run(PACKET, engine=engine).return_value == 7
    assert {jumps[0].type, jumps[1].type} == {used_by}
    assert_refused(lambda: caller("lsm", jumps).run(PACKET, engine=engine))


@engines
def test_a_type_that_the_user_gives_holds_for_what_is_called(engine: str) -> None:
    """Object.program(type=) of another type with the same context; afterwards the array is that type's."""
    obj = load("tests/elf/numbered_samples.o")
    assert obj.program("entry").type == "socket_filter"
    assert obj.program("entry", type="tc").run(bytes(64), engine=engine).return_value == 5
    assert obj.maps["jmp_table"][5].type == "tc"
    assert_refused(lambda: obj.program("entry").run(bytes(64), engine=engine))
    assert_refused(lambda: obj.program("entry", type="xdp").run(bytes(64), engine=engine))
    assert isinstance(obj.maps["jmp_table"], ProgArray)


# -- code that was promised more than there is ------------------------------------------------------------


def compiled(text: str, **promises: Any) -> Any:
    return compile_program(prepare(Program(assemble(text))), Options(promises=Promises(**promises)))


def execution(memory: Any, *, r1: int | None = None, r2: int | None = None) -> Execution:
    region = Region.of_buffer("mem", memory)
    start = region.start if region.size else 0
    arguments = start if r1 is None else r1, region.size if r2 is None else r2
    return Execution(arguments, [region], region, region)


LOADS = "ldxdw r0, [r1+56]\nexit"
STORES = "stdw [r1+56], 1\nmov r0, 0\nexit"
MEASURES = "mov r0, 0\nmov r3, r2\njlt r3, 8, out\nldxdw r0, [r1+0]\nout: exit"


@pytest.mark.parametrize("size", [0, 1, 63])
def test_a_shorter_argument_is_refused(size: int) -> None:
    for text in (LOADS, STORES):
        code = compiled(text, argument_size=64)
        assert code.run(execution(bytearray(64))) == 0
        with pytest.raises(ExecutionError, match="at least 64 bytes at r1"):
            code.run(execution(bytearray(size)))


def test_an_argument_elsewhere_is_refused() -> None:
    code = compiled(LOADS, argument_size=64)
    memory = bytearray(128)
    start = Region.of_buffer("mem", memory).start
    with pytest.raises(ExecutionError, match="at least 64 bytes at r1"):
        code.run(execution(memory, r1=start + 100))
    with pytest.raises(ExecutionError, match="at least 64 bytes at r1"):
        code.run(Execution((start, 128), []))


def test_a_read_only_argument_is_refused_where_it_was_to_be_written() -> None:
    with pytest.raises(ExecutionError, match="read-only"):
        compiled(STORES, argument_size=64).run(execution(bytes(64)))
    assert compiled(LOADS, argument_size=64, argument_writable=False).run(execution(bytes(64))) == 0


@pytest.mark.parametrize("length", [8, 15, 17, 1 << 20, (1 << 64) - 1])
def test_a_length_that_is_not_r2_is_refused(length: int) -> None:
    code = compiled(MEASURES, argument_is_measured=True)
    assert code.run(execution(bytearray(16))) == 0
    assert code.run(execution(bytearray(0))) == 0
    with pytest.raises(ExecutionError, match="r2 being the length"):
        code.run(execution(bytearray(16), r2=length))
    with pytest.raises(ExecutionError, match="r2 being the length"):
        code.run(execution(bytearray(0), r2=length))


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_a_gate_does_not_open_for_more_than_it_gives() -> None:
    large, packet = compiled(LOADS, argument_size=64), compiled(MEASURES, argument_is_measured=True)
    for shape, names in (
        ("none", ()),
        ("mem", ("mem",)),
        ("optional", ("mem",)),
        ("mbuff", ("mem", "mbuff")),
    ):
        with pytest.raises(ExecutionError, match="at least 64 bytes"):
            Gate(large, shape, names)
        Gate(packet, shape, names)
    with pytest.raises(ExecutionError, match="at least 64 bytes"):
        Gate(large, "fixed", ("mem", "mbuff"), mbuff=Mbuff(63, 0, 8))
    Gate(large, "fixed", ("mem", "mbuff"), mbuff=Mbuff(64, 0, 8))
    with pytest.raises(ExecutionError, match="r2 being"):
        Gate(packet, "context", ("packet",))


@pytest.mark.parametrize("gate", ["native", "ctypes"])
def test_offsets_that_change_behind_compiled_code(gate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fixed mbuff that becomes smaller: its program is compiled again, and knows."""
    if gate == "ctypes":
        monkeypatch.setitem(why_not._made, (), "turned off for a test")
    vm = EbpfVmFixedMbuff(assemble("ldxdw r0, [r1+4080]\nexit"), 0, 4080)
    vm.jit_compile()
    data = bytearray(8)
    assert vm.execute_program(data) == vm.execute_program_jit(data) != 0
    vm.data_end_offset = 8
    for run in (vm.execute_program, vm.execute_program_jit):
        with pytest.raises(EbpfError, match="outside mem"):
            run(data)
    vm.data_offset = 4080
    assert vm.execute_program(data) == vm.execute_program_jit(data) != 0
    with pytest.raises(ValueError, match="overlap"):
        vm.data_offset = 9
    assert (vm.data_offset, vm.data_end_offset) == (4080, 8)


@pytest.mark.parametrize("optimize", [None, True, False])
def test_what_a_hardened_program_calls_is_hardened(optimize: bool | None) -> None:
    """No number of the program's choosing stands in executable memory: of those it goes on in neither."""
    number = 0x1122334455667788
    jumps, further = array(), array()
    last = Program(assemble(f"lddw r0, {number}\nexit"), name="last", type="xdp")
    further[0] = last
    middle = caller("xdp", further)
    jumps[0] = middle
    codes = []
    with pytest.MonkeyPatch.context() as patch:
        made = entry.CodeBuffer

        def keep(code: bytes, *, guarded: bool) -> Any:
            codes.append((code, guarded))
            return made(code, guarded=guarded)

        patch.setattr(entry, "CodeBuffer", keep)
        function = caller("xdp", jumps).compile(harden=True, optimize=optimize)
        assert function(PACKET) == number & 0xFFFFFFFF
    assert len(codes) >= 3
    assert all(guarded and number.to_bytes(8, "little") not in code for code, guarded in codes)
    assert last.run(PACKET).return_value == number & 0xFFFFFFFF


@pytest.mark.parametrize("way", ["interpreter", "jit", "compiled", "optimised"])
@pytest.mark.parametrize(
    ("type_", "section", "field"), [("xdp", "xdp", 20), ("cgroup_sock_addr", "cgroup/connect6", 4)]
)
def test_a_program_keeps_its_rights_behind_the_tail_call_of_a_function(
    way: str, type_: str, section: str, field: int
) -> None:
    """Its section tells no hook, so it may load what programs of any may; what it calls may not."""
    jumps = array()
    jumps[0] = Program(assemble("mov r0, 1\nexit"), type=type_, section=section)
    text = f"""
        mov r6, r1
        call function
        ldxw r0, [r6+{field}]
        ldxw r0, [r6+{field}]
        add r0, 5
        exit
    function:
        lddw r2, map[idx:0]
        mov r3, 0
        call 12
        exit
    """
    code = assemble(text)
    at = next(insn.pc for insn in Program(code).instructions if insn.opcode == 0x18)
    program = Program(code, type=type_, maps=(jumps,), references={at: jumps.address})
    data = bytes(72)
    if way in ("interpreter", "jit"):
        assert program.run(data, engine=way).return_value == 5
    else:
        function = program.compile(optimize=way == "optimised", audit=way == "optimised")
        assert [function(data), function(data)] == [5, 5]


@engines
def test_what_functions_tail_call_is_paid_from_the_one_limit(engine: str) -> None:
    """A program whose functions tail call, again and again: all of them had the whole limit, each."""
    jumps = array()
    jumps[0] = Program(
        assemble("mov r1, 400\nagain: sub r1, 1\njne r1, 0, again\nmov r0, 1\nexit"), type="tc"
    )
    text = f"""
        mov r6, r1
        mov r9, 30
    again:
        mov r1, r6
        call function
        sub r9, 1
        jne r9, 0, again
        exit
    function:
        lddw r2, {jumps.address:#x}
        mov r3, 0
        call 12
        exit
    """
    program = Program(assemble(text), type="tc", maps=(jumps,))
    assert program.run(PACKET, engine=engine, limit=25_000).return_value == 1
    with pytest.raises(BudgetExhausted):
        program.run(PACKET, engine=engine, limit=10_000)


def test_numbers_of_a_section_that_are_too_long_are_no_convention() -> None:
    """Of thousands of digits Python makes no int."""
    jumps: Any = SimpleNamespace(definition=MapDefinition("jumps", MapType.PROG_ARRAY, 4, 4, 1), id=0)
    for section in ("1" * 5000 + "/2", "2/" + "1" * 5000, "tail-" + "1" * 5000, "socket/" + "9" * 5000):
        program = replace(target("xdp"), section=section)
        assert list(find_slots([jumps], {"one": program})) == []
        assert not is_tail_section(section)
