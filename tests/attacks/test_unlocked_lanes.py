"""Programs on packets that run without Python's lock, several at once: each has a lane of its own.

Where there are more runs than lanes, calls are prepared in Python. Nothing of one run is seen in another.
"""

from __future__ import annotations

import pytest

from ebpfjit.compiling import UNLOCKED_LANES
from ebpfjit.jit import gate
from tests.attacks.children import fresh_process
from tests.support.whole import WHOLE

pytestmark = pytest.mark.skipif(bool(gate.why_not()), reason=f"no native gate: {gate.why_not()}")

START = f"""
import os, signal, sys, threading
from ebpfjit import Changed, MemoryFault, Stopped
from ebpfjit.sealed import inside
from tests.unit.test_lanes import program
LANES = {UNLOCKED_LANES}
TIMES = {3 if WHOLE else 1}
"""
START += '''
sys.setswitchinterval(1e-5)

# Turns the packet over in place, many times; its first byte says how far behind its end it reads then.
TURN = """
    mov r6, r1
    ldxw r7, [r6+0]
    ldxw r8, [r6+4]
    mov r9, 31
again:
    mov r1, r7
    mov r2, r8
next:
    sub r2, 1
    jge r1, r2, turned
    ldxb r3, [r1]
    ldxb r4, [r2]
    stxb [r1], r4
    stxb [r2], r3
    add r1, 1
    ja next
turned:
    sub r9, 1
    jne r9, 0, again
    mov r0, 0
    mov r1, r7
sum:
    jge r1, r8, summed
    mul r0, 31
    ldxb r2, [r1]
    add r0, r2
    add r1, 1
    ja sum
summed:
    ldxb r2, [r8-1]
    jne r2, 255, out
    ldxb r0, [r8]
out:
    exit
"""

def packet(number, size=200):
    """One whose last byte is its first afterwards: 255 is a fault."""
    return bytes([255 if number % 5 == 4 else number % 5, *(number * 7 + i & 0xFF for i in range(size - 1))])

def wanted(data):
    if data[0] == 255:
        return None
    value = 0
    for byte in reversed(data):
        value = value * 31 + byte & 0xFFFFFFFF
    return value

def called(function, data):
    try:
        return function(data)
    except MemoryFault:
        return None

def together(works):
    """Run functions in threads that begin at once; what one raises is raised here."""
    barrier, errors = threading.Barrier(len(works)), []
    def do(work):
        try:
            barrier.wait()
            work()
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=do, args=(work,)) for work in works]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    if errors:
        raise errors[0]

def free(function):
    """True where no run is in a lane of the function's."""
    return not any(each.lane.word("busy") for each in inside(function).gate.chain)
'''

BUILDS = ("optimize=True", "optimize=False", "audit=True", "")


@pytest.mark.parametrize("build", BUILDS)
def test_calls_of_many_threads(build: str) -> None:
    """Faults in some; more threads than lanes; some tier up meanwhile."""
    ended = fresh_process(
        START
        + f"""
for kind in ("xdp", "tc"):
    text = TURN if kind == "xdp" else TURN.replace("[r6+0]", "[r6+76]").replace("[r6+4]", "[r6+80]")
    function = program(text, type=kind).compile(release_gil=True, {build})
    gate = inside(function).gate
    assert len(list(gate.chain)) == LANES
    if gate.better is not None:
        gate.set_words(heat=200_000)
    def work(first):
        for number in range(first, first + 50 * TIMES):
            data = packet(number)
            found = called(function, data if number % 2 else bytearray(data))
            assert found == wanted(data), (number, found, wanted(data))
    for threads in (8, 2 * LANES + 3):
        together([lambda first=first: work(first) for first in range(0, 400 * threads, 400)])
    assert free(function)
    print(function.is_optimized)
""",
        cold=False,
    )
    assert ended.split() == [str(build != "optimize=False")] * 2


@pytest.mark.parametrize("build", BUILDS)
def test_structs_of_many_threads(build: str) -> None:
    """Without a packet the struct is the lane's: a run reads its own again and again."""
    ended = fresh_process(
        START
        + f"""
text = "mov r9, 2000\\nmov r0, 0\\nagain: ldxdw r2, [r1+8]\\nadd r0, r2\\nsub r9, 1\\njne r9, 0, again\\nexit"
function = program(text, type="kprobe").compile(release_gil=True, {build})
assert len(list(inside(function).gate.chain)) == LANES
def work(first):
    structs = [number.to_bytes(8, "little") * 21 for number in range(first, first + 200)]
    results = [2000 * number & 0xFFFFFFFF for number in range(first, first + 200)]
    assert [function(each) for each in structs] == results
    assert list(function.map(structs)) == results
together([lambda first=first: work(first) for first in range(0, 900 * (LANES + 3), 900)])
assert free(function)
print("right")
""",
        cold=False,
    )
    assert ended == "right"


