"""Kernel functions: by name, from the table or from the caller, on both engines and as the kernel does."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import EbpfVmNoData, ExecutionError, InputError, LoadError, MemoryFault, load
from ebpfjit.errors import HelperNotFound
from ebpfjit.runtime import memory
from ebpfjit.runtime.kfuncs.table import bound, kfunc, kfuncs
from tests.support.helper_runs import needs_kernel
from tests.support.kfunc_runs import PACKET, in_kernel, program_of, run, value

OBJECTS = Path(__file__).parent.parent / "elf"

# -- the registry, and what nobody has -------------------------------------------------------------


def test_each_kernel_function_says_what_it_does() -> None:
    for name, entry in kfuncs().items():
        assert name == entry.name
        assert entry.function.__doc__
        assert 0 <= entry.arguments <= 5


def test_a_name_is_registered_once() -> None:
    bound()  # the functions come with their first use, which another test may have made, or not
    with pytest.raises(ValueError, match="bpf_iter_num_new is registered already"):
        kfunc("bpf_iter_num_new")(lambda world: 0)


def test_bound_functions_are_the_same_objects_each_time() -> None:
    assert all(bound()[name] is function for name, function in dict(bound()).items())


def test_one_that_nobody_has_is_named_with_its_line_when_it_is_run() -> None:
    obj = load(OBJECTS / "own_kfuncs.o")
    assert value(obj.program("without")) == 1
    for engine in ("jit", "interpreter"):
        with pytest.raises(
            LoadError, match=r"'looked_up', pc \d+ \(.*own_kfuncs\.c:19: .*my_lookup.*kfuncs={"
        ):
            obj.program("looked_up").run(PACKET, engine=engine)
    with pytest.raises(LoadError, match="my_lookup"):
        obj.program("looked_up").compile()
    assert "my_lookup" in str(obj.refusals["looked_up"])
    assert set(obj.refusals) == {"looked_up", "numbers"}
    with pytest.raises(LoadError, match="my_lookup"):
        load(OBJECTS / "own_kfuncs.o", strict=True)
    with pytest.raises(LoadError, match="my_lookup"):
        EbpfVmNoData(obj.program("looked_up"))


def test_a_weak_one_that_nobody_has_is_null() -> None:
    assert value(load(OBJECTS / "own_kfuncs.o").program("optional")) == 3


def test_a_number_without_a_name_is_a_fault_at_its_call() -> None:
    with pytest.raises(HelperNotFound, match=r"pc 1: call of kfunc 77"):
        run("mov r0, 0\ncall kfunc 77\nexit")


# -- a caller's own --------------------------------------------------------------------------------


def _never(*arguments: int) -> int:
    raise AssertionError("not called")


def test_arguments_and_results_are_as_btf_declares_them() -> None:
    program = load(OBJECTS / "own_kfuncs.o").program("numbers")
    seen: list[tuple[int, ...]] = []

    def difference(*arguments: int) -> int:
        seen.append(arguments)
        return arguments[0] + 256 - 1

    assert value(program, kfuncs={"my_difference": difference}) == -6
    assert seen == [(-5, 200, 1 << 40)] * 2


def test_a_buffer_that_is_returned_is_the_programs_to_read_and_write() -> None:
    program = load(OBJECTS / "own_kfuncs.o").program("looked_up")
    entry = bytearray((5).to_bytes(4, "little") + bytes(4))
    released: list[int] = []

    def lookup(context: int, key: int, size: int) -> bytearray | None:
        return entry if int.from_bytes(memory.read(key, size), "little") == 7 else None

    given: dict[int | str, Callable[..., Any]] = {"my_lookup": lookup, "my_release": released.append}
    assert value(program, kfuncs=given) == 5
    assert entry[4:] == (30).to_bytes(4, "little")
    assert len(set(released)) == 1
    assert program.compile(kfuncs=given)(PACKET) == 5
    assert value(program, kfuncs={**given, "my_lookup": lambda *arguments: None}) == 99


def test_a_buffer_where_a_number_is_declared_is_refused() -> None:
    program = load(OBJECTS / "own_kfuncs.o").program("numbers")
    with pytest.raises(ExecutionError, match=r"pc 4: my_difference returned a buffer"):
        run(program, kfuncs={"my_difference": lambda *arguments: bytearray(8)})


def test_memory_that_is_read_only_is_not_written() -> None:
    program = load(OBJECTS / "own_kfuncs.o").program("looked_up")
    entry = bytes(8)
    with pytest.raises(MemoryFault, match="memory of my_lookup is read-only"):
        run(program, kfuncs={"my_lookup": lambda *arguments: entry, "my_release": _never})


def test_what_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="'my_lookup' cannot be called: it is of type int"):
        load(OBJECTS / "own_kfuncs.o").program("looked_up").run(PACKET, kfuncs={"my_lookup": 5})
    with pytest.raises(InputError, match="the kernel has its own kfuncs"):
        load(OBJECTS / "own_kfuncs.o").program("without").run(PACKET, engine="kernel", kfuncs={"x": _never})


def test_a_callers_own_takes_the_place_of_one_that_is_there() -> None:
    program = load(OBJECTS / "iterators.o").program("refusal")
    assert value(program, kfuncs={"bpf_iter_num_new": lambda place, start, end: start * 10 + end}) == 47
    assert value(program) == -errno.EINVAL


def test_those_without_btf_are_given_five_numbers() -> None:
    program = program_of("mov r1, 1\nmov r2, 2\nmov r3, 3\nmov r4, 4\nmov r5, 5\ncall kfunc {f}\nexit", None)
    assert run(program, kfuncs={"f": lambda *arguments: sum(arguments)}).return_value == 15
    assert run(program, kfuncs={1: lambda *arguments: len(arguments)}).return_value == 5
    assert program.compile(kfuncs={"f": lambda *arguments: -1})() == (1 << 64) - 1


def test_exceptions_of_a_callers_own_pass_through() -> None:
    program = load(OBJECTS / "own_kfuncs.o").program("numbers")
    for engine in ("jit", "interpreter"):
        with pytest.raises(AssertionError, match="not called"):
            program.run(PACKET, engine=engine, kfuncs={"my_difference": _never})


def test_compiled_programs_travel_with_their_kernel_functions() -> None:
    program = load(OBJECTS / "iterators.o").program("nested")
    function = program_of("mov r1, 3\ncall kfunc {f}\nexit", None).compile(kfuncs={"f": _first})
    assert pickle.loads(pickle.dumps(function))() == 3
    assert program.compile()(PACKET) == value(program)
    with pytest.raises(LoadError, match="kernel functions"):
        function.save("/nowhere")


def _first(*arguments: int) -> int:
    return arguments[0]


# -- iterators -------------------------------------------------------------------------------------

NEXT = """
    mov r6, 0
    mov r7, 0
