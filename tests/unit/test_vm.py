"""The four machines through their public names, on both engines."""

from __future__ import annotations

import array
import threading
from typing import Any

import pytest

import ebpfjit
from ebpfjit import (
    BudgetExhausted,
    CallDepthExceeded,
    EbpfVmFixedMbuff,
    EbpfVmMbuff,
    EbpfVmNoData,
    EbpfVmRaw,
    ExecutionError,
    HelperNotFound,
    IllegalInstruction,
    LoadError,
    MemoryFault,
    NativeHelper,
    Program,
    VerifierError,
    address_of,
)
from ebpfjit.assembler import assemble

ENGINES = ("execute_program", "execute_program_jit")
engines = pytest.mark.parametrize("engine", ENGINES)


def run(vm: Any, engine: str, *arguments: Any) -> int:
    if engine == "execute_program_jit":
        vm.jit_compile()
    return int(getattr(vm, engine)(*arguments))


@engines
def test_no_data(engine: str) -> None:
    """The seeds' test_vm_add."""
    prog = bytes.fromhex(
        "b400000000000000 b401000002000000 0400000001000000 0c10000000000000 9500000000000000"
    )
    assert run(EbpfVmNoData(prog), engine) == 0x3


@engines
def test_raw(engine: str) -> None:
    """The seeds' test_jit_ldxh."""
    vm = EbpfVmRaw(bytes.fromhex("7110020000000000 9500000000000000"))
    assert run(vm, engine, bytearray.fromhex("aabb11ccdd")) == 0x11


@engines
def test_mbuff(engine: str) -> None:
    """The seeds' test_jit_mbuff."""
    vm = EbpfVmMbuff(bytes.fromhex("7911080000000000 6910020000000000 9500000000000000"))
    mem, mbuff = bytearray.fromhex("aabb1122ccdd"), bytearray(32)
    mbuff[8:16] = address_of(mem).to_bytes(8, "little")
    mbuff[24:32] = (address_of(mem) + len(mem)).to_bytes(8, "little")
    assert run(vm, engine, mem, mbuff) == 0x2211


@engines
def test_fixed_mbuff(engine: str) -> None:
    text = "ldxdw r2, [r1+0x40]\nldxdw r3, [r1+0x50]\nsub r3, r2\nldxb r0, [r2+1]\nlsh r0, 8\nor r0, r3\nexit"
    vm = EbpfVmFixedMbuff(assemble(text), 0x40, 0x50)
    assert run(vm, engine, bytearray(b"\x07\x09\x01")) == 0x0903
    vm.set_program(assemble(text.replace("0x40", "0").replace("0x50", "8")), 0, 8)
    assert run(vm, engine, b"\x07\x09") == 0x0902


@engines
def test_start_state(engine: str) -> None:
    """r1 and r2 as documented, r10 the top of a zeroed stack, all others 0."""
    text = "\n".join(f"or r0, r{n}" for n in (3, 4, 5, 6, 7, 8, 9))
    text += "\n" + "\n".join(f"ldxdw r3, [r10-{8 * n}]\nor r0, r3" for n in range(1, 65)) + "\nexit"
    assert run(EbpfVmRaw(assemble(text)), engine, bytearray(3)) == 0
    data = bytearray(5)
    assert run(EbpfVmRaw(assemble("mov r0, r1\nexit")), engine, data) == address_of(data)
    assert run(EbpfVmRaw(assemble("mov r0, r2\nexit")), engine, data) == 5
    assert run(EbpfVmRaw(assemble("mov r0, r1\nor r0, r2\nexit")), engine, b"") == 0
    assert run(EbpfVmNoData(assemble("mov r0, r1\nor r0, r2\nexit")), engine) == 0


@engines
@pytest.mark.parametrize("buffer", [bytearray(b"abcd"), array.array("I", [1]), memoryview(bytearray(4))])
def test_memory_is_written_in_place(engine: str, buffer: Any) -> None:
    vm = EbpfVmRaw(assemble("stw [r1], 0x11223344\nmov r0, 0\nexit"))
    run(vm, engine, buffer)
    assert bytes(memoryview(buffer)) == bytes.fromhex("44332211")


