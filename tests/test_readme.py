"""What the README shows works as it is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ebpfjit import EbpfVmNoData, JitUnavailable, assembler

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def machine_code() -> None:
    try:
        EbpfVmNoData(assembler.assemble("mov64 r0, 0\nexit")).jit_compile()
    except JitUnavailable as unavailable:
        pytest.skip(str(unavailable))


@pytest.mark.usefixtures("machine_code")
def test_quick_start(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for line in SNIPPETS[0].splitlines() if line]
    assert len(lines) == 4
    exec(SNIPPETS[0], {})
    assert capsys.readouterr().out == "0x11\n"


@pytest.mark.usefixtures("machine_code")
def test_programs_of_the_kernel_and_the_machines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One behind the other, as somebody pastes them."""
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    kernel, often, machines = SNIPPETS[1:]
    for snippet in (kernel, often):
        exec(snippet, names)
        assert capsys.readouterr().out == snippet.rsplit("  # ", 1)[1]
    exec(machines, names)
    assert names["verdict"] == 0
    assert "ldxdw r2, [r1+0x50]" in capsys.readouterr().out


def test_commands_are_those_that_exist() -> None:
    from ebpfjit.cli.commands import COMMANDS

    shown = set(re.findall(r"^    ebpfjit (\w+) ", README, re.MULTILINE))
    assert shown == set(COMMANDS)


BASE = "https://github.com/ebpfjit/ebpfjit/blob/main/"


def test_links_lead_somewhere() -> None:
    """They are whole, so that they work on the page of a package index too."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    assert len(links) > 5
    for link in links:
        assert link.startswith("https://"), link
        assert (ROOT / link.removeprefix(BASE)).exists() or not link.startswith(BASE), link
