"""Holes that attacks have found, to be planted again: each takes one rule away that closed one.

The sources of `hostile` are aimed at their kinds; each bug names the one that is to find it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from ebpfjit import ready, runner
from ebpfjit.analysis import entries
from ebpfjit.difftest.exchange import exchange
from ebpfjit.difftest.planting import PlantedBug, function, method
from ebpfjit.jit import assembler, baseline, entry, map_calls, promises
from ebpfjit.optimizer.rules import addresses
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.packet import PacketContext
from ebpfjit.runtime.execution import CODE_ADDRESS
from ebpfjit.runtime.helpers import table
from ebpfjit.runtime.helpers.names import UPDATE
from ebpfjit.runtime.maps.references import ProgArray
from ebpfjit.runtime.maps.storage import Storage
from ebpfjit.runtime.world import World


def _cut_numbers() -> None:
    """Cut numbers to the field that they go into, and let the optimizer make any displacement."""

    def cut(hole: assembler.Hole, number: int) -> bytes:
        return (number & ((1 << 8 * hole.size) - 1)).to_bytes(hole.size, "little")

    method(assembler.Hole, "filled", lambda old: cut)()
    addresses.MOST_OFFSET = 1 << 62


def _moved_anywhere(context: Any, data: int, data_end: int, data_meta: int | None = None) -> None:
    """Put a packet's ends anywhere."""
    context._data, context._data_end = data, data_end
    context._data_meta = data if data_meta is None else data_meta


def _without_walls() -> None:
    """Let packets leave their memory."""
    method(PacketContext, "move", lambda old: _moved_anywhere)()
    method(PacketContext, "make_room", lambda old: lambda context, before=0, behind=0: True)()


def _of_the_same_type(old: Any) -> Any:
    """Take a program for one of the type that a run was made for."""

    def execution(run: Any, program: ready.Ready, limit: int | None) -> Any:
        made = None if isinstance(run.made, memory.Region) else run.made.type
        return old(run, replace(program, type=made), limit)

    return execution


def _tails_of_any_type() -> None:
    """Let programs go on in one of another type, whatever that was promised."""
    method(ProgArray, "_own", lambda old: lambda array, program, what: None)()
    method(runner.Run, "execution", _of_the_same_type)()
    exchange(promises.check, lambda recipe, given: None)


def _copied_while_read() -> None:
    """Let updates in machine code write each byte of a value before they read the next one."""
    import_module("ebpfjit.runtime.helpers.maps")
    helper = table._registered[UPDATE]

    def update(world: World, map_address: int, key: int, value: int, flags: int) -> int:
        found: Any = world.maps.get(map_address)
        if found is not None and isinstance(world.engine, entry.Run):
            target = found.lookup(memory.read(key, found.definition.key_size))
            for at in range(found.definition.value_size if target else 0):
                memory.write(target + at, memory.read(value + at, 1))
        return helper.function(world, map_address, key, value, flags)

    table._registered[UPDATE] = replace(helper, function=update)
    exchange(map_calls.map_calls, _no_map_calls)


def _no_map_calls(*arguments: Any, **named: Any) -> Mapping[int, Any]:
    """Leave all calls of map helpers to Python."""
    return {}


def _nearest_function(old: Any) -> Any:
    """Take any address for that of the function before it."""

    def call_function(run: entry.Run, address: int, arguments: tuple[int, ...]) -> int:
        functions = run.compiled.verified.program.functions
        before = [pc for pc in functions if pc <= address - CODE_ADDRESS]
        return old(run, CODE_ADDRESS + max(before, default=0), arguments)  # type: ignore[no-any-return]

    return call_function


def _zeros_first(old: Any) -> Any:
    """Make zeros before it is known that there is a place for them."""
    return lambda space, address, size: space.write(address, bytes(size))


def _stack_of(old: Any) -> Any:
    """Find no frame alive at a fault."""

    def word(run: entry.Run, name: str) -> int:
        return run.execution.stack.top if name == "fault_stack" else old(run, name)

    return word


HOLES: tuple[PlantedBug, ...] = (
    PlantedBug(
        "numbers-cut",
        "A displacement is cut to 32 bits",
        _cut_numbers,
        sources=("wide",),
    ),
    PlantedBug(
        "not-called-back",
        "Analysis knows of no callbacks",
        method(entries.Entries, "calls_back", lambda old: lambda self, insn: False),
        sources=("callbacks",),
    ),
    PlantedBug(
        "callback-anywhere",
        "A helper calls what is no function",
        method(entry.Run, "call_function", _nearest_function),
        sources=("callbacks",),
    ),
    PlantedBug(
        "fault-stack-lost",
        "A fault in a callback is told with no stack",
        method(entry.Run, "word", _stack_of),
        sources=("callbacks",),
    ),
    PlantedBug(
        "unnamed-frame-stale",
        "A frame that no instruction names is not zeroed",
        function(baseline._zeroed, lambda old: lambda *_, **looks: frozenset()),
        sources=("frames",),
    ),
    PlantedBug(
        "update-while-read",
        "A map's update writes a value while it reads it",
        _copied_while_read,
        sources=("overlaps",),
    ),
    PlantedBug(
        "packet-anywhere",
        "A packet's ends may leave its memory",
        _without_walls,
        sources=("growth",),
    ),
    PlantedBug(
        "tail-of-any-type",
        "A tail call goes on in a program that was promised more than there is",
        _tails_of_any_type,
        sources=("tails",),
    ),
    PlantedBug(
        "zeros-first",
        "Helpers make zeros before they look where they go",
        method(memory.AddressSpace, "clear", _zeros_first),
        sources=("helpers",),
    ),
    PlantedBug(
        "helpers-are-free",
        "Machine code does not pay for what helpers go through",
        method(entry.Run, "spend", lambda old: lambda run, instructions: None),
        sources=("helpers",),
    ),
    PlantedBug(
        "value-too-long",
        "Maps write a byte behind each value",
        method(Storage, "write", lambda old: lambda self, offset, data: old(self, offset, data + b"\0")),
        sources=("overlaps",),
    ),
)
"""What is wrong again, and where it shows."""
