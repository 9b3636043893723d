"""A program from an object file as JSON: the fields of each instruction, and its text."""

import json
from pathlib import Path

from ebpfjit import Program, load
from ebpfjit.disassembler import to_insn_vec

OBJECT = Path(__file__).with_name("block_port.o")


def to_json(program: Program) -> str:
    """Return the program's instructions as a JSON text."""
    instructions = [
        {
            "opc": f"{insn.opc:#x}",
            "dst": f"{insn.dst:#x}",
            "src": f"{insn.src:#x}",
            "off": f"{insn.off:#x}",
            "imm": f"{insn.imm:#x}",
            "desc": insn.desc,
        }
        for insn in to_insn_vec(program)
    ]
    return json.dumps({"size": len(instructions), "insns": instructions}, indent=4)


def main() -> None:
    """Print the example's program."""
    print(to_json(load(OBJECT).programs["block_port"]))


if __name__ == "__main__":
    main()
