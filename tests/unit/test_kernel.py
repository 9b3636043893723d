"""The kernel engine, and isa.semantics judged by Linux.

The second half asks the kernel's JIT what every row of the table does on the edges and compares the
answers with `isa.semantics`. One program holds many cases: operands are loaded from memory, so the
verifier cannot compute the answer beforehand, and each result is stored back behind the operands.
"""

from __future__ import annotations

import errno
import itertools
import os
import pickle
import struct
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ebpfjit.bits import W32, W64
from ebpfjit.errors import EbpfError, InputError, LoadError, VerifierError
from ebpfjit.isa.semantics import ATOMIC, BINARY, CONDITION, MOVE, UNARY
from ebpfjit.isa.spec import Kind, Reg, Row
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.kernel import (
    Kernel,
    KernelMap,
    KernelResult,
    KernelUnavailable,
    KernelVerifierError,
    run_program,
    syscalls,
    unavailable_reason,
    wrap,
)
from ebpfjit.kernel.wrapping import main_end, stack_to_zero
from ebpfjit.program import Instruction, Program
from tests.support.rows import over

needs_kernel = pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))

EDGES64 = sorted(
    {
        *(0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 65, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF),
        *(W64.wrap(-1), W64.wrap(-2), W64.wrap(-3), W64.wrap(-64)),
        *(0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 1, 0x7FFFFFFF_80000000),
        *(W64.int_min, W64.int_min - 1, W64.int_min + 1, 0x80000000_80000000, 0xFFFFFFFF_80000000),
        *(0x0123456789ABCDEF, 0xFEDCBA9876543210, 0xDEADBEEF_00000000),
    }
)
EDGES_IMM = (
    0,
    1,
    2,
    3,
    7,
    31,
    32,
    63,
    64,
    127,
    128,
    255,
    0x7FFF,
    0x8000,
    0x7FFFFFFF,
    -(1 << 31),
    -1,
    -2,
    -64,
)


def insn(name: str, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0, next_imm: int = 0) -> bytes:
    """Encode one row; the row's fixed fields win."""
    row = BY_NAME[name]

    def fixed(required: object, given: int) -> int:
        return required if isinstance(required, int) else given

    return Instruction(
        0,
        row.opcode,
        fixed(row.dst, dst),
        fixed(row.src, src),
        fixed(row.offset, offset),
        fixed(row.imm, imm),
        next_imm if row.is_wide else None,
    ).encode()


EXIT = insn("EXIT")


def returning(value: int) -> bytes:
    """A program that returns the u64 `value`."""
    low, high = W32.signed(value), W32.signed(value >> 32)
    return insn("LDDW", 0, imm=low, next_imm=high) + EXIT


def typed(code: bytes, type: str) -> Program:
    return Program.from_bytes(code, type=type)


# --- without the kernel ---


def test_wrapping_moves_nothing_and_keeps_the_exits_of_callees() -> None:
    code = insn("CALL_LOCAL", imm=1) + EXIT + insn("MOV64_K", 0, imm=3) + EXIT
    program = Program.from_bytes(code)
    wrapped = wrap(program, 5, None, 0)
    body = [i for i in Program.from_bytes(wrapped.code).instructions if i.pc >= wrapped.first_slot]
    assert [i.row.name for i in body if i.row] == ["CALL_LOCAL", "JA", "MOV64_K", "EXIT"]
    assert body[1].target == 2
    assert main_end(program) == 2


def test_a_far_exit_becomes_a_long_jump() -> None:
    code = insn("MOV64_K", 0, imm=1) * 40000 + EXIT
    wrapped = wrap(Program.from_bytes(code), 5, None, 0)
    last = Program.from_bytes(wrapped.code).instructions[-1]
    assert last.row is BY_NAME["JA32"]
    assert last.target == 2


