"""Programs, compiled functions and machines travel as bytecode, settings and helpers."""

from __future__ import annotations

import copy
import ctypes
import multiprocessing
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest

from ebpfjit import (
    BudgetExhausted,
    EbpfError,
    EbpfVmFixedMbuff,
    EbpfVmMbuff,
    EbpfVmNoData,
    EbpfVmRaw,
    Environment,
    MemoryFault,
    NativeHelper,
    PicklingRefused,
    Program,
    Task,
    VerifierError,
    address_of,
    load,
)
from ebpfjit.assembler import assemble
from ebpfjit.isa.table import BY_NAME
from ebpfjit.runtime.maps import MapDefinition, MapType, create
from tests.support.elf_files import OBJECTS

SIZE = assemble("mov r0, r2\nexit")
CALL = assemble("mov r1, 21\ncall 5\nexit")
PICKLES = range(2, pickle.HIGHEST_PROTOCOL + 1)


def doubled(r1: int, *others: int) -> int:
    return 2 * r1


def nothing_goes(prog: bytes) -> None:
    raise VerifierError("nothing goes")


def anything_goes(prog: bytes) -> None:
    pass


def small_frames(prog: bytes, pc: int) -> int:
    return 16


def _again(thing: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> Any:
    return pickle.loads(pickle.dumps(thing, protocol))


@pytest.mark.parametrize("protocol", PICKLES)
def test_programs(protocol: int) -> None:
    program = Program(CALL, name="f", symbols={0: "f"})
    assert program.instructions[0].row is BY_NAME["MOV64_K"]
    again = _again(program, protocol)
    assert again == program
    assert again.functions == {0: "f"}
    assert again.instructions == program.instructions
    assert again.instructions[0].row is BY_NAME["MOV64_K"]
    assert len(pickle.dumps(Program(CALL * 1000), protocol)) < 30_000


@pytest.mark.parametrize("protocol", PICKLES)
def test_functions(protocol: int) -> None:
    function = Program(CALL).compile(helpers={5: doubled}, limit=100)
    again = _again(function, protocol)
    assert (again(), function()) == (42, 42)  # a listing tells how often helpers were called
    assert again.listing() == function.listing()


def test_functions_keep_their_settings() -> None:
    loop = Program(assemble("mov r0, 1\nagain: add r0, 1\njne r0, 0, again\nexit"))
    with pytest.raises(BudgetExhausted):
        _again(loop.compile(limit=1000))()
    assert "not checked" in _again(Program(assemble("ldxb r0, [r1]\nexit")).compile(checked=False)).listing()
    hard = _again(Program(assemble("mov r0, 0x1234567\nexit")).compile(harden=True))
    assert hard() == 0x1234567
    assert "0x1234567" not in hard.listing().replace("mov64 r0, 0x1234567", "")


def test_functions_of_programs_with_a_type() -> None:
    typed = Program(assemble("mov r0, 2\nexit"), type="xdp").compile()
    assert _again(typed)(bytes(64)) == 2


MACHINES = {
    "mbuff": (lambda: EbpfVmMbuff(SIZE), (b"abc", bytes(5)), 5),
    "fixed": (lambda: EbpfVmFixedMbuff(SIZE, 0, 24), (b"abc",), 32),
    "raw": (lambda: EbpfVmRaw(SIZE), (b"abc",), 3),
    "no data": (lambda: EbpfVmNoData(SIZE), (), 0),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", MACHINES)
def test_machines(name: str, compiled: bool) -> None:
    make, arguments, value = MACHINES[name]
    vm = make()
    if compiled:
        vm.jit_compile()
    again = _again(vm)
    assert type(again) is type(vm)
    assert again.program == vm.program
    assert again.execute_program(*arguments) == value
    if not compiled:
        again.jit_compile()
    assert again.execute_program_jit(*arguments) == value


def test_machines_without_a_program() -> None:
    again = _again(
        EbpfVmFixedMbuff(None, 8, 40, instruction_limit=7, checked=False, harden=True, optimize=False)
    )
    assert (again.data_offset, again.data_end_offset) == (8, 40)
    assert (again.instruction_limit, again.checked, again.harden) == (7, False, True)
    assert not again.optimize
    assert again.program is None


def test_machines_keep_helpers_verifier_and_stack_sizes() -> None:
    vm = EbpfVmRaw()
    vm.set_verifier(anything_goes)
    vm.set_program(assemble("stb [r10-17], 1\nexit"))
    vm.set_stack_usage_calculator(small_frames)
    vm.register_helper(5, doubled)
    vm.register_kfunc(6, doubled)
    again = _again(vm)
    again.set_program(CALL)
    assert again.execute_program(b"") == 42
    vm.set_verifier(anything_goes)
    refusing = EbpfVmRaw()
    refusing.set_verifier(nothing_goes)
    with pytest.raises(VerifierError, match="nothing goes"):
        _again(refusing).set_program(SIZE)


def _local() -> Any:
    return lambda r1, *others: 2 * r1


@pytest.fixture
def _no_cloudpickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests imported takes functions that pickle does not."""
    monkeypatch.delitem(sys.modules, "cloudpickle", raising=False)


@pytest.mark.usefixtures("_no_cloudpickle")
@pytest.mark.parametrize("what", ["helper", "kfunc"])
def test_the_helper_that_cannot_travel_is_named(what: str) -> None:
    vm = EbpfVmRaw(CALL)
    register = vm.register_helper if what == "helper" else vm.register_kfunc
    register(4, doubled)
    register(5, _local())
    with pytest.raises(pickle.PicklingError, match=rf"{what} 5 .*_local.*cannot be pickled"):
        pickle.dumps(vm)


@pytest.mark.usefixtures("_no_cloudpickle")
def test_a_function_names_its_helper_too() -> None:
    with pytest.raises(pickle.PicklingError, match=r"helper 5 .*cannot be pickled"):
        pickle.dumps(Program(CALL).compile(helpers={5: _local()}))


class _OtherPickler:
    """What cloudpickle is to the library: it takes functions that pickle does not."""

    @staticmethod
    def dumps(functions: Any) -> bytes:
        if isinstance(functions, NativeHelper):
            return pickle.dumps(functions)
        if callable(functions):
            return b""
        return pickle.dumps(dict.fromkeys(functions, doubled))


def test_what_only_cloudpickle_takes_travels_with_any_pickler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", _OtherPickler)  # type: ignore[misc] # all that is asked of it
    vm = EbpfVmRaw(CALL)
    vm.register_helper(5, _local())
    function = Program(CALL).compile(helpers={5: _local()})
    for other in (_again(vm), copy.copy(vm), copy.deepcopy(vm)):
        assert other.execute_program(b"ab") == vm.execute_program(b"ab")
    for called in (_again(function), copy.copy(function), copy.deepcopy(function)):
        assert called(b"ab") == function(b"ab")
    vm.register_helper(6, NativeHelper(1))
    with pytest.raises(EbpfError, match=r"helper 6 .*native code"):
        pickle.dumps(vm)


def test_native_helpers_stay_behind() -> None:
    vm = EbpfVmRaw(CALL)
    vm.register_helper(
        5, NativeHelper(ctypes.cast(ctypes.pythonapi.Py_IsInitialized, ctypes.c_void_p).value or 1)
    )
    with pytest.raises(pickle.PicklingError, match=r"helper 5 .*native code"):
        pickle.dumps(vm)


def test_allowed_memory_stays_behind() -> None:
    vm = EbpfVmRaw(SIZE)
    vm.register_allowed_memory(bytearray(8))
    with pytest.raises(pickle.PicklingError, match="allowed memory"):
        pickle.dumps(vm)


def _run_all(things: tuple[Any, ...], memory: bytes) -> list[Any]:
    program, function, vm = things
    results: list[Any] = [program.run(memory).return_value, function(memory), vm.execute_program_jit(memory)]
    try:
        function(b"")
    except MemoryFault as error:
        results.append(error)
    return results


def test_they_reach_a_process_that_was_started_afresh() -> None:
    program = Program(assemble("ldxb r1, [r1]\ncall 5\nexit"))
    plain = Program(assemble("ldxb r0, [r1]\nexit"))
    vm = EbpfVmRaw(program)
    vm.register_helper(5, doubled)
    vm.jit_compile()
    things = (plain, program.compile(helpers={5: doubled}), vm)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        *values, fault = pool.apply(_run_all, (things, b"\x15"))
    assert values == [21, 42, 42]
    assert isinstance(fault, MemoryFault)
    assert (fault.pc, fault.size) == (0, 1)


def _count(program: Program) -> int:
    return program.run(bytes(64)).return_value


def _seen(obj: Any) -> tuple[int, bytes]:
    obj.programs["count"].compile()(bytes(64))
    return obj.maps["seen"][0], obj.globals["plain"]


def test_programs_with_maps_reach_another_process() -> None:
    obj = load(OBJECTS / "counter.o")
    assert _count(obj.programs["count"]) == 2
    things = obj.programs["count"], obj.programs["count"].compile(), obj
    program, function, again = things
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(_count, [program] * 2) == [2, 2]
        assert pool.apply(function, (bytes(64),)) == 2
        assert pool.apply(_seen, (again,)) == ((2).to_bytes(8, "little"), 3)
    assert obj.maps["seen"][0] == (1).to_bytes(8, "little")


@pytest.mark.parametrize("copied", [_again, copy.deepcopy])
def test_an_object_and_its_parts_share_the_maps_of_the_copy(copied: Any) -> None:
    obj = load(OBJECTS / "counter.o")
    obj.globals["plain"] = 7
    other = copied(obj)
    program = other.programs["count"]
    assert program.maps[0] is other.maps["seen"] is not obj.maps["seen"]
    assert other.programs["without_maps"].run(bytes(64)).return_value == 7
    assert program.run(bytes(64)).return_value == _count(program) == 2
    assert [each.maps["seen"][0][0] for each in (obj, other)] == [0, 2]
    function, alone = copied((program.compile(), program))
    function(bytes(64))
    assert alone.maps[0][0][0] == 3
    assert list(other.programs) == list(obj.programs)
    with pytest.raises(KeyError, match="no program 'missing'; there are"):
        other.programs["missing"]


def test_pointers_among_variables_lead_into_the_copy() -> None:
    obj = load(OBJECTS / "data_pointers.o")
    other = _again(obj)
    for name in obj.programs:
        assert _outcome(obj.programs[name]) == _outcome(other.programs[name]), name
    there = {name: _places(each, "current") for name, each in {"here": obj, "copy": other}.items()}
    assert there["here"] == there["copy"] != []


def _outcome(program: Program) -> Any:
    try:
        return program.run(bytes(64)).return_value
    except EbpfError as error:
        return str(error)


def _places(obj: Any, name: str) -> list[tuple[str, int]]:
    """Return the map that a pointer leads into, and how far."""
    address = obj.globals[name]
    regions = [(each.name, region) for each in obj.maps.values() for region in each.regions]
    return [
        (of, address - region.start) for of, region in regions if 0 <= address - region.start < region.size
    ]


def _made(kind: str, key: int, value: int, entries: int, **more: Any) -> Any:
    return create(
        MapDefinition("m", MapType[kind], key, value, entries, **more), environment=Environment(cpus=3, cpu=1)
    )


def _filled(map_: Any, *items: tuple[Any, Any]) -> Any:
    for key, value in items:
        map_[key] = value
    return map_


def _used_lru() -> Any:
    map_ = _filled(_made("LRU_HASH", 4, 8, 3), (1, 10), (2, 20), (3, 30))
    map_.lookup((1).to_bytes(4, "little"))  # as a program does: 2 is the oldest now
    return map_


def _next_evicted(map_: Any) -> list[bytes]:
    map_[4] = 40
    return sorted(map_)


def _pushed(kind: str) -> Any:
    map_ = _made(kind, 0, 4, 3)
    for value in (7, 8, 9):
        map_.push(value)
    return map_


def _output() -> Any:
    map_ = _made("PERF_EVENT_ARRAY", 4, 4, 3)
    map_.output(b"event")
    return map_


def _recorded(state: str) -> Any:
    map_ = _made("RINGBUF", 0, 0, 4096)
    for text in (b"one", b"second"):
        address = map_.reserve(len(text))
        map_.regions[0].view[address - map_.address :][: len(text)] = text
        getattr(map_, state)(address)
    return map_


def _sampled() -> Any:
    map_ = _made("USER_RINGBUF", 0, 0, 4096)
    map_.submit(b"sample")
    return map_


INNER = MapDefinition("inner", MapType.ARRAY, 4, 8, 2)
PREFIX, WITHIN = bytes((16, 0, 0, 0, 10, 1, 2, 3)), bytes((32, 0, 0, 0, 10, 1, 9, 9))


def _of_maps(kind: str) -> Any:
    return _filled(_made(kind, 4, 4, 3, inner=INNER), (1, _filled(create(INNER), (1, 9))))


def _inside(map_: Any) -> Any:
    return map_[1][1], map_.lookup((1).to_bytes(4, "little")) == map_[1].address


def _items(map_: Any) -> Any:
    return list(map_.items())


MAPS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "array": (lambda: _filled(_made("ARRAY", 4, 8, 5000), (1, 5), (4999, 6)), _items),
    "percpu_array": (lambda: _filled(_made("PERCPU_ARRAY", 4, 8, 2), (1, [1, 2, 3])), _items),
    "hash": (lambda: _filled(_made("HASH", 4, 8, 900), *((n, n) for n in range(800))), _items),
    "percpu_hash": (
        lambda: _filled(_made("PERCPU_HASH", 4, 8, 9), (7, [1, 2, 3])),
        lambda m: [*m.items(), m.cpu],
    ),
    "lru_hash": (_used_lru, _next_evicted),
    "lpm_trie": (lambda: _filled(_made("LPM_TRIE", 8, 4, 9, flags=1), (PREFIX, 5)), lambda m: m[WITHIN]),
    "queue": (lambda: _pushed("QUEUE"), lambda m: [m.pop(), *m]),
    "stack": (lambda: _pushed("STACK"), lambda m: [m.pop(), *m]),
    "bloom_filter": (lambda: _pushed("BLOOM_FILTER"), lambda m: [n in m for n in range(6, 12)]),
    "perf_event_array": (_output, lambda m: m.consume()),
    "ringbuf": (lambda: _recorded("submit"), lambda m: m.consume()),
    "ringbuf, discarded": (lambda: _recorded("discard"), lambda m: [m.consume(), m.reserve(4000) > 0]),
    "user_ringbuf": (_sampled, lambda m: m.pending()),
    "devmap": (lambda: _filled(_made("DEVMAP", 4, 4, 3), (1, 7)), _items),
    "sockhash": (lambda: _filled(_made("SOCKHASH", 4, 8, 3), (1, 7)), _items),
    "task_storage": (lambda: _filled(_made("TASK_STORAGE", 4, 8, 0, flags=1), (Task(5, 5), 7)), _items),
    "array_of_maps": (lambda: _of_maps("ARRAY_OF_MAPS"), _inside),
    "hash_of_maps": (lambda: _of_maps("HASH_OF_MAPS"), _inside),
    "prog_array": (
        lambda: _filled(_made("PROG_ARRAY", 4, 4, 3), (1, Program(CALL, type="xdp"))),
        lambda m: [m[1], m.owner],
    ),
}


def test_each_kind_of_map_travels_with_all_that_it_holds() -> None:
    for name, (make, look) in MAPS.items():
        for copied in (_again, copy.deepcopy):
            original = make()
            other = copied(original)
            assert other.address != original.address, name
            assert look(other) == look(original), name  # on the copy first: nothing is shared


def test_what_stays_is_named() -> None:
    held = _made("RINGBUF", 0, 0, 4096)
    held.reserve(8)
    with pytest.raises(
        PicklingRefused, match=r"map 'm' \(ringbuf\) cannot be .*reserved.*load its object where"
    ):
        pickle.dumps(held)
    ring = _made("USER_RINGBUF", 0, 0, 4096)
    ring.reserve(8)
    with pytest.raises(PicklingRefused, match="a sample of it is reserved"):
        copy.deepcopy(ring)
    obj = load(OBJECTS / "timers.o")
    obj.programs[next(iter(obj.programs))].run(bytes(64))
    with pytest.raises(PicklingRefused, match="timers, or objects of programs, are in its values"):
        pickle.dumps(obj)


def test_shallow_copies_share_the_maps() -> None:
    obj = load(OBJECTS / "counter.o")
    again = copy.copy(obj)
    assert again.maps["seen"] is obj.maps["seen"] is copy.copy(obj.maps["seen"])
    assert copy.copy(obj.program("count")).run(bytes(64)).return_value == 2
    assert len(obj.maps["seen"]) == 1


@pytest.mark.usefixtures("_no_cloudpickle")
@pytest.mark.parametrize("member", ["clock", "random"])
def test_functions_of_an_environment_are_named(member: str) -> None:
    environment = Environment(**{member: _local()})
    program = Program(CALL, environment=environment)
    for thing in (environment, program, program.compile(helpers={5: doubled})):
        with pytest.raises(PicklingRefused, match=rf"the environment's {member} .*_local.*cannot be pickled"):
            pickle.dumps(thing)
    for copied in (copy.copy(environment), copy.deepcopy(environment)):
        assert copied == environment


def test_functions_of_an_environment_travel_with_cloudpickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cloudpickle", _OtherPickler)  # type: ignore[misc] # all that is asked of it
    again = _again(Environment(clock=_local(), cpu=3, cpus=4))
    assert (again.clock(21), again.cpu, again.cpus) == (42, 3, 4)


@pytest.mark.usefixtures("_no_cloudpickle")
def test_what_a_machine_asks_is_named() -> None:
    vm = EbpfVmRaw(CALL)
    vm.set_verifier(lambda prog: None)
    with pytest.raises(PicklingRefused, match=r"the machine's verifier .*cannot be pickled"):
        pickle.dumps(vm)


@pytest.mark.usefixtures("_no_cloudpickle")
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_share_what_cannot_travel(copied: Any) -> None:
    memory = bytearray(b"\x07")
    here = NativeHelper(ctypes.cast(ctypes.pythonapi.Py_IsInitialized, ctypes.c_void_p).value or 1)
    code = assemble("call 5\nmov r6, r0\ncall 6\nadd r6, r0\nldxb r0, [r6]\nexit")
    vm = EbpfVmRaw(code, kfuncs={"f": _local()})
    vm.register_helper(5, lambda *registers: address_of(memory) - 1)
    vm.register_helper(6, here)
    vm.register_allowed_memory(memory)
    vm.set_verifier(lambda prog: None)
    vm.jit_compile()
    other = copied(vm)
    assert (other.execute_program(b""), other.execute_program_jit(b"")) == (7, 7)
    function = Program(CALL).compile(helpers={5: _local(), 6: here})
    assert copied(function)() == function()
    assert copied(here) is here


def test_a_native_helper_by_itself_says_what_to_do() -> None:
    with pytest.raises(PicklingRefused, match="register it on arrival"):
        pickle.dumps(NativeHelper(1))
