"""What a fuzzing run has reached, as one self-contained page."""

from __future__ import annotations

from collections import Counter
from html import escape
from pathlib import Path

from ebpfjit.difftest.coverage import CATEGORIES, EDGE, ENDING, FACT, PAIRING, ROW, has_pairing, reachable
from ebpfjit.difftest.fuzz import FuzzReport
from ebpfjit.difftest.report import times_text
from ebpfjit.isa.spec import REGISTER_COUNT
from ebpfjit.isa.table import TABLE

STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem;
       color: #1d2733; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: 1px 8px; text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.none { color: #b3261e; } .bar { background: #e7edf3; width: 16rem; }
.bar div { background: #2f7d5b; height: 0.8em; }
.grids { display: flex; flex-wrap: wrap; gap: 10px; }
.grid { font-size: 10px; } .grid table td { width: 7px; height: 7px; padding: 0; border: 1px solid #fff; }
pre { background: #f4f6f8; padding: 0.8rem; overflow-x: auto; }
"""
SHADES = ("#e7edf3", "#bcd9c9", "#86bda1", "#4f9f7a", "#2f7d5b", "#17573b")
"""A pairing's colour: by how many programs reached it, none first."""


def write_page(report: FuzzReport, path: Path) -> None:
    """Write the page. Raises OSError."""
    path.write_text(page(report), encoding="utf-8")


def page(report: FuzzReport) -> str:
    """Return the page's text."""
    options = report.options
    parts = [
        f"<h1>{report.total.programs} programs on {escape(', '.join(options.engines))}</h1>",
        f"<p>Seed {options.seed}, sources {escape(', '.join(options.chosen_sources()))}.</p>",
        f"<p>{escape(times_text(report))}</p>",
        "<h2>Reached</h2>",
        _summary(report),
        *_findings(report),
        f"<h2>{CATEGORIES[PAIRING].capitalize()}</h2>",
        "<p>A square for each row: dst downwards, src to the right, r0 first.</p>",
        _grids(report),
    ]
    for category in (ENDING, FACT, EDGE, ROW):
        parts += [f"<h2>{CATEGORIES[category].capitalize()}</h2>", _counts(report, category)]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>ebpfjit fuzz, seed {options.seed}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _summary(report: FuzzReport) -> str:
    lines = ["<table>"]
    for category, reached, there in report.coverage.summary():
        share = 100 * reached // max(there, 1)
        lines.append(
            f"<tr><td>{CATEGORIES[category]}</td><td class=n>{reached} of {there}</td>"
            f"<td><div class=bar><div style='width:{share}%'></div></div></td></tr>"
        )
    return "\n".join([*lines, "</table>"])


def _findings(report: FuzzReport) -> list[str]:
    parts = [f"<h2>Findings: {len(report.findings) or 'none'}</h2>"]
    for finding in report.findings:
        text = f"program {finding.number}: {finding.nature}\n{finding.details or finding.text}"
        parts.append(f"<pre>{escape(text)}</pre>")
    return parts


def _counts(report: FuzzReport, category: str) -> str:
    """A table of all items of a category, those that were not reached too."""
    counts = Counter(report.coverage.of(category))
    items = dict.fromkeys([*reachable()[category], *counts])
    rows = "\n".join(
        f"<tr{'' if counts[item] else ' class=none'}>"
        f"<td>{escape(item)}</td><td class=n>{counts[item]}</td></tr>"
        for item in items
    )
    return f"<table>{rows}</table>"


def _grids(report: FuzzReport) -> str:
    counts = Counter(report.coverage.of(PAIRING))
    there = set(reachable()[PAIRING])
    grids = []
    for row in TABLE:
        if not has_pairing(row):
            continue
        lines = []
        for dst in range(REGISTER_COUNT):
            cells = (f"{row.name} r{dst} r{src}" for src in range(REGISTER_COUNT))
            lines.append("".join(_cell(counts[cell]) if cell in there else "<td></td>" for cell in cells))
        table = "".join(f"<tr>{line}</tr>" for line in lines)
        grids.append(f"<div class=grid>{row.name}<table>{table}</table></div>")
    return f"<div class=grids>{''.join(grids)}</div>"


def _cell(count: int) -> str:
    shade = SHADES[min(count.bit_length(), len(SHADES) - 1)]
    return f"<td style='background:{shade}' title={count}></td>"
