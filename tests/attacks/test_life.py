"""What machine code points to stays where it is: for as long as a function can be called, and while it runs.

Whatever Python does meanwhile, from a helper, from another thread, at the interpreter's end; without ctypes.
What may crash runs in a process of its own.
"""

from __future__ import annotations

import copy
import functools
import gc
import mmap
import os
import pickle
import signal
import sys
import threading
from array import array
from typing import Any

import pytest

from ebpfjit import EbpfVmMbuff, EbpfVmRaw, JitFunction, MemoryFault, Program
from ebpfjit.assembler import assemble
from ebpfjit.runtime.maps import MapDefinition, MapType, create
from ebpfjit.sealed import Sealed, inside
from tests.attacks import children
from tests.support.whole import WHOLE

fresh_process = functools.partial(children.fresh_process, cold=False)

FIRST_BYTE = "ldxb r0, [r1]\nexit"
CALLS = "mov r6, r1\ncall 1\nldxb r0, [r6]\nexit"
"""Calls a helper, and reads its memory after it."""


def compiled(text: str, **options: Any) -> JitFunction:
    return Program.from_bytes(assemble(text)).compile(**options)


def typed(text: str, *maps: Any, **options: Any) -> JitFunction:
    return xdp(text, *maps).compile(**options)


def xdp(text: str, *maps: Any) -> Program:
    references = {0: maps[0].address} if maps else {}
    return Program(assemble(text), "main", "xdp", "xdp", references=references, maps=maps)


def make(kind: str, key: int = 4, value: int = 8, entries: int = 4, **more: Any) -> Any:
    return create(MapDefinition("m", MapType[kind], key, value, entries, **more))


# -- attributes -------------------------------------------------------------------------------------

ATTRIBUTES = """
    import gc, sys
    from ebpfjit import EbpfVmRaw, MemoryFault, Program
    from ebpfjit.assembler import assemble
    code = assemble("ldxb r0, [r1]\\nexit")
    function = Program.from_bytes(code).compile()
    typed = Program(code, "main", "xdp", "xdp").compile()
    plain = Program.from_bytes(code).compile(optimize=True)
    vm = EbpfVmRaw(code); vm.jit_compile()
    entry = vm.execute_program_jit.__self__
    buffer = plain.call.__self__
    known = ["gate", "keep", "optimize", "machine", "state", "_compiled", "_helpers", "_limit", "_stops",
             "_contents", "__weakref__", "__dict__", "__slots__", "__call__", "__class__", "stop", "call"]
    def attack(it):
        for name in {*known, *dir(it), *dir(type(it))}:
            for attempt in (lambda: setattr(it, name, ()), lambda: delattr(it, name),
                            lambda: object.__setattr__(it, name, None), lambda: object.__delattr__(it, name),
                            lambda: getattr(type(it), name).__set__(it, None),
                            lambda: getattr(type(it), name).__delete__(it)):
                try:
                    attempt()
                except (AttributeError, TypeError):
                    continue
                if name != "__module__":  # a text, of built-in functions
                    print("could", name, type(it))
    for it in (function, typed, plain, entry, vm.execute_program_jit, function.call):
        attack(it)
    gc.collect()
    filler = [b"A" * size for size in range(1, 300) for _ in range(300)]
    for it in (function, plain, entry, vm.execute_program_jit, function.call):
        assert it(b"\\5") == it(bytearray(b"\\5")) == it(memoryview(b"\\5")) == 5
        for odd in (lambda: it(1, 2, 3), lambda: it(**{"a": 1}), lambda: it(**{"": b""}), lambda: it(3.5)):
            try:
                odd()
            except TypeError:
                pass
            else:
                print("taken", it)
        try:
            it(b"")
        except MemoryFault:
            pass
    optimised = function.listing().partition("; baseline code")[0]
    print(list(function.map([b"\\1", b"\\2"])), optimised.count("ldxb"))
"""