@engines
def test_a_store_to_bytes_raises(engine: str) -> None:
    data = b"abcd"
    with pytest.raises(MemoryFault, match=r"pc 0: store of 1 byte .*: mem is read-only") as caught:
        run(EbpfVmRaw(assemble("stb [r1+3], 1\nexit")), engine, data)
    assert (caught.value.pc, caught.value.address) == (0, address_of(data) + 3)
    assert data == b"abcd"


@engines
@pytest.mark.parametrize("offset", [-1, 1, 100])
def test_out_of_bounds(engine: str, offset: int) -> None:
    data = bytearray(8)
    with pytest.raises(MemoryFault) as caught:
        run(EbpfVmRaw(assemble(f"mov r0, 0\nldxdw r0, [r1{offset:+d}]\nexit")), engine, data)
    fault = caught.value
    assert (fault.pc, fault.address, fault.size, fault.access) == (1, address_of(data) + offset, 8, "load")


@engines
def test_after_a_fault_the_machine_runs_again(engine: str) -> None:
    vm = EbpfVmRaw(assemble("stxdw [r10-8], r1\nldxb r0, [r1+3]\nexit"))
    with pytest.raises(MemoryFault):
        run(vm, engine, b"abc")
    assert run(vm, engine, b"abcd") == ord("d")


@engines
def test_helpers(engine: str) -> None:
    seen = []

    def helper(*arguments: int) -> int:
        seen.append(arguments)
        return -1

    text = "mov r1, 1\nmov r2, -1\nmov r3, 3\nmov r4, 4\nmov r5, 5\nmov r6, 6\ncall 9\n"
    vm = EbpfVmNoData(
        assemble(text + "add r0, r6\nor r0, r1\nor r0, r2\nor r0, r3\nor r0, r4\nor r0, r5\nexit")
    )
    vm.register_helper(9, helper)
    assert run(vm, engine) == 5  # -1 + 6, and r1 to r5 are 0 after the call
    assert seen == [(1, 2**64 - 1, 3, 4, 5)]


@engines
def test_what_a_helper_raises_reaches_the_caller(engine: str) -> None:
    class Odd(BaseException):
        pass

    error = Odd("x")

    def helper(*arguments: int) -> int:
        raise error

    vm = EbpfVmNoData(assemble("call local f\nexit\nf: call 1\nexit"))
    vm.register_helper(1, helper)
    with pytest.raises(Odd) as caught:
        run(vm, engine)
    assert caught.value is error
    assert caught.traceback[-1].name == "helper"


@engines
def test_a_helper_that_returns_no_int(engine: str) -> None:
    vm = EbpfVmNoData(assemble("call 1\nexit"))
    vm.register_helper(1, lambda *_: None)  # type: ignore[arg-type,return-value]  # wrong on purpose
    with pytest.raises(TypeError, match="NoneType"):
        run(vm, engine)


@engines
def test_a_missing_helper_is_named_when_it_is_reached(engine: str) -> None:
    vm = EbpfVmRaw(assemble("jeq r2, 0, skip\ncall 77\nskip: mov r0, 1\nexit"))
    assert run(vm, engine, b"") == 1
    with pytest.raises(HelperNotFound, match="pc 1: call of helper 77") as caught:
        run(vm, engine, b"x")
    assert (caught.value.pc, caught.value.helper) == (1, 77)


def test_a_helper_registered_after_compiling_is_found() -> None:
    vm = EbpfVmNoData(assemble("call 3\nexit"))
    vm.jit_compile()
    with pytest.raises(HelperNotFound):
        vm.execute_program_jit()
    vm.register_helper(3, lambda *_: 33)
    assert vm.execute_program_jit() == 33


