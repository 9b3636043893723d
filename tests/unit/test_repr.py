"""What Python shows of an object: what matters, on three lines of a terminal at most."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

import ebpfjit
from ebpfjit import (
    AssemblyError,
    Changed,
    Clock,
    EbpfError,
    EbpfVmFixedMbuff,
    EbpfVmMbuff,
    EbpfVmNoData,
    EbpfVmRaw,
    Environment,
    Interface,
    JitFunction,
    JitUnavailable,
    NativeHelper,
    Network,
    Program,
    Route,
    Socket,
    Task,
    TunnelKey,
    address_of,
    assembler,
    load,
)
from ebpfjit.named import MOST_CHARACTERS

ROOT = Path(__file__).resolve().parents[2]
LARGE = ROOT / "tests" / "elf" / "bootstrap.o"
FILTER = ROOT / "examples" / "packets" / "xdp_port_filter.o"
LONG = "<script>\n" + 300 * "long name "


def _objects() -> dict[str, Any]:
    """Return one object, as large as it gets, of each public class but exceptions."""
    obj = load(FILTER)
    program = obj.program("port_filter")
    result = program.run(bytes(1500), engine="interpreter")
    trace = program.trace(bytes(60))
    code = assembler.assemble("mov r0, 1\nexit")
    vm = EbpfVmRaw(Program(code, name=LONG, type=None))
    for number in range(100):
        vm.register_helper(number, lambda *_: 0)
    routes = tuple(Route(f"10.{n}.0.0/16", ifindex=1) for n in range(200))
    return {
        "Changed": Changed(),
        "Clock": Clock(),
        "EbpfVmFixedMbuff": EbpfVmFixedMbuff(code, 0, 8),
        "EbpfVmMbuff": EbpfVmMbuff(),
        "EbpfVmNoData": EbpfVmNoData(code),
        "EbpfVmRaw": vm,
        "Environment": Environment(memory={4096 * n: bytes(4096) for n in range(1, 50)}, cpus=4, cpu=2),
        "Instruction": program.instructions[0],
        "Interface": Interface(),
        "JitFunction": _compiled(program),
        "Listing": program.listing(),
        "NativeHelper": NativeHelper(address_of(bytearray(1))),
        "Network": Network(routes=routes),
        "Object": load(LARGE),
        "Program": program,
        "Result": result,
        "Route": routes[0],
        "Socket": Socket("tcp", ("10.0.0.1", 80)),
        "Task": Task(pid=7, comm="cat"),
        "Trace": trace,
        "TraceStep": trace[0],
        "TunnelKey": TunnelKey(id=5),
    }


def _compiled(program: Program) -> Any:
    try:
        return program.compile()
    except JitUnavailable as unavailable:
        pytest.skip(str(unavailable))


def _fits(shown: str) -> bool:
    return len(shown) <= MOST_CHARACTERS and "\n" not in shown and " object at 0x" not in shown


def test_every_public_object_fits_on_three_lines() -> None:
    objects = _objects()
    public = {name: getattr(ebpfjit, name) for name in ebpfjit.__all__}
    classes = {name for name, it in public.items() if inspect.isclass(it) and not issubclass(it, Exception)}
    assert classes == objects.keys(), "each has an example above"
    assert {name: repr(it) for name, it in objects.items() if not _fits(repr(it))} == {}
    for name, text in {
        "Result": "Result(return_value=2, data=<1500 bytes: 00 00",
        "Environment": "Environment(cpu=2, cpus=4, memory=",
        "Network": "and 198 more)",
        "JitFunction": "<compiled program 'port_filter' (xdp): 47 slots, maps counters, blocked; ",
        "EbpfVmMbuff": "<EbpfVmMbuff: nothing loaded; not compiled>",
        "EbpfVmRaw": "<EbpfVmRaw: program '<script>",
        "Listing": "<listing of program port_filter (xdp, 47 slots, section 'xdp'): optimised code",
        "Task": "Task(pid=7, comm='cat')",
    }.items():
        assert text in repr(objects[name]), name


def test_what_was_never_made_has_one_too() -> None:
    for kind in (JitFunction, EbpfVmRaw):
        assert "never" in repr(kind.__new__(kind))


def test_so_does_what_they_hold() -> None:
    for path in (LARGE, FILTER, ROOT / "tests" / "elf" / "globals.o"):
        obj = load(path)
        held = (obj.programs, obj.maps, obj.globals, obj.refusals, obj.btf, *obj.maps.values())
        assert [repr(it) for it in (*held, *obj.programs.values()) if not _fits(repr(it))] == []
    assert "handle_exec" in repr(load(LARGE).programs)


def test_so_do_errors() -> None:
    public = [getattr(ebpfjit, name) for name in ebpfjit.__all__]
    errors = [it for it in public if inspect.isclass(it) and issubclass(it, EbpfError)]
    assert len(errors) > 15
    for kind in errors:
        error = kind.__new__(kind, LONG)
        assert _fits(repr(error)), kind
        assert repr(error).startswith(f"{kind.__name__}('<script>")
    with pytest.raises(AssemblyError) as raised:
        assembler.assemble("mov r0, " + 4000 * "x")
    assert _fits(repr(raised.value))