next:
    mov r1, r10
    add r1, -16
    call kfunc {{{name}_next}}
    jeq r0, 0, done
    ldxw r1, [r0+0]
    mul r6, 31
    add r6, r1
    add r7, 1
    jlt r7, {most}, next
done:
    mov r1, r10
    add r1, -16
    call kfunc {{{name}_destroy}}
    mov r0, r6
    exit
"""


def numbers(start: int, end: int, most: int = 20) -> str:
    """The start of a range's numbers, mixed; the error where there is one."""
    return (
        f"mov r1, r10\nadd r1, -16\nmov r2, {start}\nmov r3, {end}\n"
        "call kfunc {bpf_iter_num_new}\nmov r8, r0"
        + NEXT.format(name="bpf_iter_num", most=most).replace("mov r0, r6", "mov r0, r6\nxor r0, r8")
    )


RANGES = (
    (0, 10), (-5, 5), (5, 5), (6, 5), (-(1 << 31), -(1 << 31) + 3), ((1 << 31) - 3, (1 << 31) - 1),
    (-(1 << 31), (1 << 31) - 1), (0, 8 << 20), (0, (8 << 20) + 1), (-1, 1), ((1 << 31) - 1, (1 << 31) - 1),
)  # fmt: skip


@needs_kernel
@pytest.mark.parametrize("pair", RANGES)
def test_numbers_as_linux(pair: tuple[int, int]) -> None:
    text = numbers(*pair)
    assert value(text) == in_kernel(text)


