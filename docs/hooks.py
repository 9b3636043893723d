"""What mkdocs makes besides the pages: plots of benchmarks/RESULTS.md, links that leave docs/."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from ebpfjit.bench import plot
from ebpfjit.bench.benchmark import Bars, Section

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
KERNELS = ("unchecked/clang", "checked/clang")
#  image       a table of RESULTS.md, by its title      columns    what they are
PLOTS = {
    "kernels": ("Machine code of C kernels: net", KERNELS, "time over that of clang -O2"),
    "holdout": ("Machine code of C kernels that nobody tuned for", KERNELS, "time over that of clang -O2"),
    "calls": ("A call from Python", ("ns", "compared with: ns"), "ns a call"),
}
OF_ALL = ("geomean", "worst")
_LINK = re.compile(r"\]\(((?:\.\./)+[^)\s#]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pictures that are made of measurements."""
    for name, (title, columns, unit) in PLOTS.items():
        files.append(File.generated(config, f"images/{name}.svg", content=_plot(title, columns, unit)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links that leave the folder of the pages lead to the repository."""
    folder = (ROOT / "docs" / page.file.src_uri).parent

    def moved(found: re.Match[str]) -> str:
        target = (folder / found[1]).resolve()
        if target.is_relative_to(ROOT / "docs"):
            return found[0]
        return f"]({config['repo_url']}/blob/main/{target.relative_to(ROOT)}"

    return _LINK.sub(moved, markdown)


def table_of(title: str) -> list[dict[str, str]]:
    """Return the rows of the table in RESULTS.md whose title starts so, by their headings.

    A heading that is there a second time has the one before it in front.
    """
    lines = RESULTS.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(title)) + 2
    headings: list[str] = []
    for heading in _cells(lines[first]):
        headings.append(f"{headings[-1]}: {heading}" if heading in headings else heading)
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(headings, _cells(line), strict=True)))
    return rows


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _plot(title: str, columns: Sequence[str], unit: str) -> bytes:
    """Return columns of a table as bars (SVG)."""
    rows = [row for row in table_of(title) if next(iter(row.values())) not in OF_ALL]
    labels = tuple(next(iter(row.values())) for row in rows)
    series = {column: tuple(float(row[column]) for row in rows) for column in columns}
    if "compared with" in rows[0]:
        labels = tuple(f"{row['']} | {row['compared with']}" for row in rows)
        series = dict(zip(("ebpfjit", "compared with"), series.values(), strict=True))
    shown = Section(title, "", (), "", (), Bars(unit, labels, series), {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plot.svg"
        plot.write([shown], path)
        return path.read_bytes()
