"""What kernel functions, timers and objects keep: how much of it there is, and what it says."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ebpfjit import BudgetExhausted, Clock, Environment, ExecutionError, IllegalInstruction, load
from ebpfjit.bits import W32
from ebpfjit.elf.btf import Btf, Kind
from ebpfjit.program import Program
from ebpfjit.runtime import memory, owned
from ebpfjit.runtime.heap import heap
from ebpfjit.runtime.helpers.maps import reachable
from ebpfjit.runtime.maps import Map, MapDefinition, MapType, create
from ebpfjit.runtime.maps.special import ObjectLayout, SpecialField
from ebpfjit.runtime.memory import Region
from ebpfjit.runtime.owned import Holder, Object
from ebpfjit.runtime.world import Engine, World
from tests.support.kfunc_runs import PACKET, program_of, run, value
from tests.support.pace import within

OBJECTS = Path(__file__).parent.parent / "elf" / "objects.o"
ENGINES = pytest.mark.parametrize("engine", ["interpreter", "jit"])
LOCK = SpecialField("bpf_spin_lock", 0, "lock")


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Fail where Python takes more bytes than that meanwhile."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def keyed(text: str, map_: Map, key: int = 0) -> str:
    """Return a call of a map's helper with a key at r10-4."""
    return f"stw [r10-4], {key}\nlddw r1, {map_.address:#x}\nmov r2, r10\nadd r2, -4\n{text}\n"


# -- dynptrs that a program writes itself ----------------------------------------------------------


def forged(address: int, size: int) -> str:
    """Return the text of a program with a dynptr of its own at r10-16, whose address is in r1."""
    return (
        f"lddw r1, {address:#x}\nstxdw [r10-16], r1\nlddw r1, {size:#x}\nstxdw [r10-8], r1\n"
        "mov r1, r10\nadd r1, -16\n"
    )


def test_a_dynptr_at_the_end_of_all_addresses_is_adjusted() -> None:
    text = forged((1 << 64) - 1, 100) + "mov r2, 10\nmov r3, 50\ncall kfunc {bpf_dynptr_adjust}\n"
    assert value(text + "exit") == 0
    assert run(text + "ldxdw r0, [r10-16]\nexit").return_value == 9


def test_what_fills_a_dynptr_is_not_made_for_nothing() -> None:
    in_packet = 1 << 28 | (1 << 24) - 1
    text = (
        forged(1, in_packet) + "mov r2, 0\nmov r3, 0xffffff\nmov r4, 7\ncall kfunc {bpf_dynptr_memset}\nexit"
    )
    program = program_of(text)
    with at_most(1 << 22):
        assert W32.signed(program.run(PACKET, engine="interpreter").return_value) == -14


# -- what is entered and not left ------------------------------------------------------------------


@ENGINES
@pytest.mark.parametrize("name", ["bpf_rcu_read_lock", "bpf_preempt_disable"])
def test_what_is_taken_often_is_kept_once(name: str, engine: str) -> None:
    program = program_of(f"again:\ncall kfunc {{{name}}}\nja again")
    with pytest.raises(ExecutionError, match="limit of 100 "):
        program.run(PACKET, engine=engine, limit=100)
    with at_most(1 << 18), pytest.raises(ExecutionError, match="limit of 20000 "):
        program.run(PACKET, engine=engine, limit=20000)


def test_interrupts_are_kept_out_so_often_and_no_more() -> None:
    ring = create(MapDefinition("flags", MapType.ARRAY, 4, 4096, 1))
    text = (
        keyed("call 1\nmov r6, r0", ring)
        + "jeq r6, 0, out\nmov r7, 400\nagain:\nmov r1, r6\ncall kfunc {bpf_local_irq_save}\n"
        + "add r6, 8\nsub r7, 1\njne r7, 0, again\nout:\nexit"
    )
    with pytest.raises(ExecutionError, match="the 65th in a row"):
        run(program_of(text, maps=(ring,)))


# -- objects ---------------------------------------------------------------------------------------


def _forest() -> tuple[Map, Any, int]:
    """Return a hash map of trees, the types of a program that has its leaves, and the leaf's id."""
    types = load(OBJECTS).program("planted").types
    assert types is not None
    (leaf,) = Btf(types.btf, "BTF").named("leaf", {Kind.STRUCT})
    root = SpecialField("bpf_rb_root", 8, "root", ("leaf", 8))
    return create(MapDefinition("forest", MapType.HASH, 4, 24, 4, special=(LOCK, root))), types, leaf


