"""Differential testing: the same program on several engines, and what to do where they differ.

compare(program, inputs)     what every engine answers, and the first pc where they part
fuzz(...)                    generated programs by the thousand, in child processes
strategies                   the generators for Hypothesis (an extra)
"""

from ebpfjit.difftest.case import BUILDS, Case, CorpusError, Input, read_case, read_corpus
from ebpfjit.difftest.compare import Comparison, Report, compare
from ebpfjit.difftest.engines import ENGINES, UnknownEngine
from ebpfjit.difftest.outcome import Outcome

__all__ = [
    "BUILDS",
    "ENGINES",
    "Case",
    "Comparison",
    "CorpusError",
    "Input",
    "Outcome",
    "Report",
    "UnknownEngine",
    "compare",
    "read_case",
    "read_corpus",
]
