"""The plugin protocol of bpf_conformance: one program in, r0 out.

    ebpfjit-conformance-plugin [MEM] [--interpret | --jit] [--elf]

MEM is memory as hex bytes with blanks between them; r1 and r2 are its address and length, both 0
without it. Standard input is one line of hex: the program's bytes, or with --elf an object file.
Helper 5 returns its first argument. Prints r0 in hex and exits 0; or prints a message on standard
error and exits 1 (2 for wrong usage). The public runner starts this once for each case, so it
imports as little as it can: no argument parser, no typer.
"""

from __future__ import annotations

import gc
import sys

from ebpfjit.errors import EbpfError, LoadError
from ebpfjit.program import Program
from ebpfjit.vm import EbpfVmRaw

USAGE = "usage: ebpfjit-conformance-plugin [MEM] [--interpret | --jit] [--elf]"
FLAGS = ("--interpret", "--jit", "--elf")
UNWIND_HELPER = 5


def _from_hex(what: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise LoadError(f"{what} is not hex: {error}") from None


def _program(code: bytes, *, elf: bool) -> Program:
    if not elf:
        return Program.from_bytes(code)
    from ebpfjit.elf import load

    return next(iter(load(code).programs.values()))


def execute(memory: bytes, code: bytes, *, interpret: bool, elf: bool) -> int:
    """Run one case and return r0. Raises EbpfError where the program or its run is refused."""
    vm = EbpfVmRaw(_program(code, elf=elf))
    vm.register_helper(UNWIND_HELPER, lambda r1, r2, r3, r4, r5: r1)
    if interpret:
        return vm.execute_program(bytearray(memory))
    vm.jit_compile()
    return vm.execute_program_jit(bytearray(memory))


def main(arguments: list[str] | None = None) -> int:
    """Run the plugin and return its exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "--help" in arguments:
        print(USAGE)
        return 0
    flags = {argument for argument in arguments if argument.startswith("--")}
    memory = [argument for argument in arguments if not argument.startswith("--")]
    if len(memory) > 1 or not flags <= set(FLAGS) or {"--interpret", "--jit"} <= flags:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        value = execute(
            _from_hex("the memory", memory[0] if memory else ""),
            _from_hex("the program", sys.stdin.readline()),
            interpret="--interpret" in flags,
            elf="--elf" in flags,
        )
    except EbpfError as error:
        print(str(error).splitlines()[0], file=sys.stderr)
        return 1
    print(f"{value:x}")
    return 0


def entry() -> None:
    """Run the plugin as a command."""
    status = main()
    gc.freeze()  # as in `cli.app`
    sys.exit(status)


if __name__ == "__main__":
    entry()