def test_an_exit_with_a_reserved_field_stays_for_the_verifier_to_judge() -> None:
    code = Instruction(0, BY_NAME["EXIT"].opcode, dst_reg=1, src_reg=0, offset=0, imm=0).encode()
    assert wrap(Program.from_bytes(code), 5, None, 0).code.endswith(code)


def test_the_stack_is_zeroed_whole_unless_frames_share_it() -> None:
    call = insn("CALL_LOCAL", imm=1) + EXIT + insn("STDW", 10, offset=-400, imm=1) + EXIT
    assert stack_to_zero(Program.from_bytes(returning(0))) == 512
    assert stack_to_zero(Program.from_bytes(insn("MAY_GOTO") + EXIT)) == 496
    assert stack_to_zero(Program.from_bytes(insn("STB", 10, offset=-1) + call)) == 8
    assert stack_to_zero(Program.from_bytes(insn("ADD64_K", 2, imm=-24) + call)) == 24
    assert stack_to_zero(Program.from_bytes(insn("LDXW", 2, 10, offset=-12) + call)) == 16
    assert stack_to_zero(Program.from_bytes(call)) == 0


def test_another_system_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    syscalls._syscall.cache_clear()
    try:
        with pytest.raises(KernelUnavailable, match="needs Linux"):
            KernelMap(8)
    finally:
        syscalls._syscall.cache_clear()


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_not_permitted_is_said_plainly(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(syscalls, "_call", lambda command, attributes: (-number, attributes))
    with Kernel() as kernel, pytest.raises(KernelUnavailable, match=r"bpf\(2\)"):
        kernel.run_program(returning(0))
    with pytest.raises(KernelUnavailable, match=r"bpf\(2\)"):
        syscalls.program_load(returning(0), 6)


def test_errors_can_be_pickled() -> None:
    error = KernelVerifierError("pc 1: no", 1, errno=22, log="all of it")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.pc, again.errno, again.log) == ("pc 1: no", 1, 22, "all of it")


# --- raw programs ---


@needs_kernel
@pytest.mark.parametrize("value", [0, 1, 1 << 32, W64.mask, 0xFEDCBA9876543210])
def test_all_64_bits_of_r0_come_back(value: int) -> None:
    assert run_program(returning(value)).return_value == value


@needs_kernel
def test_start_state_is_zero_but_for_memory_length_and_stack() -> None:
    total = b"".join(insn("ADD64_X", 0, register) for register in (1, 2, 3, 4, 5, 6, 7, 8, 9))
    assert run_program(total + EXIT).return_value == 0
    for offset in (-8, -512, -256):
        assert run_program(insn("LDXDW", 0, 10, offset=offset) + EXIT).return_value == 0
    assert run_program(insn("MOV64_X", 0, 2) + EXIT, bytes(7)).return_value == 7


@needs_kernel
def test_memory_goes_in_and_comes_back_and_reruns_start_afresh() -> None:
    code = insn("LDXB", 0, 1, offset=4) + insn("STB", 1, offset=4, imm=0x5A) + EXIT
    for _ in range(3):
        assert run_program(code, b"abcdefg") == KernelResult(ord("e"), b"abcdZfg")
    assert run_program(code, bytearray(b"1234567")).data == b"1234Z67"
    assert run_program(code, memoryview(b"12345")).return_value == ord("5")


@needs_kernel
def test_local_calls_have_a_frame_each() -> None:
    callee = insn("STDW", 10, offset=-512, imm=9) + insn("MOV64_K", 0, imm=1) + EXIT
    caller = (
        insn("STDW", 10, offset=-8, imm=77)
        + insn("MOV64_K", 6, imm=40)
        + insn("CALL_LOCAL", imm=4)
        + insn("ADD64_X", 0, 6)
        + insn("LDXDW", 1, 10, offset=-8)
        + insn("ADD64_X", 0, 1)
        + EXIT
    )
    try:
        result = run_program(caller + callee)
    except KernelVerifierError as error:
        if "combined stack size" in error.log:
            pytest.skip("this kernel's JIT has no private stacks: all frames share 512 bytes")
        raise
    assert result.return_value == 1 + 40 + 77


