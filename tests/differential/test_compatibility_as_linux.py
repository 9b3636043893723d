"""The tables of what releases have, judged by the kernel that runs here: what it loads, what it refuses."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import EbpfError, load
from ebpfjit.assembler import assemble
from ebpfjit.compatibility import Kernel, Release, find_kernel
from ebpfjit.compatibility.lookup import Answer, Caller, helper, instruction, kfunc, releases
from ebpfjit.compatibility.release import LAST
from ebpfjit.compatibility.tables import helpers, kernel, kfuncs
from ebpfjit.compatibility.target import release_of, shows
from ebpfjit.difftest.children import run_forked
from ebpfjit.elf.btf import Kind
from ebpfjit.kernel import load_program, unavailable_reason, vmlinux
from ebpfjit.kernel.program_types import PROGRAM_TYPES
from ebpfjit.kernel.syscalls import LoadAttributes, load_once, map_create
from ebpfjit.program import decode
from ebpfjit.runtime.attach import SECTIONS, attachment
from ebpfjit.runtime.helpers.names import NAMES
from ebpfjit.runtime.maps.definition import MapType
from tests.support.whole import part

ROOT = Path(__file__).resolve().parents[2]
EXIT = assemble("mov r0, 0\nexit")

pytestmark = pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))
needs_types = pytest.mark.skipif(not vmlinux.PATH.exists(), reason=f"no {vmlinux.PATH}")

TARGETS = {
    "fentry": "bpf_fentry_test1", "fexit": "bpf_fentry_test1", "fmod_ret": "bpf_modify_return_test",
    "tp_btf": "sched_switch", "iter": "task", "lsm": "file_open", "lsm_cgroup": "socket_bind",
}  # fmt: skip
"""What every kernel has for programs that are attached to a function."""
WITHOUT_SECTION = (
    "socket_filter", "perf_event", "lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local", "tracepoint",
    "raw_tracepoint", "raw_tracepoint_writable", "syscall",
)  # fmt: skip
CONFIGURED = {"bpf_probe_write_user", "bpf_override_return"}
"""Helpers that a kernel may be built or locked down without."""

REFUSED = re.compile(
    "cannot use helper|unknown func|invalid func|might sleep|not supported for program type|supported only"
    "|helper call is not allowed"
)


@cache
def running() -> Kernel:
    return find_kernel("running")


def has(answer: Answer) -> bool:
    """Say whether the running kernel is to have something, by the tables."""
    return answer.since is not None and answer.since <= running().release <= (answer.until or LAST)


def hooks() -> list[Caller]:
    """Return a program for each way to attach one, and for each type that has none."""
    named = [(type_, section) for type_, section, _ in SECTIONS] + [(each, each) for each in WITHOUT_SECTION]
    whole = [(type_, "/".join(filter(None, (section, TARGETS.get(section))))) for type_, section in named]
    return [Caller(type_, section, "", type_ == "syscall") for type_, section in whole]


def ask(caller: Caller, code: bytes) -> tuple[bool, str]:
    """Return whether Linux loads a program, and its verifier's log."""
    what = attachment(caller.type, caller.section)
    number = PROGRAM_TYPES["action" if caller.type == "sched_act" else str(caller.type)].number
    given = LoadAttributes(what.type, what.flags, attach_id=vmlinux.attach_id(what))
    result, log = load_once(code, number, given, 1, 1 << 14)
    if result >= 0:
        os.close(result)
    return result >= 0, log


def is_there(caller: Caller) -> bool:
    """Say whether this kernel looks at programs of this kind at all: their verifier writes a log."""
    try:
        return ask(caller, EXIT)[1] != ""
    except EbpfError:  # no such function to attach to
        return False


def asked(questions: Callable[[], Any]) -> Any:
    """Return what a child process finds out: the kernel's types take memory."""
    return run_forked(questions, 120).value


