"""Memory behind pointers: what an environment says is there, read by the kernel's rules."""

from __future__ import annotations

import errno
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import Environment, ExecutionError, MemoryFault, Object, Program, Result, Task, assembler, load
from ebpfjit.analysis.verified import in_world, prepare

ELF = Path(__file__).parents[1] / "elf"
ENGINES = ("interpreter", "jit")
USER, KERNEL = 0x7F00_1234_5000, 0xFFFF_C900_0000_1000
engines = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture
def obj() -> Object:
    return load(ELF / "kernel_memory.o")


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


def typed(text: str, type_: str = "tracing") -> Program:
    return Program.from_bytes(assembler.assemble(text + "\nexit"), type=type_)


def signed(result: Result) -> int:
    return result.return_value - (1 << 32) if result.return_value >> 31 else result.return_value


# -- memory that the test gives --------------------------------------------------------------------


@engines
def test_a_tracepoint_reads_a_string_of_the_process(obj: Object, engine: str) -> None:
    environment = Environment(memory={USER: b"/etc/hosts\0"})
    program = obj.programs["opened"]
    result = program.run(words(0, 0, 0, USER, 0, 0, 0, 0), engine=engine, environment=environment)
    assert result.return_value == 11
    assert obj.globals["text"].startswith(b"/etc/hosts\0")
    assert signed(program.run(words(0, 0, 0, USER), engine=engine)) == -errno.EFAULT  # nothing is there


PROBE = "mov r1, r10\nadd r1, -16\nstdw [r1], -1\nmov r2, {size}\nlddw r3, {source:#x}\ncall {number}"
READ, READ_STR, USER_READ, KERNEL_READ, USER_STR, KERNEL_STR, COPY = 4, 45, 112, 113, 114, 115, 148


@engines
@pytest.mark.parametrize(
    ("number", "source", "size", "result"),
    [
        (READ, USER, 3, 0),
        (READ, KERNEL, 3, 0),
        (USER_READ, USER, 3, 0),
        (USER_READ, KERNEL, 3, -errno.EFAULT),
        (KERNEL_READ, KERNEL, 3, 0),
        (KERNEL_READ, USER, 3, -errno.ERANGE),
        (COPY, USER, 3, 0),
        (COPY, KERNEL, 3, -errno.EFAULT),
        (READ_STR, USER, 8, 4),
        (READ_STR, KERNEL, 8, 4),
        (USER_STR, USER, 8, 4),
        (USER_STR, USER, 2, 2),
        (USER_STR, KERNEL, 8, -errno.EFAULT),
        (KERNEL_STR, KERNEL, 8, 4),
        (KERNEL_STR, USER, 8, -errno.ERANGE),
        (KERNEL_READ, KERNEL, 8, -errno.EFAULT),  # the last byte is not there
        (KERNEL_READ, KERNEL - 1, 2, -errno.EFAULT),
        (USER_STR, USER + 4, 4, -errno.EFAULT),  # no zero byte before the end
        (USER_STR, USER + 4, 3, 3),
    ],
)
def test_probe_helpers_by_whose_address_it_is(
    number: int, source: int, size: int, result: int, engine: str
) -> None:
    memory = {USER: b"abc\0def", KERNEL: b"abc\0def"}
    program = typed(PROBE.format(number=number, source=source, size=size), "kprobe")
    assert signed(program.run(engine=engine, environment=Environment(memory=memory))) == result
    text = PROBE.format(number=number, source=source, size=size) + "\nldxdw r0, [r10-16]"
    value = typed(text, "kprobe").run(engine=engine, environment=Environment(memory=memory)).return_value
    there = b"abc\0def"[source % 0x1000 :]
    expected = there[:size] if result == 0 else there.partition(b"\0")[0][: result - 1] + b"\0"
    if result < 0:
        expected = bytes(size)
    assert struct.pack("<I", value) == expected.ljust(8, b"\xff")[:4]


