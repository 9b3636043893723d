"""Objects of C files: clang is started where what it would be given is new."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

FLAGS = ("-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall")
TIMEOUT = 120
"""Seconds that clang may take for one file."""


class Clang:
    """The clang of a test session, and the folder in which its objects are kept."""

    def __init__(self, config: pytest.Config, temporary: pytest.TempPathFactory) -> None:
        self.root = config.rootpath
        self.program = self._found(config.getini("ebpf_clang") or os.environ.get("CLANG") or "clang")
        self.flags: tuple[str, ...] = (*FLAGS, *config.getini("ebpf_cflags"))
        cache = config.cache if config.pluginmanager.hasplugin("cacheprovider") else None
        self.folder = cache.mkdir("ebpfjit") if cache is not None else temporary.mktemp("ebpfjit")
        self._version: bytes | None = None

    def _found(self, program: str) -> str:
        """Return a program as it is started from anywhere: one in a folder counts from the root, too."""
        return str(self.root / program) if os.path.dirname(program) else program

    def compile(self, source: Path, flags: Sequence[str]) -> Path:
        """Return the path of the object of a C file. Skips without clang, fails where clang does.

        Paths in options count from pytest's root, wherever it was started.
        """
        __tracebackhide__ = True
        source = source.absolute()
        command = [self.program, *self.flags, *flags]
        text = self._run([*command, "-E", str(source)], source)
        known = "\0".join(command).encode() + b"\0" + self._told() + text
        found = self.folder / f"{source.stem}-{hashlib.sha256(known).hexdigest()[:32]}.o"
        if not found.exists():
            unfinished = found.with_suffix(f".{os.getpid()}")  # other workers may make it as well
            self._run([*command, "-c", str(source), "-o", str(unfinished)], source)
            unfinished.replace(found)
        return found

    def _told(self) -> bytes:
        """Return the version of clang, asked for once."""
        if self._version is None:
            self._version = self._run([self.program, "--version"], Path())
        return self._version

    def _run(self, command: list[str], source: Path) -> bytes:
        __tracebackhide__ = True
        if shutil.which(self.program) is None:
            pytest.skip(
                f"ebpf_compile({source.name!r}) needs {self.program!r}, which is not here: apt install clang,"
                " or say where it is (ini option ebpf_clang)"
            )
        try:
            done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False, cwd=self.root)
        except (OSError, subprocess.TimeoutExpired) as error:
            pytest.fail(f"{' '.join(command)}: {error}", pytrace=False)
        if done.returncode:
            pytest.fail(f"{' '.join(command)}\n{done.stderr.decode(errors='replace')}", pytrace=False)
        return done.stdout