def test_programs_of_each_kind_may_call_what_the_tables_say() -> None:
    def wrong() -> Iterator[tuple[object, ...]]:
        for caller in filter(is_there, hooks()):
            for number, name in NAMES.items():
                _, log = ask(caller, struct.pack("<BBhi", 0x85, 0, 0, number) + EXIT)
                allowed, expected = not REFUSED.search(log), has(helper(name, caller))
                if allowed != expected and not (expected and name in CONFIGURED):
                    yield caller.section, name, allowed

    there, found = asked(lambda: ([each.section for each in hooks() if is_there(each)], list(wrong())))
    assert found == []
    assert len(there) > 50, "most kinds of programs are there"


NO_MATTER = re.compile("_test|_memb_|bpf_xdp_metadata_")
"""The kernel's own tests, and what only programs of a device may call."""


@needs_types
def test_kernel_functions() -> None:
    """Each that this kernel has is in the tables, for programs of the types that may call it here."""
    sections = {"tp_btf/sched_switch", "kprobe", "xdp", "tc", "syscall", "cgroup/connect4", "netfilter"}
    callers = [each for each in hooks() if each.section in sections]

    def names() -> list[str]:
        btf = vmlinux.types()
        assert btf is not None
        tags = (btf.type(id) for id in range(1, len(btf)) if btf.kind(id) == Kind.DECL_TAG)
        found = {btf.type(tag.target).name for tag in tags if tag.name == "bpf_kfunc"}
        return sorted(name for name in found if not NO_MATTER.search(name))

    def wrong(known: list[str]) -> Iterator[tuple[object, ...]]:
        for name in known:
            if name not in releases(kfuncs.KFUNCS):
                yield name, "not in the tables"
        for caller in callers:
            for name in part(known, 3):
                word = struct.pack("<BBhi", 0x85, 0x20, 0, vmlinux.find(name, Kind.FUNC))
                _, log = ask(caller, word + EXIT)
                allowed, answer = "is not allowed" not in log, kfunc(name, caller)
                if allowed != has(answer):
                    yield caller.section, name, allowed, answer

    known, found = asked(lambda: (names(), list(wrong(names()))))
    if not known:
        pytest.skip("this kernel's types do not tell its kernel functions")
    assert found == []
    assert len(known) > 100


MAPS = {
    "hash": (4, 4, 4), "array": (4, 4, 4), "prog_array": (4, 4, 4), "perf_event_array": (4, 4, 4),
    "percpu_hash": (4, 4, 4), "percpu_array": (4, 4, 4), "stack_trace": (4, 8, 4), "cgroup_array": (4, 4, 4),
    "lru_hash": (4, 4, 4), "lru_percpu_hash": (4, 4, 4), "lpm_trie": (8, 4, 4, 1), "devmap": (4, 4, 4),
    "sockmap": (4, 4, 4), "cpumap": (4, 4, 1), "xskmap": (4, 4, 4), "sockhash": (4, 4, 4), "queue": (0, 4, 4),
    "stack": (0, 4, 4), "devmap_hash": (4, 4, 4), "ringbuf": (0, 0, 4096), "bloom_filter": (0, 4, 4),
    "user_ringbuf": (0, 0, 4096),
}  # fmt: skip
"""Key size, value size, entries and flags of the map types that need neither types nor another map."""


def test_which_maps_programs_that_sleep_may_have() -> None:
    def wrong() -> Iterator[tuple[str, bool]]:
        for name, sizes in MAPS.items():
            try:
                fd = map_create(MapType[name.upper()], *sizes)
            except EbpfError:
                continue  # built without
            code = struct.pack("<BBhiq", 0x18, 0x11, 0, fd, 0) + EXIT
            loaded, log = ask(Caller("syscall", "syscall", sleeps=True), code)
            os.close(fd)
            since = releases(kernel.MAPS_OF_SLEEPERS).get(name)
            if loaded != (since is not None and since <= running().release):
                yield name, log

    assert asked(lambda: list(wrong())) == []


OTHERS = re.compile("^unspec$|max_|_deprecated$|^tc$|^sched_cls$")
"""Enumerators that are no feature, or that we have under another name."""


