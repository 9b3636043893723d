"""Machine code: a verified program becomes a listing, an image, a mapped function.

compiler.py      Verified -> Listing        text per instruction, from the translators
assembler.py     templates -> stencils      bytes from keystone, one batch a program
relocation.py    Listing -> Image -> bytes  jumps and slots filled
code_buffer.py   bytes -> CodeBuffer        mapped, executable, never writable at once
entry.py         the call from Python, and faults back into exceptions
"""

LATER = ("cache", "compiler", "legend", "lower", "map_routines", "routine_text", "timing", "translation")
"""What not every program needs: for images in files, optimised code, and those who look at it."""
