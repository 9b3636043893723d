"""What a program costs on packets: instructions, calls, operations on maps, time; by function and line."""

from __future__ import annotations

from ebpfjit.cost.flame import flame_graph, folded
from ebpfjit.cost.measure import Cost, measure
from ebpfjit.cost.places import FunctionCost, LineCost
from ebpfjit.cost.report import text

__all__ = ["Cost", "FunctionCost", "LineCost", "flame_graph", "folded", "measure", "text"]
