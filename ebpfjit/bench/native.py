"""C, compiled by the system's gcc and clang where they are there: what machine code is compared with."""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
import importlib.util
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ebpfjit.bench.measure import BenchError

COMPILERS = ("gcc", "clang")
OPTIONS = ("-O2", "-fPIC", "-shared")


@functools.cache
def compilers() -> Mapping[str, str]:
    """Return the compilers that work here, and the first line of what each says of its version."""
    return MappingProxyType({name: _first_line(name, "--version") for name in COMPILERS if _works(name)})


def left_out() -> list[str]:
    """Return the remark of a table without the columns of compilers that are missing."""
    absent = [name for name in COMPILERS if name not in compilers()]
    return [f"Without columns of {' and '.join(absent)}: not in PATH, or not working."] if absent else []


def load(*sources: str, options: Sequence[str] = (), compiler: str | None = None) -> ctypes.PyDLL:
    """Compile C texts into one shared library and load it; its functions keep Python's lock.

    Each text is a file of its own: a function of another one is called, never inlined.
    Raises BenchError where there is no compiler, or where it does not take the text.
    """
    library: ctypes.PyDLL = _compiled(compiler, sources, options, lambda path: ctypes.PyDLL(str(path)))
    return library


def load_extension(source: str, name: str) -> Any:
    """Compile the text of a C extension and import it; None without a compiler or Python's headers."""
    include = sysconfig.get_paths()["include"]
    if not compilers() or not (Path(include) / "Python.h").exists():
        return None
    return _compiled(None, (source,), (f"-I{include}",), lambda path: _imported(name, path))


def _imported(name: str, path: Path) -> Any:
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _compiled(
    compiler: str | None, sources: Sequence[str], options: Sequence[str], load: Callable[[Path], Any]
) -> Any:
    """Return what `load` makes of the library; the file is gone afterwards, its mapping stays."""
    compiler = compiler or next(iter(compilers()), None)
    if compiler is None:
        raise BenchError(f"no C compiler: neither of {', '.join(COMPILERS)} works here")
    with tempfile.TemporaryDirectory() as directory:
        library = Path(directory) / "library.so"
        files = [Path(directory) / f"{number}.c" for number in range(len(sources))]
        for file, source in zip(files, sources, strict=True):
            file.write_text(source)
        command = [compiler, *OPTIONS, *options, *map(str, files), "-o", str(library)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode:
            lines = found.stderr.strip().splitlines() or ["no reason given"]
            raise BenchError(f"{compiler} does not compile: {lines[0]}")
        return load(library)


def _works(compiler: str) -> bool:
    """Tell whether a compiler is here and makes libraries that can be loaded."""
    if shutil.which(compiler) is None:
        return False
    try:
        _compiled(compiler, ("int zero(void) { return 0; }",), (), lambda path: ctypes.PyDLL(str(path)))
    except (BenchError, OSError):
        return False
    return True


def _first_line(*command: str) -> str:
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return found[0] if found else command[0]