@engines
def test_stretches_that_touch_are_read_at_once(engine: str) -> None:
    memory = {KERNEL: b"abcd", KERNEL + 4: bytearray(b"ef\0"), USER: b"abcd", USER + 4: b"ef\0"}
    for number, source in ((KERNEL_STR, KERNEL), (USER_STR, USER)):
        program = typed(PROBE.format(number=number, source=source, size=8), "kprobe")
        assert program.run(engine=engine, environment=Environment(memory=memory)).return_value == 7
    load_ = typed("ldxdw r1, [r1]\nldxw r0, [r1+2]")
    result = load_.run(words(KERNEL), engine=engine, environment=Environment(memory=memory))
    assert result.return_value == int.from_bytes(b"cdef", "little")


@engines
def test_the_process_is_written_where_its_memory_may_be(engine: str) -> None:
    text = "mov r2, r10\nadd r2, -8\nstdw [r2], 0x61626364\nmov r3, 4\nlddw r1, {:#x}\ncall 36"
    data = bytearray(b"....__")
    memory: dict[int, Any] = {USER: data, USER + 0x1000: b"....", KERNEL: bytearray(4)}
    environment = Environment(memory=memory)
    results = [
        signed(typed(text.format(address), "kprobe").run(engine=engine, environment=environment))
        for address in (USER, USER + 3, USER + 0x1000, KERNEL)
    ]
    assert results == [0, -errno.EPERM, -errno.EFAULT, -errno.EFAULT]
    assert (data, memory[KERNEL]) == (b"dcba__", bytes(4))


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        ({0x1000: bytes(16), 0x100F: b"x"}, "0x100f overlap those from 0x1000 to 0x1010"),
        ({-1: b"x"}, "1 bytes at -0x1"),
        ({0x7FFF_FFFF_EFFF: b"xy"}, "a process has memory below 0x7ffffffff000"),
        ({1 << 50: b"x"}, "nobody elsewhere"),
        ({(1 << 64) - 1: b"x"}, "the kernel from 0xffff800000000000"),
    ],
)
def test_memory_is_somebodys_and_is_given_once(memory: dict[int, bytes], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Environment(memory=memory)


# -- loads through pointers of the kernel ----------------------------------------------------------


@engines
@pytest.mark.parametrize("checked", [True, False])
def test_a_bad_pointer_gives_zero(engine: str, checked: bool) -> None:
    for address in (0, 8, USER, 1 << 50, KERNEL - 1, KERNEL + 5, (1 << 64) - 4):
        program = typed("ldxdw r1, [r1]\nmov r0, 1\nldxdw r0, [r1]")
        environment = Environment(memory={USER: bytes([1]) * 16, KERNEL: bytes([1]) * 12})
        assert program.run(words(address), engine=engine, environment=environment).return_value == 0
        program = replace(program, environment=environment)
        assert program.compile(checked=checked)(words(address)) == 0


@engines
@pytest.mark.parametrize(
    ("load_", "value"),
    [("ldxb", 0x81), ("ldxh", 0x8281), ("ldxw", 0x84838281), ("ldxdw", 0x84838281), ("ldxsb", 0xFFFFFF81)],
)
def test_loads_of_every_size(load_: str, value: int, engine: str) -> None:
    environment = Environment(memory={KERNEL: bytes(range(0x81, 0x89))})
    program = typed(f"ldxdw r6, [r1]\nmov r7, r6\nadd r7, -8\n{load_} r0, [r7+8]")
    assert program.run(words(KERNEL), engine=engine, environment=environment).return_value == value


@engines
@pytest.mark.parametrize(
    "text",
    [
        "ldxdw r1, [r1]\nstxdw [r10-8], r1\nldxdw r2, [r10-8]\nldxw r0, [r2]",  # kept in the frame
        "mov r2, r10\nadd r2, -8\nldxdw r1, [r1]\nstxdw [r2], r1\nldxdw r2, [r10-8]\nldxw r0, [r2]",
        "stxdw [r10-8], r1\nldxdw r1, [r10-8]\nldxdw r1, [r1]\nldxw r0, [r1]",  # the context, too
        "ldxdw r1, [r1]\nmov r6, 4\nadd r6, r1\nldxw r0, [r6-4]",
        "ldxdw r1, [r1]\ncall local f\nexit\nf:\nldxw r0, [r1]",
        "call local f\nldxw r0, [r0]\nexit\nf:\nldxdw r0, [r1]",
        "ldxdw r6, [r1]\nmov r1, 0\ncall local f\nldxw r0, [r6]\nexit\nf:\nmov r0, 0",
        "ldxdw r1, [r1]\njeq r1, 0, out\nmov r2, r1\nja on\nout:\nmov r2, r1\non:\nldxw r0, [r2]",
    ],
)
def test_pointers_keep_what_they_are(text: str, engine: str) -> None:
    program = typed(text)
    environment = Environment(memory={KERNEL: b"\x2a\0\0\0"})
    assert program.run(words(KERNEL), engine=engine, environment=environment).return_value == 42
    assert program.run(words(KERNEL + 1), engine=engine, environment=environment).return_value == 0


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        ("tracing", "ldxw r0, [r1+8]"),  # the context's end
        ("tracing", "mov r2, 0\nldxw r0, [r2]"),
        ("tracing", "lddw r2, 0xffffc90000001000\nldxw r0, [r2]"),  # a number of the program's
        ("tracing", "ldxw r1, [r1]\nldxw r0, [r1]"),  # half a pointer
        ("tracing", "ldxdw r1, [r1]\nmul r1, 1\nldxw r0, [r1]"),
        ("tracing", "ldxdw r1, [r1]\nmov r0, 0\nstxw [r1], r0"),  # the kernel is never written
        ("tracing", "ldxdw r1, [r1]\nmov r0, 0\nlock add [r1], r0"),
        ("raw_tracepoint", "ldxdw r1, [r1]\nldxw r0, [r1]"),  # its words are numbers
        ("kprobe", "ldxdw r1, [r1]\nldxw r0, [r1]"),
    ],
)
def test_all_else_is_a_fault(type_: str, text: str) -> None:
    environment = Environment(memory={KERNEL: bytes(16)})
    faults = []
    for engine in ENGINES:
        with pytest.raises(MemoryFault) as caught:
            typed(text, type_).run(words(KERNEL), engine=engine, environment=environment)
        fault = caught.value
        faults.append((fault.pc, fault.size, fault.access))
    assert faults[0] == faults[1]