def _grown(forest: Map, leaf: int, less: str) -> str:
    """Return a program that puts two leaves into a tree, and takes the second out again."""
    add = (
        "mov r1, r6\nadd r1, 8\nmov r2, {}\nadd r2, 8\nlddw r3, less\nmov r4, 0\nmov r5, 0\n"
        "call kfunc {{bpf_rbtree_add_impl}}\n"
    )
    made = f"mov r1, {leaf}\nmov r2, 0\ncall kfunc {{bpf_obj_new_impl}}\n"
    return (
        "\n".join(f"stdw [r10-{at}], 0" for at in range(8, 40, 8)) + "\n"
        + keyed("mov r3, r10\nadd r3, -32\nmov r4, 0\ncall 2", forest)
        + keyed("call 1\nmov r6, r0", forest) + "jeq r6, 0, out\n"
        + f"{made}mov r7, r0\n{made}mov r8, r0\nmov r1, r6\ncall 93\n" + add.format("r7") + add.format("r8")
        + "mov r1, r6\nadd r1, 8\nmov r2, r8\nadd r2, 8\ncall kfunc {bpf_rbtree_remove}\nmov r9, r0\n"
        + "mov r1, r6\ncall 94\nmov r0, 99\njeq r9, 0, out\n"
        + "mov r1, r9\nadd r1, -8\nmov r2, 0\ncall kfunc {bpf_obj_drop_impl}\nmov r0, 7\nout:\nexit\n"
        + f"less:\n{less}mov r0, 1\nexit"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("less", "ends"),
    [
        pytest.param("", 7, id="compares"),
        pytest.param(
            lambda forest: keyed("call 3", forest),
            "bpf_map_delete_elem is called while the lock 'lock' at",
            id="deletes the tree",
        ),
        pytest.param(
            lambda forest: keyed("call 1\nmov r1, r0\njeq r1, 0, none\ncall 94\nnone:", forest),
            "bpf_map_lookup_elem is called while the lock 'lock' at",
            id="lets go of the lock",
        ),
    ],
)
def test_what_compares_may_do_anything(less: str | Callable[[Map], str], ends: int | str) -> None:
    forest, types, leaf = _forest()
    text = _grown(forest, leaf, less if isinstance(less, str) else less(forest))
    program = program_of(text, maps=(forest,), types=types)
    if isinstance(ends, int):
        assert value(program) == ends
    else:
        with pytest.raises(ExecutionError, match=ends):
            run(program)


def test_a_value_goes_in_no_more_time_where_objects_hang_in_many() -> None:
    count = 8000
    head = SpecialField("bpf_list_head", 8, "head", ("item", 0))
    many = create(MapDefinition("many", MapType.HASH, 4, 24, count, special=(LOCK, head)))
    layout = ObjectLayout("item", 24, (SpecialField("bpf_list_node", 0, "node"),))
    many.holder = Holder()
    left = []
    for number in range(count):
        key = number.to_bytes(4, "little")
        many.update(key, bytes(24))
        one = Object(layout, Region.of_buffer("item", bytearray(24)))
        left.append(one)
        place = many.lookup(key) + 8
        one.hangs_in[0] = place
        many.holder.lists[place] = deque([(one, 0)])
    begin = time.process_time()
    for number in range(count):
        many.delete(number.to_bytes(4, "little"))
    # a tenth; where each looks through all of them, twice as much
    assert within(0.8, time.process_time() - begin)
    assert all(one.references == 0 and not one.hangs_in for one in left)


# -- tail calls ------------------------------------------------------------------------------------


def _jumping(text: str, target: Program, **fields: Any) -> Program:
    """Return a program whose function `jump` makes a tail call."""
    programs = create(MapDefinition("programs", MapType.PROG_ARRAY, 4, 4, 1))
    programs[0] = target
    text += f"\njump:\nlddw r2, {programs.address:#x}\nmov r3, 0\ncall 12\nmov r0, 7\nexit"
    return program_of(text, maps=(programs,), **fields)


def test_a_program_whose_function_made_a_tail_call_goes_on_with_its_own_types() -> None:
    _, types, leaf = _forest()
    text = (
        f"call local jump\nmov r6, r0\nmov r1, {leaf}\nmov r2, 0\ncall kfunc {{bpf_obj_new_impl}}\n"
        "mov r1, r0\nmov r2, 0\ncall kfunc {bpf_obj_drop_impl}\nmov r0, r6\nexit"
    )
    program = _jumping(text, program_of("mov r0, 55\nexit"), types=types)
    assert value(program) == 55
    assert program.compile()(PACKET) == 55


