"""Whatever runs can be ended within a second: by `stop()`, by an exception from another thread, by Ctrl-C.

In every form that a run has (`endless.FORMS`): through the gate and through ctypes, with and without Python's
lock, in batches, in callbacks, behind a tail call, on both engines. A later call runs as ever.
"""

from __future__ import annotations

import os
import threading
import time

import pytest

from ebpfjit import BudgetExhausted, Clock, EbpfVmRaw, Environment, ExecutionError, Program, Stopped
from ebpfjit.assembler import assemble
from ebpfjit.runtime.execution import SLICE
from ebpfjit.runtime.maps import MapDefinition, MapType, create
from ebpfjit.runtime.maps.special import SpecialField
from tests.attacks.children import fresh_process
from tests.attacks.endless import FIRST_IS_ENDLESS, FORMS
from tests.support.pace import within

GO = "import sys; from tests.attacks.endless import main; main(sys.argv[1])"


@pytest.mark.parametrize("way", ["stop", "exception", "signal"])
def test_every_run_can_be_ended(way: str) -> None:
    assert len(FORMS) >= 20
    assert fresh_process(GO, way, seconds=200, cold=False) == ""


@pytest.mark.parametrize("way", ["stop", "exception", "signal"])
def test_without_the_gate_too(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EBPFJIT_GATE", "ctypes")
    assert fresh_process(GO, way, seconds=200, cold=False) == ""


def compiled(text: str, **options):
    return Program.from_bytes(assemble(text)).compile(**options)


def test_who_is_not_running_is_not_stopped():
    function = compiled("mov r0, 3\nexit")
    function.stop()
    assert function(b"") == 3
    assert list(function.map([b"", b""])) == [3, 3]


def test_stopped_says_where_and_is_an_execution_error():
    """From a helper, so that it is known where: the block in which the run was, on both engines."""
    text = "mov r6, 0\ncall 1\nloop: add r6, 1\nja loop\nexit"
    vm = EbpfVmRaw(assemble(text))
    vm.register_helper(1, lambda *_: vm.stop() or 0)
    vm.jit_compile()
    for run in (vm.execute_program, vm.execute_program_jit):
        with pytest.raises(Stopped, match="pc 2: the run was stopped") as raised:
            run(b"")
        assert (raised.value.pc, isinstance(raised.value, ExecutionError)) == (2, True)


@pytest.mark.parametrize("optimize", [False, True])
def test_what_timers_call_before_a_call_is_stopped_with_it(optimize: bool) -> None:
    timer = SpecialField("bpf_timer", 0, "timer")
    ticks = create(MapDefinition("ticks", MapType.ARRAY, 4, 16, 1, special=(timer,)))
    text = f"""
        lddw r1, {ticks.address:#x}
        mov r2, r10
        add r2, -4
        stw [r2], 0
        call 1
        jeq r0, 0, out
        mov r6, r0
        mov r1, r6
        lddw r2, {ticks.address:#x}
        mov r3, 1
        call 169
        mov r1, r6
        lddw r2, subprog[called]
        call 170
        mov r1, r6
        mov r2, 0
        mov r3, 0
        call 171
    out:
        mov r0, 5
        exit
    called:
        call 1000
    endless:
        ja endless
    """
    program = Program(assemble(text), type="tc", maps=(ticks,), environment=Environment(clock=Clock(0)))
    function = program.compile(helpers={1000: lambda *_: function.stop() or 0}, optimize=optimize)
    assert function(bytes(64)) == 5
    with pytest.raises(Stopped):
        function(bytes(64))
    assert function(bytes(64)) == 5


def test_a_batch_does_not_go_on_behind_a_stop():
    """`on_fault` stands for faults; that the batch was stopped is none."""
    function = compiled("ldxb r0, [r1]\ncall 1\nja -2\nexit", helpers={1: lambda *_: function.stop() or 0})
    with pytest.raises(Stopped) as raised:
        function.map([b"a", b"b"], on_fault=5)
    assert raised.value.index == 0


@pytest.mark.parametrize("stride", [None, 1])
def test_a_stop_between_two_packets_ends_the_batch(stride: int | None):
    seen = []

    def helper(*_):
        seen.append(None)
        function.stop()
        return 1

    function = compiled("call 1\nexit", helpers={1: helper})
    packets = bytes(1 << 20) if stride else [b"a"] * (1 << 20)
    with pytest.raises(Stopped):
        function.map(packets, stride=stride)
    assert len(seen) < 1 << 19  # it would take more than a second to the end


def test_a_limit_is_the_same_at_the_ends_of_slices():
    """What a run may execute does not depend on where slices end."""
    for limit in (SLICE - 1, SLICE, SLICE + 1, 2 * SLICE, 3 * SLICE + 2):
        with pytest.raises(BudgetExhausted):
            compiled(f"mov r1, {limit}\nsub r1, 1\njne r1, 0, -2\nexit", limit=limit)(b"")
        assert compiled(f"mov r1, {limit // 2 - 2}\nsub r1, 1\njne r1, 0, -2\nexit", limit=limit)(b"") == 0


def test_blocks_that_are_longer_than_a_slice():
    count = SLICE + 1000
    code = assemble("mov r1, 3\nmov r0, 0") + assemble("add r0, 1") * count
    back = (-count - 3).to_bytes(4, "little", signed=True)
    code += assemble("sub r1, 1\njeq r1, 0, +1") + b"\x06\0\0\0" + back + assemble("exit")
    for optimize in (False, True):
        function = Program.from_bytes(code).compile(optimize=optimize)
        assert function(b"") == 3 * count


def test_slices_are_short_for_the_slowest_instructions():
    """The longest time between two looks at the clock, for divisions and loads that miss the caches."""
    kinds = {
        "division": "mov r0, -1\nlddw r3, 0x700000001\ndiv r0, r3\nsub r6, 1\njne r6, 0, -6\nexit",
        "misses": (
            "mul r7, 1103515245\nadd r7, 12345\nmov r4, r7\nand r4, 0x3ffffc0\nmov r5, r1\nadd r5, r4\n"
            "ldxdw r3, [r5]\nxor r7, r3\nsub r6, 1\njne r6, 0, -10\nexit"
        ),
        "atomics": "mov r3, 1\nlock *(u64 *)(r10 - 8) += r3\nsub r6, 1\njne r6, 0, -4\nexit",
    }
    memory = bytearray(1 << 26)
    for name, text in kinds.items():
        code = assemble(f"mov r7, 5\nstdw [r10-8], 0\nmov r6, {SLICE // 4}\n{text}")
        function = Program.from_bytes(code).compile(optimize=True)
        started = time.thread_time()
        function(memory)
        assert time.thread_time() - started < 0.3, name


def test_other_threads_run_beside_a_long_run():
    """A run that keeps Python's lock gives it up when somebody waits for it."""
    function = compiled(FIRST_IS_ENDLESS)

    def work():
        with pytest.raises(Stopped):
            function(b"\1")

    thread = threading.Thread(target=work)
    thread.start()
    started = time.process_time()
    for _ in range(5):
        time.sleep(0)  # gives the lock up, and waits for it
    took = time.process_time() - started
    function.stop()
    thread.join()
    assert within(5, took)


def test_compiling_can_be_interrupted():
    ended = fresh_process(
        """
        import os, signal, threading, time
        from ebpfjit import Program
        from ebpfjit.assembler import assemble
        code = assemble("mov r0, 1\\nexit")[:8] + b"".join(
            assemble(f"add r0, {n}\\nxor r0, {3 * n}") for n in range(200)) * 300 + assemble("exit")
        Program(assemble("mov r0, 1\\nexit")).compile()
        def interrupt():
            global sent
            time.sleep(0.4)
            sent = time.process_time()
            os.kill(os.getpid(), signal.SIGINT)
        threading.Thread(target=interrupt).start()
        try:
            while True:
                Program(code).compile(optimize=True)
        except KeyboardInterrupt:
            print("late" if time.process_time() - sent > 1 else "in time")
        print(hex(Program(code).compile()(b"")))
        """
    )
    first, second = ended.split("\n")
    assert first == "in time"
    expected = 1
    for _ in range(300):
        for number in range(200):
            expected = (expected + number) % 2**64 ^ 3 * number
    assert int(second, 16) == expected


def test_nobody_is_left_behind():
    """Stopped thousands of times from several threads, with calls that begin all the time: none goes on."""
    function = compiled(FIRST_IS_ENDLESS, release_gil=True)
    ends, done = [], threading.Event()

    def work():
        while not done.is_set():
            try:
                function(b"\1")
            except Stopped:
                ends.append(None)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    started = time.process_time()
    while len(ends) < 20 and time.process_time() - started < 20:
        function.stop()
        time.sleep(0.01)
    done.set()
    while any(thread.is_alive() for thread in threads) and time.process_time() - started < 30:
        function.stop()
        time.sleep(0.01)
    assert len(ends) >= 20
    assert not any(thread.is_alive() for thread in threads)


def test_exits_are_not_swallowed(capfd):
    """SystemExit in a helper leaves the program as it is."""
    function = compiled("call 1\nexit", helpers={1: lambda *_: (_ for _ in ()).throw(SystemExit(4))})
    with pytest.raises(SystemExit) as raised:
        function(b"")
    assert raised.value.code == 4
    with pytest.raises(SystemExit):
        function.map([b"", b""], on_fault=0)
    assert os.getpid()