@needs_types
@pytest.mark.parametrize(
    ("enum", "prefix", "known"),
    [
        ("bpf_func_id", "BPF_FUNC_", lambda: releases(helpers.HELPERS)),
        ("bpf_map_type", "BPF_MAP_TYPE_", lambda: releases(kernel.MAP_TYPES)),
        ("bpf_prog_type", "BPF_PROG_TYPE_", lambda: releases(kernel.PROGRAM_TYPES)),
    ],
)
def test_enums_of_the_kernel_have_what_the_tables_have(enum: str, prefix: str, known: Any) -> None:
    expected = {name for name, since in known().items() if since <= running().release}

    def names() -> set[str]:
        btf = vmlinux.types()
        assert btf is not None
        (id_,) = btf.named(enum, {Kind.ENUM})
        return {name.removeprefix(prefix).lower() for name, _ in btf.type(id_).enumerators}

    odd = {name for name in asked(names) ^ expected if not OTHERS.search(name)}
    assert odd == set()


@needs_types
def test_what_the_kernel_is_told_by_is_in_its_types() -> None:
    """The release by its types alone is the one that runs; enumerators that sections stand for are there."""

    def answers() -> tuple[Release | None, list[str]]:
        btf = vmlinux.types()
        assert btf is not None
        here = running().release
        names = [name for _, since, name in kernel.ATTACH_TYPES if Release(since) <= here]
        names += [f"BPF_F_{name}" for name, since in releases(kernel.MAP_FLAGS).items() if since <= here]
        return release_of(btf), [name for name in names if not shows(btf, ("name", name))]

    assert asked(answers) == (running().release, [])


INSTRUCTIONS = {
    "jump if less": "if r1 < 1 goto +0",
    "long jump (gotol)": "gotol +0",
    "32-bit jump (JMP32)": "if w1 == 0 goto +0",
    "may_goto": "may_goto +0",
    "signed division": "r1 s/= 2",
    "sign-extending move": "r1 = (s8)r1",
    "sign-extending load": "r1 = *(s8 *)(r10 - 8)",
    "byte swap": "r1 = bswap64 r1",
    "load-acquire": "r1 = load_acquire((u64 *)(r10 - 8))",
    "store-release": "store_release((u64 *)(r10 - 8), r1)",
    "atomic add": "lock *(u64 *)(r10 - 8) += r1",
    "atomic operation": "lock *(u64 *)(r10 - 8) ^= r1",
    "call of a function": "call f",
    "packet load of 8 bytes": "ldabsdw 0",
    "indirect call (callx)": "callx r1",
}
"""One that needs no types and no map for each that is younger than bpf(2), or that no release has."""
ELSEWHERE = {
    "address space cast",
    "address of a function (callback)",
    "variable of the kernel",
    "global variable",
}


def test_instructions() -> None:
    def wrong() -> Iterator[tuple[str, bool]]:
        for feature, text in INSTRUCTIONS.items():
            code = assemble(f"r1 = 7\n*(u64 *)(r10 - 8) = r1\n{text}\nr0 = 0\nexit\nf: r0 = 0\nexit")
            if feature != "call of a function":
                code = code[:-16]
            (operation,) = {
                insn.row.operation for insn in decode(code) if insn.row and instruction(insn.row.operation)
            }
            found = instruction(operation)
            assert found is not None
            assert found[0] == feature
            loaded, log = ask(Caller("socket_filter", "socket"), code)
            if loaded != has(found[1]):
                yield feature, log

    names = {name for _, _, name in kernel.INSTRUCTIONS} | set(kernel.NEVER.values())
    assert INSTRUCTIONS.keys() | ELSEWHERE == names
    assert asked(lambda: list(wrong())) == []


def test_what_linux_loads_lacks_nothing() -> None:
    """Nothing is said to be missing here of a program that Linux loads: of objects of all kinds."""
    paths = [*sorted((ROOT / "tests" / "elf").glob("*.o")), *sorted((ROOT / "examples").glob("*/*.o"))]

    def wrong() -> Iterator[tuple[str, str, list[str]]]:
        for path in part(paths, 3):
            try:
                obj = load(path)
            except EbpfError:
                continue
            for name, program in obj.programs.items():
                missing = [need for need in program.compatibility().missing(running()) if need.is_known]
                if missing:
                    try:
                        load_program(program)
                    except EbpfError:
                        continue
                    yield path.name, name, [str(need) for need in missing]

    assert asked(lambda: list(wrong())) == []