@pytest.mark.parametrize("gate", ["native", "ctypes"])
def test_no_attribute_leads_to_what_machine_code_points_to(
    gate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ATTRIBUTES
    if gate == "ctypes":
        monkeypatch.setenv("EBPFJIT_GATE", "ctypes")
        source = source.replace("entry = vm.execute_program_jit.__self__", "entry = function")
        source = source.replace("buffer = plain.call.__self__", "")
        source = source.replace("vm.execute_program_jit, function.call)", "function)")
    assert fresh_process(source) == "[1, 2] 1"


def test_a_function_is_made_once():
    for function in (compiled(FIRST_BYTE), typed("mov r0, 2\nexit")):
        it = inside(function)
        with pytest.raises(TypeError, match="is made already"):
            function.__init__(it.plain)  # type: ignore[misc] # the attack
        with pytest.raises(TypeError):
            Sealed.__init__(function, 1)
        assert inside(function) is it


def test_one_that_was_only_allocated_cannot_be_called():
    function = compiled(FIRST_BYTE)
    for kind in (JitFunction, type(function)):
        empty = kind.__new__(kind)
        for use in (lambda e=empty: e(b"a"), lambda e=empty: e.map([b"a"]), empty.listing, empty.stop):
            with pytest.raises(TypeError, match="was not made by the library"):
                use()
        assert repr(empty)
        del empty
    with pytest.raises(TypeError):
        type("Sub", (type(function),), {})
    with pytest.raises(TypeError):
        function.__class__ = JitFunction


def test_copies_live_by_themselves():
    function = compiled(FIRST_BYTE)
    copies = [copy.copy(function), copy.deepcopy(function), pickle.loads(pickle.dumps(function))]
    del function
    gc.collect()
    assert [each(b"\7") for each in copies] == [7, 7, 7]


def test_maps_stay_as_they_are_made():
    table = make("HASH", 4, 8, 4)
    for name in ("storage", "regions", "address", "definition", "stride", "cpus", "value_is_stable"):
        with pytest.raises(AttributeError):
            setattr(table, name, None)
        with pytest.raises(AttributeError):
            delattr(table, name)
    for name in ("start", "stop", "writable", "view", "name"):
        with pytest.raises(AttributeError):
            setattr(table.regions[0], name, 0)
        with pytest.raises(AttributeError):
            delattr(table.regions[0], name)


def test_the_memory_of_maps_lives_as_long_as_code_that_points_there():
    """Even where the map's own attributes were taken away by force."""
    ended = fresh_process(
        """
        import gc
        from ebpfjit import Program
        from ebpfjit.assembler import assemble
        from ebpfjit.runtime.maps import MapDefinition, MapType, create
        text = ("lddw r1, map[idx:0]\\nstw [r10-4], 0\\nmov r2, r10\\nadd r2, -4\\ncall 1\\nmov r6, r0\\n"
                "mov r0, 9\\njeq r6, 0, +2\\nstdw [r6], 5\\nldxdw r0, [r6]\\nexit")
        functions = []
        for kind in ("ARRAY", "HASH"):
            for optimize in (None, True):
                table = create(MapDefinition("m", MapType[kind], 4, 8, 4096))
                table[0] = 1
                program = Program(assemble(text), "main", "xdp", "xdp",
                                  references={0: table.address}, maps=(table,))
                functions.append(program.compile(optimize=optimize))
                table.__dict__.clear()
                del table, program
        gc.collect()
        filler = [bytearray(1 << 20) for _ in range(50)]
        for function in functions:
            try:
                print(function(bytes(60)), end=" ")
            except AttributeError:  # of the map, where a helper in Python asks it
                print("taken", end=" ")
        """
    )
    assert len(ended.split()) == 4
    assert set(ended.split()) <= {"5", "taken"}


# -- programs that are changed behind the engines' back ----------------------------------------------


def test_a_program_is_compiled_again_as_it_was_verified():
    """Instructions are values for the type checker only; what is optimised later is what was verified."""
    program = Program.from_bytes(assemble("mov r3, 3\nldxb r0, [r1]\nadd r0, r3\nexit"))
    function = program.compile()
    for instruction in program.instructions:
        instruction.imm, instruction.offset, instruction.dst_reg = 77, 4096, 5
    program.__dict__["words"] = (0,) * 4
    program.__dict__["code"] = bytes(32)
    program.symbols[2] = "elsewhere"
    assert function(b"\1") == 4
    function.listing()  # optimises it
    assert function.is_optimized
    assert function(b"\1") == 4
    with pytest.raises(MemoryFault):
        function(b"")


def test_references_are_those_that_were_verified():
    table = make("ARRAY", 4, 8, 1)
    program = xdp("lddw r1, map[idx:0]\nmov r0, 1\nexit", table)
    function = program.compile()
    program.references[0] = 0xDEAD0000
    before = function.listing()
    assert "0xdead0000" not in before.lower()
    assert function(bytes(60)) == 1


def test_a_machine_gives_out_its_own_program_only():
    vm = EbpfVmRaw(assemble(FIRST_BYTE))
    assert vm.program is not None
    vm.program.instructions[0].offset = 1 << 14
    vm.jit_compile()
    assert vm.execute_program_jit(b"\3") == vm.execute_program(b"\3") == 3
    vm.listing()
    with pytest.raises(MemoryFault):
        vm.execute_program_jit(b"")


# -- helpers that pull the ground away ---------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"release_gil": True}, {"harden": True}])
def test_a_helper_drops_the_function_that_called_it(options: dict[str, Any]):
    held: list[Any] = []

    def helper(*_: int) -> int:
        held.clear()
        gc.collect()
        bytearray(1 << 22)
        return 1

    for _ in range(3):
        held.append(compiled(CALLS, helpers={1: helper}, **options))
        assert held[0](b"\6") == 6
        held.append(compiled(CALLS, helpers={1: helper}, **options))
        assert list(held[0].map([b"\6", b"\7", bytearray(b"\5")])) == [6, 7, 5]
        held.append(compiled(CALLS, helpers={1: helper}, **options))
        assert list(map(held[0], [b"\6", b"\7"])) == [6, 7]


def test_a_helper_drops_itself_and_its_map():
    held: dict[str, Any] = {}

    def helper(*_: int) -> int:
        held.clear()
        gc.collect()
        return 3

    held["map"] = make("HASH", 4, 8, 64)
    held["map"][0] = 11
    text = (
        "lddw r1, map[idx:0]\nstw [r10-4], 0\nmov r2, r10\nadd r2, -4\ncall 1\nmov r6, r0\nmov r0, 9\n"
        "jeq r6, 0, end\ncall 200000\nldxdw r0, [r6]\nend: exit"
    )
    held["function"] = typed(text, held["map"], helpers={200000: helper})
    assert held["function"](bytes(60)) == 11


@pytest.mark.parametrize("kind", ["ARRAY_OF_MAPS", "HASH_OF_MAPS"])
@pytest.mark.parametrize("engine", ["jit", "interpreter"])
def test_an_inner_map_taken_out_while_a_run_holds_its_value(kind: str, engine: str):
    """Its memory stays for the rest of the run; a fault would do as well, other bytes would not."""
    template = MapDefinition("i", MapType.ARRAY, 4, 8, 1)
    outer = make(kind, 4, 4, 2, inner=template)
    outer[0] = create(template)
    outer[0][0] = 21

    def helper(*_: int) -> int:
        del outer[0]
        gc.collect()
        keep.extend(mmap.mmap(-1, 1 << 16) for _ in range(8))
        return 0

    keep: list[Any] = []
    text = (
        "lddw r1, map[idx:0]\nstw [r10-4], 0\nmov r2, r10\nadd r2, -4\ncall 1\nmov r6, 9\njeq r0, 0, end\n"
        "mov r1, r0\nmov r2, r10\nadd r2, -4\ncall 1\njeq r0, 0, end\nmov r6, r0\ncall 200000\n"
        "ldxdw r6, [r6]\nend: mov r0, r6\nexit"
    )
    program = xdp(text, outer)
    if engine == "jit":
        assert program.compile(helpers={200000: helper})(bytes(60)) == 21
    else:
        from ebpfjit.ready import ready

        ready(program).helpers = {**ready(program).helpers, 200000: helper}
        assert program.run(bytes(60), engine="interpreter").return_value == 21


def test_a_map_is_cleared_while_a_run_holds_a_value():
    table = make("HASH", 4, 8, 4)
    table[0] = 5

    def helper(*_: int) -> int:
        table.clear()
        for key in range(4):
            table[key] = 100 + key
        return 0

    text = (
        "lddw r1, map[idx:0]\nstw [r10-4], 0\nmov r2, r10\nadd r2, -4\ncall 1\nmov r6, r0\ncall 200000\n"
        "jeq r6, 0, end\nldxdw r6, [r6]\nend: mov r0, r6\nexit"
    )
    assert typed(text, table, helpers={200000: helper})(bytes(60)) in range(100, 104)


@pytest.mark.parametrize("engine", ["execute_program", "execute_program_jit"])
def test_the_machine_is_changed_in_the_middle_of_its_run(engine: str):
    vm = EbpfVmMbuff(assemble("mov r6, r1\ncall 1\nldxb r0, [r6]\nadd r0, r7\nexit"))

    def helper(*_: int) -> int:
        vm.set_program(assemble("mov r0, 99\nexit"))
        vm.jit_compile()
        vm.register_helper(1, lambda *_: 0)
        vm.register_allowed_memory(bytearray(64))
        vm.instruction_limit = 5
        gc.collect()
        return vm.execute_program(b"a", b"a")

    for _ in range(2):
        vm.set_program(assemble("mov r6, r1\ncall 1\nldxb r0, [r6]\nexit"))
        vm.register_helper(1, helper)
        vm.instruction_limit = None
        vm.jit_compile()
        assert getattr(vm, engine)(b"a", b"\4") == 4


def test_the_machine_is_changed_from_another_thread():
    vm = EbpfVmRaw(assemble("mov r3, 3000\nsub r3, 1\njne r3, 0, -2\nldxb r0, [r1]\nexit"))
    vm.jit_compile()
    done, wrong = threading.Event(), []

    def work() -> None:
        while not done.is_set():
            try:
                value = vm.execute_program_jit(b"\4")
            except Exception as error:
                wrong.append(error)
                return
            if value not in (4, 5):
                wrong.append(value)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(40):
        vm.set_program(assemble(f"mov r3, {3000 + number}\nsub r3, 1\njne r3, 0, -2\nldxb r0, [r1]\nexit"))
        vm._compile_wanted = True
        vm.jit_compile()
        vm.instruction_limit = 1 << 40
        vm.register_allowed_memory(bytearray(16))
    done.set()
    for thread in threads:
        thread.join()
    wrong = [each for each in wrong if "is not compiled" not in str(each)]  # between the two calls
    assert not wrong


BUFFERS: dict[str, Any] = {
    "bytearray": (lambda: bytearray(b"\6" * 64), lambda it: it.extend(bytes(1 << 16))),
    "bytearray, cleared": (lambda: bytearray(b"\6" * 64), lambda it: it.clear()),
    "array": (lambda: array("B", b"\6" * 64), lambda it: it.extend(bytes(1 << 16))),
    "memoryview": (lambda: memoryview(bytearray(b"\6" * 64)), lambda it: it.release()),
    "mmap": (lambda: _mapped(), lambda it: it.close()),
    "mmap, resized": (lambda: _mapped(), lambda it: it.resize(1 << 16)),
}


def _mapped() -> mmap.mmap:
    memory = mmap.mmap(-1, 64)
    memory.write(b"\6" * 64)
    return memory


@pytest.mark.parametrize("how", ["call", "unlocked", "map", "stride", "machine", "interpreter"])
@pytest.mark.parametrize("name", BUFFERS)
def test_buffers_cannot_go_while_a_program_works_on_them(name: str, how: str):
    fresh, attack = BUFFERS[name]
    buffer, held = fresh(), []

    def helper(*_: int) -> int:
        try:
            attack(buffer)
        except (BufferError, ValueError, SystemError):
            held.append(True)
        return 0

    function = compiled(CALLS, helpers={1: helper}, release_gil=how == "unlocked")
    vm = EbpfVmRaw(assemble(CALLS))
    vm.register_helper(1, helper)
    vm.jit_compile()
    runs = {
        "map": lambda: function.map([buffer, buffer])[1],
        "stride": lambda: function.map(buffer, stride=32)[1],
        "machine": lambda: vm.execute_program_jit(buffer),
        "interpreter": lambda: vm.execute_program(buffer),
    }
    assert runs.get(how, lambda: function(buffer))() == 6
    assert held or name == "memoryview"  # another one of the same memory holds it
    runs.clear()
    if name == "bytearray":
        buffer.extend(b"a")  # nothing is held for ever


# -- what helpers raise and return -------------------------------------------------------------------


@pytest.mark.parametrize(
    "raised", [KeyboardInterrupt, SystemExit, GeneratorExit, RecursionError, StopIteration]
)
def test_what_a_helper_raises_comes_out_as_it_is(raised: type[BaseException]):
    error = raised("it")

    def helper(*_: int) -> int:
        raise error

    function = compiled(CALLS, helpers={1: helper})
    vm = EbpfVmRaw(assemble(CALLS))
    vm.register_helper(1, helper)
    vm.jit_compile()
    for run in (function, vm.execute_program_jit, vm.execute_program, lambda it: function.map([it])):
        with pytest.raises(raised) as seen:
            run(b"a")
        assert seen.value is error


class Odd(int):
    def __index__(self) -> int:
        gc.collect()
        return 44


@pytest.mark.parametrize(
    "value",
    [-1, 1 << 64, (1 << 200) + 9, -(1 << 70), True, 1.5, None, "7", b"7", Odd(3), 1j, object(), [], -(2**63)],
)
def test_what_a_helper_returns_means_the_same_on_both_engines(value: Any):
    def outcome(run: Any) -> Any:
        try:
            return run(b"a")
        except Exception as error:
            return type(error)

    vm = EbpfVmRaw(assemble("call 1\nexit"))
    vm.register_helper(1, lambda *_: value)
    vm.jit_compile()
    function = compiled("call 1\nexit", helpers={1: lambda *_: value})
    expected = outcome(vm.execute_program)
    assert outcome(vm.execute_program_jit) == outcome(function) == expected
    assert outcome(lambda it: function.map([it])[0]) == expected


def test_recursion_that_ends_in_an_error():
    def helper(*_: int) -> int:
        return function(b"a")

    function = compiled(CALLS, helpers={1: helper})
    with pytest.raises(RecursionError):
        function(b"a")


def test_helpers_that_are_generators_and_calls_from_them():
    function = compiled(CALLS, helpers={1: lambda *_: next(steps)})

    def generate() -> Any:
        for number in range(5):
            yield number
            plain(b"a")

    plain, steps = compiled(FIRST_BYTE), generate()
    assert [function(b"\3") for _ in range(5)] == [3] * 5
    with pytest.raises(StopIteration):
        function(b"\3")


def test_tracing_profiling_and_the_collector():
    events = []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        events.append(event)
        gc.collect(0)
        return trace

    function = compiled(CALLS, helpers={1: lambda *_: len([[] for _ in range(5)])})
    for install, remove in ((sys.settrace, sys.gettrace()), (sys.setprofile, sys.getprofile())):
        install(trace)
        try:
            assert [function(b"\2") for _ in range(20)] == [2] * 20
            assert list(function.map([b"\2"] * 20)) == [2] * 20
        finally:
            install(remove)
    assert events


def test_functions_as_hooks_of_the_interpreter():
    """A function that is called through a borrowed reference, and takes itself out of there meanwhile."""
    ended = fresh_process(
        """
        import gc, signal, sys, weakref
        from ebpfjit import Program
        from ebpfjit.assembler import assemble
        def remove(*_):
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            gc.collect()
            return 1
        def hook():
            return Program.from_bytes(assemble("mov r6, r1\\ncall 1\\nmov r0, 4\\nexit")).compile(
                helpers={1: remove})
        class Box: pass
        box = Box()
        reference = weakref.ref(box, lambda _: hook()(b"a"))
        del box
        class Descriptor:
            def __set_name__(self, owner, name): hook()(b"a")
            def __del__(self): hook()(b"a")
        class Owner: it = Descriptor()
        del Owner
        gc.collect()
        signal.signal(signal.SIGUSR1, lambda *_: hook()(b"a"))
        signal.raise_signal(signal.SIGUSR1)
        print(sorted([3, 1], key=lambda n: hook()(b"a")))
        """
    )
    assert ended == "[3, 1]"


# -- fork --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"release_gil": True}])
def test_a_helper_forks(options: dict[str, Any]):
    def helper(*_: int) -> int:
        children.append(os.fork())
        if not children[-1]:
            gc.collect()
        return 1

    children: list[int] = []
    function = compiled(CALLS, helpers={1: helper}, **options)
    plain = compiled(FIRST_BYTE)
    value = function(b"\6")
    if not children[-1]:
        signal.alarm(20)
        good = value == 6 and plain(b"\5") == 5 and compiled("mov r0, 3\nexit")(b"") == 3
        children.clear()
        nested = compiled(CALLS, helpers={1: lambda *_: plain(b"\2")})
        os._exit(0 if good and nested(b"\1") == 1 else 1)
    assert value == 6
    assert os.waitpid(children[-1], 0)[1] == 0


def test_the_parent_forks_while_threads_run_machine_code():
    ended = fresh_process(
        """
        import os, signal, threading
        from ebpfjit import Program, Stopped
        from ebpfjit.assembler import assemble
        endless = assemble("mov r0, 0\\nadd r0, 1\\nja -2\\nexit")
        program = Program.from_bytes(endless)
        functions = [program.compile(release_gil=unlocked) for unlocked in (True, False, True)]
        calls = Program.from_bytes(assemble("call 1\\nja -2\\nexit")).compile(helpers={1: lambda *_: 1})
        def work(function):
            try:
                function(b"")
            except Stopped:
                pass
        threads = [threading.Thread(target=work, args=(f,)) for f in (*functions, calls)]
        for thread in threads: thread.start()
        seen = set()
        for _ in range(10):
            child = os.fork()
            if not child:
                signal.alarm(20)
                for function in functions: function.stop()
                new = Program.from_bytes(assemble("call 1\\nadd r0, 2\\nexit"))
                fn = new.compile(helpers={1: lambda *_: 5})
                os._exit(0 if fn(b"") == 7 else 1)
            seen.add(os.waitpid(child, 0)[1])
        for function in (*functions, calls): function.stop()
        for thread in threads: thread.join()
        print(seen)
        """
    )
    assert ended == "{0}"


@pytest.mark.parametrize("first", ["gate.set_words(heat=1)", "gate.shorten(9)"])
def test_the_parent_forks_while_a_thread_compiles_what_has_become_hot(first: str):
    ended = fresh_process(
        f"""
        import os, signal, threading
        os.environ["EBPFJIT_TIERS"] = "on"
        from ebpfjit import Program
        from ebpfjit.assembler import assemble
        from ebpfjit.jit import callables
        from ebpfjit.sealed import inside
        text = "r0 = 0\\nr0 += 1\\nif r0 < 3000000 goto -2\\nexit"
        function = Program.from_bytes(assemble(text)).compile()
        gate = inside(function).gate
        {first}
        better, begun, forked = callables._better, threading.Event(), threading.Event()
        def slowly(*given):
            begun.set()
            forked.wait()
            return better(*given)
        callables._better = slowly
        thread = threading.Thread(target=function, args=(b"",))
        thread.start()
        begun.wait()
        child = os.fork()
        if not child:
            signal.alarm(20)
            callables._better = better
            os._exit(0 if function(b"") == 3000000 else 1)
        ended = os.waitpid(child, 0)[1]
        forked.set()
        thread.join()
        print(ended)
        """
    )
    assert ended == "0"


# -- the end of the interpreter ----------------------------------------------------------------------

THREADS = """
    import atexit, gc, sys, threading, time
    from ebpfjit import EbpfVmNoData, Program
    from ebpfjit.assembler import assemble
    from ebpfjit.runtime.maps import MapDefinition, MapType, create
    endless = assemble("mov r0, 0\\nldxb r3, [r1]\\nadd r0, 1\\nja -3\\nexit")
    table = create(MapDefinition("m", MapType.HASH, 4, 8, 1 << 16))
    text = ("lddw r1, map[idx:0]\\nstw [r10-4], 0\\nmov r2, r10\\nadd r2, -4\\ncall 1\\n"
            "ja -7\\nexit")
    lookups = Program(assemble(text), "main", "xdp", "xdp", references={0: table.address}, maps=(table,))
    table[0] = 1
    def make(n):
        if n % 4 == 0: return lambda f=Program.from_bytes(endless).compile(release_gil=True): f(b"a" * 5000)
        if n % 4 == 1: return lambda f=Program.from_bytes(endless).compile(): f(bytearray(b"a" * 5000))
        if n % 4 == 2: return lambda f=lookups.compile(release_gil=True): f(bytes(60))
        calls = Program.from_bytes(assemble("call 1\\nja -2\\nexit"))
        f = calls.compile(helpers={1: lambda *_: 1}, release_gil=n > 4)
        return lambda: f.map([b"a", b"b"])
    threads = [threading.Thread(target=make(n), daemon=True) for n in range(8)]
    for thread in threads: thread.start()
    time.sleep(0.05)
    END
"""


@pytest.mark.parametrize(
    "end",
    [
        "pass",
        "del table, lookups, make, Program; gc.collect()",
        "atexit.register(gc.collect); sys.exit(0)",
        "from ebpfjit.jit import gate, routines; [vars(m).clear() for m in (gate, routines)]; gc.collect()",
    ],
)
def test_the_interpreter_ends_while_daemon_threads_run_machine_code(end: str):
    for _ in range(3 if WHOLE else 1):
        fresh_process(THREADS.replace("END", end), seconds=60)


def test_calls_while_everything_is_taken_apart():
    """Objects that call functions as they go, in whatever order modules and globals go."""
    ended = fresh_process(
        """
        import atexit, sys
        from ebpfjit import EbpfVmRaw, Program
        from ebpfjit.assembler import assemble
        code = assemble("mov r6, r1\\ncall 1\\nldxb r0, [r6]\\nexit")
        class Last:
            def __init__(self, **options):
                self.function = Program.from_bytes(code).compile(helpers={1: lambda *_: 1}, **options)
                self.vm = EbpfVmRaw(code); self.vm.register_helper(1, lambda *_: 1); self.vm.jit_compile()
                self.me = self
            def __del__(self):
                for use in (lambda: self.function(b"a"), lambda: self.function(bytearray(b"a")),
                            lambda: self.function(b""), lambda: self.function.map([b"a"] * 3),
                            lambda: self.vm.execute_program_jit(b"a"), lambda: self.function.listing(),
                            lambda: self.function(1, 2), lambda: self.function.stop()):
                    try:
                        use()
                    except Exception:
                        pass
        first = Last()
        sys.modules["zzz"] = Last(release_gil=True)
        sys.hidden = Last(optimize=True)
        import builtins; builtins.hidden = Last(harden=True)
        atexit.register(Last().function, b"a")
        print("done", flush=True)
        """
    )
    assert ended == "done"


def test_a_helper_exits():
    ended = fresh_process(
        """
        import sys
        from ebpfjit import Program
        from ebpfjit.assembler import assemble
        print("before", flush=True)
        Program.from_bytes(assemble("call 1\\nexit")).compile(helpers={1: lambda *_: sys.exit(0)})(b"a")
        print("after")
        """
    )
    assert ended == "before"


def test_subinterpreters_work_or_say_that_they_do_not():
    ended = fresh_process(
        """
        import sys, textwrap
        from ebpfjit import Program
        from ebpfjit.assembler import assemble
        fn = Program.from_bytes(assemble("call 1\\nadd r0, 1\\nexit")).compile(helpers={1: lambda *_: 6})
        assert fn(b"a") == 7
        source = textwrap.dedent('''
            try:
                from ebpfjit import EbpfError, Program
                from ebpfjit.assembler import assemble
            except ImportError:
                pass
            else:
                try:
                    fn = Program.from_bytes(assemble("call 1\\\\nadd r0, 1\\\\nexit")).compile(
                        helpers={1: lambda *_: 6})
                    assert fn(b"a") == 7
                    assert fn(bytearray(b"a")) == 7
                    assert list(fn.map([b"a"] * 3)) == [7] * 3
                except EbpfError:
                    pass
        ''')
        for name in ("_interpreters", "_xxsubinterpreters"):
            try:
                interpreters = __import__(name)
            except ImportError:
                continue
            for _ in range(3):
                it = interpreters.create()
                error = interpreters.run_string(it, source)
                assert not error, error
                interpreters.destroy(it)
                assert fn(b"a") == 7
            break
        print(fn(b"a"), list(fn.map([b"a"] * 2)))
        """
    )
    assert ended == "7 [7, 7]"