@needs_kernel
def test_a_program_far_longer_than_a_short_jump_runs() -> None:
    code = insn("ADD64_K", 0, imm=1) * 40000 + EXIT
    assert run_program(code).return_value == 40000


@needs_kernel
def test_may_goto_ends_an_endless_loop_late() -> None:
    loop = insn("ADD64_K", 0, imm=1) + insn("MAY_GOTO", offset=1) + insn("JA", offset=-3) + EXIT
    assert run_program(loop).return_value > 1_000_000


@needs_kernel
@pytest.mark.parametrize(
    ("code", "pc", "text"),
    [
        (insn("LDXDW", 0, 1, offset=1) + EXIT, 0, "R1"),
        (insn("MOV64_K", 0) + insn("DIV64_K", 0, imm=0) + EXIT, 1, "div by zero"),
        (insn("CALL_LOCAL", imm=2) + insn("MOV64_X", 0, 3) + EXIT + EXIT, 1, "R3 !read_ok"),
        (insn("JA", offset=1) + EXIT + EXIT, 1, "unreachable insn"),
        (insn("MOV64_K", 0), None, "last insn is not an exit or jmp"),
        (b"\x8d" + bytes(7) + EXIT, None, "unknown opcode 8d"),
        (insn("CALL", imm=5) + insn("JEQ_K", 0, offset=-1) + EXIT, 1, "infinite loop"),
    ],
)
def test_a_refusal_names_the_slot_and_carries_the_log(code: bytes, pc: int | None, text: str) -> None:
    with pytest.raises(VerifierError) as caught:
        run_program(code, bytes(8))
    error = caught.value
    assert isinstance(error, KernelVerifierError)
    assert text in str(error).splitlines()[0]
    assert text in error.log
    assert error.errno
    assert error.pc == pc
    assert error.rule == "kernel"


@needs_kernel
def test_a_long_log_is_read_whole() -> None:
    code = insn("ADD64_K", 0, imm=1) * 3000 + insn("LDXB", 0, 2) + EXIT
    with pytest.raises(KernelVerifierError) as caught:
        run_program(code)
    assert caught.value.pc == 3000
    assert len(caught.value.log) > 1 << 16
    assert len(str(caught.value)) < 4000


@needs_kernel
def test_the_log_of_an_accepted_program_on_request() -> None:
    assert run_program(returning(1)).log == ""
    assert "processed" in run_program(returning(1), log_level=1).log


@needs_kernel
def test_empty_and_odd_programs_are_refused_not_crashed_on() -> None:
    with pytest.raises(EbpfError):
        run_program(b"")
    with pytest.raises(EbpfError):
        run_program(b"\x95")


# --- packet loads ---


def _packet_load(row: Row, at: int) -> bytes:
    if row.uses_src:
        return insn("MOV64_K", 7, imm=at - 1) + insn(row.name, src=7, imm=1) + EXIT
    return insn(row.name, imm=at) + EXIT


@needs_kernel
@pytest.mark.parametrize("name", ["LDABSB", "LDABSH", "LDABSW", "LDINDB", "LDINDH", "LDINDW"])
def test_packet_loads_convert_from_network_order_and_end_the_program_outside(name: str) -> None:
    row, packet = BY_NAME[name], bytes(range(0xF0, 0x100))
    after = insn("ADD64_K", 0, imm=1) + EXIT
    for at in (0, 1, 5, 16 - row.size):
        expected = int.from_bytes(packet[at : at + row.size], "big")
        assert run_program(_packet_load(row, at), packet).return_value == expected
    for at in (16 - row.size + 1, 16, 1000, 1 << 20):
        code = _packet_load(row, at).removesuffix(EXIT) + after
        assert run_program(code, packet).return_value == 0
    assert run_program(_packet_load(row, 0), b"").return_value == 0