def test_functions_that_are_given_are_there_behind_a_tail_call() -> None:
    given: dict[int | str, Callable[..., Any]] = {"mine": lambda *arguments: 33}
    program = _jumping("call local jump\nexit", program_of("call kfunc {mine}\nexit"))
    assert value(program, kfuncs=given) == 33
    assert program.compile(kfuncs=given)(PACKET) == 33
    target = program_of("call 500\nexit")
    assert _jumping("call local jump\nexit", target).compile(helpers={500: lambda *_: 5})(PACKET) == 5


# -- many at a time --------------------------------------------------------------------------------


@ENGINES
def test_an_object_takes_no_more_time_where_a_run_has_many(engine: str) -> None:
    _, types, leaf = _forest()
    made = f"mov r1, {leaf}\nmov r2, 0\ncall kfunc {{bpf_obj_new_impl}}\n"
    text = (
        f"mov r9, 500\nmany:\n{made}sub r9, 1\njne r9, 0, many\n"
        f"again:\n{made}mov r1, r0\nmov r2, 0\ncall kfunc {{bpf_obj_drop_impl}}\nja again"
    )
    program = program_of(text, types=types)
    program.compile()
    begin = time.process_time()
    with pytest.raises(BudgetExhausted):
        program.run(PACKET, engine=engine, limit=16000)
    # a fifth; where each is told of with all others, twice as much
    assert within(1, time.process_time() - begin)


def test_the_maps_of_a_program_are_gone_through_once_in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = tuple(
        create(MapDefinition(f"m{number}", MapType.ARRAY, 4, 8, 1, special=(LOCK,))) for number in range(50)
    )
    gone_through: list[int] = []

    def counting(world: World) -> Iterator[Map]:
        gone_through.append(1)
        return reachable(world)

    monkeypatch.setattr("ebpfjit.runtime.helpers.maps.reachable", counting)
    lock = f"lddw r1, {maps[-1].regions[0].start:#x}\ncall {{}}\n"
    with pytest.raises(BudgetExhausted):
        run(program_of("again:\n" + lock.format(93) + lock.format(94) + "ja again", maps=maps), limit=1000)
    assert len(gone_through) == 2  # by each engine


def test_a_run_does_not_go_through_all_kptrs_of_its_maps() -> None:
    """Each run, each tail call and each callback of a timer did: 40 ms where there are 200,000."""
    looked_at: list[Object] = []

    class Counted(dict[int, Object]):
        def values(self) -> Any:
            return (looked_at.append(each) or each for each in super().values())  # type: ignore[func-returns-value] # counts

    layout = ObjectLayout("item", 16, ())
    objects = [Object(layout, Region.of_buffer("item", bytearray(16))) for _ in range(400)]
    holder = Holder(pointers=Counted({one.address: one for one in objects}))
    lent = owned.lend_from(World(Environment()), [holder, holder])
    assert len(lent) == len(looked_at) == owned.MOST_LENT_FIRST


def test_an_object_in_the_memory_of_one_that_is_gone_is_the_one_that_counts() -> None:
    """It was lent to one run while another dropped it, and made the next one in its memory."""
    world = World(Environment(), engine=cast(Engine, SimpleNamespace(place=lambda: (Program(b""), 0))))
    layout = ObjectLayout("item", 16, ())
    gone = Object(layout, Region.of_buffer("item", bytearray(16)))
    owned.lend_from(world, [Holder(pointers={8: gone})])
    owned.release([gone])
    new = Object(layout, gone.region)
    with memory.active(memory.AddressSpace([gone.region])):
        owned.own(world, new, "bpf_kptr_xchg")
        assert owned.owned_at(world, new.address, "bpf_obj_drop") is new
        owned.drop(world, new)
        assert memory.find(new.address, 8, "load") is None
    assert (gone.references, new.references) == (0, 0)


# -- timers ----------------------------------------------------------------------------------------