@engines
def test_the_programs_own_memory_is_read_through_such_a_pointer(engine: str) -> None:
    program = typed("ldxdw r2, [r1]\nadd r2, r1\nldxw r0, [r2+8]")  # a sum that leads to the context
    assert program.run(words(0, 7), engine=engine).return_value == 7


def test_which_loads_are_the_kernels(obj: Object) -> None:
    found = {name: in_world(prepare(program)).kernel_loads for name, program in obj.programs.items()}
    assert {name for name, pcs in found.items() if not pcs} == {"opened", "probed", "number"}
    assert found["follows"] == {1, 2, 3, 9, 13, 14, 15}
    listing = obj.programs["follows"].compile(optimize=True).listing()
    assert "the kernel's memory, or zero" in listing
    assert "it loads through pointers of the kernel" in listing.splitlines()[0]


def test_audited_code_reads_the_same(obj: Object) -> None:
    environment = Environment(memory={KERNEL: b"\x2a\0\0\0"})
    program = replace(typed("ldxdw r1, [r1]\nldxw r0, [r1]"), environment=environment)
    assert program.compile(audit=True)(words(KERNEL)) == 42
    assert program.compile(harden=True)(words(KERNEL)) == 42


# -- structs by BTF types --------------------------------------------------------------------------


@engines
def test_structs_lead_to_each_other(obj: Object, engine: str) -> None:
    environment = Environment()
    grandmother = environment.task(pid=3)
    mother = environment.task(pid=5, real_parent=grandmother)
    task = environment.task(pid=7, comm="x", prio=-2, real_parent=mother)
    result = obj.programs["follows"].run(words(task), engine=engine, environment=environment)
    assert signed(result) == 498
    assert (obj.globals["value"], obj.globals["text"][:2]) == (3, b"x\0")
    nobody = obj.programs["follows"].run(words(0), engine=engine, environment=environment)
    assert (nobody.return_value, obj.globals["value"]) == (0, 0)