@needs_kernel
def test_packet_load_index_has_32_bits() -> None:
    def indexed(register: int, imm: int) -> bytes:
        halves = {"imm": W32.signed(register), "next_imm": W32.signed(register >> 32)}
        return insn("LDDW", 7, **halves) + insn("LDINDB", src=7, imm=imm) + EXIT

    assert run_program(indexed((1 << 32) + 1, 0), b"abc").return_value == ord("b")
    assert run_program(indexed(W64.wrap(-1), 3), b"abc").return_value == ord("c")
    assert run_program(indexed(W32.mask, 1), b"abc").return_value == ord("a")
    assert run_program(indexed(0, -1), b"abc").return_value == 0
    network_header = -0x100000  # SKF_NET_OFF, include/uapi/linux/filter.h
    assert run_program(insn("LDABSB", imm=network_header) + EXIT, b"abc").return_value == ord("a")


@needs_kernel
def test_memory_and_packet_can_differ() -> None:
    code = insn("LDXB", 7, 1) + insn("LDABSB", imm=0) + insn("LSH64_K", 7, imm=8)
    code += insn("OR64_X", 0, 7) + EXIT
    assert run_program(code, b"\x12", packet=b"\x34") == KernelResult(0x1234, b"\x12")


# --- typed programs ---

XDP_WRITE = (
    insn("LDXW", 2, 1, offset=0)
    + insn("LDXW", 3, 1, offset=4)
    + insn("MOV64_X", 4, 2)
    + insn("ADD64_K", 4, imm=14)
    + insn("MOV64_K", 0, imm=1)
    + insn("JGT_X", 4, 3, offset=2)
    + insn("STB", 2, offset=0, imm=9)
    + insn("MOV64_K", 0, imm=2)
    + EXIT
)


@needs_kernel
def test_an_xdp_program_sees_and_changes_its_packet() -> None:
    result = run_program(typed(XDP_WRITE, "xdp"), bytes(range(20)))
    assert (result.return_value, result.data) == (2, b"\x09" + bytes(range(1, 20)))


@needs_kernel
@over("type", ["tc", "classifier", "action", "socket_filter", "lwt_in", "lwt_xmit"])
@over("packet", [bytes(range(30)), b"\x45" + bytes(19), b"\x45" + bytes(14)])
def test_the_packet_is_what_the_program_sees_from_its_first_byte(type: str, packet: bytes) -> None:
    result = run_program(typed(insn("LDXW", 0, 1, offset=0) + EXIT, type), packet)
    assert (result.return_value, result.data) == (len(packet), packet)


@needs_kernel
def test_return_values_of_typed_programs_have_32_bits() -> None:
    assert run_program(typed(returning(0x1_8000_0001), "xdp"), bytes(14)).return_value == 0x80000001


@needs_kernel
def test_contexts_go_in_and_come_back() -> None:
    mark = insn("LDXW", 0, 1, offset=8) + insn("STW", 1, offset=8, imm=5) + EXIT
    result = run_program(typed(mark, "tc"), bytes(14), context=struct.pack("=III", 0, 0, 77))
    assert result.return_value == 77
    assert result.context[8:12] == struct.pack("=I", 5)
    second = insn("LDXDW", 0, 1, offset=8) + EXIT
    result = run_program(typed(second, "raw_tracepoint"), context=struct.pack("=QQ", 1, 99))
    assert result.return_value == 99
    store = insn("STDW", 1, offset=0, imm=4) + insn("MOV64_K", 0) + EXIT
    assert run_program(typed(store, "syscall"), context=bytes(16)).context == b"\x04" + bytes(15)


