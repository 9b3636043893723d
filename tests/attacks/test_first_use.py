"""What a process makes once is one thing, whoever asks first: threads, a signal handler, a forked child.

Machine code holds addresses of such things; one that is made twice goes away while it is in use.
"""

from __future__ import annotations

import ast
import os
import threading
import time
from pathlib import Path

import pytest

import ebpfjit
from ebpfjit.once import ForkLock, once
from tests.attacks.children import fresh_process

ROOT = Path(ebpfjit.__file__).resolve().parent

HOLDERS = ("jit", "translators", "runtime", "runner.py", "function.py", "vm.py", "machine.py", "interpreter")
"""Where results may be what machine code points to: nothing of functools is used there."""
ELSEWHERE_UNMINDED = ("kernel", "difftest", "bench", "cli")
"""These hold file descriptors and numbers; machine code points to nothing of theirs."""

TABLES = {
    "jit/callables.py": {"_specs"},  # only grows
    "jit/routines.py": {"_provided"},  # an image, before it is in memory
    "jit/gate.py": {
        "_gates",  # weak, by the address of a state that its gate keeps
        "_spaces",  # by the address of a run's block, which its thread alone uses
        "takers",  # by the address of a batch, the same
    },
    "runtime/maps/hash.py": {"_shared"},  # weak, and changed under the lock that `list` of it is made under
    "translators/registry.py": {"_TRANSLATORS"},  # filled while modules are imported
    "runtime/kfuncs/table.py": {"_registered"},  # as the helpers', under one lock
    "jit/perf.py": {"_dumps"},  # under a lock
    "runtime/counters.py": {"_all", "at_exit"},  # only grow, a step at a time
    "runtime/timers.py": {"_with_timers"},  # each use of it is one step
    "runtime/helpers/table.py": {"_registered"},  # the same
    "runtime/attach.py": {"_DEFAULTS"},  # the same
    "interpreter/steps.py": {"DECODERS"},  # the same
}
"""The tables that modules fill as they go, each with why two threads do no harm to it.

A `Memo` needs none: what it holds follows from the key, and equal values are as good."""


def _sources():
    for path in sorted([*ROOT.rglob("*.py"), *(ROOT / "translators").resolve().rglob("*.py")]):
        translators = (ROOT / "translators").resolve()
        name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.relative_to(translators.parent)
        yield str(name), path.read_text()


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _is_in(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}/") for place in places)


def _caches(sources):
    """Yield (module, function) for each function whose results functools keeps."""
    for name, tree in sources:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and {"cache", "lru_cache"} & set(
                map(_name, node.decorator_list)
            ):
                yield name, node


