"""What CONTRIBUTING.md prints is what the commands print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ebpfjit import EbpfVmRaw, JitUnavailable
from ebpfjit.assembler import assemble
from ebpfjit.disassembler import disassemble

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
PROGRAM = assemble("r1 = -13\nr2 = 3\nr1 s%= r2\nr0 = r1\nexit")


def machine_text(listing: str) -> list[str]:
    """Return the assembly text of the remainder, without offsets and bytes (they move)."""
    lines = [line.strip() for line in listing.splitlines()]
    start = next(index for index, line in enumerate(lines) if line.endswith("smod64 r1, r2"))
    stop = next(index for index in range(start, len(lines)) if lines[index].startswith(".divided"))
    return [re.split(r"  +", line)[-1] for line in lines[start + 2 : stop]]


def test_disassembly() -> None:
    shown = "".join(f"    {line}\n" for line in disassemble(PROGRAM).splitlines())
    assert shown in TEXT


def test_listing() -> None:
    vm = EbpfVmRaw(PROGRAM, optimize=False)
    try:
        vm.jit_compile()
    except JitUnavailable as unavailable:
        pytest.skip(str(unavailable))
    assert hex(vm.execute_program_jit(b"")) == "0xffffffffffffffff"
    assert machine_text(vm.listing()) == machine_text(TEXT[TEXT.index("$ ebpfjit listing") :])


def test_golden_listing() -> None:
    shown = re.findall(r"```diff\n\+(SMOD64_K.*?)```", TEXT, re.DOTALL)
    golden = (ROOT / "tests" / "golden" / "listings" / "binary.checked.txt").read_text()
    assert len(shown) == 1
    assert shown[0].replace("\n+", "\n") in golden


def test_row_meaning_translator_and_vector_are_in_the_tree() -> None:
    """The diffs add lines that the tree has."""
    for name, line in (
        ("ebpfjit/isa/table.py", '    ("SMOD", 0x90, 1, "s%="),\n'),
        ("translators/x86_64/alu.py", '    "SMOD": (True, "remainder"),\n'),
    ):
        assert f"+{line}" in TEXT
        assert line in (ROOT / name).read_text()
    intervals = re.findall(r"```diff\n(\+def _smod.*?)```", TEXT, re.DOTALL)
    rules = (ROOT / "ebpfjit" / "optimizer" / "intervals.py").read_text()
    for line in intervals[0].splitlines():
        assert line[1:] in rules
    meaning = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert meaning[0] in (ROOT / "ebpfjit" / "isa" / "semantics.py").read_text()
    vectors = (ROOT / "tests" / "conformance" / "vectors" / "alu64.txt").read_text()
    vector = TEXT[TEXT.index("    title: SMOD64_X") : TEXT.index("    $ pytest tests/conformance")]
    for line in vector.strip().splitlines():
        assert line.removeprefix("    ") in vectors