@needs_kernel
def test_inputs_the_kernel_does_not_run_are_said_plainly() -> None:
    with pytest.raises(InputError, match="at least 14 bytes"):
        run_program(typed(returning(0), "xdp"), bytes(13))
    with pytest.raises(InputError, match="no packet"):
        run_program(typed(returning(0), "syscall"), bytes(13))
    with pytest.raises(LoadError, match="kprobe"):
        run_program(typed(returning(0), "kprobe"))
    with pytest.raises(InputError, match="EINVAL"):
        run_program(typed(returning(0), "xdp"), bytes(14), context=b"\xff" * 24)
    with pytest.raises(InputError, match="1048576 bytes"):
        run_program(typed(returning(0), "xdp"), bytes(1 << 20))


# --- maps, and what stays open ---


@needs_kernel
def test_array_maps() -> None:
    with KernelMap(3, max_entries=2) as array:
        key = struct.pack("=I", 1)
        assert array.lookup(key) == bytes(3)
        array.update(b"abc", key)
        assert array.lookup(key) == b"abc"
        assert array.lookup(struct.pack("=I", 2)) is None
        with pytest.raises(EbpfError, match="E2BIG"):
            array.update(b"abc", struct.pack("=I", 2))
        with pytest.raises(EbpfError, match="4 bytes, not 1"):
            array.lookup(b"k")
        with pytest.raises(EbpfError, match="3 bytes, not 4"):
            array.update(b"long")
    with pytest.raises(EbpfError, match="closed"):
        array.lookup()
    with pytest.raises(EbpfError, match="EINVAL"):
        KernelMap(0)


@needs_kernel
@pytest.mark.parametrize("type", [None, "xdp"])
def test_a_descriptor_used_again_is_another_map(type: str | None) -> None:
    descriptors = set()
    for value in (11, 22):
        with KernelMap(8) as array:
            array.update(struct.pack("<Q", value))
            descriptors.add(array.fd)
            code = insn("LDDW_MAP_VALUE", 1, imm=array.fd) + insn("LDXDW", 0, 1) + EXIT
            program = Program.from_bytes(code, type=type)
            assert run_program(program, bytes(14)).return_value == value
    assert len(descriptors) == 1


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@needs_kernel
def test_descriptors_stay_bounded_and_all_close() -> None:
    before = open_descriptors()
    with Kernel(kept=4) as kernel:
        for number in range(50):
            result = kernel.run_program(returning(number), bytes(number))
            assert result.return_value == number
            with pytest.raises(KernelVerifierError):
                kernel.run_program(insn("LDXB", 0, 3) + EXIT, bytes(number))
        assert open_descriptors() <= before + 4 + 4 + 4 + 1
        kernel.run_program(returning(49), bytes(49))
    assert open_descriptors() == before


@needs_kernel
def test_threads_share_the_engine() -> None:
    code = insn("LDXDW", 0, 1) + insn("STXDW", 1, 0, offset=8) + EXIT

    def run(number: int) -> bool:
        word = struct.pack("<Q", number)
        return run_program(code, word + bytes(8)) == KernelResult(number, word + word)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(run, range(2000)))


@needs_kernel
def test_a_forked_child_has_an_engine_of_its_own() -> None:
    code = insn("LDXB", 0, 1) + EXIT
    assert run_program(code, b"\x01").return_value == 1
    child = os.fork()
    if child == 0:
        os._exit(run_program(code, b"\x2a").return_value)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    assert run_program(code, b"\x02").return_value == 2


# --- isa.semantics judged by Linux ---
#
# A case is the words it starts from, code with r9 = the address of the first (free to use r0, r3 to
# r5), and what those words are to be afterwards.

Case = tuple[tuple[int, ...], bytes, tuple[int, ...]]