@engines
def test_a_struct_and_what_it_points_to(obj: Object, engine: str) -> None:
    environment = Environment()
    packet = environment.struct(
        "sk_buff", len=54, data=b"abcdef", dev=environment.struct("net_device", name="eth0", ifindex=2)
    )
    result = obj.programs["packets"].run(words(packet), engine=engine, environment=environment)
    assert (result.return_value, obj.globals["value"]) == (56, int.from_bytes(b"abcd", "little"))


@engines
def test_the_process_has_a_struct(obj: Object, engine: str) -> None:
    given = Environment(task=Task(pid=7, tgid=6, comm="x"))
    described = Environment()
    described.task(pid=7, tgid=6, comm="x", group_leader=described.task(tgid=6))
    described.task(pid=9, comm="y")
    for environment, pid, comm in ((given, 7, b"x"), (described, 7, b"x"), (Environment(), None, None)):
        task = environment.current_task
        assert (pid, comm) in ((None, None), (task.pid, task.comm.encode()))
        assert obj.programs["probed"].run(engine=engine, environment=environment).return_value == task.pid
        assert obj.globals["text"].partition(b"\0")[0].decode() == task.comm[:15]
        expected = task.pid + task.tgid
        assert obj.programs["current"].run(engine=engine, environment=environment).return_value == expected


@engines
def test_without_types_the_process_has_no_struct(engine: str) -> None:
    program = typed("call 158\nldxw r0, [r0+8]", "kprobe")
    assert program.run(engine=engine).return_value == 0


@pytest.mark.parametrize(
    ("struct_", "members", "message"),
    [
        ("sk_buf", {}, "struct sk_buf of the environment cannot be laid out: .*has none; give Environment"),
        ("sk_buff", {"lne": 1}, "struct sk_buff of the environment: .*has no member 'lne'"),
        ("sk_buff", {"len": -1}, "struct sk_buff of the environment: len: -1 is not from 0"),
        ("sk_buff", {"len": "x"}, "struct sk_buff of the environment: len: "),
        ("net_device", {"name": b"x" * 17}, "name: 17 bytes do not fit 16"),
        ("sk_buff", {"data": bytes(1 << 20)}, "takes more than 1048576 bytes"),
    ],
)
def test_what_cannot_be_laid_out(obj: Object, struct_: str, members: dict[str, Any], message: str) -> None:
    environment = Environment()
    environment.struct(struct_, **members)
    for engine in ENGINES:
        with pytest.raises(ExecutionError, match=message):
            obj.programs["packets"].run(words(0), engine=engine, environment=environment)
    with pytest.raises(ExecutionError, match="neither the program nor the environment has types"):
        typed("mov r0, 0").run(environment=environment)


def test_a_struct_of_another_kernel_is_named(obj: Object) -> None:
    moved = load(ELF / "kernel_moved.o")
    environment = Environment(btf=ELF / "kernel_memory.o")
    task = environment.task(pid=7)
    message = "task_struct was laid out for another kernel: .*reads member 'tgid' at byte 0 .*at byte 4; give"
    for engine in ENGINES:
        with pytest.raises(ExecutionError, match=message):
            moved.programs["reads"].run(words(task), engine=engine, environment=environment)
        for program in (obj.programs["follows"], replace(moved.programs["reads"], kernel_types=None)):
            assert program.run(words(task), engine=engine, environment=environment).return_value in (0, 7)
    same = load(ELF / "kernel_moved.o", btf=obj.btf)  # CO-RE takes the fields where that kernel has them
    for engine in ENGINES:
        result = same.programs["reads"].run(words(task), engine=engine, environment=environment)
        assert result.return_value == 7