def _imports(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def _can_make(tree: ast.Module) -> bool:
    """True for a module that can make what has an address: it needs one of these."""
    return any(
        name in ("ctypes", "mmap") or name.startswith(("ebpfjit.jit", "ebpfjit.runtime", "ebpfjit.runner"))
        for name in _imports(tree)
    )


def test_no_maker_is_kept_by_functools():
    """`functools.cache` makes twice what two threads ask for at once: `ebpfjit.once` is there for that."""
    sources = dict(_sources())
    assert "translators/x86_64/gate.py" in sources
    assert _can_make(ast.parse(sources["jit/routines.py"]))
    trees = {name: ast.parse(text) for name, text in sources.items() if "cache" in text}
    wrong = [
        f"{name}: {node.name}"
        for name, node in _caches(trees.items())
        if _is_in(name, HOLDERS) or (_can_make(trees[name]) and not _is_in(name, ELSEWHERE_UNMINDED))
    ]
    assert not wrong, "use ebpfjit.once.once in place of functools.cache"


def _empty_tables(tree: ast.Module) -> set[str]:
    """Return the module's own names for containers that start empty, so that something fills them."""
    found = set()
    for node in tree.body:
        value = getattr(node, "value", None)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        empty = (isinstance(value, ast.Dict) and not any(value.keys)) or (
            isinstance(value, ast.List | ast.Tuple) and not value.elts and isinstance(value, ast.List)
        )
        called = isinstance(value, ast.Call) and not value.args and not value.keywords
        named = called and _name(value) in {"dict", "list", "set", "defaultdict", "OrderedDict"}
        weak = isinstance(value, ast.Call) and _name(value).startswith("Weak")
        if empty or named or weak:
            found.update(target.id for target in targets if isinstance(target, ast.Name))
    return found


def test_every_table_that_is_filled_later_is_known():
    """A new table in a module that runs depend on is looked at by somebody: may two threads fill it?"""
    found = {
        name: tables
        for name, text in _sources()
        if _is_in(name, HOLDERS) and (tables := _empty_tables(ast.parse(text)))
    }
    assert found == TABLES


# -- once -----------------------------------------------------------------------------------------


def test_two_threads_get_the_same_object():
    made, barrier = [], threading.Barrier(8)

    @once
    def thing(name: str) -> object:
        time.sleep(0.01)  # long enough for all of them to ask
        made.append(name)
        return object()

    seen = []

    def ask():
        barrier.wait()
        seen.append(thing("a"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == ["a"]
    assert len(set(map(id, seen))) == 1
    assert thing("b") is not thing("a")


def test_entered_again_while_it_runs_the_inner_result_is_everybodys():
    """A finalizer or a signal handler may ask for what is being made: it has handed the result out."""
    inner = []

    @once
    def thing() -> object:
        if not inner:
            inner.append(None)
            inner.append(thing())
        return object()

    assert thing() is inner[1] is thing()


def test_what_raises_is_tried_again():
    tries = []

    @once
    def thing() -> int:
        tries.append(None)
        if len(tries) == 1:
            raise OSError("not yet")
        return 7

    with pytest.raises(OSError, match="not yet"):
        thing()
    assert [thing(), thing(), len(tries)] == [7, 7, 2]


def test_a_child_does_not_wait_for_a_thread_that_is_not_there():
    """A lock that another thread holds while the process forks is free in the child."""
    entered, leave = threading.Event(), threading.Event()

    @once
    def slow() -> int:
        entered.set()
        leave.wait(30)
        return 1

    @once
    def quick() -> int:
        return 2

    thread = threading.Thread(target=slow)
    thread.start()
    entered.wait(30)
    child = os.fork()
    if not child:
        started = time.monotonic()
        os._exit(0 if quick() == 2 and time.monotonic() - started < 25 else 1)  # it would wait for 30
    status = os.waitpid(child, 0)[1]
    leave.set()
    thread.join()
    assert status == 0


def test_a_lock_held_by_the_thread_that_forks_stays_its_own():
    lock = ForkLock()
    with lock.held:
        child = os.fork()
        if not child:
            lock.release()  # raises where it was renewed
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_a_child_of_threads_that_compile_can_compile():
    """Forked at any moment of other threads' compiling: no lock is held for ever, no table half written.

    All modules are there: CPython does not let a child import what another thread was importing.
    """
    ended = fresh_process(
        """
        import os, signal, sys, threading
        from ebpfjit import Program
        from ebpfjit.assembler import assemble
        Program(assemble("mov r0, 0\\nexit")).compile().listing()
        done = threading.Event()
        def work(number):
            while not done.is_set():
                number += 8
                Program(assemble(f"mov r0, {number}\\nadd r0, r{number % 2 + 1}\\nexit")).compile()(bytes(8))
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads: thread.start()
        wrong = []
        for n in range(30):
            child = os.fork()
            if not child:
                signal.alarm(20)
                fn = Program(assemble(f"mov r0, {n}\\nlsh r0, {n % 30}\\nldxb r3, [r1+1]\\nexit")).compile()
                os._exit(fn(bytes(8)) != n << n % 30)
            wrong.append(os.waitpid(child, 0)[1])
        done.set()
        for thread in threads: thread.join()
        print(set(wrong))
        """
    )
    assert ended == "{0}"
