"""Object files: what clang wrote, as programs.

bytes -> reader (sections, symbols, relocations; checked)
      -> btf, btf_ext (types, source lines), maps, globals, externs -> memory (the object's maps)
      -> core (instructions for another kernel's types)
      -> linker (one self-contained Program per entry function)
      -> tail_calls (what maps hold from the start) -> loader (Object)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ebpfjit.once import import_alone

if TYPE_CHECKING:
    from ebpfjit.elf.loader import Object, load, read_btf

LATER = ("contexts", "kconfig", "map_structs", "objects")
"""What not every object needs: contexts by BTF, text of `kconfig=`, struct bpf_map, described structs."""

__all__ = ["Object", "load", "read_btf"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(
        import_alone(f"{__name__}.loader"), name
    )  # not kept: `globals` is a module of this package
