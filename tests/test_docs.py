"""What the pages show works as it is shown: snippets, sessions at a terminal, tests, names, links."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.utils import wrpcap
from typer.testing import CliRunner

import ebpfjit
from ebpfjit import runtime_info
from ebpfjit.cli.full import app_of
from tests.support import warm

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [DOCS / "index.md", *sorted(DOCS.glob("how-to/*.md")), *sorted(DOCS.glob("reference/*.md"))]
BLOCK = re.compile(r'^```(python|console)(?: title="(.*?)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"^\s*print\(.*\)  # (.*)$", re.MULTILINE)
"""A line that says what it prints."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which a reader of the pages is: a checkout's examples, a capture, an object."""
    if runtime_info().engines["jit"] != "available":
        pytest.skip("the pages show machine code, which is not to be had here")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shutil.copy(ROOT / "examples" / "packets" / "xdp_port_filter.o", tmp_path)
    shutil.copy(ROOT / "tests" / "elf" / "columns.o", tmp_path)
    for path in (ROOT / "examples" / "tutorial").glob("*.o"):
        shutil.copy(path, tmp_path)
    frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    to = IP(src="10.0.0.2", dst="10.0.0.1")
    packets = [frame / to / UDP(dport=53), frame / to / TCP(dport=80), frame / ARP()]
    wrpcap(str(tmp_path / "capture.pcap"), packets)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page: Path, folder: Path) -> None:
    names: dict[str, object] = {}
    for kind, title, text in BLOCK.findall(page.read_text()):
        if title:
            (folder / title).write_text(text)
        elif kind == "python":
            _run_snippet(text, names)
        else:
            _run_session(text)


def _run_snippet(text: str, names: dict[str, object]) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(text, "<a snippet>", "exec"), names)
    printed = iter(out.getvalue().splitlines())
    for said in PRINTED.findall(text):
        assert said in printed, f"{said!r} is not printed, or not in this order:\n{text}\n{out.getvalue()}"


def _run_session(text: str) -> None:
    for command, shown in _commands(text):
        said = _output_of(shlex.split(command))
        pattern = re.escape(shown).replace(re.escape("..."), ".*")
        assert re.fullmatch(pattern, said.strip() + "\n", re.DOTALL), f"$ {command}\n{said}"


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a session, and what it shows."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


ENDS = {"ebpfjit check examples/packets/event_logger.o": 1, "ebpfjit fuzz firewall_first.o": 1}
"""How commands, by their first words, end that find what their page is about."""


def _output_of(words: list[str]) -> str:
    """Return what a command prints; those of ours run in this process."""
    if words[0] == "ebpfjit":
        done = CliRunner().invoke(app_of(words[1:2]), words[1:])
        assert done.exit_code == ENDS.get(" ".join(words[:3]), 0), done.output
        return done.output
    assert words[0] == "pytest"
    arguments = [sys.executable, "-m", *words, "-p", "no:cacheprovider"]
    arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # of a process that has imported ebpfjit
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = warm.run(arguments, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def test_the_tutorial_shows_the_files_of_its_example() -> None:
    page = (DOCS / "how-to" / "tutorial.md").read_text()
    shown = dict(re.findall(r'^```\w+ title="(.*?)"\n(.*?)^```', page, re.MULTILINE | re.DOTALL))
    example = ROOT / "examples" / "tutorial"
    assert shown == {path.name: path.read_text() for path in example.iterdir() if path.name in shown}
    assert shown.keys() == {"firewall.c", "test_firewall.py", "ebpf.yml"}


def test_each_public_name_is_in_an_example_of_the_reference() -> None:
    pages = " ".join(page.read_text() for page in DOCS.glob("reference/*.md"))
    shown = " ".join(text for _, _, text in BLOCK.findall(pages))
    assert [name for name in ebpfjit.__all__ if not re.search(rf"\b{name}\b", shown)] == []


def test_links_between_pages_lead_somewhere() -> None:
    lost = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in (ROOT / "README.md", *DOCS.rglob("*.md"))
        for link in re.findall(r"\]\(((?!http|#)[^)#]+)[^)]*\)", page.read_text())
        if not (page.parent / link).exists() and link not in MADE
    ]
    assert lost == []


MADE = [f"images/{name}.svg" for name in ("kernels", "holdout", "calls")]
"""What `docs/hooks.py` makes when the pages are."""
