"""What a page shows, done as its reader does it: snippets, files, sessions at a terminal.

    python reader.py PAGE FOLDER EXTRA ...      in FOLDER, with the commands that stand beside this Python

It needs nothing but Python, so that it runs where nothing else is. The last line says how far that went:
without machine code a page may end at it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

BLOCK = re.compile(r'^```(python|console)(?: title="(.*?)")?\n(.*?)^```', re.MULTILINE | re.DOTALL)
PRINTED = re.compile(r"^\s*print\(.*\)  # (.*)$", re.MULTILINE)
"""A line that says what it prints."""
INDENTED = re.compile(r"^    (ebpfjit .*?)(?:  .*?)?(?:: ebpfjit\[(\w+)\])?$", re.MULTILINE)
"""A command that stands in a list of them, what is said of it, and the extra that it needs besides."""
ENDS = {"ebpfjit check examples/packets/event_logger.o": 1, "ebpfjit fuzz firewall_first.o": 1}
"""How commands, by their first words, end that find what their page is about."""
WITHOUT = "JitUnavailable|keystone is not installed|skipped in"
"""What is told where there is no machine code."""


def read_page(text: str, folder: Path, output_of: Callable[[list[str]], str]) -> None:
    """Do all that a page shows, in order; snippets of a page share their names."""
    names: dict[str, object] = {}
    for kind, title, block in BLOCK.findall(text):
        if title:
            (folder / title).write_text(block)
        elif kind == "python":
            run_snippet(block, names)
        else:
            run_session(block, output_of)


def run_snippet(text: str, names: dict[str, object]) -> None:
    """Run a snippet; lines say what they print."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(text, "<a snippet>", "exec"), names)
    printed = iter(out.getvalue().splitlines())
    for said in PRINTED.findall(text):
        assert said in printed, f"{said!r} is not printed, or not in this order:\n{text}\n{out.getvalue()}"


def run_session(text: str, output_of: Callable[[list[str]], str]) -> None:
    """Give the commands of a session; what it shows has ... for what it leaves out."""
    for command, shown in commands_of(text):
        said = output_of(shlex.split(command))
        pattern = re.escape(shown).replace(re.escape("..."), ".*")
        assert re.fullmatch(pattern, said.strip() + "\n", re.DOTALL), f"$ {command}\n{said}"


def commands_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a session, and what it shows."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, shown


def end_of(words: list[str]) -> int:
    """Return the exit status that a command has on its page."""
    return ENDS.get(" ".join(words[:3]), 0)


def _output_of(words: list[str]) -> str:
    """Return what a command prints that stands beside this Python."""
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    done = subprocess.run(
        words, text=True, check=False, env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if done.returncode != end_of(words):
        raise RuntimeError(f"$ {shlex.join(words)}\n{done.stdout}exit status {done.returncode}")
    return done.stdout


def main() -> int:
    page, folder, extras = Path(sys.argv[1]).read_text(), Path(sys.argv[2]).resolve(), sys.argv[3:]
    os.chdir(folder)
    whole = _done(lambda: read_page(page, folder, _output_of))
    for command, extra in INDENTED.findall(page):
        if not extra or extra in extras:
            whole &= _done(lambda command=command: _output_of(shlex.split(command)))
    print("done" if whole else "no machine code")
    return 0


def _done(part: Callable[[], object]) -> bool:
    """Do a part of a page; False where it came to what is not there without machine code."""
    try:
        part()
    except Exception as error:
        if re.search(WITHOUT, f"{type(error).__name__} {error}") is None:
            raise
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