def bits(words: list[int], count: int) -> str:
    """Bits of words on the stack."""
    stores = "".join(
        f"lddw r1, {word:#x}\nstxdw [r10-{16 + 8 * (len(words) - at)}], r1\n" for at, word in enumerate(words)
    )
    new = (
        f"mov r1, r10\nadd r1, -16\nmov r2, r10\nadd r2, -{16 + 8 * len(words)}\nmov r3, {count}\n"
        "call kfunc {bpf_iter_bits_new}\nmov r8, r0"
    )
    return (
        stores
        + new
        + NEXT.format(name="bpf_iter_bits", most=80).replace("mov r0, r6", "mov r0, r6\nxor r0, r8")
    )


MASKS = (
    ([0], 1), ([1], 1), ([1 << 63], 1), ([(1 << 64) - 1], 1), ([0x8000000000000005, 0, 0x10], 3), ([5, 9], 0),
    ([0, 0], 2), ([3, (1 << 64) - 1], 2), ([1], 512), ([1], 513),
)  # fmt: skip


@needs_kernel
@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_bits_as_linux(mask: tuple[list[int], int]) -> None:
    text = bits(*mask)
    if mask[1] > 511:
        assert value(text) == in_kernel(text) == -errno.E2BIG
    else:
        assert value(text) == in_kernel(text)


def test_a_mask_that_is_not_there() -> None:
    text = (
        "mov r1, r10\nadd r1, -16\nmov r2, 4096\nmov r3, {words}\ncall kfunc {{bpf_iter_bits_new}}\n"
        "mov r6, r0\nmov r1, r10\nadd r1, -16\ncall kfunc {{bpf_iter_bits_destroy}}\nmov r0, r6\nexit"
    )
    assert value(text.format(words=2)) == value(text.format(words=1)) == -errno.EFAULT
    assert value(text.format(words=1).replace("4096", "0")) == -errno.EINVAL


@pytest.mark.parametrize("name", ["numbers", "nested", "refusal"])
@needs_kernel
def test_iterators_of_an_object_as_linux(name: str) -> None:
    program = load(OBJECTS / "iterators.o").program(name)
    assert value(program) == in_kernel(program)


def test_iterators_of_an_object() -> None:
    obj = load(OBJECTS / "iterators.o")
    assert value(obj.program("nested")) == sum(i * j for i in range(7) for j in range(i))
    total = 0
    for bit in (0, 2, 63, 132):
        total = 7 * total + bit
    assert value(obj.program("bits"), b"") == total
    obj.globals["high"] = 4_000_000
    with pytest.raises(ExecutionError, match="the instruction limit of 5000 is used up"):
        run(obj.program("numbers"), limit=5000)


def test_a_place_that_is_not_the_programs_is_a_fault() -> None:
    with pytest.raises(MemoryFault, match=r"pc 3: store of 8 bytes at 0x1000"):
        run("mov r1, 4096\nmov r2, 0\nmov r3, 1\ncall kfunc {bpf_iter_num_new}\nexit")


# -- what a network card knows ----------------------------------------------------------------------

METADATA = ("rx_timestamp", "rx_hash", "rx_vlan_tag")


@pytest.mark.parametrize("name", METADATA)
def test_no_card_here_knows_more_of_a_packet(name: str) -> None:
    text = "mov r2, r10\nadd r2, -8\nmov r3, r10\nadd r3, -16\ncall kfunc {bpf_xdp_metadata_NAME}\nexit"
    text = text.replace("NAME", name)
    assert value(program_of(text, type="xdp")) == -errno.EOPNOTSUPP
    wrong = text.replace("mov r2, r10", "mov r2, 8")
    with pytest.raises(MemoryFault, match="store of"):
        value(program_of(wrong, type="xdp"))
