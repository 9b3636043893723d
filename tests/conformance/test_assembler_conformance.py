"""The assembler against what others make of the same text: bpf_conformance's cases and LLVM."""

from pathlib import Path

import pytest

from ebpfjit.assembler import assemble
from ebpfjit.disassembler import disassemble
from ebpfjit.isa.table import TABLE
from ebpfjit.program import decode
from tests.support.public_cases import PATHS, WHY_NOT

FACTS = Path(__file__).with_name("llvm_mc_facts.txt")


def sections(path):
    """Return a case's sections, name -> text; comments stay in."""
    found = {}
    name = ""
    for line in path.read_text().splitlines():
        if line.startswith("-- "):
            name = line[3:].strip()
            found[name] = ""
        elif name:
            found[name] += line + "\n"
    return found


def cases():
    return [(path.stem, case) for path in PATHS if "asm" in (case := sections(path))]


@pytest.mark.skipif(not PATHS, reason=WHY_NOT)
def test_cases_of_bpf_conformance():
    for name, case in cases():
        code = assemble(case["asm"])
        assert len(code) >= 8, name
        assert all(insn.row is not None for insn in decode(code)), name
        for dialect in ("rbpf", "linux"):
            assert assemble(disassemble(code, dialect)) == code, name
        if "raw" in case:
            words = [int(word, 16) for word in case["raw"].split("#")[0].split()]
            assert code == b"".join(word.to_bytes(8, "little") for word in words), name


def facts():
    lines = [line for line in FACTS.read_text().splitlines() if not line.startswith("# ")]
    return [(bytes.fromhex(code), text) for code, _, text in (line.partition("\t") for line in lines)]


def test_the_whole_file_is_the_program_that_llvm_makes_of_it():
    pairs = facts()
    assert assemble("\n".join(text for _, text in pairs)) == b"".join(code for code, _ in pairs)


def names_a_label(text):
    return any(word in text for word in ("last", "loop", "first", "1:", "1b", "1f"))


def test_each_line_is_what_llvm_makes_of_it():
    alone = [(code, text) for code, text in facts() if not names_a_label(text)]
    assert len(alone) > 500
    assert [text for code, text in alone if assemble(text) != code] == []


def test_the_facts_cover_what_llvm_14_has():
    seen = {insn.row for code, _ in facts() for insn in decode(code)}
    missing = {row.operation for row in TABLE if row not in seen}
    # LLVM 14 is before instruction set v4 (sdiv, movsx, ldxs, bswap, gotol, casts), and has no jset, no
    # store of a constant, no spelling of the references, not all packet loads, another callx.
    families = ("SDIV", "SMOD", "MOD", "MOVSX", "LDXS", "BSWAP", "JA32", "JSET", "MAY_GOTO", "ST", "LDDW_",
                "CALL_", "CALLX", "LDABSDW", "LDINDDW", "LOAD_ACQ", "ADDR_SPACE_CAST")  # fmt: skip
    assert {name for name in missing if not name.startswith(families)} == set()
