"""A helper of the user's under a number of Linux's: nothing is believed of it that only Linux's does."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from ebpfjit import EbpfError, EbpfVmNoData, MemoryFault
from ebpfjit.assembler import assemble
from ebpfjit.difftest.children import run_forked
from ebpfjit.program import Program
from ebpfjit.runtime import memory
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.helpers.names import NUMBERS
from ebpfjit.runtime.maps.creation import create
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from ebpfjit.runtime.memory import Region

NOWHERE = 0x1000
BUILDS: dict[str, dict[str, Any]] = {
    "baseline": {"optimize": False},
    "optimised": {"optimize": True},
    "hardened": {"optimize": True, "harden": True},
    "unlocked": {"optimize": True, "release_gil": True},
    "audited": {"optimize": True, "audit": True},
}
CALL = "stdw [r10-8], 1\nmov r2, r10\nadd r2, -8\nmov r3, r2\nmov r4, 0\ncall {}\n"


def run(helper: int, text: str, kind: MapType, options: dict[str, Any]) -> object:
    map_ = create(MapDefinition("m", kind, 4, 8, 4))
    map_[1] = (7).to_bytes(8, "little")
    load = struct.pack("<BBhiBBhi", 0x18, 5 << 4 | 1, 0, 0, 0, 0, 0, 0)
    code = load + assemble(CALL.format(helper) + text)
    program = Program(code, name="t", type="xdp", references={0: map_.address}, maps=(map_,))
    function = program.compile(helpers={helper: lambda *_: NOWHERE}, **options)
    try:
        return function(bytes(64)), map_[1]
    except EbpfError as error:
        return str(error).partition(": outside")[0]


@pytest.mark.parametrize("kind", [MapType.ARRAY, MapType.HASH])
@pytest.mark.parametrize("build", BUILDS)
def test_what_stands_for_a_lookup_may_return_any_address(build: str, kind: MapType) -> None:
    text = "jeq r0, 0, +1\nldxdw r0, [r0+0]\nexit"
    ended = run_forked(lambda: run(1, text, kind, BUILDS[build]), 30)
    assert ended.value == "pc 9: load of 8 bytes at 0x1000", ended


@pytest.mark.parametrize("helper", [1, 2, 3])
@pytest.mark.parametrize("kind", [MapType.ARRAY, MapType.HASH])
@pytest.mark.parametrize("build", BUILDS)
def test_what_stands_for_a_map_helper_is_called(build: str, kind: MapType, helper: int) -> None:
    ended = run_forked(lambda: run(helper, "exit", kind, BUILDS[build]), 30)
    assert ended.value == (NOWHERE, (7).to_bytes(8, "little")), ended


@pytest.mark.parametrize("build", BUILDS)
def test_a_run_keeps_the_helpers_that_it_began_with(build: str) -> None:
    """One that is registered meanwhile counts for the next run, on both engines."""

    def machine() -> EbpfVmNoData:
        made = EbpfVmNoData(assemble("call 7\ncall 8\nexit"), **BUILDS[build])

        def replace_other(*_: int) -> int:
            made.register_helper(8, lambda *_: 2)
            return 0

        made.register_helper(7, replace_other)
        made.register_helper(8, lambda *_: 1)
        return made

    interpreted, compiled = machine(), machine()
    assert [interpreted.execute_program() for _ in range(2)] == [1, 2]
    compiled.jit_compile()
    assert [compiled.execute_program_jit() for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("what", ["clock", "random"])
def test_a_clock_of_the_users_may_do_what_a_helper_may(what: str, build: str) -> None:
    """Memory that it took away was read once more: ours that ask it were believed to leave all."""
    granted: list[Region] = []

    def grant(*_: int) -> int:
        granted.append(memory.grant(bytearray(64)))
        return granted[-1].start

    def take_away() -> int:
        memory.revoke(granted.pop())
        return 0

    environment = Environment(**{what: take_away})
    number = NUMBERS["bpf_ktime_get_ns" if what == "clock" else "bpf_get_prandom_u32"]
    text = f"call 1000\nmov r6, r0\nldxb r7, [r6+0]\ncall {number}\nldxb r0, [r6+0]\nexit"
    function = Program(assemble(text), type="xdp", environment=environment).compile(
        helpers={1000: grant}, **BUILDS[build]
    )
    with pytest.raises(MemoryFault, match="pc 4"):
        function(bytes(64))
