"""The kernel engine as a loader: what an object's programs need of Linux, and each test run that it has."""

from __future__ import annotations

import struct
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

import ebpfjit
from ebpfjit.assembler import assemble
from ebpfjit.elf.btf import Kind  # noqa: F401 - in a text below
from ebpfjit.errors import InputError, LicenseWarning, LoadError, MapError, VerifierError
from ebpfjit.kernel import (
    PROGRAM_TYPES,
    KernelUnavailable,
    KernelVerifierError,
    LoadAttributes,
    TestRun,
    load_program,
    syscalls,
    unavailable_reason,
    vmlinux,  # noqa: F401 - in a text below
)
from ebpfjit.program import Program
from ebpfjit.runtime.attach import SLEEPABLE, XDP_FRAGS, attachment
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.helpers.names import NAMES
from ebpfjit.runtime.helpers.table import helpers

ELF = Path(__file__).parents[1] / "elf"
FRAME = bytes(12) + b"\x08\x00" + b"\x45" + bytes(45)
needs_kernel = pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))
ENGINES = ("interpreter", "jit", pytest.param("kernel", marks=needs_kernel))
ATTACHED_BY_FTRACE = ("fentry", "fexit", "fmod_ret", "lsm")


@pytest.fixture
def linux() -> ebpfjit.Object:
    """What Linux loads only with BTF and the right attach type."""
    return ebpfjit.load(ELF / "linux_loads.o")


@needs_kernel
def test_linux_loads_every_program(linux: ebpfjit.Object) -> None:
    for program in linux.programs.values():
        load_program(program)
    assert len(linux.programs) == 32


@pytest.mark.parametrize("engine", ENGINES)
def test_a_spin_lock_in_a_value(linux: ebpfjit.Object, engine: str) -> None:
    linux.maps["accounts"][7] = {"lock": {"val": 0}, "padding": 0, "count": 4}
    assert linux.programs["deposit"].run(FRAME, engine=engine).return_value == 7
    assert linux.maps["accounts"][7][8:] == (4 + 3).to_bytes(8, "little")


@pytest.mark.parametrize("engine", ENGINES)
def test_callbacks_and_variables(linux: ebpfjit.Object, engine: str) -> None:
    linux.maps["numbers"][1], linux.maps["numbers"][2] = 5, 6
    assert linux.programs["call_back"].run(FRAME, engine=engine).return_value == sum(range(10)) + 5 + 6
    assert linux.globals["total"] == 1 + sum(range(10)) + 5 + 6


@pytest.mark.parametrize("engine", ENGINES)
def test_a_tail_call_in_a_static_function_beside_a_global_one(linux: ebpfjit.Object, engine: str) -> None:
    linux.maps["jumps"][0] = linux.programs["leaf"]
    assert linux.programs["caller"].run(FRAME, engine=engine).return_value == 77 + 8


@needs_kernel
def test_a_timer_in_a_value(linux: ebpfjit.Object) -> None:
    assert linux.programs["start_timer"].run(FRAME, engine="kernel").return_value == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("port", [80, 81])
def test_sk_lookup(linux: ebpfjit.Object, engine: str, port: int) -> None:
    context = struct.pack("<QII44xII", 0, 2, 6, port, 0)
    for given in (context, context[:68]):
        result = linux.programs["choose"].run(given, engine=engine)
        assert (result.return_value, result.data) == (port == 80, given)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_a_lookup_leaves_can_be_given_to_one(linux: ebpfjit.Object, engine: str) -> None:
    program = linux.programs["choose"]
    left = program.run(engine=engine, context={"protocol": 6, "local_port": 80}).context
    assert left["cookie"] == 0
    assert program.run(engine=engine, context=left).return_value == 1
    with pytest.raises(InputError, match="context field cookie is 0 before the lookup"):
        program.run(engine=engine, context={**left, "cookie": 5})


@needs_kernel
def test_a_flow_dissector_gives_its_keys(linux: ebpfjit.Object) -> None:
    result = linux.programs["dissect"].run(FRAME, engine="kernel")
    nhoff, _, _, _, _, _, protocol, _, source = struct.unpack_from("<HHHBBBBHH", result.data)
    assert (result.return_value, nhoff, protocol, source) == (0, 14, 17, 0x1234)