def _timed_text(map_: Map, count: int, callback: str) -> str:
    """Return the text of a program that starts a timer in each of so many values; tick() counts its calls."""
    return (
        "\n".join(f"stdw [r10-{at}], 0" for at in range(8, 40, 8)) + f"\nmov r8, {count}\n"
        + "again:\nsub r8, 1\nstxw [r10-4], r8\n"
        + f"lddw r1, {map_.address:#x}\nmov r2, r10\nadd r2, -4\n"
        + "mov r3, r10\nadd r3, -32\nmov r4, 1\ncall 2\n"
        + f"lddw r1, {map_.address:#x}\nmov r2, r10\nadd r2, -4\ncall 1\njeq r0, 0, out\nmov r6, r0\n"
        + f"mov r1, r6\nlddw r2, {map_.address:#x}\nmov r3, 1\ncall 169\nmov r7, r0\njne r7, 0, out\n"
        + "mov r1, r6\nlddw r2, tick\ncall 170\nmov r1, r6\nmov r2, 10\nmov r3, 0\ncall 171\n"
        + "jne r8, 0, again\nout:\nmov r0, r7\nexit\n"
        + f"tick:\nmov r6, r3\nldxdw r1, [r6+16]\nadd r1, 1\nstxdw [r6+16], r1\n{callback}mov r0, 0\nexit"
    )  # fmt: skip


def _timed(count: int, *, callback: str = "") -> tuple[Program, Map, Clock]:
    """Return a program that starts a timer in each of so many values, and its map and clock."""
    timer = SpecialField("bpf_timer", 0, "timer")
    clock = Clock(0)
    map_ = create(MapDefinition("timed", MapType.HASH, 4, 24, count, special=(timer,)))
    text = _timed_text(map_, count, callback)
    return program_of(text, maps=(map_,), environment=Environment(clock=clock)), map_, clock


def test_a_timer_fires_in_no_more_time_where_there_are_many() -> None:
    program, map_, clock = _timed(1500)
    assert program.run(PACKET, engine="jit").return_value == 0
    begin = time.process_time()
    assert clock.advance(ns=10) == 1500
    assert within(2, time.process_time() - begin)  # each looked for the first among all, and for its key: 5 s
    assert all(map_[number.to_bytes(4, "little")][16] == 1 for number in range(1500))


@ENGINES
def test_a_timer_that_starts_itself_at_once_is_called_once_before_a_run(engine: str) -> None:
    program, map_, _ = _timed(2, callback="mov r1, r6\nmov r2, 0\nmov r3, 1\ncall 171\n")
    program.run(PACKET, engine=engine)
    other = Environment(clock=Clock(10))
    clock = program.environment
    assert clock is not None
    look = program_of("mov r0, 0\nexit", maps=(map_,), environment=clock)
    clock.clock._now = 10  # type: ignore[attr-defined] # as a clock of the user's that went on
    for rounds in (1, 2, 3):
        look.run(PACKET, engine=engine)
        assert [map_[key][16] for key in map_] == [rounds, rounds]
    look.run(PACKET, engine=engine, environment=other)
    assert [map_[key][16] for key in map_] == [3, 3]


def test_there_are_so_many_timers_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    program, _, clock = _timed(50)
    gc.collect()
    assert heap.take(0)  # what is free again is counted now
    monkeypatch.setattr("ebpfjit.runtime.heap.MOST_BYTES", heap._used + 5 * 512)
    assert W32.signed(program.run(PACKET, engine="jit").return_value) == -12
    assert clock.advance(ns=10) == 5


@ENGINES
def test_functions_that_are_given_are_there_when_a_timer_fires(engine: str) -> None:
    _, map_, clock = _timed(1)
    programs = create(MapDefinition("programs", MapType.PROG_ARRAY, 4, 4, 1))
    programs[0] = program_of("call kfunc {mine}\nexit")
    jump = f"mov r1, r6\nlddw r2, {programs.address:#x}\nmov r3, 0\ncall 12\n"
    program = program_of(
        _timed_text(map_, 1, jump), maps=(map_, programs), environment=Environment(clock=clock)
    )
    called: list[int] = []
    program.run(PACKET, engine=engine, kfuncs={"mine": lambda *arguments: called.append(1)})
    assert clock.advance(ns=10) == 1
    assert called == [1]