def check(cases: list[Case]) -> None:
    """Run the cases, 400 a program, and compare every word of memory."""
    for start in range(0, len(cases), 400):
        batch = cases[start : start + 400]
        before: list[int] = []
        after: list[int] = []
        code = insn("MOV64_X", 9, 1)
        for words, body, expected in batch:
            code += body
            before += words
            after += expected
            code += insn("ADD64_K", 9, imm=8 * len(words))
        result = run_program(
            code + insn("MOV64_K", 0, imm=0) + EXIT, struct.pack(f"<{len(before)}Q", *before)
        )
        actual = struct.unpack(f"<{len(after)}Q", result.data)
        wrong = [
            f"{_hex(words)}: Linux {_hex(got)}, semantics {_hex(expected)}"
            for (words, _, expected), got in zip(batch, _grouped(actual, batch), strict=True)
            if tuple(got) != expected
        ]
        assert not wrong, "\n".join(wrong[:10])


def _hex(words: tuple[int, ...]) -> str:
    return " ".join(f"{word:#x}" for word in words)


def _grouped(words: tuple[int, ...], batch: list[Case]) -> Iterator[tuple[int, ...]]:
    at = 0
    for given, _, _ in batch:
        yield words[at : at + len(given)]
        at += len(given)


def rows(*kinds: Kind) -> list[Row]:
    return [row for row in TABLE if row.kind in kinds]


LOAD_OPERANDS = insn("LDXDW", 3, 9, offset=0) + insn("LDXDW", 4, 9, offset=8)


def _register_case(row: Row, dst: int, src: int, expected: int) -> Case:
    body = LOAD_OPERANDS + insn(row.name, 3, 4) + insn("STXDW", 9, 3, offset=0)
    return (dst, src), body, (expected, src)


def _imm_allowed(row: Row, imm: int) -> bool:
    """The verifier refuses division by the constant 0 and shifts by a constant past the width."""
    if row.meaning in ("DIV", "SDIV", "MOD", "SMOD"):
        return imm != 0
    return row.meaning not in ("LSH", "RSH", "ARSH") or 0 <= imm < row.width.bits


def _imm_case(row: Row, dst: int, imm: int, expected: int) -> Case:
    body = insn("LDXDW", 3, 9, offset=0) + insn(row.name, 3, imm=imm) + insn("STXDW", 9, 3, offset=0)
    return (dst,), body, (expected,)


def _cases(row: Row, value: Callable[[int, int], int]) -> list[Case]:
    if row.uses_src:
        return [_register_case(row, a, b, value(a, b)) for a, b in itertools.product(EDGES64, EDGES64)]
    imms = [imm for imm in EDGES_IMM if _imm_allowed(row, imm)]
    return [_imm_case(row, a, imm, value(a, W64.wrap(imm))) for a, imm in itertools.product(EDGES64, imms)]


@needs_kernel
@over("row", rows(Kind.BINARY))
def test_arithmetic(row: Row) -> None:
    w, meaning = row.width, BINARY[row.meaning]
    check(_cases(row, lambda a, b: meaning(w, w.wrap(a), w.wrap(b))))


@needs_kernel
@over("row", [row for row in rows(Kind.BINARY) if row.uses_src])
def test_arithmetic_on_one_register(row: Row) -> None:
    w, meaning = row.width, BINARY[row.meaning]
    body = insn("LDXDW", 3, 9) + insn(row.name, 3, 3) + insn("STXDW", 9, 3)
    check([((a,), body, (meaning(w, w.wrap(a), w.wrap(a)),)) for a in EDGES64])


@needs_kernel
@pytest.mark.parametrize("row", rows(Kind.MOVE), ids=repr)
def test_moves(row: Row) -> None:
    w, meaning = row.width, MOVE[row.meaning]
    check(_cases(row, lambda a, b: meaning(w, w.wrap(b))))


@needs_kernel
@pytest.mark.parametrize("row", rows(Kind.UNARY), ids=repr)
def test_unary_and_byte_swaps(row: Row) -> None:
    w, meaning = row.width, UNARY[row.meaning]
    body = insn("LDXDW", 3, 9) + insn(row.name, 3) + insn("STXDW", 9, 3)
    check([((a,), body, (meaning(w, w.wrap(a)),)) for a in EDGES64])