@engines
def test_a_native_helper(engine: str) -> None:
    import ctypes

    labs = ctypes.CDLL(None).labs
    address = ctypes.cast(labs, ctypes.c_void_p).value
    assert address is not None
    vm = EbpfVmNoData(assemble("mov r1, -5\ncall 4\nexit"))
    vm.register_helper(4, NativeHelper(address, labs))
    assert run(vm, engine) == 5


@engines
def test_a_program_may_call_itself_through_a_helper(engine: str) -> None:
    vm = EbpfVmRaw(assemble("mov r6, r2\njeq r6, 0, done\nmov r1, r6\ncall 1\ndone: add r0, r6\nexit"))
    vm.register_helper(1, lambda size, *_: int(getattr(vm, engine)(bytearray(size - 1))))
    assert run(vm, engine, bytearray(5)) == 5 + 4 + 3 + 2 + 1


@engines
def test_allowed_memory(engine: str) -> None:
    other = bytearray(b"xyz")
    vm = EbpfVmRaw(assemble("ldxdw r1, [r1]\nldxb r0, [r1+2]\nstb [r1], 0x41\nexit"))
    pointer = address_of(other).to_bytes(8, "little")
    with pytest.raises(MemoryFault):
        run(vm, engine, pointer)
    vm.register_allowed_memory(other)
    assert run(vm, engine, pointer) == ord("z")
    assert other == b"Ayz"
    with pytest.raises(BufferError):
        other.append(1)  # it stays in place while it is allowed
    by_range = EbpfVmRaw(assemble("ldxdw r1, [r1]\nldxb r0, [r1+2]\nexit"))
    by_range.register_allowed_memory(range(address_of(other), address_of(other) + 3))
    assert run(by_range, engine, pointer) == ord("z")


@pytest.mark.parametrize("memory", [b"", range(5, 5), range(-1, 5), range(0, 10, 2), range(1, 2**64 + 1)])
def test_allowed_memory_that_is_none(memory: Any) -> None:
    with pytest.raises(ValueError, match="allowed memory is"):
        EbpfVmNoData().register_allowed_memory(memory)


LOCAL_CALLS = """
    mov r6, 6
    mov r7, 7
    stdw [r10-8], 1
    mov r1, 5
    call local f
    add r0, r6
    ldxdw r1, [r10-8]
    add r0, r1
    exit
f:  mov r6, 100
    ldxdw r0, [r10-8]
    stdw [r10-8], 50
    add r0, r1
    exit
"""


@engines
def test_local_calls_have_their_own_frame_and_keep_r6(engine: str) -> None:
    assert run(EbpfVmNoData(assemble(LOCAL_CALLS)), engine) == 0 + 5 + 6 + 1


RECURSION = (
    "mov r1, {depth}\ncall local f\nexit\nf: mov r0, 1\njeq r1, 0, out\nsub r1, 1\ncall local f\nout: exit"
)


@engines
def test_eight_frames_and_no_more(engine: str) -> None:
    assert run(EbpfVmNoData(assemble(RECURSION.format(depth=6))), engine) == 1
    with pytest.raises(CallDepthExceeded) as caught:
        run(EbpfVmNoData(assemble(RECURSION.format(depth=7))), engine)
    assert caught.value.pc == 6


@engines
def test_the_stack_usage_calculator_sizes_frames(engine: str) -> None:
    asked = []

    def calculator(prog: bytes, pc: int) -> int:
        asked.append(pc)
        return {0: 64, 3: 8}[pc]

    text = "mov r6, r10\ncall local f\nexit\nf: mov r0, r6\nsub r0, r10\nldxdw r1, [r10-16]\nexit"
    vm = EbpfVmNoData(assemble(text))
    assert run(vm, engine) == 512
    vm.set_stack_usage_calculator(calculator)
    assert asked == [0, 3]
    assert run(vm, engine) == 64
    vm.set_program(assemble(text.replace("r10-16", "r10-24")))
    with pytest.raises(MemoryFault, match=r"stack \(80 bytes\)"):
        run(vm, engine)


