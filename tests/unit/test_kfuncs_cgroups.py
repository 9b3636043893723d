"""Iterators over cgroups, the tasks of one, memory areas and DMA buffers: of an environment, and Linux's."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

import ebpfjit
from ebpfjit import Environment
from ebpfjit.bits import W32
from ebpfjit.kernel import vmlinux
from tests.support import cgroups
from tests.support.helper_runs import needs_kernel
from tests.support.kfunc_runs import program_of

OBJECT = Path(__file__).parents[1] / "elf" / "cgroups.o"
engines = pytest.mark.parametrize("engine", ["interpreter", "jit"])
needs_cgroups = pytest.mark.skipif(cgroups.why_not() is not None, reason=str(cgroups.why_not()))
PRE, POST, UPWARDS = 2, 3, 4
ROOT, A, B, BELOW_A, C = 1, 10, 11, 100, 12


def described(ids: dict[str, int] | None = None, **how: Any) -> tuple[Environment, dict[str, Any]]:
    """Return an environment with a tree of cgroups, and these by name."""
    ids = ids or {"root": ROOT, "a": A, "a/b": BELOW_A, "b": B, "c": C}
    here, made = Environment(**how), dict[str, Any]()
    for name, number in ids.items():
        above = made.get("a" if "/" in name else "root", 0)
        node = here.struct("kernfs_node", id=number)
        made[name] = here.struct("cgroup", self={"parent": above}, kn=node)
    return here, made


@pytest.fixture(scope="module")
def for_linux() -> ebpfjit.Object:
    return ebpfjit.load(OBJECT, btf=vmlinux.PATH)


def walk(loaded: ebpfjit.Object, start: int, flags: int, engine: str, environment: Environment | None) -> Any:
    loaded.globals["start"], loaded.globals["flags"] = start, flags
    result = loaded.programs["groups"].run(engine=engine, environment=environment)
    answer = W32.signed(result.return_value)
    return answer or list(loaded.globals["found"][: loaded.globals["count"]])


@pytest.fixture(scope="module")
def loaded() -> ebpfjit.Object:
    return ebpfjit.load(OBJECT)


@engines
def test_cgroups_above_and_below_one(loaded: ebpfjit.Object, engine: str) -> None:
    here, _ = described()
    assert walk(loaded, ROOT, PRE, engine, here) == [ROOT, A, BELOW_A, B, C]
    assert walk(loaded, ROOT, POST, engine, here) == [BELOW_A, A, B, C, ROOT]
    assert walk(loaded, A, POST, engine, here) == [BELOW_A, A]
    assert walk(loaded, BELOW_A, UPWARDS, engine, here) == [BELOW_A, A, ROOT]
    assert walk(loaded, C, PRE, engine, here) == [C]
    for flags in (0, 1, 5):
        assert walk(loaded, ROOT, flags, engine, here) == -22
    assert walk(loaded, 99, PRE, engine, here) == -2


@engines
def test_ancestors_tell_what_is_above(loaded: ebpfjit.Object, engine: str) -> None:
    here = Environment()
    nodes = [here.struct("kernfs_node", id=number) for number in (1, 2, 3)]
    root = here.struct("cgroup", kn=nodes[0], ancestors=[0, 0, 0, 0])
    child = here.struct("cgroup", level=1, kn=nodes[1], ancestors=[root, 0, 0, 0])
    here.struct("cgroup", level=2, kn=nodes[2], ancestors=[root, child, 0, 0])
    assert walk(loaded, 3, UPWARDS, engine, here) == [3, 2, 1]
    assert walk(loaded, 1, POST, engine, here) == [3, 2, 1]


def orders_in_linux(group: Path, loaded: ebpfjit.Object) -> tuple[dict[str, int], list[Any]]:
    folders = {"a": group / "a", "a/b": group / "a" / "b", "b": group / "b", "c": group / "c"}
    for folder in folders.values():
        folder.mkdir()
    ids = {"root": group.stat().st_ino} | {name: folder.stat().st_ino for name, folder in folders.items()}
    try:
        starts = [(start, flags) for start in ids.values() for flags in (0, PRE, POST)]
        return ids, [walk(loaded, start, flags, "kernel", None) for start, flags in starts]
    finally:
        for folder in reversed(folders.values()):
            folder.rmdir()


@needs_cgroups
def test_the_order_is_that_of_linux(loaded: ebpfjit.Object, for_linux: ebpfjit.Object) -> None:
    ids, theirs = cgroups.in_a_cgroup(lambda group: orders_in_linux(group, for_linux))
    here, _ = described(ids)
    ours = [walk(loaded, start, flags, "jit", here) for start in ids.values() for flags in (0, PRE, POST)]
    assert ours == theirs


@engines
def test_the_tasks_of_a_cgroup(loaded: ebpfjit.Object, engine: str) -> None:
    here, made = described(btf=OBJECT)
    sets = {name: here.struct("css_set", dfl_cgrp=made[name]) for name in ("a", "b")}
    for pid, tgid, name in ((5, 5, "a"), (6, 5, "a"), (7, 7, "b"), (8, 8, "a")):
        here.task(pid=pid, tgid=tgid, cgroups=sets[name])
    here.task(pid=9)
    for number, flags, pids in ((A, 0, [5, 6, 8]), (A, 1, [5, 8]), (B, 3, [7]), (C, 0, []), (ROOT, 0, [])):
        loaded.globals["start"], loaded.globals["flags"] = number, flags
        loaded.programs["tasks_of"].run(struct.pack("<2Q", 0, 0), engine=engine, environment=here)
        assert list(loaded.globals["found"][: loaded.globals["count"]]) == pids
        assert loaded.globals["inside"] == len(pids)
    loaded.globals["flags"] = 2
    loaded.programs["tasks_of"].run(struct.pack("<2Q", 0, 0), engine=engine, environment=here)
    assert W32.signed(loaded.globals["count"]) == -22


@engines
def test_memory_areas_of_a_task(loaded: ebpfjit.Object, engine: str) -> None:
    here = Environment()
    for start in (0x5000, 0x1000, 0x3000):
        here.struct("vm_area_struct", vm_start=start, vm_end=start + 0x1000)
    for start, areas in (
        (0, [0x1000, 0x3000, 0x5000]),
        (0x3FFF, [0x3000, 0x5000]),
        (0x4000, [0x5000]),
        (0x6000, []),
    ):
        loaded.globals["start"] = start
        loaded.programs["areas"].run(engine=engine, environment=here)
        assert list(loaded.globals["found"][: loaded.globals["count"]]) == areas


@needs_kernel
def test_memory_areas_of_this_process(for_linux: ebpfjit.Object) -> None:
    loaded = for_linux
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if "[v" not in line]
    last = int(lines[-1].partition("-")[0], 16)
    loaded.globals["start"] = last
    assert loaded.programs["areas"].run(engine="kernel").return_value == 0
    assert loaded.globals["found"][0] == last


@engines
def test_what_a_program_writes_into_an_iterator_is_a_number(engine: str) -> None:
    here, _ = described(btf=OBJECT)
    here.task(pid=1)
    for name, size in (("css", 24), ("css_task", 8), ("task_vma", 8), ("dmabuf", 8)):
        for word in (-1, 1 << 24, 3):
            text = "".join(f"stdw [r10-{at}], {word}\n" for at in range(8, size + 8, 8))
            text += f"mov r1, r10\nadd r1, -{size}\ncall kfunc {{bpf_iter_{name}_next}}\nexit"
            assert program_of(text).run(bytes(64), engine=engine, environment=here).return_value == 0


@engines
def test_dma_buffers(loaded: ebpfjit.Object, engine: str) -> None:
    here = Environment()
    for size in (4096, 8192):
        here.struct("dma_buf", size=size)
    assert loaded.programs["buffers"].run(engine=engine, environment=here).return_value == 0
    assert list(loaded.globals["found"][: loaded.globals["count"]]) == [4096, 8192]