@needs_kernel
@over("row", rows(Kind.BRANCH))
def test_branches(row: Row) -> None:
    w, holds = row.width, CONDITION[row.meaning]
    edges = [*EDGES64[::2], W64.mask, W64.int_min]
    after = insn("MOV64_K", 5, imm=0) + insn("STXDW", 9, 5)
    cases: list[Case] = []
    for a, b in itertools.product(edges, edges if row.uses_src else EDGES_IMM):
        imm = 0 if row.uses_src else b
        body = LOAD_OPERANDS if row.uses_src else insn("LDXDW", 3, 9)
        body += insn("MOV64_K", 5, imm=1) + insn(row.name, 3, 4, offset=1, imm=imm) + after
        taken = int(holds(w, w.wrap(a), w.wrap(b)))
        cases.append(((a, b), body, (taken, b)) if row.uses_src else ((a,), body, (taken,)))
    check(cases)


@needs_kernel
@pytest.mark.parametrize("row", rows(Kind.LOAD), ids=repr)
def test_loads(row: Row) -> None:
    body = insn(row.name, 3, 9) + insn("STXDW", 9, 3)
    cases: list[Case] = []
    for a in EDGES64:
        value = row.width.wrap(a)
        cases.append(((a,), body, (W64.wrap(row.width.signed(value)) if row.signed else value,)))
    check(cases)


@needs_kernel
@over("row", rows(Kind.STORE))
def test_stores(row: Row) -> None:
    def after(old: int, value: int) -> int:
        return old & ~row.width.mask | row.width.wrap(value)

    cases: list[Case] = []
    for old in (0, W64.mask, 0x0123456789ABCDEF):
        for value in EDGES64 if row.uses_src else EDGES_IMM:
            if row.uses_src:
                body = insn("LDXDW", 4, 9, offset=8) + insn(row.name, 9, 4)
                cases.append(((old, value), body, (after(old, value), value)))
            else:
                cases.append(((old,), insn(row.name, 9, imm=value), (after(old, value),)))
    check(cases)


def _atomic_case(row: Row, memory: int, src: int, r0: int) -> Case:
    """Words: memory, src (then what src holds), r0 (then what r0 holds)."""
    w = row.width
    old = w.wrap(memory)
    compares = row.meaning == "CMPXCHG"
    stores = not compares or old == w.wrap(r0)
    new = ATOMIC[row.meaning](w, old, w.wrap(src)) if stores else old
    body = (
        insn("LDXDW", 4, 9, offset=8)
        + insn("LDXDW", 0, 9, offset=16)
        + insn(row.name, 9, 4)
        + insn("STXDW", 9, 4, offset=8)
        + insn("STXDW", 9, 0, offset=16)
    )
    src_after = old if row.fetch and not compares else src
    r0_after = old if compares else r0
    return (memory, src, r0), body, (memory & ~w.mask | new, src_after, r0_after)


@needs_kernel
@over("row", rows(Kind.ATOMIC))
def test_atomics(row: Row) -> None:
    pairs = itertools.product([*EDGES64[::3], W64.mask, W64.int_min], EDGES64[::2])
    same_low_half = 0xAAAAAAAA_00000000
    cases = []
    for memory, src in pairs:
        for r0 in (memory, memory ^ same_low_half, src):
            cases.append(_atomic_case(row, memory, src, r0))
    check(cases)


@needs_kernel
@over("value", EDGES64)
def test_wide_constants(value: int) -> None:
    assert run_program(returning(value)).return_value == value