@engines
def test_frames_that_do_not_fit_the_stack(engine: str) -> None:
    vm = EbpfVmNoData(assemble("call local f\nexit\nf: mov r0, 0\nexit"))
    vm.set_stack_usage_calculator(lambda prog, pc: 4096 if pc == 0 else 16)
    with pytest.raises(CallDepthExceeded) as caught:
        run(vm, engine)
    assert caught.value.pc == 0


def test_a_calculator_that_gives_nonsense() -> None:
    vm = EbpfVmNoData(assemble("exit"))
    with pytest.raises(LoadError, match="0 to 4096"):
        vm.set_stack_usage_calculator(lambda prog, pc: 5000)


@engines
@pytest.mark.parametrize(("limit", "pc"), [(3, 1), (4, 1), (5, None)])
def test_the_budget_is_charged_by_blocks(engine: str, limit: int, pc: int | None) -> None:
    """mov | sub, jne | sub, jne | ..: the second round needs 5 instructions in all, exit a sixth."""
    vm = EbpfVmNoData(
        assemble("mov r1, 2\nloop: sub r1, 1\njne r1, 0, loop\nmov r0, 1\nexit"), instruction_limit=limit
    )
    with pytest.raises(BudgetExhausted) as caught:
        run(vm, engine)
    assert caught.value.pc == (3 if pc is None else pc)
    vm = EbpfVmNoData(
        assemble("mov r1, 2\nloop: sub r1, 1\njne r1, 0, loop\nmov r0, 1\nexit"), instruction_limit=7
    )
    assert run(vm, engine) == 1


@pytest.mark.parametrize("limit", [0, -1, 1.5, "9"])
def test_a_limit_that_is_none(limit: Any) -> None:
    with pytest.raises(ValueError, match="positive"):
        EbpfVmNoData(instruction_limit=limit)


@engines
def test_nothing_loaded(engine: str) -> None:
    with pytest.raises(ExecutionError, match="no program is loaded"):
        getattr(EbpfVmNoData(), engine)()
    with pytest.raises(ExecutionError, match="no program is loaded"):
        EbpfVmNoData().jit_compile()


def test_not_compiled() -> None:
    vm = EbpfVmNoData(assemble("exit"))
    with pytest.raises(ExecutionError, match="jit_compile"):
        vm.execute_program_jit()


@engines
def test_what_a_careless_verifier_lets_through_is_caught_at_run_time(engine: str) -> None:
    """Unknown words, jumps outside or into an lddw, falling off the end: exceptions, not crashes."""
    cases = {
        "ff00000000000000": (0, "unknown instruction"),
        "0500630000000000": (0, "jump to pc 100, outside"),
        "0500010000000000 1800000000000000 0000000000000000": (0, "second half"),
        "b700000001000000": (1, "fell off the end"),
        "bfb0000000000000": (0, "register r11"),
        "8510000063000000": (0, "jump to pc 100"),
    }
    for code, (pc, words) in cases.items():
        vm = EbpfVmNoData()
        vm.set_verifier(lambda prog: None)
        vm.set_program(bytes.fromhex(code))
        with pytest.raises(IllegalInstruction, match=words) as caught:
            run(vm, engine)
        assert caught.value.pc == pc


def test_a_program_object_is_taken_too() -> None:
    program = Program.from_bytes(assemble("mov r0, 7\nexit"), name="seven")
    vm = EbpfVmNoData(program)
    assert vm.execute_program() == 7
    assert vm.program is program


@pytest.mark.parametrize("prog", [5, "mov r0, 1", object()])
def test_what_is_no_bytecode(prog: Any) -> None:
    with pytest.raises(TypeError):
        EbpfVmNoData(prog)


def test_refused_programs_leave_the_old_one() -> None:
    vm = EbpfVmNoData(assemble("mov r0, 7\nexit"))
    with pytest.raises(VerifierError):
        vm.set_program(b"\0" * 8)
    assert vm.execute_program() == 7


@pytest.mark.parametrize(("key", "error"), [(-1, ValueError), (2**32, ValueError), ("5", TypeError)])
def test_helper_numbers_are_u32(key: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="number"):
        EbpfVmNoData().register_helper(key, lambda *_: 0)


