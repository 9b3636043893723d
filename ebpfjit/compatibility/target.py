"""The kernel that is asked for: a release, the types of one (a BTF file), or the one that runs here.

"5.15"      ->  what releases have
"FILE"      ->  the release that the types show, and what they name: kfuncs, functions to attach to
"running"   ->  the release that this machine runs, and its types where it shows them
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from ebpfjit.compatibility import lookup
from ebpfjit.compatibility.need import Evidence, Need
from ebpfjit.compatibility.release import FIRST, LAST, Release, is_known, is_release, known_release
from ebpfjit.compatibility.tables import kernel
from ebpfjit.elf.btf import Btf, Kind
from ebpfjit.elf.budget import Budget
from ebpfjit.elf.loader import Source, read_btf
from ebpfjit.errors import EbpfError, LoadError
from ebpfjit.record import dataclass

RUNNING = "running"
OWN_TYPES = Path("/sys/kernel/btf/vmlinux")
_ROOM = 1 << 30
"""Bytes that a kernel's types may take once they are read: the user chose the file."""

_KINDS = {
    "function": frozenset({Kind.FUNC}),
    "struct": frozenset({Kind.STRUCT}),
    "typedef": frozenset({Kind.TYPEDEF}),
    "variable": frozenset({Kind.VAR}),
}


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that programs are to run on: its release, and its types where they are at hand.

    `release` is the newest one of the tables that it is at least; `name` is what reports call it. `types` are
    its BTF, None without.
    """

    release: Release
    name: str
    types: Btf | None = None

    def was_built_without(self, need: Need) -> bool:
        """Say whether its types lack what they have where there is what is `need`ed, whatever its release."""
        return self.types is not None and need.evidence is not None and not shows(self.types, need.evidence)

    def has(self, need: Need) -> bool | None:
        """Say whether it has what a program needs (`need`); None where that is not known."""
        if self.was_built_without(need):
            return False
        if need.of_types:
            return True  # its types have it, or nobody gave them
        if not need.is_known:
            return None
        if need.release is None or self.release < need.release:
            return False
        return need.until is None or self.release <= need.until


def shows(types: Btf, evidence: Evidence) -> bool:
    """Return whether the types of a kernel hold what shows that it has a feature."""
    kind, name = evidence
    if kind == "name":
        return types.strings.find(b"\0" + name.encode() + b"\0") >= 0
    return bool(types.named(name, _KINDS[kind]))


def find_kernel(asked: Kernel | Btf | Source) -> Kernel:
    """Return the kernel that is `asked` for: a release ("5.15"), "running", or a file with the types of one.

    Raises EbpfError for a release that the tables do not have, and for types that are not a kernel's,
    LoadError for a file that holds no types, OSError for one that cannot be read, TypeError for a number.
    """
    if isinstance(asked, Kernel):
        return asked
    if asked is None or isinstance(asked, (int, float, tuple)):
        kind = type(asked).__name__
        raise TypeError(
            f'a kernel is a release ("{LAST}"), "{RUNNING}", or a file with its types, not {kind}'
        )
    if asked == RUNNING:
        return _running()
    if isinstance(asked, str) and not _is_file(asked):
        release = known_release(asked)
        return Kernel(release, f"Linux {release}")
    types = _read(asked)
    shown = release_of(types)
    if shown is None:
        raise EbpfError(
            f"{types.name}: these are not the types of a kernel (of 5.2 or later): no enum bpf_func_id"
        )
    return Kernel(shown, f"{types.name} (Linux {shown})", types)


def _is_file(text: str) -> bool:
    """True for what names a file, there or not; one that is called as a release needs a folder in front."""
    return os.sep in text or (not is_release(text) and os.path.exists(text))


def _read(source: Btf | Source) -> Btf:
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        data = path.read_bytes() if path.stat().st_size < _ROOM else b""
        if not data.startswith(b"\x7fELF"):
            return Btf(data, str(path), Budget(str(path), _ROOM))
    types = read_btf(source)
    assert types is not None
    return types


def release_of(types: Btf) -> Release | None:
    """Return the newest release that the types of a kernel show it to be at least; None for other types."""
    found = None
    for mark, release in lookup.releases(kernel.MARKS).items():
        if types.strings.find(b"\0" + mark.encode() + b"\0") < 0:
            break
        found = release
    return None if found is None else max(found, FIRST)


def _running() -> Kernel:
    """Return the kernel of this machine. Raises EbpfError where that is no Linux of the tables."""
    text = platform.release()
    if platform.system() != "Linux":
        raise EbpfError(f"no Linux runs here, but {platform.system()}: name a release, such as {LAST}")
    try:
        release = Release(text)
    except ValueError:
        raise EbpfError(f"the running kernel calls itself {text!r}, which is no release of Linux") from None
    name = f"the running Linux {text}"
    if release > LAST:
        release, name = LAST, f"{name} (as {LAST}, the last one in the tables)"
    elif not is_known(release):
        known_release(str(release))
    try:
        return Kernel(
            release, name, Btf(OWN_TYPES.read_bytes(), str(OWN_TYPES), Budget(str(OWN_TYPES), _ROOM))
        )
    except (OSError, LoadError):
        return Kernel(release, name)
