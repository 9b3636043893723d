"""Object files: what clang wrote, as programs.

bytes -> reader (sections, symbols, relocations; checked) -> relocation (references between
functions) -> linker (one self-contained Program per entry function) -> loader (Object)
"""

from ebpfjit.elf.loader import Object, load

__all__ = ["Object", "load"]
