"""Packets that find what is wrong with a program: `fuzz`, its report and findings, predicates."""

from __future__ import annotations

from ebpfjit.fuzzing.finding import Finding
from ebpfjit.fuzzing.fuzz import Report, fuzz
from ebpfjit.fuzzing.predicate import Predicate

__all__ = ["Finding", "Predicate", "Report", "fuzz"]
