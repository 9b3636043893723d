"""Which lines, branches and functions of programs were executed: `Coverage`, and reports of it."""

from __future__ import annotations

from ebpfjit.coverage.covered import Covered
from ebpfjit.coverage.files import Branch, FileCoverage, Function
from ebpfjit.coverage.recording import Coverage
from ebpfjit.coverage.reports import KINDS, lcov, text, wanted, write

__all__ = [
    "KINDS",
    "Branch",
    "Coverage",
    "Covered",
    "FileCoverage",
    "Function",
    "lcov",
    "text",
    "wanted",
    "write",
]
