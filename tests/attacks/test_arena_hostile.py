"""Programs with any pointers into an arena: both engines say the same, and nothing else is reached."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from ebpfjit.difftest.children import run_forked
from ebpfjit.errors import EbpfError, MapError
from ebpfjit.runtime.maps import MapDefinition, MapFlag, MapType, create
from ebpfjit.runtime.memory import address_of
from tests.support.arena_programs import PAGE, PAGES, STARTS, arena, program, text_of


def _outcome(seed: int, engine: str) -> tuple[Any, ...]:
    """Return how a program ends, and what it leaves."""
    source = random.Random(seed)
    start = source.choice(STARTS)
    map_ = arena(start, source.choice((0, 0, MapFlag.NO_USER_CONV)))
    map_.write(start, bytes(range(256)) * 16)
    made = program(text_of(source, start), map_)
    try:
        ended: Any = made.run(b"", engine=engine).return_value
    except EbpfError as error:
        ended = type(error).__name__, getattr(error, "pc", None)
    return ended, map_.pages(), map_.reserved(), [map_.read(page, PAGE) for page in map_.pages()]


@pytest.mark.parametrize("first", [0, 1000])
def test_both_engines_say_the_same_of_any_pointer(first: int) -> None:
    def job() -> list[int]:
        seeds = range(first, first + 12)
        return [seed for seed in seeds if _outcome(seed, "interpreter") != _outcome(seed, "jit")]

    ended = run_forked(job, 60)
    assert ended.value == [], ended


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_no_number_leads_out_of_the_arena(engine: str) -> None:
    """Stores through a cast of every address that the process has at hand: nothing is stored there."""
    map_, secret = arena(STARTS[0]), bytearray(b"secret!!")
    for number in (
        address_of(secret),
        map_.address,
        map_.address + 64,
        id(secret),
        0,
        (1 << 64) - 1,
        1 << 47,
    ):
        text = f"""
            r1 = {number:#x} ll
            r2 = r10
            r2 = addr_space_cast(r2, 0, 1)
            r1 = addr_space_cast(r1, 0, 1)
            *(u64 *)(r1 + 0) = -1
            *(u64 *)(r1 + 32760) = -1
            *(u64 *)(r1 - 32768) = -1
            *(u64 *)(r2 - 8) = -1
            r0 = *(u64 *)(r1 + 0)
            r3 = *(u64 *)(r2 - 8)
            r0 += r3
            exit
        """
        assert program(text, map_).run(b"", engine=engine).return_value == 0
    assert (bytes(secret), map_.pages()) == (b"secret!!", [])


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_a_number_without_a_cast_is_checked_as_any_other(engine: str) -> None:
    map_ = arena(STARTS[0])
    map_.write(STARTS[0], b"x")
    text = f"""
        r1 = {STARTS[0]:#x} ll
        r2 = addr_space_cast(r1, 0, 1)
        r0 = *(u8 *)(r2 + 0)
        r0 = *(u8 *)(r1 + 0)
        exit
    """
    with pytest.raises(EbpfError, match=r"pc 6: load of 1 byte at 0x20007fffd000: outside") as caught:
        program(text, map_).run(b"", engine=engine)
    assert type(caught.value).__name__ == "MemoryFault"
    passed = "r1 = r9\nr2 = addr_space_cast(r9, 0, 1)\ncall 1\nr0 = 0\nexit"  # no helper takes one
    with pytest.raises(EbpfError):
        program(passed, map_).run(b"", engine=engine)


def test_pages_that_go_while_programs_use_them() -> None:
    """Runs without Python's lock, against a thread that frees and allocates all the time."""

    def job() -> int:
        map_ = arena(STARTS[0])
        text = f"""
            r8 = {STARTS[0]:#x} ll
            r8 = addr_space_cast(r8, 0, 1)
            r7 = 0
        again:
            r1 = r7
            r1 *= 40
            r1 %= {PAGES * PAGE}
            r1 += r8
            *(u64 *)(r1 + 0) = r7
            r2 = *(u64 *)(r1 + 8)
            r7 += 1
            if r7 < 2000000 goto again
            r0 = 7
            exit
        """
        function = program(text, map_).compile(release_gil=True)
        results: list[int] = []
        threads = [threading.Thread(target=lambda: results.append(function(b""))) for _ in range(2)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            map_.clear()
            map_.allocate(0, PAGES)
        for thread in threads:
            thread.join()
        map_.clear()
        assert map_.allocate(0, PAGES) == STARTS[0]
        assert map_.read(STARTS[0], PAGES * PAGE) == bytes(PAGES * PAGE)
        return sum(results)

    ended = run_forked(job, 60)
    assert ended.value == 14, ended


def test_what_pages_cost_is_paid_for() -> None:
    """Freeing the whole of the largest arena again and again ends with the budget."""
    map_ = create(MapDefinition("pages", MapType.ARENA, 0, 0, 1 << 20, MapFlag.MMAPABLE))
    start = map_.user_start
    text = f"""
        r7 = 0
    again:
        r1 = r9
        r2 = {start:#x} ll
        r3 = -1
        call kfunc 2
        r7 += 1
        if r7 < 1000000 goto again
        r0 = 0
        exit
    """
    for engine in ("interpreter", "jit"):
        with pytest.raises(EbpfError, match="instruction") as caught:
            program(text, map_).run(b"", engine=engine, limit=1_000_000)
        assert type(caught.value).__name__ == "BudgetExhausted"


def test_a_fragmented_arena_stays_quick() -> None:
    map_ = create(MapDefinition("pages", MapType.ARENA, 0, 0, 1 << 16, MapFlag.MMAPABLE))
    for page in range(1, 1 << 14, 2):
        map_.reserve(map_.user_start + page * PAGE, 1)
    assert map_.allocate(0, 1) == map_.user_start + ((1 << 14) - 2) * PAGE
    assert map_.allocate(0, 2) == map_.user_start + (1 << 14) * PAGE
    with pytest.raises(MapError):
        map_.view(map_.user_start, -1)
    map_.clear()
    assert (map_.reserved(), len(map_)) == ([], 0)
