"""bpf_throw: a program ends from wherever it is, on both engines, through the gate, and as in the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebpfjit import Environment, ExecutionError, LoadError, load
from ebpfjit.elf.loader import Object
from tests.support.helper_runs import needs_kernel

OBJECT = Path(__file__).parent.parent / "elf" / "exceptions.o"

# program, size of the packet: result, `steps` afterwards, what the callback has seen
ENDS = {
    ("at_once", 64): (71, 1, 0),
    ("target", 64): (16, 0, 0),
    ("from_functions", 64): (64, 0, 0),
    ("from_functions", 60): (61, 0, 0),
    ("from_functions", 20): (43, 101, 0),
    ("with_callback", 64): (128, 0, 64),
    ("with_callback", 20): (43, 1, 0),
    ("from_tail_call", 64): (24, 0, 0),
}
# The verifier lets no function throw that a helper calls.
ENDS_IN_HELPERS = {
    ("from_loop", 64): (1064, 65, 0),
    ("from_loop", 100): (3, 770, 0),
    ("from_loop_with_callback", 64): (2128, 65, 1064),
    ("from_loop_in_loop", 64): (1005, 26, 0),
    ("from_each", 64): (2, 3, 0),
}


def _loaded() -> Object:
    return load(OBJECT)


def _left(obj: Object, value: int) -> tuple[int, int, int]:
    return value, obj.globals["steps"], obj.globals["seen"]


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
@pytest.mark.parametrize(("name", "size"), [*ENDS, *ENDS_IN_HELPERS])
def test_a_program_ends_where_it_throws(name: str, size: int, engine: str) -> None:
    obj = _loaded()
    result = obj.programs[name].run(bytes(size), engine=engine)
    assert _left(obj, result.return_value) == (ENDS | ENDS_IN_HELPERS)[name, size]


@needs_kernel
@pytest.mark.parametrize(("name", "size"), ENDS)
def test_as_in_the_kernel(name: str, size: int) -> None:
    obj = load(OBJECT, btf="/sys/kernel/btf/vmlinux")
    result = obj.programs[name].run(bytes(size), engine="kernel")
    assert _left(obj, result.return_value) == ENDS[name, size]


@pytest.mark.parametrize(
    "name", ["from_functions", "with_callback", "from_loop", "from_each", "from_tail_call"]
)
def test_what_is_compiled_goes_on_after_it(name: str) -> None:
    obj = _loaded()
    function = obj.programs[name].compile()
    expected = (ENDS | ENDS_IN_HELPERS)[name, 64]
    for _ in range(50):
        assert function(bytes(64)) == expected[0]
    assert _left(obj, expected[0]) == (expected[0], 50 * expected[1], expected[2])


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_what_is_still_held_is_an_error_there(engine: str) -> None:
    with pytest.raises(ExecutionError, match=r"bpf_ringbuf_reserve takes .* still held where bpf_throw ends"):
        _loaded().programs["holding"].run(bytes(64), engine=engine)


@pytest.mark.parametrize("engine", ["interpreter", "jit"])
def test_a_function_that_is_called_by_itself_has_no_program_to_end(engine: str) -> None:
    environment = Environment()
    _loaded().programs["from_timer"].run(bytes(64), engine=engine, environment=environment)
    with pytest.raises(ExecutionError, match="called by itself"):
        environment.fire_timers()


def test_a_callback_that_is_not_there_is_named() -> None:
    obj = _loaded()
    assert set(obj.refusals) == {"callback_missing"}
    with pytest.raises(LoadError, match=r"'callback_missing'.*exception callback is 'round'"):
        obj.programs["callback_missing"].run(bytes(64))