@pytest.mark.parametrize("offsets", [(-1, 8), (0, 2**32), (0, 4)])
def test_offsets_of_the_fixed_buffer(offsets: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"metadata buffer|overlap"):
        EbpfVmFixedMbuff(None, *offsets)


@engines
def test_many_threads_at_once(engine: str) -> None:
    text = "stxdw [r10-8], r2\nmov r3, 200\nloop: ldxdw r0, [r10-8]\nsub r3, 1\njne r3, 0, loop\nexit"
    vm = EbpfVmRaw(assemble(text))
    vm.jit_compile()
    wrong = []

    def work(size: int) -> None:
        for _ in range(20):
            if getattr(vm, engine)(bytearray(size)) != size:
                wrong.append(size)

    threads = [threading.Thread(target=work, args=(size,)) for size in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_unchecked_machine_code_has_no_checks() -> None:
    text = assemble("ldxdw r0, [r1]\nexit")
    assert "check_load" in EbpfVmRaw(text).listing()
    unchecked = EbpfVmRaw(text, checked=False)
    assert "check_load" not in unchecked.listing()
    unchecked.jit_compile()
    assert unchecked.execute_program_jit(b"\x05" + bytes(7)) == 5


def test_program_run_and_compile() -> None:
    program = Program.from_bytes(assemble("ldxb r0, [r1+1]\nstb [r1], 0\nexit"))
    for engine, instructions in (("jit", None), ("interpreter", 3)):
        result = program.run(b"ab", engine=engine)
        assert (result.return_value, result.data, result.instructions) == (ord("b"), b"\0b", instructions)
    function = program.compile()
    data = bytearray(b"xy")
    assert function(data) == ord("y")
    assert data == b"\0y"
    assert "ldxb r0, [r1+0x1]" in function.listing()
    with pytest.raises(ValueError, match="no engine 'gpu'"):
        program.run(engine="gpu")


def test_trace_output_is_collected() -> None:
    program = Program.from_bytes(assemble("mov r3, 1\nmov r4, 2\nmov r5, 3\ncall 6\nexit"))
    result = program.run()
    assert result.output == ("bpf_trace_printf: 0x1, 0x2, 0x3",)


def test_public_names() -> None:
    assert [name for name in ebpfjit.__all__ if not hasattr(ebpfjit, name)] == []
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        ebpfjit.nonsense  # noqa: B018 - the access is the test


def test_options_of_compile() -> None:
    program = Program.from_bytes(assemble("call 9\nldxb r1, [r10-1]\nadd r0, r1\nadd r0, 0x12345678\nexit"))
    helpers = {9: lambda *_: 1}
    assert program.compile(helpers=helpers, harden=True)() == 0x12345679
    assert program.compile(helpers=helpers, checked=False)() == 0x12345679
    with pytest.raises(BudgetExhausted):
        program.compile(helpers=helpers, limit=4)()


@pytest.mark.parametrize("number", [-2, -0x80000000, 0x7EADBEEF])
def test_a_hardened_move_that_is_jumped_over_keeps_its_width(number: int) -> None:
    text = assemble(f"mov r0, -1\njeq r2, 3, over\nmov32 r0, {number}\nover: exit")
    vm = EbpfVmRaw(text, harden=True)
    vm.jit_compile()
    for size in (3, 5):
        assert vm.execute_program_jit(bytearray(size)) == vm.execute_program(bytearray(size))


def test_a_fixed_buffer_keeps_program_and_offsets_together() -> None:
    vm = EbpfVmFixedMbuff(assemble("mov r0, 7\nexit"), 0, 8)
    with pytest.raises(ValueError, match="overlap"):
        vm.set_program(assemble("mov r0, 8\nexit"), 0, 4)
    with pytest.raises(VerifierError):
        vm.set_program(b"\0" * 8, 16, 24)
    assert (vm.execute_program(b""), vm.data_offset, vm.data_end_offset) == (7, 0, 8)
