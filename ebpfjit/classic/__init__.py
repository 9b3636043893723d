"""Classic BPF: the machine of tcpdump filters and seccomp, checked, run, and translated to eBPF.

text, dumps -> assemble -> bytes -> check -> run           the interpreter: what a program means
                                          -> run_in_linux  the same, as Linux has it
                                          -> to_ebpf       a Program, for every engine
"""

from ebpfjit.classic.check import check
from ebpfjit.classic.code import Instruction, decode, encode
from ebpfjit.classic.interpreter import run
from ebpfjit.classic.linux import run_in_linux
from ebpfjit.classic.text import assemble, disassemble
from ebpfjit.classic.translate import to_ebpf

__all__ = [
    "Instruction", "assemble", "check", "decode", "disassemble", "encode", "run", "run_in_linux", "to_ebpf",
]  # fmt: skip