@needs_kernel
def test_jumps_calls_and_exit() -> None:
    for forward, backward in (
        (insn("JA", offset=2), insn("JA", offset=-3)),
        (insn("JA32", imm=2), insn("JA32", imm=-3)),
    ):
        code = forward + insn("MOV64_K", 0, imm=7) + EXIT + backward
        assert run_program(code).return_value == 7
    callee = insn("MOV64_X", 0, 1) + insn("MOV64_K", 6, imm=0) + insn("SUB64_X", 0, 2) + EXIT
    caller = insn("MOV64_K", 6, imm=5) + insn("MOV64_K", 1, imm=1) + insn("MOV64_K", 2, imm=3)
    caller += insn("CALL_LOCAL", imm=2) + insn("ADD64_X", 0, 6) + EXIT
    assert run_program(caller + callee).return_value == 3
    clock = insn("CALL", imm=5) + EXIT  # bpf_ktime_get_ns
    assert 0 < run_program(clock).return_value < run_program(clock).return_value


#  rows that Linux refuses whatever their fields are, or that need an object to refer to
NOT_ALONE = {
    "ADDR_SPACE_CAST", "CALLX", "CALL_KFUNC", "LDABSDW", "LDINDDW",
    "LDDW_MAP_FD", "LDDW_MAP_VALUE", "LDDW_VARIABLE", "LDDW_CODE", "LDDW_MAP_IDX", "LDDW_MAP_IDX_VALUE",
}  # fmt: skip
NOT_CHECKED = {("EXIT", "offset")}
"""The reserved fields that Linux does not look at."""
REFUSAL = "uses reserved fields|invalid may_goto imm"


def _word(row: Row, **fields: int) -> bytes:
    """One instruction of `row` with all fields free to choose, for the register set-up of `_around`."""
    free = {"dst": 3, "src": 4, "offset": 0, "imm": {"CALL": 8, "CALL_LOCAL": 1}.get(row.name, 1)}
    given = {
        name: fields.get(name, value if isinstance(value := getattr(row, name), int) else free[name])
        for name in free
    }
    if row.kind in (Kind.JUMP, Kind.PACKET_LOAD) and "imm" not in fields:
        given["imm"] = 0
    return Instruction(
        0, row.opcode, given["dst"], given["src"], given["offset"], given["imm"], 0 if row.is_wide else None
    ).encode()


def _around(row: Row, word: bytes) -> bytes:
    """A program that the verifier accepts when `word` is right: r3 or r4 point to memory."""
    pointer = {Kind.STORE: 3, Kind.ATOMIC: 3, Kind.LOAD: 4}.get(row.kind)
    setup = b"".join(
        insn("MOV64_X", register, 1) if register == pointer else insn("MOV64_K", register, imm=5)
        for register in (3, 4)
    )
    if row.kind is Kind.EXIT:
        return setup + word
    callee = insn("MOV64_K", 0) + EXIT if row.kind is Kind.CALL_LOCAL else b""
    return setup + word + (b"" if callee else insn("MOV64_K", 0)) + EXIT + callee


@needs_kernel
@over("row", [row for row in TABLE if row.name not in NOT_ALONE])
def test_reserved_fields_are_those_that_linux_refuses(row: Row) -> None:
    run_program(_around(row, _word(row)), bytes(16))
    for field, value in itertools.product(("dst", "src", "offset", "imm"), (1, 7)):
        word = _word(row, **{field: value})
        same_row = Program.from_bytes(word).instructions[0].row is row
        if getattr(row, field) != 0 or not same_row or isinstance(getattr(row, field), Reg):
            continue
        if (row.name, field) in NOT_CHECKED:
            run_program(_around(row, word), bytes(16))
            continue
        with pytest.raises(KernelVerifierError, match=REFUSAL):
            run_program(_around(row, word), bytes(16))


@needs_kernel
@pytest.mark.parametrize("byte", range(8, 12))
def test_the_second_word_of_lddw_is_reserved_but_for_next_imm(byte: int) -> None:
    word = bytearray(insn("LDDW", 0, imm=1))
    word[byte] = 1
    with pytest.raises(KernelVerifierError, match="invalid bpf_ld_imm64"):
        run_program(bytes(word) + EXIT)
