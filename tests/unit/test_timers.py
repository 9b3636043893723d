"""Timers and work queues: started by programs, fired where an environment's time passes."""

from __future__ import annotations

import errno
import gc
import pickle
import weakref
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import BudgetExhausted, Clock, Environment, ExecutionError, load
from ebpfjit.assembler import assemble
from ebpfjit.bits import W32
from ebpfjit.elf import Object
from ebpfjit.program import Program
from tests.support.kfunc_runs import PACKET

OBJECT = Path(__file__).parent.parent / "elf" / "timers.o"
ENGINES = pytest.mark.parametrize("engine", ["interpreter", "jit"])


def loaded(now: int | None = 0) -> tuple[Object, Any]:
    """Return the object, and its clock, which stands still."""
    clock = Clock(now)
    return load(OBJECT, environment=Environment(clock=clock)), clock


def call(program: Program, engine: str, **how: Any) -> int:
    """Return r0 as a signed number."""
    return W32.signed(program.run(PACKET, engine=engine, **how).return_value)


@ENGINES
def test_a_timer_fires_when_it_is_due_and_not_before(engine: str) -> None:
    obj, clock = loaded(500)
    obj.globals["period"] = 0
    assert call(obj.program("start"), engine) == 0
    assert (clock.advance(ns=2999), obj.globals["fired"]) == (0, 0)
    assert (clock.advance(ns=1), obj.globals["fired"]) == (1, 1)
    assert (obj.maps["flows"].typed[3]["count"], obj.maps["flows"].typed[3]["last"]) == (1, 3500)
    assert (clock.advance(s=10), obj.globals["fired"]) == (0, 1)


@ENGINES
def test_timers_fire_in_order_each_at_its_time(engine: str) -> None:
    obj, clock = loaded()
    for key in (2, 1, 3):
        obj.globals["key"] = key
        assert call(obj.program("start_slot"), engine) == 0
    assert clock.advance(ms=1) == 9
    assert obj.globals["order"][:9] == [1, 2, 1, 3, 2, 1, 3, 2, 3]
    assert [obj.maps["slots"].typed[key]["last"] for key in (1, 2, 3)] == [3000, 4000, 5000]
    assert clock() == 1_000_000


@ENGINES
def test_its_own_function_cannot_stop_a_timer(engine: str) -> None:
    obj, clock = loaded()
    assert call(obj.program("start"), engine) == 0
    assert clock.advance(us=3) == 1
    assert W32.signed(obj.globals["cancelled"]) == -errno.EDEADLK


@ENGINES
def test_what_a_timer_is_asked_out_of_turn(engine: str) -> None:
    obj, clock = loaded()
    assert call(obj.program("stop"), engine) == -errno.EINVAL
    obj.globals["clock_id"] = 5
    assert call(obj.program("start_slot"), engine) == -errno.EINVAL
    obj.globals["clock_id"] = 7
    obj.globals["flags"] = 4
    assert call(obj.program("start_slot"), engine) == -errno.EINVAL
    assert call(obj.program("start_slot"), engine) == -errno.EBUSY
    assert call(obj.program("stop"), engine) == 0
    assert clock.advance(s=1) == 0
    with pytest.raises(
        ExecutionError, match=r"bpf_timer_init of 0x[0-9a-f]+, which is in no value of map 'flows'"
    ):
        call(obj.program("wrong_map"), engine)


@ENGINES
def test_a_timer_that_is_stopped_does_not_fire(engine: str) -> None:
    obj, clock = loaded()
    assert call(obj.program("start_slot"), engine) == 0
    assert call(obj.program("stop"), engine) == 1
    assert call(obj.program("stop"), engine) == 0
    assert clock.advance(s=1) == 0


@ENGINES
def test_an_absolute_time(engine: str) -> None:
    obj, clock = loaded(2500)
    obj.globals["flags"], obj.globals["period"] = 1, 0
    assert call(obj.program("start_slot"), engine) == 0
    assert clock.advance(ns=499) == 0
    assert clock.advance(ns=1) == 1


