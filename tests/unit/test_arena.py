"""Arenas: pages that programs and Python share, on both engines and in the kernel."""

from __future__ import annotations

import copy
import errno
import gc
import mmap
import pickle
import random
import resource
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import LoadError, MapError, MapRefused, VerifierError, load, set_map_memory_limit
from ebpfjit.assembler import assemble
from ebpfjit.difftest.children import run_forked
from ebpfjit.program import Kfunc, Program
from ebpfjit.runtime.maps import MapDefinition, MapFlag, MapType, create
from ebpfjit.runtime.maps.account import account
from ebpfjit.runtime.maps.ranges import FreeRanges
from ebpfjit.runtime.memory import address_of
from tests.support.helper_runs import needs_kernel

OBJECTS = Path(__file__).parents[1] / "elf"
ENGINES = ["interpreter", "jit", pytest.param("kernel", marks=needs_kernel)]
engines = pytest.mark.parametrize("engine", ENGINES)
PAGE = 4096
START = (1 << 44) + 0x12345000  # where arena_pages.c has its arena


def arena(pages: int = 16, flags: int = 0, extra: int = 0) -> Any:
    definition = MapDefinition("pages", MapType.ARENA, 0, 0, pages, MapFlag.MMAPABLE | flags, extra=extra)
    return create(definition)


def program(map_: Any, text: str) -> Program:
    """Return a program that refers to an arena in its first instruction, as r9."""
    kfuncs = {1: Kfunc("bpf_arena_alloc_pages"), 2: Kfunc("bpf_arena_free_pages")}
    code = assemble("r9 = map[idx:0]\n" + text)
    return Program(code, type="syscall", maps=(map_,), references={0: map_.address}, kfuncs=kfuncs)


def value(map_: Any, text: str) -> int:
    """Return r0 (u64), which a program puts into the arena's first word; both engines must agree."""
    found = []
    for engine in ("interpreter", "jit"):
        where = map_.user_start & 0xFFFFFFFF
        map_.view(map_.user_start, 8)
        stores = f"\nr6 = {where:#x} ll\nr6 = addr_space_cast(r6, 0, 1)\n*(u64 *)(r6 + 0) = r0\nexit"
        program(map_, text + stores).run(b"", engine=engine)
        found.append(int.from_bytes(map_.read(map_.user_start, 8), "little"))
    assert found[0] == found[1]
    return found[0]


# --- programs, as Linux runs them ---

NO = 0
EBUSY, EINVAL = (1 << 64) - errno.EBUSY, (1 << 64) - errno.EINVAL


def page(number: int) -> int:
    return START + number * PAGE


BYTES = 0xF1F2F3F4F5F6F7F8
#             what the program leaves in r, and the pages that are allocated then
LEFT: dict[str, tuple[list[int], list[int]]] = {
    "fit":      ([page(n) for n in (0, 3, 4, 6, 0, 7, 1, 12)] + [NO] + [page(n) for n in (18, 3, 19)],
                 list(range(20))),
    "refused":  ([NO] * 8 + [page(19), NO, page(2), page(3), NO, NO, NO, page(4), page(0), NO],
                 [0, *range(2, 20)]),
    "freed":    ([page(0), 1, 0, 3, 0, 0, page(1), 0, page(3), 0],
                 [0, 3]),
    "reserved": ([0, EBUSY, EBUSY, 0, 0, EINVAL, EINVAL, EINVAL, NO, page(2), NO, page(3), page(0), 0,
                  EINVAL],
                 [0, *range(2, 20)]),
    "absent":   ([0] * 8 + [BYTES, 0, 0, 0, BYTES, 0, 0xFFFFFFFFF1F2F3F4, 0xFFFFFFFFFFFFF1F2,
                  0xFFFFFFFFFFFFFFF1, 0x11F2222233333333, 0, 0, 0, 0, 44],
                 [2]),
    "atomics":  ([15, 15, 22, 99, 100, 100, 0x80000000, 1, 3, 0xFFFFFFFF, 0, 7, 99, 98, 0x80000001, 3, 4, 0,
                  0xF0F0, 0],
                 [0]),
    "numbers":  ([START & 0xFFFFFFFF, START, 0, 0, (START & 0xFFFFFFFF) + 16, 0x0FFFFFFF, 0x1122334455667788,
                  0x5566, 77],
                 [0, 1]),
}  # fmt: skip


