"""Runs that never end by themselves, one in each form that there is; and three ways to end them.

Run in a process of its own, by test_stop.py: `python -m tests.attacks.endless WAY`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ebpfjit import EbpfVmMbuff, EbpfVmNoData, EbpfVmRaw, Program, Stopped
from ebpfjit.assembler import assemble
from ebpfjit.program import Program as MapProgram
from ebpfjit.runtime.maps import MapDefinition, MapType, create

ENDLESS = "mov r0, 0\nadd r0, 1\nja -2\nexit"
FIRST_IS_ENDLESS = "ldxb r3, [r1]\nmov r0, 7\njne r3, 0, +1\nexit\nadd r0, 1\nja -2"
"""Endless where the first byte of memory is not 0."""
ROUNDS = 1 << 23
CALLBACKS = (
    f"mov r1, {ROUNDS}\nlddw r2, f\nmov r3, 0\nmov r4, 0\ncall 181\nmov r0, 7\nexit\nf: mov r0, 0\nexit"
)
VISITS = "lddw r1, map[idx:0]\nlddw r2, f\nmov r3, 0\nmov r4, 0\ncall 164\nja -8\nf: mov r0, 0\nexit"
FRAME = bytes(60)
LATE = 1.0
"""Seconds that a run may go on."""
MOST_WAITS = 1200  # of 0.05 s each, where nothing runs at all

Form = tuple[Callable[[], Any], Callable[[], None] | None, Callable[[], Any] | None]
"""What runs, what stops it, and a call that ends by itself with 7."""


def function(text: str, memory: bytes = b"\1", **options: Any) -> Form:
    fn = Program.from_bytes(assemble(text)).compile(**options)
    return lambda: fn(memory), fn.stop, (lambda: fn(bytes(1))) if text == FIRST_IS_ENDLESS else None


def typed(text: str, *maps: Any, **options: Any) -> Form:
    code = assemble(text)
    references = {pc: map_.address for pc, map_ in zip([0] if "map[" in text else [], maps, strict=False)}
    fn = MapProgram(code, "main", "xdp", "xdp", references=references, maps=maps).compile(**options)
    return lambda: fn(FRAME), fn.stop, None


def array(entries: int) -> Any:
    return create(MapDefinition("m", MapType.ARRAY, 4, 8, entries))


def tail_call() -> Form:
    table = create(MapDefinition("t", MapType.PROG_ARRAY, 4, 4, 1))
    table[0] = MapProgram(assemble(ENDLESS), "next", "xdp", "xdp")
    text = "lddw r2, map[idx:0]\nmov r3, 0\ncall 12\nmov r0, 7\nexit"
    return typed(text, table)


def batch(**options: Any) -> Form:
    fn = Program.from_bytes(assemble(FIRST_IS_ENDLESS)).compile(**options)
    return lambda: fn.map([bytes(1), b"\1", bytes(1)], on_fault=3), fn.stop, lambda: fn.map([bytes(1)])[0]


def long_batch() -> Form:
    """Many short runs, none of which is as long as a slice."""
    text = "mov r0, 100\nsub r0, 1\njne r0, 7, -2\nexit"
    fn = Program.from_bytes(assemble(text)).compile()
    memory = bytes(1 << 23)
    return lambda: fn.map(memory, stride=1), fn.stop, lambda: fn.map([bytes(1)] * 1000)[999]


def machine(kind: Any, *memory: Any, jit: bool = True, **options: Any) -> Form:
    vm = kind(assemble(FIRST_IS_ENDLESS if memory else ENDLESS), **options)
    if not jit:
        return lambda: vm.execute_program(*memory), vm.stop, None
    vm.jit_compile()
    later = (lambda: vm.execute_program_jit(bytes(1), bytes(1))) if len(memory) == 2 else None
    return lambda: vm.execute_program_jit(*memory), vm.stop, later


def plain_run(engine: str) -> Form:
    program = MapProgram(assemble(ENDLESS), "main", "xdp", "xdp")
    return lambda: program.run(FRAME, engine=engine), None, None


def inside_helper() -> Form:
    """A program, in a helper of another, whose runs are the ones that are stopped."""
    inner = Program.from_bytes(assemble(ENDLESS)).compile()
    outer = Program.from_bytes(assemble("call 1\nmov r0, 7\nexit")).compile(helpers={1: lambda *_: inner()})
    return outer, outer.stop, None


FORMS: dict[str, Callable[[], Form]] = {
    "function": lambda: function(FIRST_IS_ENDLESS),
    "optimised": lambda: function(FIRST_IS_ENDLESS, optimize=True),
    "baseline": lambda: function(FIRST_IS_ENDLESS, optimize=False),
    "without the lock": lambda: function(FIRST_IS_ENDLESS, release_gil=True),
    "hardened": lambda: function(FIRST_IS_ENDLESS, harden=True),
    "divisions": lambda: function("mov r0, -1\nlddw r3, 0x700000001\ndiv r0, r3\nmov r0, -1\nja -3\nexit"),
    "batch": batch,
    "batch without the lock": lambda: batch(release_gil=True),
    "long batch": long_batch,
    "with a context": lambda: typed(ENDLESS),
    "with a context, without the lock": lambda: typed(ENDLESS, release_gil=True),
    "tail call": tail_call,
    "callbacks": lambda: typed(CALLBACKS),
    "visits": lambda: typed(VISITS, array(1 << 20)),
    "machine": lambda: machine(EbpfVmMbuff, b"\1", b"\1"),
    "machine, raw": lambda: machine(EbpfVmRaw, b"\1"),
    "machine without the lock": lambda: machine(EbpfVmNoData, release_gil=True),
    "machine, interpreted": lambda: machine(EbpfVmNoData, jit=False),
    "run": lambda: plain_run("jit"),
    "run, interpreted": lambda: plain_run("interpreter"),
    "inside a helper": inside_helper,
}


class Ended(Exception):  # noqa: N818 - it is no error
    """What another thread raises."""


def _ended(run: Callable[[], Any], end: Callable[[int], Any], wanted: type[BaseException]) -> str:
    """End a run in another thread; return what was wrong, "" for nothing."""
    seen: list[BaseException | None] = []
    started = threading.Event()

    def work() -> None:
        started.set()
        try:
            run()
            seen.append(None)
        except BaseException as error:
            seen.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    started.wait()
    thread.join(0.05)
    if seen:
        return f"it ended by itself: {seen}"
    end(thread.ident or 0)
    sent, waits = time.process_time(), 0
    while thread.is_alive() and time.process_time() - sent < LATE and waits < MOST_WAITS:
        thread.join(0.05)  # it has LATE seconds of the processor, whoever else wants that
        waits += 1
    if thread.is_alive():
        return "it goes on"
    return "" if type(seen[0]) is wanted else f"it ended with {seen[0]!r}"


def _interrupted(run: Callable[[], Any]) -> str:
    """Send this process SIGINT while its main thread runs; return what was wrong."""
    sent, runs = 0.0, threading.Event()

    def interrupt() -> None:
        nonlocal sent
        runs.wait()
        time.sleep(0.05)
        sent = time.process_time()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        runs.set()
        run()
        return "it ended by itself"
    except KeyboardInterrupt:
        late = time.process_time() - sent
        return f"it went on for {late:.1f} s" if late > LATE else ""
    finally:
        thread.join()


def _raise_in(thread: int) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Ended))


def main(way: str) -> None:
    """Print a line for each form that cannot be ended this way."""
    for name, make in FORMS.items():
        run, stop, later = make()
        if way == "signal":
            wrong = _interrupted(run)
        elif way == "exception":
            wrong = _ended(run, _raise_in, Ended)
        elif stop is None:
            continue
        else:
            wrong = _ended(run, lambda _, stop=stop: stop(), Stopped)  # type: ignore[misc] # stop is bound
        if not wrong and later is not None and later() != 7:
            wrong = "a later call ends otherwise"
        if wrong:
            print(f"{name}: {wrong}", flush=True)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