@needs_kernel
@pytest.mark.parametrize("data", [FRAME, FRAME[14:]])
def test_netfilter_takes_frames_and_packets(linux: ebpfjit.Object, data: bytes) -> None:
    assert linux.programs["accept"].run(data, engine="kernel").return_value == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_contexts_of_bytes(linux: ebpfjit.Object, engine: str) -> None:
    result = linux.programs["add_up"].run(struct.pack("<II", 5, 0), engine=engine)
    assert (result.return_value, result.data) == (10, struct.pack("<II", 5, 6))
    assert linux.programs["trace"].run(struct.pack("<QQ", 5, 6), engine=engine).return_value == 11


@needs_kernel
@pytest.mark.parametrize(
    "name", ["probe", "connect6", "sample", "segment", "iterate", "with_types", "leaving"]
)
def test_what_has_no_test_run_is_loaded_and_says_so(linux: ebpfjit.Object, name: str) -> None:
    with pytest.raises(LoadError, match=f"Linux loads program '{name}', and has no test run for"):
        linux.programs[name].run(FRAME, engine="kernel")


@needs_kernel
def test_what_linux_refuses_is_said_before_that_it_has_no_test_run(linux: ebpfjit.Object) -> None:
    wrong = Program.from_bytes(bytes.fromhex("bf00000000000000 9500000000000000"), type="kprobe")
    with pytest.raises(KernelVerifierError, match="R0 !read_ok"):
        wrong.run(b"", engine="kernel")


@needs_kernel
@pytest.mark.parametrize("kind", ATTACHED_BY_FTRACE)
def test_what_is_attached_to_functions(kind: str) -> None:
    code = bytes.fromhex("b700000000000000 9500000000000000")
    type_ = "lsm" if kind == "lsm" else "tracing"
    nowhere = Program(code, "p", kind, type_)
    with pytest.raises(LoadError, match="names nothing that it could be attached to"):
        load_program(nowhere)
    unknown = Program(code, "p", f"{kind}/no_such_function_here", type_)
    with pytest.raises(LoadError, match="no_such_function_here"):
        load_program(unknown)
    target = {"lsm": "file_open", "fmod_ret": "bpf_modify_return_test"}.get(kind, "bpf_fentry_test1")
    program = Program(code, "p", f"{kind}/{target}", type_)
    try:
        load_program(program)
    except KernelUnavailable as error:
        pytest.skip(f"this kernel loads no {kind} programs: {error}")
    if kind != "lsm":
        assert program.run(b"", engine="kernel").return_value in (0, 1 << 16)


@needs_kernel
def test_functions_without_btf_get_some() -> None:
    """A callback takes BTF in Linux; bytecode has none, and what its functions are needs saying."""
    code = (
        bytes.fromhex("b401000003000000")  # w1 = 3 rounds
        + bytes.fromhex("1842000006000000 0000000000000000")  # r2 = the function behind exit
        + bytes.fromhex("b403000000000000 b704000000000000 85000000b5000000 9500000000000000")
        + bytes.fromhex("b400000000000000 9500000000000000")
    )
    code = code[:12] + struct.pack("<i", 5) + code[16:]
    program = Program.from_bytes(code, type="tc")
    assert program.run(FRAME, engine="kernel").return_value == 3
    assert program.run(FRAME, engine="interpreter").return_value == 3


# -- what programs are attached to ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "section", "expected"),
    [
        ("xdp", "xdp", (37, 0, True)),
        ("xdp", "xdp.frags/cpumap", (35, XDP_FRAGS, True)),
        ("xdp", "xdp_prog1", (37, 0, False)),
        ("xdp", "tc/ingress", (37, 0, False)),
        ("tc", "?tc/ingress", (46, 0, True)),
        ("tc", "2/7", (0, 0, False)),
        ("cgroup_sock_addr", "cgroup/connect_unix", (49, 0, True)),
        ("tracing", "fentry.s/vfs_read", (24, SLEEPABLE, True)),
        ("kprobe", "kprobe.multi/vfs_*", (42, 0, True)),
        ("syscall", "syscall", (0, SLEEPABLE, True)),
        (None, None, (0, 0, True)),
    ],
)
def test_attach_types_are_those_of_libbpf(
    type_: str | None, section: str | None, expected: tuple[int, int, bool]
) -> None:
    found = attachment(type_, section)
    assert (found.type, found.flags, found.is_said) == expected


def test_a_program_array_has_programs_attached_alike() -> None:
    made = ebpfjit.load(ELF / "tail_call_attached.o")
    made.maps["jumps"][0] = made.programs["same"]
    with pytest.raises(MapError, match="attach type 33"):
        made.maps["jumps"][1] = made.programs["other"]
    made = ebpfjit.load(ELF / "tail_call_attached.o")
    made.maps["jumps"][0] = made.programs["other"]
    with pytest.raises(MapError, match="attach type 33"):
        made.programs["caller"].run(FRAME, engine="interpreter")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_section_that_says_nothing_goes_with_any(engine: str) -> None:
    made = ebpfjit.load(ELF / "tail_call_attached.o")
    code = bytes.fromhex("b700000004000000 9500000000000000")
    made.maps["jumps"][0] = Program(code, "unsaid", "xdp_prog7", "xdp")
    assert made.programs["caller"].run(FRAME, engine=engine).return_value == 4


