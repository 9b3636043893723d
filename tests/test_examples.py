"""Every example runs and prints what its text says; the numbers are those of the seeds' READMEs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import warm

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

ASSEMBLED = """\
07 01 00 00 05 06 00 00
b7 02 00 00 32 00 00 00
bf 01 00 00 00 00 00 00
dc 00 00 00 10 00 00 00
87 02 00 00 00 00 00 00
95 00 00 00 00 00 00 00
"""
DISASSEMBLED = """\
add64 r1, 0x605
mov64 r2, 0x32
mov64 r1, r0
be16 r0
neg64 r2
exit
"""
LINUX = """\
r1 += 1541
r2 = 50
r1 = r0
r0 = be16 r0
r2 = -r2
exit
"""
VERDICTS = """\
bpf_trace_printf: 0x9999, 0xc6cc, 0x9999
source port 0x9999, interpreter: 0xffffffff (drop)
bpf_trace_printf: 0x9999, 0xc6cc, 0x9999
source port 0x9999, machine code: 0xffffffff (drop)
source port 0x9876, interpreter: 0x0 (accept)
source port 0x9876, machine code: 0x0 (accept)
"""


def is_verdicts_and_listing(output: str) -> bool:
    verdicts, listing = output.split("\n\n", 1)
    return verdicts + "\n" == VERDICTS and "ldxdw r2, [r1+0x50]" in listing and "ret" in listing


def is_uptime(output: str) -> bool:
    return re.fullmatch(r"up \d+ days \d\d:\d\d:\d\d, \d+ ns\n", output) is not None


def is_json_of_44_instructions(output: str) -> bool:
    program = json.loads(output)
    first, last = program["insns"][0], program["insns"][-1]
    assert first == {
        "opc": "0xb7",
        "dst": "0x0",
        "src": "0x0",
        "off": "0x0",
        "imm": "0x0",
        "desc": "mov64 r0, 0x0",
    }
    return bool(program["size"] == len(program["insns"]) == 44 and last["desc"] == "exit")


#  example               needs machine code   output
EXPECTED: dict[str, tuple[bool, str | Callable[[str], bool]]] = {
    "simple.py": (False, "0x3\n"),
    "packet_jit.py": (True, "0x11\n"),
    "metadata_buffer.py": (True, "0x2211\n"),
    "load_elf.py": (True, is_verdicts_and_listing),
    "assembler.py": (False, ASSEMBLED),
    "disassemble.py": (False, DISASSEMBLED + "\n" + LINUX),
    "builder.py": (False, DISASSEMBLED),
    "uptime.py": (False, is_uptime),
    "to_json.py": (False, is_json_of_44_instructions),
    "allowed_memory.py": (False, "not allowed: pc 3, a load of 4 bytes\nallowed: 1234\n"),
}


def has_machine_code() -> bool:
    from ebpfjit import EbpfVmNoData, JitUnavailable
    from ebpfjit.assembler import assemble

    try:
        EbpfVmNoData(assemble("mov64 r0, 0\nexit")).jit_compile()
    except JitUnavailable:
        return False
    return True


def test_every_example_is_tested() -> None:
    assert sorted(EXPECTED) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", EXPECTED)
def test_example(name: str) -> None:
    needs_machine_code, expected = EXPECTED[name]
    if needs_machine_code and not has_machine_code():
        pytest.skip("no machine code on this machine")
    result = warm.run([sys.executable, EXAMPLES / name], text=True)
    assert (result.returncode, result.stderr) == (0, "")
    if callable(expected):
        assert expected(result.stdout), result.stdout
    else:
        assert result.stdout == expected


def test_the_object_is_named_with_the_command_that_made_it() -> None:
    command = "clang -O2 -g0 -target bpf -c block_port.c -o block_port.o"
    assert command in (EXAMPLES / "block_port.c").read_text()
    assert command in (EXAMPLES / "README.md").read_text()