@pytest.mark.parametrize("build", BUILDS)
def test_batches_of_many_threads(build: str) -> None:
    ended = fresh_process(
        START
        + f"""
function = program(TURN).compile(release_gil=True, {build})
def work(first):
    packets = [packet(number, 100 + number % 50) for number in range(first, first + 170 * TIMES)]
    filled = [(1 << 64) - 1 if (value := wanted(each)) is None else value for each in packets]
    for _ in range(3):
        faults, changed = [], Changed()
        assert list(function.map(packets, on_fault=-1)) == filled
        assert list(function.map(packets, on_fault=-1, faults=faults, changed=changed)) == filled
        assert len(faults) == filled.count((1 << 64) - 1)
        assert [bytes(one) for one in changed] == [b"" if one[0] == 255 else one[::-1] for one in packets]
together([lambda first=first: work(first) for first in range(0, 600 * (LANES + 3), 600)])
assert free(function)
print("right")
""",
        cold=False,
    )
    assert ended == "right"


def test_runs_inside_of_runs_have_lanes_of_their_own() -> None:
    """Deeper than there are lanes, from several threads; each sees its packet again behind the helper."""
    ended = fresh_process(
        START
        + """
text = "mov r6, r1\\nldxw r7, [r6]\\nldxb r1, [r7]\\ncall 200000\\nldxw r7, [r6]\\nldxb r1, [r7]\\n"
text += "lsh r1, 8\\nor r0, r1\\nexit"
local = threading.local()
def helper(first, *_):
    local.seen.append(first)
    if first % 32 == 20:
        return first
    inner = function(bytes([first + 1]) + bytes(59))
    assert inner >> 8 == first + 1
    return inner & 0xFF
function = program(text).compile(release_gil=True, helpers={200000: helper})
def work(first):
    for _ in range(10 * TIMES):
        local.seen = []
        assert function(bytes([first]) + bytes(59)) == first << 8 | first + 20
        assert list(function.map([bytes([first]) + bytes(59)] * 2)) == [first << 8 | first + 20] * 2
        assert local.seen == [*range(first, first + 21)] * 3
together([lambda first=first: work(first) for first in range(0, 224, 32)])
assert free(function)
print("right")
""",
        cold=False,
    )
    assert ended == "right"


def test_stopped_and_raising_runs_give_their_lanes_back() -> None:
    ended = fresh_process(
        START
        + """
endless = program("call 200000\\nagain: ja again", type="xdp").compile(
    release_gil=True, helpers={200000: lambda *_: inside_of.release() or 0}
)
inside_of = threading.Semaphore(0)
def stopped():
    try:
        endless(bytes(60))
    except Stopped:
        return
    raise AssertionError("it ended")
def stop():
    for _ in range(LANES + 2):
        inside_of.acquire()
    assert [each.lane.word("busy") for each in inside(endless).gate.chain] == [1] * LANES
    other = program(TURN).compile(release_gil=True)
    for number in range(20):
        assert called(other, packet(number)) == wanted(packet(number))
        assert list(other.map([packet(number)], on_fault=0)) == [wanted(packet(number)) or 0]
    endless.stop()
together([stop, *[stopped] * (LANES + 2)])
assert free(endless)
def raising(*_):
    raise KeyError("mine")
raises = program("call 200000\\nexit").compile(release_gil=True, helpers={200000: raising})
for _ in range(3 * LANES):
    for way in (raises, lambda data: raises.map([data])):
        try:
            way(bytes(60))
        except KeyError:
            continue
        raise AssertionError("it returned")
assert free(raises)
try:
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    program("again: ja again").compile(release_gil=True)(bytes(60))
except KeyboardInterrupt:
    assert free(raises)
    print("right")
""",
        cold=False,
    )
    assert ended == "right"


def test_a_child_process_runs_on_while_the_parents_runs_are_in_lanes() -> None:
    ended = fresh_process(
        START
        + """
inside_of = threading.Semaphore(0)
endless = program("call 200000\\nagain: ja again").compile(
    release_gil=True, helpers={200000: lambda *_: inside_of.release() or 0}
)
function = program(TURN).compile(release_gil=True)
def run():
    try:
        endless(bytes(60))
    except Stopped:
        pass
def fork():
    for _ in range(LANES):
        inside_of.acquire()
    child = os.fork()
    if not child:
        signal.alarm(30)
        numbers = range(40)
        good = all(called(function, packet(number)) == wanted(packet(number)) for number in numbers)
        os._exit(0 if good else 1)
    status = os.waitpid(child, 0)[1]
    endless.stop()
    assert not status
together([fork, *[run] * LANES])
print("right")
""",
        cold=False,
    )
    assert ended == "right"
