"""What the pages show works as it is shown: snippets, sessions at a terminal, tests, names, links."""

from __future__ import annotations

import ast
import inspect
import os
import pkgutil
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import ebpfjit
from ebpfjit import runtime_info
from ebpfjit.cli.full import app_of
from tests.fresh_machine import PAGES, make_folder
from tests.support import warm
from tests.support.reader import BLOCK, end_of, read_page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which a reader of the pages is: a checkout's examples, a capture, an object."""
    if runtime_info().engines["jit"] != "available":
        pytest.skip("the pages show machine code, which is not to be had here")
    make_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page: Path, folder: Path) -> None:
    read_page(page.read_text(), folder, _output_of)


def _output_of(words: list[str]) -> str:
    """Return what a command prints; those of ours run in this process."""
    if words[0] == "ebpfjit":
        done = CliRunner().invoke(app_of(words[1:2]), words[1:])
        assert done.exit_code == end_of(words), done.output
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


def test_the_reference_says_each_parameter_and_each_error() -> None:
    """A parameter is named by what takes it, or by its class; so is what a function itself raises."""
    silent = []
    for path, owner, function in _documented():
        said = _words_of(function, owner)
        takes_text = inspect.isclass(function) and not inspect.isfunction(function.__init__)  # and no more
        untold = set() if takes_text else {*inspect.signature(function).parameters} - {"self", "cls"}
        untold -= {name for name in untold if name.startswith(("unused", "_"))}
        if not inspect.isclass(function):
            untold |= _raised_by(function)
        silent += [f"{path}: {name}" for name in sorted(untold - said)]
    assert silent == []


def _documented() -> Iterator[tuple[str, type | None, Callable[..., Any]]]:
    """Yield what pages of the reference show that takes parameters: path, the class that has it, itself."""
    pages = " ".join(page.read_text() for page in DOCS.glob("reference/*.md"))
    for path in re.findall(r"::: (\S+)", pages):
        for at, each in _members(path, pkgutil.resolve_name(path)):
            if inspect.isfunction(each):
                owner = pkgutil.resolve_name(at.rpartition(".")[0])
                yield at, owner if inspect.isclass(owner) else None, each
            elif inspect.isclass(each) and not issubclass(each, Enum):
                yield at, each, each
                for name, method in inspect.getmembers(each):
                    is_function = inspect.isfunction(method) or inspect.ismethod(method)
                    if name[0] != "_" and is_function and "ebpfjit" in method.__module__:
                        yield f"{at}.{name}", each, method


def _members(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a page shows of a module, else the value itself, each with its path."""
    if not inspect.ismodule(value):
        yield path, value
        return
    for name in getattr(value, "__all__", vars(value)):
        each = getattr(value, name)
        if name[0] != "_" and (hasattr(value, "__all__") or getattr(each, "__module__", "") == path):
            yield f"{path}.{name}", each


def _words_of(function: Callable[..., Any], owner: type | None) -> set[str]:
    """Return the words that are said of a function, by it or by its class and what that inherits from."""
    classes = [each for each in owner.__mro__ if "ebpfjit" in each.__module__] if owner is not None else []
    return set(re.findall(r"\w+", " ".join(each.__doc__ or "" for each in (function, *classes))))


def _raised_by(function: Callable[..., Any]) -> set[str]:
    """Return the names of the errors that a function raises itself."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    raised = [node.exc for node in ast.walk(tree) if isinstance(node, ast.Raise)]
    named = [each.func if isinstance(each, ast.Call) else each for each in raised]
    names = [each.id for each in named if isinstance(each, ast.Name)]
    return {name for name in names if name[0].isupper()}


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
