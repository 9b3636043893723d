"""Local storage: values that belong to sockets, tasks, inodes and cgroups, on every engine."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import EbpfError, Environment, ExecutionError, MapError, MapRefused, Program, Task, kernel, load
from ebpfjit.assembler import assemble
from ebpfjit.kernel import syscalls
from ebpfjit.runtime.maps import BPF_EXIST, BPF_F_LOCK, BPF_NOEXIST, MapDefinition, MapFlag, MapType, create
from ebpfjit.runtime.maps.special import KINDS as SPECIAL_KINDS
from ebpfjit.runtime.maps.special import SpecialField
from ebpfjit.runtime.maps.tabled import capacity_of
from ebpfjit.runtime.objects import CURRENT_TASK
from ebpfjit.runtime.sockets import Socket

OBJECT = Path(__file__).parents[1] / "elf" / "local_storage.o"
VMLINUX = Path("/sys/kernel/btf/vmlinux")
FRAME = bytes(64)
ENGINES = ("interpreter", "jit")
KINDS = (MapType.SK_STORAGE, MapType.INODE_STORAGE, MapType.TASK_STORAGE, MapType.CGRP_STORAGE)
LARGEST = 65407
engines = pytest.mark.parametrize("engine", ENGINES)
needs_kernel = pytest.mark.skipif(
    kernel.unavailable_reason() is not None or not VMLINUX.exists(), reason=str(kernel.unavailable_reason())
)
ALL = 14141101  # absent, no such flag, nothing to delete; 40 + 1 twice; deleted; 0 + 0, deleted


class World:
    """An object and the environment that has its owners."""

    def __init__(self) -> None:
        self.obj = load(OBJECT)
        self.environment = Environment(socket_cookie=77)
        self.cgroup = self.environment.struct("cgroup", level=3)
        self.task = self.environment.task(
            pid=7, cgroups=self.environment.struct("css_set", dfl_cgrp=self.cgroup)
        )
        self.inode = self.environment.struct("inode", i_ino=5)
        self.file = self.environment.struct("file", f_inode=self.inode)

    def run(self, name: str, engine: str, **how: Any) -> int:
        data = struct.pack("<QQ", self.file, 0) if name.startswith("inode") else FRAME
        how.setdefault("environment", self.environment)
        return self.obj.programs[name].run(how.pop("data", data), engine=engine, **how).return_value


@pytest.fixture(scope="module")
def shared() -> World:
    return World()


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    yield shared
    for name in ("by_socket", "by_task", "by_cgroup", "by_inode"):
        shared.obj.maps[name].clear()


OWNERS = ("socket", "task", "cgroup", "inode")


@engines
@pytest.mark.parametrize("owner", OWNERS)
def test_found_made_and_deleted(world: World, owner: str, engine: str) -> None:
    assert world.run(f"{owner}_all", engine) == ALL
    assert len(world.obj.maps[f"by_{owner}"]) == 0


@needs_kernel
@pytest.mark.parametrize("owner", OWNERS[:3])  # Linux has no test run for lsm
def test_found_made_and_deleted_by_linux(owner: str) -> None:
    program = load(OBJECT, btf=VMLINUX, only=[f"{owner}_all"]).programs[f"{owner}_all"]
    assert program.run(FRAME, engine="kernel").return_value == ALL


@engines
@pytest.mark.parametrize("owner", OWNERS)
def test_python_reads_and_sets_by_object(world: World, owner: str, engine: str) -> None:
    m = world.obj.maps[f"by_{owner}"]
    key = {"socket": 77, "task": world.task, "cgroup": world.cgroup, "inode": world.inode}[owner]
    assert key not in m
    assert m.get(key) is None
    assert world.run(f"{owner}_counts", engine) == 1
    assert world.run(f"{owner}_counts", engine) == 2
    assert list(m) == [key]
    assert m.typed[key] == {"count": 2, "first": 0, "last": 2}
    m[key] = {"count": 10, "first": 100, "last": 0}
    assert world.run(f"{owner}_counts", engine) == 111
    assert m[key] == struct.pack("<QII", 11, 100, 111)
    assert [(each, value["count"]) for each, value in m.typed.items()] == [(key, 11)]
    del m[key]
    with pytest.raises(KeyError):
        m[key]
    with pytest.raises(KeyError):
        del m[key]
    assert world.run(f"{owner}_counts", engine) == 1


@engines
def test_a_socket_of_the_context_has_its_own_value(world: World, engine: str) -> None:
    m = world.obj.maps["by_socket"]
    one = Socket("tcp", ("10.0.0.1", 80), tcp={"snd_cwnd": 3})
    other = Socket("tcp", ("10.0.0.1", 81), cookie=5)
    m[one] = {"count": 4, "first": 0, "last": 0}
    for socket, count in ((one, 5), (other, 1), (replace(one), 6), ({}, 1), (None, 0xFFFF_FFFC)):
        given = {"data": b"", "context": {"sk": socket}}
        assert world.run("hook_counts", engine, **given) == count
    assert sorted(map(repr, m)) == sorted(map(repr, (one, other, 77)))
    assert m.typed[5]["count"] == 1  # by its cookie


@engines
def test_sockets_that_are_looked_up(engine: str) -> None:
    """bpf_sk_lookup_tcp, then its value; one in TIME_WAIT has none, as it is no full socket."""
    m = create(MapDefinition("m", MapType.SK_STORAGE, 4, 8, 0, MapFlag.NO_PREALLOC))
    established = Socket("tcp", ("10.0.0.1", 80), ("10.0.0.2", 80))
    for socket, found in ((established, 1), (replace(established, state=6), 0)):
        program = _looking_up(m)
        environment = Environment(sockets=(socket,))
        assert program.run(FRAME, engine=engine, environment=environment).return_value == found
    assert list(m) == [established]


def _looking_up(m: Any) -> Program:
    """Return a tc program that looks up 10.0.0.2:80 -> 10.0.0.1:80 and stores 9 for it; 1 where it could."""
    source, destination = bytes([10, 0, 0, 2]), bytes([10, 0, 0, 1])
    code = assemble(f"""
        lddw r3, {int.from_bytes(source + destination, "little"):#x}
        stxdw [r10-16], r3
        stw [r10-8], 0x50005000
        mov r2, r10
        add r2, -16
        mov r3, 12
        mov r4, -1
        mov r5, 0
        call 84
        mov r6, r0
        lddw r1, map[idx:0]
        mov r2, r6
        mov r3, 0
        mov r4, 1
        call 107
        mov r7, 0
        jeq r0, 0, +2
        stdw [r0], 9
        mov r7, 1
        mov r1, r6
        call 86
        mov r0, r7
        exit
    """)
    return _with_map(code, m, "tc")


def _with_map(code: bytes, m: Any, type_: str | None) -> Program:
    bare = Program.from_bytes(code, type=type_)
    references = {
        insn.pc: m.address for insn in bare.instructions if insn.row and insn.row.operation == "LDDW_MAP_IDX"
    }
    return replace(bare, references=references, maps=(m,))


@engines
def test_a_lock_in_the_value(world: World, engine: str) -> None:
    before = world.run("locks", engine)
    assert world.run("locks", engine) == before + 1
    m = world.obj.maps["under_lock"]
    m.put(world.task, {"lock": {"val": 1}, "count": 9}, BPF_F_LOCK)
    assert m.typed[world.task] == {"lock": {"val": 0}, "count": 9}
    with pytest.raises(MapError) as caught:
        world.obj.maps["by_task"].put(world.task, bytes(16), BPF_F_LOCK)
    assert caught.value.errno == errno.EINVAL


def test_the_process_that_runs_is_a_task_where_nobody_described_one() -> None:
    obj = load(OBJECT, only=["task_counts"])
    here = Environment(task=Task(pid=3))
    assert obj.programs["task_counts"].run(FRAME, environment=here).return_value == 1
    assert obj.maps["by_task"].typed[here.task]["count"] == 1
    assert list(obj.maps["by_task"]) == [CURRENT_TASK]


# -- what is no owner ------------------------------------------------------------------------------

CALL = "lddw r1, map[idx:0]\nlddw r2, {owner:#x}\nmov r3, 0\nmov r4, {flags}\ncall {number}\nexit"


@pytest.mark.parametrize(
    ("kind", "get", "delete"),
    list(zip(KINDS, (107, 145, 156, 210), (108, 146, 157, 211), strict=True)),
)
def test_owners_that_are_none(kind: MapType, get: int, delete: int) -> None:
    m = create(MapDefinition("m", kind, 4, 8, 0, MapFlag.NO_PREALLOC))
    environment = Environment()
    wrong = environment.struct("inode" if kind is MapType.TASK_STORAGE else "task_struct")
    seen = []
    for engine in ENGINES:
        for number, owner, flags, result in ((get, 0, 1, 0), (delete, 0, 0, -errno.EINVAL % (1 << 64))):
            program = _with_map(assemble(CALL.format(owner=owner, flags=flags, number=number)), m, None)
            assert program.run(engine=engine).return_value == result
        for owner in (5, 1 << 46, (1 << 64) - 1):
            program = _with_map(assemble(CALL.format(owner=owner, flags=1, number=get)), m, None)
            with pytest.raises(ExecutionError, match=f"address {owner:#x} is no struct") as caught:
                program.run(engine=engine)
            seen.append((engine, str(caught.value), caught.value.pc))
    assert [each[1:] for each in seen[:3]] == [each[1:] for each in seen[3:]]
    with pytest.raises(TypeError, match="its values belong to"):
        m[wrong] = 1
    for key in (b"\0\0\0\0", "x", None, -1, 1 << 64, True):
        with pytest.raises(TypeError, match="its values belong to"):
            m[key] = 1
    assert len(m) == 0


def test_the_value_is_memory_of_the_program() -> None:
    """Of the first value, in front of all of them, nothing can be read; nor of what is not the map's."""
    m = create(MapDefinition("m", MapType.TASK_STORAGE, 4, 8, 0, MapFlag.NO_PREALLOC))
    code = CALL.format(owner=CURRENT_TASK, flags=1, number=156).replace("exit", "ldxdw r0, [r0{}]\nexit")
    good = _with_map(assemble(code.format("+0")), m, None)
    bad = _with_map(assemble(code.format("-8")), m, None)
    m[CURRENT_TASK] = 0x1234
    faults = []
    for engine in ENGINES:
        assert good.run(engine=engine).return_value == 0x1234
        with pytest.raises(ExecutionError) as caught:
            bad.run(engine=engine)
        faults.append((str(caught.value), caught.value.pc))
    assert faults[0] == faults[1]


# -- making and filling -----------------------------------------------------------------------------

SHAPES = [
    ({}, 0),
    ({"flags": MapFlag.NO_PREALLOC | MapFlag.CLONE}, 0),
    ({"flags": 0}, errno.EINVAL),
    ({"flags": MapFlag.NO_PREALLOC | MapFlag.RDONLY}, errno.EINVAL),
    ({"flags": MapFlag.NO_PREALLOC | MapFlag.NUMA_NODE}, errno.EINVAL),
    ({"flags": MapFlag.NO_PREALLOC | MapFlag.RDONLY_PROG}, errno.EINVAL),
    ({"max_entries": 1}, errno.EINVAL),
    ({"key_size": 8}, errno.EINVAL),
    ({"value_size": 0}, errno.EINVAL),
    ({"value_size": LARGEST}, 0),
    ({"value_size": LARGEST + 1}, errno.E2BIG),
    ({"value_size": LARGEST + 1, "key_size": 8}, errno.EINVAL),
    ({"extra": 1}, errno.EINVAL),
]


def shape(kind: MapType, changes: dict[str, Any]) -> MapDefinition:
    return replace(MapDefinition("m", kind, 4, 8, 0, int(MapFlag.NO_PREALLOC)), **changes)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_is_refused(kind: MapType) -> None:
    for changes, number in SHAPES:
        try:
            create(shape(kind, changes))
            refused = 0
        except MapRefused as error:
            refused = error.errno
        assert refused == number, changes


EVERYWHERE = {"bpf_spin_lock", "bpf_res_spin_lock", "kptr", "kptr_untrusted", "percpu_kptr", "bpf_refcount"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_special_fields_of_values(kind: MapType) -> None:
    """As map_check_btf lets each type have them: no timers, lists or trees; user pointers for tasks."""
    taken = EVERYWHERE | ({"uptr"} if kind is MapType.TASK_STORAGE else set())
    assert taken < set(SPECIAL_KINDS)
    for special in SPECIAL_KINDS:
        definition = shape(kind, {"value_size": 64, "special": (SpecialField(special, 8, "field"),)})
        if special in taken:
            create(definition)
        else:
            with pytest.raises(MapRefused, match="EOPNOTSUPP"):
                create(definition)


def types_of(size: int) -> bytes:
    """Return BTF: an int (1), a char (2), `size` chars (3)."""
    types = struct.pack("<IIII", 1, 1 << 24, 4, 1 << 24 | 32) + struct.pack("<IIII", 5, 1 << 24, 1, 8)
    types += struct.pack("<IIIIII", 0, 3 << 24, 0, 2, 1, size)
    strings = b"\0int\0char\0"
    return (
        struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings)) + types + strings
    )


