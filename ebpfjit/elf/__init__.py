"""Object files: what clang wrote, as programs.

bytes -> reader (sections, symbols, relocations; checked)
      -> btf, btf_ext (types, source lines), maps, globals, externs -> memory (the object's maps)
      -> core (instructions for another kernel's types)
      -> linker (one self-contained Program per entry function)
      -> tail_calls (what maps hold from the start) -> loader (Object)
"""

from ebpfjit.elf.loader import Object, load, read_btf

__all__ = ["Object", "load", "read_btf"]
