"""Which kernels a program runs on: what it needs of Linux, the release that has each, the line that needs it.

    Program, Object  ->  Need, Need, ...  ->  Compatibility: the minimum, what a kernel lacks

`Program.compatibility()` and `Object.compatibility()` are the ways in; `ebpfjit check` prints them.
"""

from ebpfjit.compatibility.need import Need
from ebpfjit.compatibility.release import Release
from ebpfjit.compatibility.report import Compatibility, ObjectCompatibility, of_object, of_program
from ebpfjit.compatibility.target import Kernel, find_kernel

__all__ = [
    "Compatibility",
    "Kernel",
    "Need",
    "ObjectCompatibility",
    "Release",
    "find_kernel",
    "of_object",
    "of_program",
]
