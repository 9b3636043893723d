"""Maps that are changed in several threads, by signal handlers, in forks: in order whatever happens.

A handler raises (Ctrl-C, PyThreadState_SetAsyncExc) wherever CPython calls something. What it left half done
was a crash later: the hand of an LRU map came to an entry that was in no chain, and machine code ran off it.
"""

from __future__ import annotations

import copy
import gc
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import FrameType
from typing import Any, cast

import pytest

from ebpfjit import Environment
from ebpfjit.assembler import assemble
from ebpfjit.difftest.children import run_forked
from ebpfjit.once import _making, once
from ebpfjit.program import Program
from ebpfjit.runtime.maps import Map, MapDefinition, MapFlag, MapType, create
from ebpfjit.runtime.maps.account import account
from ebpfjit.runtime.maps.flat import HEADER_SIZE
from ebpfjit.runtime.maps.hash import HashMap
from ebpfjit.runtime.maps.storage import changing

FRAME = bytes(64)
HASHES = (
    MapType.HASH, MapType.LRU_HASH, MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH, MapType.LPM_TRIE,
)  # fmt: skip
TWO_CPUS = Environment(cpus=2)
MOST_CALLS = 150  # of which one is interrupted; the operations below make fewer


class Interrupted(Exception):  # noqa: N818 - what a signal handler raises
    pass


def made(kind: MapType, entries: int) -> Any:
    """Return an empty map; an LPM trie's keys have 4 bytes behind their length, others 4."""
    if kind == MapType.LPM_TRIE:
        definition = MapDefinition("m", kind, 8, 8, entries, flags=MapFlag.NO_PREALLOC)
    elif kind == MapType.RINGBUF:
        definition = MapDefinition("m", kind, 0, 0, entries)
    elif kind == MapType.PERF_EVENT_ARRAY:
        definition = MapDefinition("m", kind, 4, 4, entries)
    else:
        definition = MapDefinition("m", kind, 0 if kind in (MapType.QUEUE, MapType.STACK) else 4, 8, entries)
    return create(definition, environment=TWO_CPUS)


def program(text: str, *maps: Map) -> Program:
    """Return an XDP program that names maps by their number."""
    bare = Program.from_bytes(assemble(text))
    references = {
        insn.pc: maps[insn.imm].address
        for insn in bare.instructions
        if insn.row is not None and insn.row.operation == "LDDW_MAP_IDX"
    }
    return Program(bare.to_bytes(), "main", "xdp", "xdp", references=references, maps=maps)


