"""README and the pages, on a machine with nothing but Python: `python -m tests.fresh_machine`.

The tree becomes a wheel, which is installed as the pages say into an environment of its own, with what they
import; every page is then read by that Python, and once more without keystone. It needs a package index.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.reader import BLOCK, INDENTED

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "index.md",
    *sorted((ROOT / "docs" / "how-to").glob("*.md")),
    *sorted((ROOT / "docs" / "reference").glob("*.md")),
]
OTHERS = ("duckdb", "hypothesis", "numpy", "pandas", "polars", "scapy")
"""What pages import that no extra of ours brings, each by its name on the index."""
UNREAD = "prove"
"""The extra of a command that takes a quarter of an hour."""
SAID = "where-there-is-no-machine-code"
"""The place that says what works without machine code, to which pages link."""


def needs_of(page: str) -> set[str]:
    """Return the extras, in brackets, and the packages that a page says to install, or imports."""
    snippets = "\n".join(text for _, _, text in BLOCK.findall(page))
    named = ",".join(re.findall(r"pip install 'ebpfjit\[([\w,]+)\]'", page)).split(",")
    imported = {name for name in OTHERS if re.search(rf"^(?:import|from) {name}\b", snippets, re.MULTILINE)}
    return {f"[{extra}]" for extra in named if extra} | imported


def needs_of_commands(page: str) -> set[str]:
    """Return the extras, in brackets, that single commands of a page need besides."""
    return {f"[{extra}]" for _, extra in INDENTED.findall(page) if extra not in ("", UNREAD)}


def make_folder(path: Path) -> None:
    """Fill the folder in which a reader of the pages is: a checkout's examples, a capture, objects."""
    from scapy.layers.inet import IP, TCP, UDP
    from scapy.layers.l2 import ARP, Ether
    from scapy.utils import wrpcap

    (path / "examples").symlink_to(ROOT / "examples")
    shutil.copy(ROOT / "examples" / "packets" / "xdp_port_filter.o", path)
    shutil.copy(ROOT / "tests" / "elf" / "columns.o", path)
    for each in (ROOT / "examples" / "tutorial").glob("*.o"):
        shutil.copy(each, path)
    frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    to = IP(src="10.0.0.2", dst="10.0.0.1")
    packets = [frame / to / UDP(dport=53), frame / to / TCP(dport=80), frame / ARP()]
    wrpcap(str(path / "capture.pcap"), packets)
    (path / "packet.bin").write_bytes(bytes(packets[1]))
    (path / "program.s").write_text("ldxb r0, [r1+2]\nexit\n")


def run(command: list[str | Path]) -> None:
    """Run a command that knows nothing of this tree."""
    subprocess.run(command, check=True, env=elsewhere())


def elsewhere() -> dict[str, str]:
    """Return the environment of a process that does not find this tree."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def environments(folder: Path) -> dict[str, tuple[Path, list[str]]]:
    """Return Python and extras of each environment: of what README says first, and of all that pages name."""
    tree = folder / "tree"  # what building leaves there would be in the next wheel
    unwanted = shutil.ignore_patterns(".?*", "build", "*.egg-info", "__pycache__", "site")
    shutil.copytree(ROOT, tree, symlinks=True, ignore=unwanted)
    run([sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", "--wheel-dir", folder, tree])
    (wheel,) = folder.glob("ebpfjit-*.whl")
    texts = [page.read_text() for page in PAGES]
    needs = set().union(*(needs_of(text) | needs_of_commands(text) for text in texts))
    every = sorted(need[1:-1] for need in needs if need[0] == "[")
    others = sorted(need for need in needs if need[0] != "[")
    made = {}
    for name, extras, packages in (("least", ["cli"], []), ("all", every, others)):
        run([sys.executable, "-m", "venv", folder / name])
        python = folder / name / "bin" / "python"
        run([python, "-m", "pip", "--quiet", "install", f"{wheel}[{','.join(extras)}]", *packages, "pytest"])
        made[name] = python, extras
    return made


def read_pages(
    python: Path, extras: list[str], folder: Path, pages: list[Path], *, may_end: bool
) -> list[str]:
    """Let a Python that has these extras do what pages show; return those that do not work as shown.

    Where it `may_end`, there is no machine code, and a page that comes to it must say what is there instead.
    """
    wrong = []
    for page in pages:
        with tempfile.TemporaryDirectory(dir=folder) as reader:
            make_folder(Path(reader))
            command = [str(python), str(ROOT / "tests" / "support" / "reader.py"), str(page), reader, *extras]
            done = subprocess.run(command, env=elsewhere(), capture_output=True, text=True, check=False)
        last = done.stdout.splitlines()[-1:]
        says = any(SAID in each.read_text() for each in (page, page.parent / "index.md") if each.exists())
        if done.returncode == 0 and (last == ["done"] or (may_end and says)):
            print(f"{page.relative_to(ROOT)}: {last[0]}", flush=True)
        else:
            wrong.append(f"{page.relative_to(ROOT)}: {(done.stdout + done.stderr)[-1000:]}")
            print(wrong[-1], flush=True)
    return wrong


def main() -> int:
    with tempfile.TemporaryDirectory() as temporary:
        folder, wrong = Path(temporary), []
        least = [page for page in PAGES if needs_of(page.read_text()) <= {"[cli]"}]
        more = [page for page in PAGES if page not in least or needs_of_commands(page.read_text())]
        made = environments(folder)
        for name, pages in (("least", least), ("all", more)):
            python, extras = made[name]
            wrong += read_pages(python, extras, folder, pages, may_end=False)
            run([python, "-m", "pip", "--quiet", "uninstall", "--yes", "keystone-engine"])
            print("without keystone:")
            wrong += read_pages(python, extras, folder, pages, may_end=True)
    print(f"{len(wrong)} pages do not work as shown")
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main())