@ENGINES
def test_the_timer_of_a_deleted_value_is_gone(engine: str) -> None:
    obj, clock = loaded()
    assert call(obj.program("start"), engine) == 0
    assert call(obj.program("forget"), engine) == 0
    assert clock.advance(s=1) == obj.globals["fired"] == 0
    assert call(obj.program("start"), engine) == 0
    assert clock.advance(s=1) == 3


@ENGINES
def test_a_timer_that_was_written_over_is_gone(engine: str) -> None:
    obj, clock = loaded()
    assert call(obj.program("start_slot"), engine) == 0
    assert call(obj.program("overwrite"), engine) == 0
    assert clock.advance(s=1) == 0
    assert call(obj.program("start_slot"), engine) == 0
    obj.maps["slots"].typed[3] = obj.maps["slots"].typed[3]
    assert clock.advance(s=1) == obj.globals["fired"] == 0


@ENGINES
def test_an_entry_of_a_key_that_comes_again_has_no_timer(engine: str) -> None:
    obj, clock = loaded()
    assert call(obj.program("start"), engine) == 0
    held = obj.maps["flows"].typed[3]
    del obj.maps["flows"].typed[3]
    obj.maps["flows"].typed[3] = held
    assert clock.advance(s=1) == obj.globals["fired"] == 0


@ENGINES
def test_what_a_timers_function_takes_it_gives_back(engine: str) -> None:
    obj, clock = loaded()
    assert call(obj.program("start_forgetful"), engine) == 0
    with pytest.raises(
        ExecutionError,
        match=r"bpf_spin_lock takes the lock 'lock' .*where the callback ends: .*bpf_spin_unlock.*timers\.c",
    ):
        clock.advance(us=1)


@ENGINES
def test_a_timer_is_where_the_values_type_has_one(engine: str) -> None:
    obj, _ = loaded()
    with pytest.raises(ExecutionError, match=r"is no bpf_timer of map 'guards'.*'timer' \(bpf_timer\) at 8"):
        call(obj.program("misplaced"), engine)


@ENGINES
def test_a_clock_of_ones_own(engine: str) -> None:
    now = [0]
    environment = Environment(clock=lambda: now[0])
    obj = load(OBJECT, environment=environment)
    obj.globals["period"] = 0
    assert call(obj.program("start_slot"), engine) == 0
    now[0] = 2999
    assert environment.fire_timers() == 0
    now[0] = 3000
    assert environment.fire_timers() == obj.globals["fired"] == 1


@ENGINES
def test_a_later_run_comes_behind_what_is_due(engine: str) -> None:
    now = [0]
    obj = load(OBJECT, environment=Environment(clock=lambda: now[0]))
    obj.globals["period"] = 0
    assert call(obj.program("start_slot"), engine) == 0
    now[0] = 5000
    assert call(obj.program("stop"), engine) == 0
    assert obj.globals["fired"] == 1


@ENGINES
def test_work_queues(engine: str) -> None:
    obj, clock = loaded()
    assert call(obj.program("start_work"), engine) == 0
    assert obj.maps["works"].typed[1]["done"] == 0
    assert clock.advance() == 1
    assert obj.maps["works"].typed[1]["done"] == 2
    assert call(obj.program("start_work"), engine) == -errno.EBUSY


def test_compiled_functions_start_timers_and_see_a_clock_that_is_moved_on() -> None:
    environment = Environment(clock=(clock := Clock()))
    obj = load(OBJECT, environment=environment)
    obj.globals["period"] = 0
    function = obj.program("start_slot").compile(optimize=True)
    clock.advance(s=5000)
    before = clock()
    assert function(PACKET) == 0
    assert clock.advance() == 1
    assert before <= obj.maps["slots"].typed[3]["last"] <= clock()