def interrupted(work: Callable[[], object], moment: int) -> bool:
    """Run `work`; raise behind its call number `moment`, as a signal handler would. True where it did."""
    calls = count(1)

    def raise_there(frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_return") and next(calls) == moment:
            sys.setprofile(None)
            raise Interrupted

    sys.setprofile(raise_there)
    try:
        work()
    except Interrupted:
        return True
    finally:
        sys.setprofile(None)
    return False


def key(kind: MapType, number: int) -> bytes:
    data = number.to_bytes(4, "little")
    return (32).to_bytes(4, "little") + data if kind == MapType.LPM_TRIE else data


def change(table: Any, kind: MapType) -> None:
    """Insert, delete, insert where something was freed, evict (or be refused), overwrite."""
    for number in (0, 1, 2):
        table.update(key(kind, number), bytes(8))
    table.delete(key(kind, 1))
    for number in (7, 8, 9):
        table.update(key(kind, number), bytes(8))
    table[key(kind, 2)] = bytes(8)


def chain(table: HashMap, link: int) -> Iterator[int]:
    """Yield the entries from a link on; fails where they go in a circle."""
    for _ in range(table.definition.max_entries + 1):
        if not link:
            return
        yield link - 1
        link = table._links[link - 1]
    raise AssertionError("a circle")


def check_order(table: HashMap) -> None:
    """Each entry that ever was used is in a chain, and known to be, or free."""
    chained = [entry for head in table._buckets for entry in chain(table, head)]
    freed = list(chain(table, table.field("free")))
    states = [table.storage.memory[table.states_offset + entry] for entry in range(table.field("used"))]
    assert sorted(chained) == [entry for entry, state in enumerate(states) if state]
    assert sorted(chained + freed) == list(range(len(states)))
    assert table.field("count") == len(chained)


@pytest.mark.parametrize("kind", HASHES, ids=lambda kind: kind.name.lower())
def test_a_table_is_in_order_wherever_a_signal_handler_raises(kind: MapType) -> None:
    gc.collect()  # the end of a map calls Python as well
    tables = []
    for moment in range(1, MOST_CALLS):
        table = made(kind, 4)
        tables.append(table)
        assert interrupted(lambda table=table: change(table, kind), moment)  # type: ignore[misc]
        check_order(table)


FILL = """
    mov r6, 64
loop:
    stxw [r10-4], r6
    stdw [r10-16], 1
    lddw r1, map[idx:0]
    mov r2, r10
    add r2, -4
    mov r3, r10
    add r3, -16
    mov r4, 0
    call 2
    sub r6, 1
    jne r6, 0, loop
    mov r0, 0
    exit
"""


def test_programs_go_on_with_an_lru_map_behind_ctrl_c() -> None:
    def job() -> str:
        table = made(MapType.LRU_HASH, 4)
        for moment in range(1, MOST_CALLS):
            interrupted(lambda: change(table, MapType.LRU_HASH), moment)
        for engine in ("interpreter", "jit"):
            program(FILL, table).run(FRAME, engine=engine)
        return "whole"

    assert run_forked(job, 20).value == "whole"


def in_threads(seconds: float, *works: Callable[[], object]) -> list[BaseException]:
    """Do works again and again, each in its thread, which take turns often; return what they raised."""
    raised: list[BaseException] = []
    end = time.monotonic() + seconds

    def repeat(work: Callable[[], object]) -> None:
        try:
            while time.monotonic() < end:
                work()
        except BaseException as exception:
            raised.append(exception)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    return raised


EVENT = """
    mov r6, r1
    mov r7, 50
loop:
    stdw [r10-8], {0}
    stdw [r10-16], {0}
    stdw [r10-24], {0}
    {1}
    sub r7, 1
    jne r7, 0, loop
    mov r0, 0
    exit
"""
TO_RING = "lddw r1, map[idx:0]\nmov r2, r10\nadd r2, -24\nmov r3, 24\nmov r4, 0\ncall 130"
TO_PERF = (
    "mov r1, r6\nlddw r2, map[idx:0]\nlddw r3, 0xffffffff\nmov r4, r10\nadd r4, -24\nmov r5, 24\ncall 25"
)
BY_TURNS = (
    "lddw r1, map[idx:0]\nmov r2, r10\nadd r2, -8\nmov r3, 2\ncall 87\n"
    "lddw r1, map[idx:0]\nmov r2, r10\nadd r2, -16\ncall 88"
)


@pytest.mark.parametrize(
    ("kind", "entries", "call"),
    [(MapType.RINGBUF, 1 << 16, TO_RING), (MapType.PERF_EVENT_ARRAY, 4, TO_PERF)],
    ids=["ringbuf", "perf_event_array"],
)
def test_events_of_several_threads_are_whole(kind: MapType, entries: int, call: str) -> None:
    events = made(kind, entries)

    def read() -> None:
        for event in events.consume():
            assert len(event) == 24
            assert event[:8] == event[8:16] == event[16:]
        assert len(events) >= 0

    functions = [program(EVENT.format(number, call), events).compile() for number in (1, 2, 3)]
    assert in_threads(1.5, read, *(lambda run=run: run(FRAME) for run in functions)) == []  # type: ignore[misc]


@pytest.mark.parametrize("kind", [MapType.QUEUE, MapType.STACK], ids=["queue", "stack"])
def test_a_queue_counts_right_in_several_threads(kind: MapType) -> None:
    queue = made(kind, 4)

    def read() -> None:
        assert 0 <= len(queue) <= 4
        queue.pop_value()

    functions = [program(EVENT.format(number, BY_TURNS), queue).compile() for number in (1, 2, 3)]
    assert in_threads(1.5, read, *(lambda run=run: run(FRAME) for run in functions)) == []  # type: ignore[misc]
    assert 0 <= len(queue) <= 4


def test_what_another_thread_deletes_meanwhile_is_the_default() -> None:
    table = made(MapType.HASH, 8)

    def store_and_take() -> None:
        table[3] = bytes(8)
        table.pop(3, None)
        table.clear()

    assert in_threads(1.0, store_and_take, store_and_take, store_and_take) == []


@contextmanager
def held_elsewhere() -> Iterator[None]:
    """Let another thread hold, for a moment, what a thread holds that changes a map."""
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with changing.held:
            entered.set()
            leave.wait(0.2)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    try:
        yield
    finally:
        leave.set()
        thread.join()


def test_a_child_is_not_kept_waiting_by_a_thread_that_it_has_not() -> None:
    table = made(MapType.HASH, 8)
    with held_elsewhere():
        child = os.fork()
        if not child:
            table[1] = bytes(8)
            os._exit(0)
    ended = 0
    for _ in range(6000):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.01)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert ended
    assert status == 0