@engines
@pytest.mark.parametrize("name", LEFT)
def test_pages(name: str, engine: str) -> None:
    obj = load(OBJECTS / "arena_pages_clang19.o")
    obj.program(name).run(b"", engine=engine)
    expected, pages = LEFT[name]
    assert obj.globals["r"][: len(expected)] == expected
    assert obj.maps["arena"].pages() == [page(n) for n in pages]


def nodes(obj: Any, first: int) -> list[tuple[int, int]]:
    """Return (key, value) of the nodes of a list, read as a process reads them."""
    found = []
    while first:
        first, key, held = memoryview(obj.maps["arena"].read(first, 24)).cast("Q")
        found.append((key, held))
    return found


@engines
def test_a_list_and_a_table(engine: str) -> None:
    obj = load(OBJECTS / "arena_data_clang19.o")

    def run(name: str) -> int:
        return obj.program(name).run(b"", engine=engine).return_value

    assert obj.globals["numbered"] == [11, 22, 33]
    assert run("list_build") == 0
    assert run("list_sum") == 0
    assert (obj.globals["count"], obj.globals["sum"]) == (100, sum(n * n for n in range(100)))
    assert nodes(obj, obj.globals["head"]) == [(n, n * n) for n in reversed(range(100))]
    run("list_thin")
    assert nodes(obj, obj.globals["head"]) == [(n, n * n) for n in range(99, 0, -2)]
    assert (run("table_count"), run("table_count")) == (40, 0)
    counts = dict(node for first in obj.globals["buckets"] for node in nodes(obj, first))
    assert counts == {key: 2 * sum(n * 7 % 40 == key for n in range(60)) for key in range(40)}
    obj.globals["numbered"] = [1, 2, 3]
    assert run("numbers") == 204
    assert obj.globals["numbered"] == [101, 102, 103]
    assert run("passed") == 36 * 100 + 26


@engines
def test_an_object_that_lets_the_map_choose_its_address(engine: str) -> None:
    obj = load(OBJECTS / "arena_clang19.o")
    assert obj.program("allocates").run(b"", engine=engine).return_value == 8
    assert obj.maps["arena"].read(obj.globals["page"] + 24, 8) == (7).to_bytes(8, "little")
    assert [obj.program("counts").run(b"", engine=engine).return_value for _ in range(2)] == [1, 2]
    assert obj.globals["counter"] == 2


@pytest.mark.parametrize(
    "how", [{"harden": True}, {"checked": False}, {"audit": True}, {"optimize": True}], ids=str
)
def test_machine_code_however_it_is_made(how: dict[str, bool]) -> None:
    for name in ("absent", "atomics", "numbers"):
        expected, _ = LEFT[name]
        obj = load(OBJECTS / "arena_pages_clang19.o")
        obj.program(name).compile(**how)(b"")
        assert obj.globals["r"][: len(expected)] == expected, name


@engines
def test_casts_by_hand(engine: str) -> None:
    """Code of a compiler without address spaces: pointers are compared, and kept on the stack, as numbers."""
    obj = load(OBJECTS / "arena_asm.o")

    def run(name: str) -> tuple[int, int]:
        return obj.program(name).run(b"", engine=engine).return_value, obj.globals["total"]

    assert [run(name) for name in ("build", "walk", "thin", "walk", "drop_page", "walk")] == [
        (0, 0), (40, 780), (0, 780), (26, 507), (1, 507), (1, 0),
    ]  # fmt: skip
    assert obj.maps["arena"].pages() == [obj.maps["arena"].user_start]  # the variables'


@needs_kernel
def test_the_kernel_engine_wants_the_arena_s_addresses() -> None:
    """In this process, where it reads what is there: not over what is there already."""
    memory = mmap.mmap(-1, 16 * PAGE)
    address = address_of(memory)
    if address >> 32 != (address + 4 * PAGE) >> 32:
        address += 8 * PAGE
    there = arena(4, extra=address)
    with pytest.raises(
        LoadError, match=r"its 16384 bytes cannot be at 0x[0-9a-f]+ in this process: File exists"
    ):
        program(there, "r0 = 0\nexit").run(b"", engine="kernel")
    assert memory[: 16 * PAGE] == bytes(16 * PAGE)