@pytest.mark.parametrize("optimize", [None, False, True])
def test_a_call_of_a_compiled_function_comes_behind_what_is_due(optimize: bool | None) -> None:
    now = [0]
    obj = load(OBJECT, environment=Environment(clock=lambda: now[0]))
    obj.globals["period"] = 0
    start, stop, work = (
        obj.program(name).compile(optimize=optimize) for name in ("start_slot", "stop", "start_work")
    )
    obj.globals["key"] = 1
    assert start(PACKET) == 0
    now[0] = 999
    assert (stop.map([PACKET, PACKET])[1], obj.globals["fired"]) == (0, 0)  # stopped, so it never fires
    obj.globals["key"] = 2
    assert start(PACKET) == 0
    now[0] = 3000
    assert (stop(PACKET), obj.globals["fired"]) == (0, 1)
    obj.globals["key"] = 3
    assert list(start.map([PACKET])) == [0]
    now[0] = 6000
    assert list(stop.map([PACKET])) == [0]
    assert obj.globals["fired"] == 2
    assert work(PACKET) == 0
    assert obj.maps["works"].typed[1]["done"] == 0
    assert W32.signed(work(PACKET)) == -errno.EBUSY
    assert obj.maps["works"].typed[1]["done"] == 2


def test_a_clock_that_was_moved_on_after_compiling() -> None:
    environment = Environment(clock=(clock := Clock()))
    seconds = Program(assemble("call 5\nrsh r0, 20\nexit"), type="xdp", environment=environment)
    function = seconds.compile(optimize=True)
    before = function(PACKET)
    clock.advance(s=100_000)
    assert function(PACKET) >= before + 90_000


@ENGINES
def test_the_function_of_a_timer_has_the_limit_of_the_run_that_set_it(engine: str) -> None:
    obj, clock = loaded()
    assert call(obj.program("start_slot"), engine, limit=100) == 0
    assert clock.advance(us=3) == 1
    obj, clock = loaded()
    program = obj.program("start_slot")
    most = program.run(PACKET, engine="interpreter").instructions
    assert most is not None
    obj, clock = loaded()
    assert call(obj.program("start_slot"), engine, limit=most) == 0
    with pytest.raises(BudgetExhausted, match=rf"limit of {most} .*timers\.c"):
        clock.advance(us=3)


def test_time_does_not_go_backwards() -> None:
    with pytest.raises(ValueError, match="cannot pass by -1 ns"):
        Clock(5).advance(ns=-1)


def test_times_are_finite_numbers_of_any_kind() -> None:
    clock = Clock(5)
    for wrong, error in ((float("nan"), ValueError), (float("inf"), ValueError), ("5", TypeError)):
        with pytest.raises(error, match=r"^ms is a "):
            clock.advance(ms=wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="now is a number"):
        Clock("5")  # type: ignore[arg-type]
    numpy = pytest.importorskip("numpy")
    clock.advance(s=numpy.int8(5))
    assert clock() == 5_000_000_005


@ENGINES
def test_time_that_passes_in_a_timer_has_passed(engine: str) -> None:
    """As where a helper of a test's own, which a timer calls, moves the clock on."""
    obj, clock = loaded()
    obj.globals["key"] = 1

    def moves(*_: int) -> int:
        if clock() < 5_000_000:
            clock.advance(ms=5)
        return clock()

    assert call(obj.program("start_slot"), engine, helpers={"bpf_ktime_get_ns": moves}) == 0
    assert clock.advance(us=1) == 1
    assert obj.maps["slots"].typed[1]["last"] == clock() == 5_001_000


def test_timers_keep_nothing_alive() -> None:
    obj, clock = loaded()
    assert call(obj.program("start_slot"), "jit") == 0
    left = weakref.ref(obj.maps["slots"])
    del obj
    gc.collect()
    assert left() is None
    assert clock.advance(s=1) == 0


def test_every_environment_has_a_clock_that_can_be_moved_on() -> None:
    environment = Environment(cpus=2)
    before = environment.clock()
    assert isinstance(environment.clock, Clock)
    environment.clock.advance(ms=1.5)
    assert environment.clock() >= before + 1_500_000


def test_environments_travel_and_compare_as_before() -> None:
    assert Environment() == Environment()
    assert Environment(clock=Clock(5)) != Environment()
    assert pickle.loads(pickle.dumps(Environment())) == Environment()
    assert repr(Clock(5)) == "Clock(5)"
