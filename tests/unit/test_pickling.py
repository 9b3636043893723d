"""Programs, compiled functions and machines travel as bytecode, settings and helpers."""

from __future__ import annotations

import copy
import ctypes
import multiprocessing
import pickle
from typing import Any

import pytest

from ebpfjit import (
    BudgetExhausted,
    EbpfVmFixedMbuff,
    EbpfVmMbuff,
    EbpfVmNoData,
    EbpfVmRaw,
    MemoryFault,
    NativeHelper,
    PicklingRefused,
    Program,
    VerifierError,
    load,
)
from ebpfjit.assembler import assemble
from ebpfjit.isa.table import BY_NAME
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
    assert again() == 42
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


@pytest.mark.parametrize("what", ["helper", "kfunc"])
def test_the_helper_that_cannot_travel_is_named(what: str) -> None:
    vm = EbpfVmRaw(CALL)
    register = vm.register_helper if what == "helper" else vm.register_kfunc
    register(4, doubled)
    register(5, _local())
    with pytest.raises(pickle.PicklingError, match=rf"{what} 5 .*_local.*cannot be pickled"):
        pickle.dumps(vm)


def test_a_function_names_its_helper_too() -> None:
    with pytest.raises(pickle.PicklingError, match=r"helper 5 .*cannot be pickled"):
        pickle.dumps(Program(CALL).compile(helpers={5: _local()}))


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


@pytest.mark.parametrize("copied", [pickle.dumps, copy.deepcopy])
@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda obj: obj, r"object '.*counter\.o' cannot be pickled"),
        (lambda obj: obj.program("count"), "program 'count' cannot be pickled .*'seen'.*load its object"),
        (lambda obj: obj.program("count").compile(), "program 'count' cannot be pickled .*'seen'"),
        (lambda obj: obj.maps["seen"], "map 'seen' cannot be copied or pickled.*load the object where"),
        (lambda obj: obj.globals, "map '.data' cannot be copied or pickled"),
    ],
)
def test_maps_stay_behind(what: Any, says: str, copied: Any) -> None:
    with pytest.raises(PicklingRefused, match=says):
        copied(what(load(OBJECTS / "counter.o")))


def test_shallow_copies_share_the_maps() -> None:
    obj = load(OBJECTS / "counter.o")
    again = copy.copy(obj)
    assert again.maps["seen"] is obj.maps["seen"] is copy.copy(obj.maps["seen"])
    assert copy.copy(obj.program("count")).run(bytes(64)).return_value == 2
    assert len(obj.maps["seen"]) == 1