@pytest.mark.parametrize("address", [0, 0xEBF0_0000_0000_0001, 1 << 63])
def test_what_is_no_function_is_refused_where_a_timer_is_told_of_it(address: int) -> None:
    for engine in ("interpreter", "jit"):
        program, _, clock = _timed(1)
        fields = {"maps": program.maps, "environment": program.environment}
        text = _timed_text(program.maps[0], 1, "").replace("lddw r2, tick", f"lddw r2, {address:#x}")
        with pytest.raises(IllegalInstruction, match=rf"pc 32: callx to {address:#x}, which is not"):
            program_of(text, **fields).run(PACKET, engine=engine)
        assert clock.advance(ns=20) == 0


# -- what a program is shown -----------------------------------------------------------------------

LOOK_UP = "mov r2, r10\nadd r2, -4\nstw [r10-4], 0\ncall 1\njeq r0, 0, out\nmov r6, r0\n"
READ = "mov r7, r0\njeq r7, 0, out\nldxdw r8, [r7]\n"
MAKE = (
    "call kfunc {bpf_cpumask_create}\nmov r7, r0\nmov r1, 0\nmov r2, r7\ncall kfunc {bpf_cpumask_set_cpu}\n"
    "mov r1, r6\nmov r2, r7\ncall 194\n"
)
TAKE = f"mov r1, r6\nmov r2, 0\ncall 194\n{READ}mov r1, r7\ncall kfunc {{bpf_cpumask_release}}\nmov r0, r8\n"
SHOWN: dict[str, tuple[str, str]] = {  # what the program that is called does, and who calls it afterwards
    "objects": (MAKE, TAKE),
    "memory of functions": (f"call kfunc {{given}}\n{READ}", f"call kfunc {{given}}\n{READ}mov r0, r8\n"),
}


@pytest.mark.parametrize("way", ["interpreter", "jit", "compiled"])
@pytest.mark.parametrize("what", SHOWN)
def test_what_one_program_is_shown_is_shown_to_the_next_as_well(what: str, way: str) -> None:
    """A function tail calls, and its program goes on: in its memory is not what the other one was shown."""
    kptr = SpecialField("kptr", 0, "bpf_cpumask")
    slots = create(MapDefinition("slots", MapType.ARRAY, 4, 8, 1, special=(kptr,)))
    jumps = create(MapDefinition("jumps", MapType.PROG_ARRAY, 4, 4, 1))
    first, then = SHOWN[what]
    start = f"lddw r1, {slots.address:#x}\n{LOOK_UP}"
    jump = f"function:\nlddw r2, {jumps.address:#x}\nmov r3, 0\ncall 12\nexit"
    jumps[0] = program_of(f"{start}{first}out:\nexit", maps=(slots,))
    program = program_of(f"call function\n{start}{then}out:\nexit\n{jump}", maps=(slots, jumps))
    memory = bytearray(b"\1" + bytes(7))
    kfuncs = {"given": lambda *_: memory}
    if way == "compiled":
        assert program.compile(kfuncs=kfuncs)(PACKET) == 1
    else:
        assert program.run(PACKET, engine=way, kfuncs=kfuncs).return_value == 1


@ENGINES
def test_what_the_timers_of_one_run_call_shares_its_limit(engine: str) -> None:
    """A run started as many as it could pay for, and each had the whole limit again: its square."""
    timer = SpecialField("bpf_timer", 0, "timer")
    count, limit = 20, 1000
    ticks = create(MapDefinition("ticks", MapType.ARRAY, 4, 16, count, special=(timer,)))
    program = program_of(
        f"""
    more:
        lddw r1, {ticks.address:#x}
        mov r2, r10
        add r2, -4
        stxw [r2], r6
        call 1
        jeq r0, 0, out
        mov r7, r0
        mov r1, r7
        lddw r2, {ticks.address:#x}
        mov r3, 1
        call 169
        mov r1, r7
        lddw r2, subprog[called]
        call 170
        mov r1, r7
        mov r2, 0
        mov r3, 0
        call 171
        add r6, 1
        ja more
    out:
        mov r0, r6
        exit
    called:
        mov r1, 300
    again:
        sub r1, 1
        jne r1, 0, again
        mov r0, 0
        exit
        """,
        maps=(ticks,),
    )
    how: dict[str, Any] = {"engine": engine, "environment": Environment(clock=Clock(0))}
    assert program.run(PACKET, limit=limit, **how).return_value == count
    with pytest.raises(BudgetExhausted, match=rf"shares its limit of {limit}"):
        program.run(PACKET, limit=limit, **how)
    with pytest.raises(BudgetExhausted, match=rf"shares its limit of {limit}"):
        how["environment"].clock.advance(s=1)