# -- licences ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
@pytest.mark.parametrize("name", ["reads", "prints"])
def test_a_missing_license_is_warned_of(engine: str, name: str) -> None:
    program = ebpfjit.load(ELF / "license_missing.o").programs[name]
    with pytest.warns(LicenseWarning, match=r"license_missing\.c:\d+.*for programs under the GPL"):
        assert program.run(FRAME, engine=engine).return_value == 2
    refusing = Environment(gpl_only=True)
    with pytest.raises(VerifierError, match="gpl_only=False") as caught:
        program.run(FRAME, engine=engine, environment=refusing)
    assert caught.value.rule == "license"
    assert caught.value.pc is not None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = ebpfjit.load(ELF / "license_missing.o")
        silent = Environment(gpl_only=False)
        assert again.programs[name].run(FRAME, engine=engine, environment=silent).return_value == 2
        assert again.programs["ticks"].run(FRAME, engine=engine).return_value == 2


def test_compiling_and_helpers_of_ones_own() -> None:
    program = ebpfjit.load(ELF / "license_missing.o", environment=Environment(gpl_only=True)).programs[
        "prints"
    ]
    with pytest.raises(VerifierError, match="bpf_trace_printk is for programs under the GPL"):
        program.compile()
    function = program.compile(helpers={6: lambda *_: 1})
    assert function(FRAME) == 2


@needs_kernel
def test_the_kernel_is_told_the_license() -> None:
    made = ebpfjit.load(ELF / "license_missing.o")
    with pytest.raises(KernelVerifierError, match="cannot call GPL-restricted function"):
        made.programs["prints"].run(FRAME, engine="kernel")
    assert made.programs["ticks"].run(FRAME, engine="kernel").return_value == 2
    free = Environment(gpl_only=False)
    assert made.programs["prints"].run(FRAME, engine="kernel", environment=free).return_value == 2


@needs_kernel
def test_restricted_helpers_are_those_of_linux() -> None:
    """Each helper of ours is asked for under no license, as each type that loads here."""
    wrong: dict[str, bool] = {}
    for number, helper in helpers().items():
        code = struct.pack("<BBhi", 0x85, 0, 0, number) + bytes.fromhex("b700000000000000 9500000000000000")
        said: set[bool] = set()
        for name in (
            "kprobe",
            "xdp",
            "tc",
            "syscall",
            "sk_msg",
            "sock_ops",
            "raw_tracepoint",
            "cgroup_sockopt",
            "cgroup_sysctl",
            "lwt_in",
        ):
            attributes = LoadAttributes(attachment(name, None).type, PROGRAM_TYPES[name].flags, license="")
            try:
                syscalls.program_load(code, PROGRAM_TYPES[name].number, attributes)
            except KernelVerifierError as error:
                if "cannot use helper" not in error.log and "unknown func" not in error.log:
                    said.add("GPL-restricted" in error.log)
        if said and said != {helper.gpl}:
            wrong[NAMES[number]] = helper.gpl
    assert wrong == {}


# -- helpers of a run ---------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_helpers_of_one_run(engine: str) -> None:
    program = ebpfjit.load(ELF / "license_missing.o").programs["ticks"]
    assert program.run(FRAME, engine=engine, helpers={"bpf_ktime_get_ns": lambda *_: 0}).return_value == 1
    assert program.run(FRAME, engine=engine, helpers={5: lambda *_: 7}).return_value == 2
    assert program.run(FRAME, engine=engine).return_value == 2
    with pytest.raises(InputError, match="no helper 'bpf_nonesuch'"):
        program.run(FRAME, engine=engine, helpers={"bpf_nonesuch": lambda *_: 0})


def test_the_kernel_takes_no_helpers() -> None:
    program = ebpfjit.load(ELF / "license_missing.o").programs["ticks"]
    with pytest.raises(InputError, match="the kernel has its own helpers"):
        program.run(FRAME, engine="kernel", helpers={5: lambda *_: 7})


def test_each_program_type_says_what_it_runs_on() -> None:
    with_runs = {name for name, kind in PROGRAM_TYPES.items() if kind.test_run is not TestRun.NONE}
    assert {"sk_lookup", "flow_dissector", "netfilter", "tracing", "struct_ops", "syscall"} <= with_runs