def test_nobody_waits_for_a_thread_whose_making_was_interrupted() -> None:
    for moment in range(1, 12):
        make = once(lambda: object())
        assert interrupted(make, moment) or moment > 2
        is_free: list[bool] = []

        def ask(answers: list[bool] = is_free) -> None:
            answers.append(_making.acquire(1))
            _making.release()

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        assert is_free == [True]


def test_a_signal_handler_may_make_a_map_while_one_is_made() -> None:
    def job() -> str:
        with cast(Any, account)._lock.held:
            made(MapType.HASH, 8)
        return "made"

    assert run_forked(job, 5).value == "made"


EACH = """
    lddw r6, {0}
loop:
    lddw r1, map[idx:0]
    lddw r2, callback
    mov r3, 0
    mov r4, 0
    call 164
    sub r6, 1
    jne r6, 0, loop
    mov r0, 0
    exit
callback:
    mov r0, 0
    exit
"""


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_calls_for_each_entry_leave_nothing_behind(engine: str) -> None:
    """Each left the memory of its key to the run: 90 bytes for one instruction, without end."""

    def job() -> int:
        table = create(MapDefinition("m", MapType.HASH, 4096, 8, 8))
        program(EACH.format(100), table).run(FRAME, engine=engine)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        program(EACH.format(10_000), table).run(FRAME, engine=engine)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    assert run_forked(job, 20).value < 8 << 10  # KiB; it was 40 MiB


CHURN = """
    mov r6, {rounds}
    mov r7, {seed}
    stw [r10-8], 32
loop:
    lddw r1, 6364136223846793005
    mul r7, r1
    add r7, 12345
    mov r8, r7
    rsh r8, 40
    mov r1, r8
    and r1, 31
    stxw [r10-4], r1
    stdw [r10-16], 1
    mov r2, r10
    add r2, -{below}
    mov r3, r10
    add r3, -16
    mov r4, 0
    lddw r1, map[idx:0]
    rsh r8, 5
    and r8, 3
    jeq r8, 0, delete
    jeq r8, 1, update
    call 1
    ja next
update:
    call 2
    ja next
delete:
    call 3
next:
    sub r6, 1
    jne r6, 0, loop
    mov r0, 0
    exit
"""


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.LRU_PERCPU_HASH, MapType.LPM_TRIE], ids=str)
def test_code_without_pythons_lock_leaves_tables_in_order(kind: MapType) -> None:
    """Two threads of machine code, code with the lock and Python change one table; children find it whole."""

    def job() -> str:
        table = made(kind, 24)
        rounds = 100 if kind is MapType.LPM_TRIE else 6_000  # of which updates are Python
        below = 8 if kind is MapType.LPM_TRIE else 4
        done: list[int] = []

        def churn(seed: int, release_gil: bool) -> None:
            text = CHURN.format(rounds=rounds, seed=seed, below=below)
            function = program(text, table).compile(release_gil=release_gil, optimize=seed != 2)
            for _ in range(3):
                done.append(function(FRAME))

        threads = [threading.Thread(target=churn, args=(seed, seed < 3)) for seed in (1, 2, 3)]
        for thread in threads:
            thread.start()
        number = 0
        while any(thread.is_alive() for thread in threads):
            number += 1
            for each in range(32):
                table.update(key(kind, each), bytes(8))
                table.get(key(kind, each ^ 5))
                table.delete(key(kind, each ^ 9))
            assert all(len(one) == table.definition.key_size for one in table)
            if number % 8 == 1:
                child = os.fork()
                if not child:
                    check_order(table)
                    table.update(key(kind, 1), bytes(8))
                    os._exit(0)
                assert os.waitpid(child, 0)[1] == 0
                check_order(copy.deepcopy(table))
        assert done == [0] * 9
        check_order(table)
        return "whole"

    assert run_forked(job, 60).value == "whole"


