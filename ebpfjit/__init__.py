"""eBPF in user space: load, check, run, compile and inspect programs.

The public names, loaded when first used so that `import ebpfjit` stays cheap (PEP 562).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ebpfjit.once import import_alone

if TYPE_CHECKING:
    from ebpfjit import assembler, coverage, disassembler, engines, helpers, insn_builder, kernel, verifier
    from ebpfjit.elf import Object, load
    from ebpfjit.errors import (
        AlignmentFault,
        AssemblyError,
        AuditFailure,
        BudgetExhausted,
        CallDepthExceeded,
        CaptureError,
        DecodeError,
        EbpfError,
        EbpfWarning,
        ExecutionError,
        FilterError,
        HelperNotFound,
        IllegalInstruction,
        InputError,
        JitUnavailable,
        LicenseWarning,
        LoadError,
        MapError,
        MapRefused,
        MemoryFault,
        PicklingRefused,
        StackExhausted,
        Stopped,
        TranslationError,
        VerifierError,
    )
    from ebpfjit.function import JitFunction
    from ebpfjit.info import runtime_info
    from ebpfjit.listing.listing import Listing
    from ebpfjit.program import Instruction, Program
    from ebpfjit.runner import Result
    from ebpfjit.runtime.changed import Changed
    from ebpfjit.runtime.environment import Clock, Environment, Task
    from ebpfjit.runtime.execution import NativeHelper
    from ebpfjit.runtime.maps import set_map_memory_limit
    from ebpfjit.runtime.memory import address_of
    from ebpfjit.runtime.network import Interface, Network, Route, TunnelKey
    from ebpfjit.runtime.sockets import Socket
    from ebpfjit.tracing import Trace, TraceStep
    from ebpfjit.vm import EbpfVmFixedMbuff, EbpfVmMbuff, EbpfVmNoData, EbpfVmRaw

__version__ = "0.1.0"

_NAMES_OF = {
    "ebpfjit.elf": ("Object", "load"),
    "ebpfjit.errors": (
        "AlignmentFault",
        "AssemblyError",
        "AuditFailure",
        "BudgetExhausted",
        "CallDepthExceeded",
        "CaptureError",
        "DecodeError",
        "EbpfError",
        "EbpfWarning",
        "ExecutionError",
        "FilterError",
        "HelperNotFound",
        "IllegalInstruction",
        "InputError",
        "JitUnavailable",
        "LicenseWarning",
        "LoadError",
        "MapError",
        "MapRefused",
        "PicklingRefused",
        "MemoryFault",
        "StackExhausted",
        "Stopped",
        "TranslationError",
        "VerifierError",
    ),
    "ebpfjit.function": ("JitFunction",),
    "ebpfjit.info": ("runtime_info",),
    "ebpfjit.listing.listing": ("Listing",),
    "ebpfjit.program": ("Instruction", "Program"),
    "ebpfjit.runner": ("Result",),
    "ebpfjit.runtime.changed": ("Changed",),
    "ebpfjit.runtime.environment": ("Clock", "Environment", "Task"),
    "ebpfjit.runtime.execution": ("NativeHelper",),
    "ebpfjit.runtime.maps": ("set_map_memory_limit",),
    "ebpfjit.runtime.memory": ("address_of",),
    "ebpfjit.runtime.network": ("Interface", "Network", "Route", "TunnelKey"),
    "ebpfjit.runtime.sockets": ("Socket",),
    "ebpfjit.tracing": ("Trace", "TraceStep"),
    "ebpfjit.vm": ("EbpfVmFixedMbuff", "EbpfVmMbuff", "EbpfVmNoData", "EbpfVmRaw"),
}
_MODULES = (
    "assembler",
    "capture",
    "classic",
    "coverage",
    "disassembler",
    "engines",
    "filters",
    "helpers",
    "insn_builder",
    "kernel",
    "verifier",
)
_HOME = {name: module for module, names in _NAMES_OF.items() for name in names}

__all__ = [
    "AlignmentFault",
    "AssemblyError",
    "AuditFailure",
    "BudgetExhausted",
    "CallDepthExceeded",
    "CaptureError",
    "Changed",
    "Clock",
    "DecodeError",
    "EbpfError",
    "EbpfVmFixedMbuff",
    "EbpfVmMbuff",
    "EbpfVmNoData",
    "EbpfVmRaw",
    "EbpfWarning",
    "Environment",
    "ExecutionError",
    "FilterError",
    "HelperNotFound",
    "IllegalInstruction",
    "InputError",
    "Instruction",
    "Interface",
    "JitFunction",
    "JitUnavailable",
    "LicenseWarning",
    "Listing",
    "LoadError",
    "MapError",
    "MapRefused",
    "MemoryFault",
    "NativeHelper",
    "Network",
    "Object",
    "PicklingRefused",
    "Program",
    "Result",
    "Route",
    "Socket",
    "StackExhausted",
    "Stopped",
    "Task",
    "Trace",
    "TraceStep",
    "TranslationError",
    "TunnelKey",
    "VerifierError",
    "address_of",
    "assembler",
    "capture",
    "classic",
    "coverage",
    "disassembler",
    "engines",
    "filters",
    "helpers",
    "insn_builder",
    "kernel",
    "load",
    "runtime_info",
    "set_map_memory_limit",
    "verifier",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_alone(f"ebpfjit.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'ebpfjit' has no attribute {name!r}")
    value = getattr(import_alone(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if "EBPFJIT_COVERAGE" in os.environ:  # a run of tests asks what this process executes
    import_alone("ebpfjit.coverage.processes").start(os.environ["EBPFJIT_COVERAGE"])
