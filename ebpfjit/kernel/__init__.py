"""The Linux kernel as one more engine: its verifier, its JIT and BPF_PROG_TEST_RUN, by bpf(2).

    Program -> wrap (raw programs only) -> BPF_PROG_LOAD -> BPF_PROG_TEST_RUN -> KernelResult

Modules in the order data meets them: `wrapping` (a raw program becomes one the kernel accepts),
`syscalls` (bpf(2) and its refusals), `objects` (maps and programs that own a file descriptor),
`program_types` (numbers and test runs), `engine` (one call that does it all, with its caches), `vmlinux`
(the kernel's own types), `types` (a program's), `reached` (its functions without those that nobody calls),
`loading` (as libbpf does), `maps` (a program's maps, filled and read back), `frames` (programs with a type as
`Program.run` has them).
"""

from __future__ import annotations

from ebpfjit.kernel.engine import Kernel, KernelResult, run_program, unavailable_reason
from ebpfjit.kernel.frames import KernelOutcome, load_program, run_frame
from ebpfjit.kernel.objects import KernelMap, LoadedProgram, RunOutput
from ebpfjit.kernel.program_types import PROGRAM_TYPES, ProgramType, TestRun
from ebpfjit.kernel.syscalls import KernelUnavailable, KernelVerifierError, LoadAttributes
from ebpfjit.kernel.wrapping import WrappedProgram, wrap

__all__ = [
    "PROGRAM_TYPES",
    "Kernel",
    "KernelMap",
    "KernelOutcome",
    "KernelResult",
    "KernelUnavailable",
    "KernelVerifierError",
    "LoadAttributes",
    "LoadedProgram",
    "ProgramType",
    "RunOutput",
    "TestRun",
    "WrappedProgram",
    "load_program",
    "run_frame",
    "run_program",
    "unavailable_reason",
    "wrap",
]