@pytest.mark.parametrize("kind", HASHES, ids=lambda kind: kind.name.lower())
def test_a_shared_table_is_in_order_wherever_a_signal_handler_raises(kind: MapType) -> None:
    gc.collect()
    for moment in range(1, 2 * MOST_CALLS, 2):
        table = made(kind, 4)
        text = CHURN.format(rounds=20, seed=moment, below=8 if kind is MapType.LPM_TRIE else 4)
        function = program(text, table).compile(release_gil=True)
        interrupted(lambda table=table: change(table, kind), moment)  # type: ignore[misc]
        check_order(table)
        assert function(FRAME) == 0  # whoever had the lock, nobody waits for it
        check_order(table)


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE], ids=str)
def test_who_finds_the_lock_of_a_table_taken_waits(kind: MapType) -> None:
    table = made(kind, 24)
    text = CHURN.format(rounds=9, seed=1, below=8 if kind is MapType.LPM_TRIE else 4)
    functions = [program(text, table).compile(release_gil=release_gil) for release_gil in (False, True)]
    table.update(key(kind, 1), bytes(8))
    works: list[Callable[[], object]] = [
        *(lambda function=function: function(FRAME) for function in functions),  # type: ignore[misc]
        lambda: table.update(key(kind, 2), bytes(8)),
        lambda: table.delete(key(kind, 1)),
        lambda: table.get(key(kind, 1)),
        lambda: list(table),
        lambda: copy.deepcopy(table),
    ]
    for work in works:
        table.set_field("lock", 3)  # as where machine code of another thread is in the table
        left = bytes(table.storage.memory[HEADER_SIZE:])
        thread = threading.Thread(target=work)
        thread.start()
        end = time.monotonic() + 0.03
        while time.monotonic() < end:
            assert thread.is_alive()
        assert bytes(table.storage.memory[HEADER_SIZE:]) == left
        table.set_field("lock", 2)
        thread.join()
        assert table.field("lock") == 2
        check_order(table)
    for function in functions:
        table.set_field("lock", 1)  # left behind by Python: machine code goes to the helper, which goes on
        assert function(FRAME) == 0
        check_order(table)
        assert "so far 0 times" not in function.explain()
        table.set_field("lock", 2)


LOOK = """
    stw [r10-4], 1
    mov r2, r10
    add r2, -4
    lddw r1, map[idx:0]
    call 1
    jeq r0, 0, out
    ldxdw r0, [r0]
out:
    exit
"""


def test_lookups_without_pythons_lock_look_whether_the_table_was_changed() -> None:
    table = made(MapType.HASH, 4)
    table[1] = 7
    look = program(LOOK, table).compile(release_gil=True)
    table.set_field("lock", 3)  # as where a thread is about to change it, and has not begun
    assert look(FRAME) == 7
    table.set_field("version", 1)  # now it has
    thread = threading.Thread(target=look, args=(FRAME,))
    thread.start()
    end = time.monotonic() + 0.03
    while time.monotonic() < end:
        assert thread.is_alive()
    table.set_field("lock", 2)
    thread.join()
    before = table.field("version")
    table[2] = 5
    assert table.field("version") == before + 2 - before % 2
    assert look(FRAME) == 7
    assert "helper 1 (bpf_map_lookup_elem)" in look.explain()  # of the one that waited for too long
