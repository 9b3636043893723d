"""Packets that find what is wrong with a program: `fuzz`, its report and findings, predicates.

`find_input` looks for one that goes wrong at a place that is known, `ebpf_fuzz` makes a test of a run.
"""

from __future__ import annotations

from ebpfjit.fuzzing.decorator import ebpf_fuzz
from ebpfjit.fuzzing.find import Witness, find_input, find_inputs
from ebpfjit.fuzzing.finding import Finding
from ebpfjit.fuzzing.fuzz import fuzz
from ebpfjit.fuzzing.predicate import Predicate
from ebpfjit.fuzzing.report import Report

__all__ = ["Finding", "Predicate", "Report", "Witness", "ebpf_fuzz", "find_input", "find_inputs", "fuzz"]