# --- pointers ---


def test_the_upper_half_of_a_pointer_is_put_there_where_programs_are_to_have_it() -> None:
    there = arena(4, extra=(0x1234 << 32) + 0x5000)
    cast = "r0 = addr_space_cast(r1, 1, 0)"
    assert value(there, "r1 = 0x5678 ll\n" + cast) == 0x1234_0000_5678
    assert value(there, "r1 = 0xffff000000005678 ll\n" + cast) == 0x1234_0000_5678
    assert value(there, "r1 = 0xffff000000000000 ll\n" + cast) == 0
    plain = arena(4, MapFlag.NO_USER_CONV, extra=(0x1234 << 32) + 0x5000)
    assert value(plain, "r1 = 0xffff000000005678 ll\n" + cast) == 0x5678
    assert plain.to_user(0x5678) == 0x5678


def test_what_may_be_an_arena_s_or_the_stack_s_is_both() -> None:
    """On paths that Linux would tell apart: the program's own memory is looked at first."""
    there = arena(4)
    text = f"""
        r7 = {there.user_start:#x} ll
        r7 += 64
        r8 = addr_space_cast(r7, 0, 1)
        *(u64 *)(r8 + 0) = 21
        *(u64 *)(r10 - 8) = 4
        r0 = 0
        r6 = 2
    again:
        r1 = r10
        r1 += -8
        if r6 == 1 goto +1
        r1 = addr_space_cast(r7, 0, 1)
        *(u64 *)(r1 + 0) += r6
        r2 = *(u64 *)(r1 + 0)
        r2 += 1
        *(u64 *)(r1 + 0) = r2
        r3 = *(u64 *)(r1 + 0)
        r0 <<= 8
        r0 += r3
        r6 += -1
        if r6 != 0 goto again
    """.replace("*(u64 *)(r1 + 0) += r6", "lock *(u64 *)(r1 + 0) += r6")
    assert value(there, text) == (21 + 2 + 1) << 8 | 4 + 1 + 1


def test_casts_want_an_arena_and_one() -> None:
    cast = "r1 = addr_space_cast(r1, 0, 1)\nr0 = 0\nexit"
    for engine in ("interpreter", "jit"):
        with pytest.raises(VerifierError, match=r"pc 0: .*in a program that has an associated arena"):
            Program(assemble(cast), type="syscall").run(b"", engine=engine)
        two = arena(), arena()
        code = assemble("r1 = map[idx:0]\nr2 = map[idx:1]\n" + cast)
        references = {0: two[0].address, 2: two[1].address}
        with pytest.raises(VerifierError, match="'pages', 'pages': Linux takes one per program"):
            Program(code, type="syscall", maps=two, references=references).run(b"", engine=engine)
    with pytest.raises(VerifierError, match="can only convert between address space 1 and 0"):
        program(arena(), "r1 = addr_space_cast(r1, 2, 0)\nr0 = 0\nexit").run(b"")


# --- objects that lack something ---


def test_variables_want_an_arena_with_room_for_them() -> None:
    for name, message in (
        ("arena_none_clang19.o", r"whose variables are in an arena, and .maps defines none"),
        ("arena_small_clang19.o", r"4816 bytes: map 'arena' is too small .* make max_entries 2"),
        (
            "arena_bad_clang19.o",
            r"map 'arena' \(arena\): flags 0x1: this type takes no .*NO_PREALLOC.* \(EINVAL\)",
        ),
    ):
        obj = load(OBJECTS / name)
        with pytest.raises(LoadError, match=message):
            obj.program("uses").run(b"")
        assert obj.program("plain").run(b"").return_value == 3


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_the_first_arena_of_an_object_is_the_one_that_it_has(engine: str) -> None:
    obj = load(OBJECTS / "arena_two_clang19.o")
    assert obj.program("uses").run(b"", engine=engine).return_value == 6
    assert obj.globals["inside"] == obj.maps["arena"].user_start + 8 + 3 * 8
    with pytest.raises(LoadError, match="map 'other': an object has one arena, which is 'arena'"):
        obj.program("uses_other").run(b"", engine=engine)