# -- kfuncs ---------------------------------------------------------------------------------------------


# -- functions that only data point to, types that Linux does not take ------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_programs_beside_a_table_of_functions(engine: str) -> None:
    loaded = ebpfjit.load(ELF / "beside_table.o")
    assert loaded.programs["reads"].run(FRAME, engine=engine).return_value == 7
    assert loaded.programs["calls_one_of_it"].run(FRAME, engine=engine).return_value == 96873


@needs_kernel
def test_linux_has_no_calls_through_a_table() -> None:
    with pytest.raises(KernelVerifierError, match="unknown opcode 8d"):
        ebpfjit.load(ELF / "beside_table.o").programs["goes_through_it"].run(FRAME, engine="kernel")


@needs_kernel
def test_code_that_goes_on_into_another_function_stays() -> None:
    code = assemble("mov r0, 1\nja +1\nmov r0, 2\nmov r0, 3\nexit")
    with pytest.raises(KernelVerifierError, match="unreachable insn 2"):
        Program(code, type="xdp", symbols={2: "behind"}).run(FRAME, engine="kernel")


@needs_kernel
def test_types_that_linux_does_not_take_are_said(linux: ebpfjit.Object) -> None:
    program = linux.programs["caller"]
    assert program.types is not None
    damaged = replace(program, types=replace(program.types, btf=program.types.btf[:-1]))
    with pytest.raises(KernelVerifierError) as caught:
        damaged.run(FRAME, engine="kernel")
    first = str(caught.value).partition("\n")[0]
    assert "EINVAL, refused by the Linux verifier); the kernel refused BTF of " in first
    assert first.endswith("(EINVAL), so that the program and its maps are without types there")


has_iterators = pytest.mark.skipif(  # as a text: asked when a test runs, the kernel's types are large
    "not vmlinux.find('bpf_iter_num_new', Kind.FUNC)", reason="this kernel has no bpf_iter_num"
)


@needs_kernel
@has_iterators
def test_kfuncs_are_the_kernels() -> None:
    made = ebpfjit.load(ELF / "weak_kfuncs.o")
    assert made.programs["sum"].run(FRAME, engine="kernel").return_value == 45


@needs_kernel
def test_a_kfunc_that_no_kernel_has_is_named() -> None:
    with pytest.raises(LoadError, match=r"kfunc\.c:13: .*kfunc 'bpf_needed'"):
        ebpfjit.load(ELF / "kfunc.o").programs["caller"].run(FRAME, engine="kernel")


@needs_kernel
@has_iterators
def test_kfuncs_that_must_be_there() -> None:
    program = ebpfjit.load(ELF / "strong_kfuncs.o").programs["sum"]
    assert program.run(FRAME, engine="kernel").return_value == 45


@needs_kernel
def test_a_kfunc_of_ours_that_the_kernel_has_not_is_named() -> None:
    made = ebpfjit.load(ELF / "strong_kfuncs.o").programs["sum"]
    kfuncs = {id: replace(called, name=called.name + "_gone") for id, called in made.kfuncs.items()}
    program = replace(made, kfuncs=kfuncs)
    with pytest.raises(LoadError, match="this kernel has no kfunc 'bpf_iter_num_new_gone'"):
        program.run(FRAME, engine="kernel")


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_weak_kfuncs_are_ours_elsewhere_or_missing(engine: str) -> None:
    made = ebpfjit.load(ELF / "weak_kfuncs.o")
    assert made.programs["sum"].run(FRAME, engine=engine).return_value == 45
    assert made.programs["has_runqueues"].run(FRAME, engine=engine).return_value == 0


def test_a_weak_kfunc_that_nobody_has_can_be_given() -> None:
    given = {"no_kernel_has_this": lambda number: 40 + number}
    made = ebpfjit.load(ELF / "weak_kfuncs.o").programs["sum"]
    for engine in ("interpreter", "jit"):
        assert made.run(FRAME, engine=engine).return_value == 45
        assert made.run(FRAME, engine=engine, kfuncs=given).return_value == 41
        assert made.run(FRAME, engine=engine, kfuncs={"other": len}).return_value == 45
    for optimize in (False, True):
        assert made.compile(optimize=optimize, kfuncs=given)(FRAME) == 41
        assert made.compile(optimize=optimize)(FRAME) == 45
    id = next(id for id, kfunc in made.weak_kfuncs.values() if kfunc.name == "no_kernel_has_this")
    assert made.run(FRAME, kfuncs={id: lambda number: 30}).return_value == 30