def test_the_running_kernels_types(obj: Object) -> None:
    vmlinux = Path("/sys/kernel/btf/vmlinux")
    if not vmlinux.exists():
        pytest.skip("this kernel shows no types")
    program = load(ELF / "kernel_memory.o", btf=vmlinux).programs["follows"]
    environment = Environment(btf=vmlinux)
    task = environment.task(pid=7, real_parent=environment.task(pid=5), prio=20)
    for engine in ENGINES:
        assert program.run(words(task), engine=engine, environment=environment).return_value == 520


# -- functions, iterators, paths -------------------------------------------------------------------

ARGUMENT = "mov r3, r10\nadd r3, -8\nmov r2, {}\ncall 183\njne r0, 0, +1\nldxdw r0, [r10-8]"
RESULT = "mov r2, r10\nadd r2, -8\ncall 184\njne r0, 0, +1\nldxdw r0, [r10-8]"


@engines
@pytest.mark.parametrize(
    ("section", "arguments", "result"), [("fentry/f", 3, -errno.EOPNOTSUPP), ("fexit/f", 2, 9)]
)
def test_arguments_and_result_of_a_function(section: str, arguments: int, result: int, engine: str) -> None:
    def run(text: str) -> int:
        return signed(replace(typed(text), section=section).run(words(7, 8, 9), engine=engine))

    assert run("call 185") == arguments
    expected = [7, 8, 9][:arguments] + [-errno.EINVAL] * (4 - arguments)
    assert [run(ARGUMENT.format(number)) for number in range(4)] == expected
    assert run(RESULT) == result


@engines
def test_what_a_probed_function_is_to_return(engine: str) -> None:
    program = typed("mov r2, -5\ncall 58", "kprobe")
    result = program.run(bytes(168), engine=engine)
    assert (result.return_value, result.data[80:88]) == (0, struct.pack("<q", -5))
    assert program.run(bytes(80), engine=engine).data == bytes(80)


@engines
def test_what_a_hook_returns(engine: str) -> None:
    result = typed("mov r1, -13\ncall 187\ncall 186", "cgroup_sockopt").run(engine=engine)
    assert (signed(result), result.retval) == (-13, -13)
    result = typed("call 186", "cgroup_sockopt").run(engine=engine)
    assert (result.return_value, result.retval) == (0, None)


@engines
def test_an_iterator_writes_lines(engine: str) -> None:
    text = (
        "stdw [r10-8], 0x0a6425\nstdw [r10-16], 42\nmov r1, 0\nmov r2, r10\nadd r2, -8\nmov r3, 8\n"
        "mov r4, r10\nadd r4, -16\nmov r5, {}\ncall 126\nmov r6, r0\n"
        "stdw [r10-24], 0x0a6968\nmov r1, 0\nmov r2, r10\nadd r2, -24\nmov r3, 3\ncall 127\nmov r0, r6"
    )
    result = typed(text.format(8)).run(engine=engine)
    assert (result.return_value, result.output) == (0, ("42", "hi"))
    assert [signed(typed(text.format(size)).run(engine=engine)) for size in (7, 0, 104)] == [
        -errno.EINVAL
    ] * 3


@engines
def test_paths_are_told_by_their_address(engine: str) -> None:
    text = "ldxdw r1, [r1]\nmov r2, r10\nadd r2, -16\nmov r3, {}\ncall 147"
    environment = Environment(memory={KERNEL: bytes(16)})
    path = environment.path("/etc/hosts")
    for address, size, result in (
        (path, 16, 11),
        (path, 10, -errno.ENAMETOOLONG),
        (path, 0, 0),
        (path + 8, 16, -errno.EFAULT),
        (KERNEL, 16, -errno.ENOENT),
    ):
        run = typed(text.format(size)).run(words(address), engine=engine, environment=environment)
        assert signed(run) == result