@needs_kernel
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_linux_refuses(kind: MapType) -> None:
    for changes, number in SHAPES:
        d = shape(kind, changes)
        types = syscalls.btf_load(types_of(d.value_size))
        assert types >= 0
        reason = ""
        try:
            os.close(syscalls.map_create(d.type, d.key_size, d.value_size, d.max_entries, int(d.flags),
                                         extra=d.extra, types=(types, 1, 3)))  # fmt: skip
        except EbpfError as error:
            reason = str(error)
        finally:
            os.close(types)
        assert reason.endswith(f"({errno.errorcode[number]})") if number else not reason, changes


def test_flags_of_an_update_and_the_last_owner() -> None:
    m = create(shape(MapType.INODE_STORAGE, {"value_size": LARGEST}))
    first = 0xFFFF_8881_0000_0000
    for number, flags in ((errno.ENOENT, BPF_EXIST), (errno.EINVAL, 3), (errno.EINVAL, BPF_F_LOCK)):
        with pytest.raises(MapError) as caught:
            m.put(first, bytes(LARGEST), flags)
        assert caught.value.errno == number
    for owner in range(capacity_of(m.definition)):
        m.put(first + owner, bytes(LARGEST), BPF_NOEXIST)
    with pytest.raises(MapError) as caught:
        m.put(first, bytes(LARGEST), BPF_NOEXIST)
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(MapError, match="no room for one more owner") as caught:
        m[first - 1] = bytes(LARGEST)
    assert caught.value.errno == errno.ENOMEM
    assert m.get_storage(first - 1, bytes(LARGEST)) == 0
    assert m.pop(first) == bytes(LARGEST)
    assert m.get_storage(first - 1, bytes(LARGEST)) > 0
    m.clear()
    assert len(m) == 0
