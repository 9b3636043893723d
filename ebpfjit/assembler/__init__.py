"""Assembly text becomes bytecode: `assemble`.

    text -> lines -> tokens -> Form (a row of the table) -> fields -> Instruction -> bytes
            lexer    lexer     syntax                       operands

One statement a line, after any number of labels. Accepted, alone or mixed:

    rbpf, uBPF         add64 r1, 0x605    ldxw r0, [r1+4]   jeq r1, 5, +2      callx 4
    bpf_conformance    add %r1, %r2       lock fetch add [%r1], %r2            call local f
    LLVM, Linux        w0 s/= 3           r0 = *(u32 *)(r1 + 4)   if r1 > r2 goto L   r1 = 5 ll

Comments start with `#`, `;` or `//` and run to the end of the line, or stand between `/*` and
`*/`. Because `;` starts a comment it does not separate statements, as it does in llvm-mc.
Labels are words (`loop:`) or numbers (`1:`, used as `1f` and `1b`); where a program defines no
label `exit`, that name means its first exit instruction, as in bpf_conformance.

So is what `clang -S -target bpf` writes: sections of code come one after the other, that of the first
function that is attached to something first. Its variables and maps are memory for `Program.from_assembly`;
what else there is (.debug_info) is skipped.
"""

from __future__ import annotations

from ebpfjit.assembler.passes import Assembled, assemble, assembled, attached

__all__ = ["Assembled", "assemble", "assembled", "attached"]
