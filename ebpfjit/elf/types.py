"""The types of an object, and what they say of its instructions; damaged ones are left out.

Code without types runs as well: maps that only types define, and relocations for another kernel's types, are
refused where they are needed.
"""

from __future__ import annotations

from ebpfjit.elf.btf import Btf
from ebpfjit.elf.btf_ext import BtfExt, has_core_relocations
from ebpfjit.elf.core import Core, CoreResult
from ebpfjit.elf.reader import ObjectFile
from ebpfjit.elf.refusals import Refusals
from ebpfjit.errors import LoadError

TYPES, OF_CODE = ".BTF", ".BTF.ext"
EXCEPTION_CALLBACK = "exception_callback:"
"""How a declaration tag of a program begins that names what bpf_throw calls."""


def read_types(file: ObjectFile, refusals: Refusals) -> tuple[Btf | None, BtfExt | None]:
    """Return an object's types, and what they say of instructions; None for what is damaged, or not there.

    Raises LoadError for CO-RE relocations without any types.
    """
    section, ext = file.section(TYPES), file.section(OF_CODE)
    if section is None:
        if ext is not None and has_core_relocations(ext.data):
            raise LoadError(
                f"{file.name}: section '.BTF.ext' has CO-RE relocations, but no .BTF has their types"
            )
        return None, None
    btf = refusals.attempt(TYPES, lambda: _types(file, section.data), None)
    if btf is None or ext is None:
        return btf, None
    return btf, refusals.attempt(OF_CODE, lambda: _of_code(file, ext.data, btf), None)


def _types(file: ObjectFile, data: memoryview) -> Btf:
    btf = Btf(data, f"{file.name}: section {TYPES!r}", file.budget)
    len(btf)  # where each type starts
    return btf


def _of_code(file: ObjectFile, data: memoryview, btf: Btf) -> BtfExt:
    ext = BtfExt(data, btf, f"{file.name}: section {OF_CODE!r}")
    ext.check()
    return ext


def make_relocations(
    file: ObjectFile, ext: BtfExt | None, target: Btf | None, refusals: Refusals
) -> tuple[CoreResult, LoadError | None]:
    """Return what CO-RE makes of the instructions, and what stands in the way of running any program.

    That is damage where relocations for a target were asked for: without one the code is as compiled.
    """
    if ext is not None:
        return Core(file, ext, target).apply(), None
    section = file.section(OF_CODE)
    damage = refusals.found.get(TYPES) or refusals.found.get(OF_CODE)
    if damage is None or target is None or section is None or not has_core_relocations(section.data):
        return CoreResult(), None
    reason = str(damage).removeprefix(f"{file.name}: ")
    message = f"{file.name}: the relocations for the types of load(..., btf=) cannot be read: {reason}"
    return CoreResult(), LoadError(f"{message}; without btf= the code runs as it was compiled")


def find_exception_callbacks(btf: Btf | None) -> dict[str, str]:
    """Return the function that bpf_throw calls, by program. Raises LoadError for damage."""
    found: dict[str, str] = {}
    if btf is None:
        return found
    for tag, callback in btf.tags(EXCEPTION_CALLBACK):
        found.setdefault(btf.type(tag.target).name, callback)
    return found