def test_an_arena_is_shared_between_objects() -> None:
    one = load(OBJECTS / "arena_two_clang19.o")
    one.globals["first"] = 41
    other = load(OBJECTS / "arena_two_clang19.o", maps={"arena": one.maps["arena"]})
    assert other.globals["first"] == 41
    assert other.program("uses").run(b"").return_value == 42


# --- the map ---


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({"pages": 0}, errno.EINVAL),
        ({"pages": (1 << 20) + 1}, errno.E2BIG),
        ({"pages": (1 << 32) - 1}, errno.E2BIG),
        ({"flags": MapFlag.NO_PREALLOC}, errno.EINVAL),
        ({"flags": MapFlag.RDONLY}, errno.EINVAL),
        ({"extra": 1}, errno.EINVAL),
        ({"extra": (1 << 32) - PAGE, "pages": 2}, errno.ERANGE),
        ({"extra": 1 << 64}, errno.EINVAL),
    ],
)
def test_what_an_arena_may_not_be(change: dict[str, Any], number: int) -> None:
    with pytest.raises(MapRefused) as caught:
        arena(**change)
    assert caught.value.errno == number


def test_keys_and_values_have_no_size_and_the_map_is_for_processes() -> None:
    for key, size, flags in ((4, 0, MapFlag.MMAPABLE), (0, 8, MapFlag.MMAPABLE), (0, 0, 0)):
        with pytest.raises(MapRefused) as caught:
            create(MapDefinition("pages", MapType.ARENA, key, size, 4, flags))
        assert caught.value.errno == errno.EINVAL


def test_pages_that_python_touches_are_allocated() -> None:
    there = arena(8)
    start = there.user_start
    assert (len(there), there.pages(), there.size) == (0, [], 8 * PAGE)
    view = there.view(start + PAGE - 2, 4)
    assert bytes(view) == bytes(4)
    view[:] = b"abcd"
    assert there.pages() == [start, start + PAGE]
    assert there.read(start + PAGE, 2) == b"cd"
    assert there.read(start - (1 << 40) + PAGE, 2) == b"cd"  # the low half counts
    there.write(start + 7 * PAGE, memoryview(b"12345678").cast("Q"))
    assert there.reserve(start + 2 * PAGE, 2) == 0
    assert there.reserved() == [start + 2 * PAGE, start + 3 * PAGE]
    there.write(start + 3 * PAGE, b"in")  # as a process in Linux may
    assert (there.reserved(), len(there)) == ([start + 2 * PAGE], 4)
    assert "4 of 8 pages" in repr(there)
    there.clear()
    assert (there.pages(), there.reserved(), bytes(view)) == ([], [], bytes(4))
    view[0] = 1  # late: nobody sees it
    assert there.allocate(start, 1) == start
    assert there.read(start, PAGE) == bytes(PAGE)


def test_what_python_may_not_touch() -> None:
    there = arena(2, MapFlag.SEGV_ON_FAULT)
    there.allocate(there.user_start, 1)
    there.write(there.user_start + PAGE - 1, b"x")
    for address, size, number in (
        (there.user_start + PAGE, 1, errno.EFAULT),
        (there.user_start + PAGE - 1, 2, errno.EFAULT),
        (there.user_start + 2 * PAGE, 1, errno.ERANGE),
        (there.user_start - 1, 1, errno.ERANGE),
        (there.user_start, 2 * PAGE + 1, errno.ERANGE),
        (there.user_start, -1, errno.ERANGE),
    ):
        with pytest.raises(MapError) as caught:
            there.view(address, size)
        assert caught.value.errno == number
    assert there.view(there.user_start + 2 * PAGE, 0).nbytes == 0
    assert len(there) == 1


