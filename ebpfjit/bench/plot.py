"""Sections as bars, in a file; the only module that needs matplotlib, the extra `ebpfjit[plot]`."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ebpfjit.bench.benchmark import Bars, Section
from ebpfjit.bench.measure import BenchError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".svg", ".pdf", ".png")
WIDTH = 9.0  # inches
BAR = 0.2  # inches that a bar takes
AROUND = 1.4  # inches of title, legend and axis
LEGEND = 20  # points between the title and the bars
COLOURS = ("#2a6f97", "#e09f3e", "#9e2a2b", "#7f8c8d", "#6a994e", "#8e7dbe", "#bc6c25")


def check(path: Path) -> None:
    """See that a plot can be made and written, before anything is measured.

    Raises BenchError where matplotlib is missing or the suffix is unknown, and OSError.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise BenchError("--plot needs matplotlib: pip install 'ebpfjit[plot]'")
    if path.suffix not in SUFFIXES:
        raise BenchError(f"{path}: a plot is a file whose name ends in {', '.join(SUFFIXES)}")
    existed = path.exists()
    with path.open("ab"):
        pass
    if not existed:
        path.unlink()


def write(sections: Sequence[Section], path: Path) -> None:
    """Draw sections below each other. Raises OSError."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = [section for section in sections if section.bars.labels]
    heights = [AROUND + BAR * _lines(section.bars) for section in shown]
    with rc_context({"svg.hashsalt": "ebpfjit", "font.size": 9}):
        figure = Figure(figsize=(WIDTH, max(sum(heights), AROUND)), layout="constrained")
        axes = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0] if shown else ()
        for section, one in zip(shown, axes, strict=True):
            _draw(one, section)
        metadata: dict[str, Any] = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, metadata=metadata)


def _lines(bars: Bars) -> float:
    """Return how many bars lie below each other, gaps included."""
    return len(bars.labels) * ((1 if bars.stacked else len(bars.series)) + 0.6)


def _draw(axes: Axes, section: Section) -> None:
    bars = section.bars
    (_stack if bars.stacked else _group)(axes, bars)
    axes.set_title(section.title, loc="left", fontweight="bold", pad=LEGEND)
    axes.set_yticks(range(len(bars.labels)), bars.labels)
    axes.set_xlabel(bars.unit)
    axes.invert_yaxis()
    axes.margins(x=0.08, y=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    columns, place = len(bars.series), (0, 1)
    axes.legend(loc="lower left", bbox_to_anchor=place, ncols=columns, frameon=False, borderpad=0, fontsize=8)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _group(axes: Axes, bars: Bars) -> None:
    """Draw the bars of a label below each other, each with its number."""
    height = 0.8 / len(bars.series)
    for number, (name, values) in enumerate(bars.series.items()):
        places = [label + (number + 0.5) * height - 0.4 for label in range(len(bars.labels))]
        drawn = axes.barh(places, values, height, label=name, color=COLOURS[number % len(COLOURS)])
        texts = ["" if math.isnan(value) else _number(value) for value in values]
        axes.bar_label(drawn, texts, padding=2, fontsize=7)


def _stack(axes: Axes, bars: Bars) -> None:
    """Draw one bar for each label, of all series, with the sum."""
    starts = [0.0] * len(bars.labels)
    for number, (name, values) in enumerate(bars.series.items()):
        colour = COLOURS[number % len(COLOURS)]
        drawn = axes.barh(range(len(starts)), values, 0.7, left=starts, label=name, color=colour)
        starts = [start + value for start, value in zip(starts, values, strict=True)]
    axes.bar_label(drawn, [_number(total) for total in starts], padding=2, fontsize=7)