def test_pages_count_while_they_are_allocated() -> None:
    gc.collect()
    before = account.used
    there = arena(1 << 20)
    table = account.used - before
    assert table < 2 << 20
    assert there.allocate(0, 100)
    there.read(there.user_start + 4000 * PAGE, 1)
    assert account.used == before + table + 101 * PAGE
    there.free(there.user_start, 50)
    there.free(there.user_start, 50)
    assert account.used == before + table + 51 * PAGE
    set_map_memory_limit(account.used + 2 * PAGE)
    try:
        assert there.allocate(0, 3) == 0
        assert there.allocate(0, 2) == there.user_start
        with pytest.raises(MapError) as caught:
            there.read(there.user_start + 5000 * PAGE, 1)
        assert caught.value.errno == errno.ENOMEM
    finally:
        set_map_memory_limit(None)
    del there, caught
    gc.collect()
    assert account.used == before


def test_many_large_arenas_cost_their_tables() -> None:
    before = account.used
    many = [arena(1 << 20) for _ in range(100)]
    for number, each in enumerate(many):
        each.write(each.user_start + number * PAGE, bytes([number]))
    assert account.used - before < 100 * (1 << 20) + 300 * PAGE
    assert [each.read(each.user_start + n * PAGE, 1)[0] for n, each in enumerate(many)] == list(range(100))


def test_an_arena_that_the_process_may_not_have() -> None:
    def job() -> tuple[int, int]:
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
        resource.setrlimit(resource.RLIMIT_AS, (mapped + (3 << 30), resource.RLIM_INFINITY))
        with pytest.raises(MapRefused, match="no 4294967296 bytes of addresses") as caught:
            arena(1 << 20)
        return caught.value.errno, arena(100).size

    assert run_forked(job, 20).value == (errno.ENOMEM, 100 * PAGE)


def test_a_child_has_a_copy() -> None:
    there = arena(4)
    there.write(there.user_start, b"before")

    def job() -> tuple[bytes, int]:
        there.write(there.user_start, b"within")
        there.allocate(0, 2)
        return there.read(there.user_start, 6), len(there)

    assert run_forked(job, 20).value == (b"within", 3)
    assert (there.read(there.user_start, 6), len(there)) == (b"before", 1)


def test_a_copy_has_the_pages_and_the_same_pointers() -> None:
    there = arena(4)
    first = there.allocate(0, 1)
    there.write(first, b"kept")
    for again in (pickle.loads(pickle.dumps(there)), copy.deepcopy(there)):
        assert (again.user_start, again.read(first, 4), len(again)) == (there.user_start, b"kept", 1)
        assert again.allocate(0, 1) == there.allocate(0, 1) != first
        there.free(there.user_start + PAGE, 3)
        again.write(first, b"other")
    assert there.read(first, 4) == b"kept"
    assert copy.copy(there) is there
    assert (there.lookup(b""), there.update(b"", b""), there.delete(b"")) == (
        0,
        -errno.EOPNOTSUPP,
        -errno.EOPNOTSUPP,
    )


def test_what_a_view_was_made_of_stays_while_there_is_a_view() -> None:
    there = arena(4)
    view = there.view(there.user_start, PAGE)
    del there
    view[:] = b"x" * PAGE
    assert bytes(view[-3:]) == b"xxx"


# --- free ranges ---


def test_the_best_range_is_found() -> None:
    """Against a list of flags, and a list of ranges in the order in which they came."""
    source = random.Random(7)
    ranges, flags = FreeRanges(64), [True] * 64
    came: list[tuple[int, int]] = [(0, 63)]

    def now() -> list[tuple[int, int]]:
        edges = [n for n in range(65) if (n < 64 and flags[n]) != (n > 0 and flags[n - 1])]
        return [(first, behind - 1) for first, behind in zip(edges[::2], edges[1::2], strict=True)]

    for _ in range(800):
        start, length = source.randrange(64), source.choice((1, 1, 2, 3, 8, 30))
        length = min(length, 64 - start)
        before = now()
        is_free = source.random() < 0.5
        (ranges.give if is_free else ranges.take)(start, length)
        flags[start : start + length] = [is_free] * length
        assert ranges.ranges() == now()
        came = [each for each in came if each in now()] + [each for each in now() if each not in before]
        wanted = source.randrange(1, 20)
        fitting = [
            (last - first, -index) for index, (first, last) in enumerate(came) if last - first + 1 >= wanted
        ]
        expected = came[-min(fitting)[1]][0] if fitting else None
        assert ranges.find(wanted) == expected
        assert ranges.are_free(start, length) == all(flags[start : start + length])
