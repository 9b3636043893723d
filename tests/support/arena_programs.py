"""Programs with any pointers into an arena."""

from __future__ import annotations

import random
from typing import Any

from ebpfjit.assembler import assemble
from ebpfjit.program import Kfunc, Program
from ebpfjit.runtime.maps import MapDefinition, MapFlag, MapType, create

PAGE, PAGES = 4096, 6
STARTS = (
    (1 << 45) + 0x7FFF_D000,
    (1 << 45),  # where a pointer of 0 is one
    (1 << 45) + (1 << 32) - PAGES * PAGE,  # up to the end of the 32 bits
    (1 << 64) - (1 << 32) + 0x1000,
)
KFUNCS = {
    1: Kfunc("bpf_arena_alloc_pages"), 2: Kfunc("bpf_arena_free_pages"), 3: Kfunc("bpf_arena_reserve_pages"),
}  # fmt: skip
SIZES = ("8", "16", "32", "64")
POINTERS = (1, 2, 3, 4, 5, 7, 8)
REFUSED_BY_LINUX = ("load_acquire", "store_release", "atomic_fetch_or", "= r10")
"""What it has no machine code for in an arena; and what is a pointer of two kinds."""


def arena(start: int, flags: int = 0) -> Any:
    definition = MapDefinition(
        "pages", MapType.ARENA, 0, 0, PAGES, int(MapFlag.MMAPABLE | flags), extra=start
    )
    return create(definition)


def program(text: str, map_: Any) -> Program:
    code = assemble("r9 = map[idx:0]\n" + text)
    return Program(code, type="syscall", maps=(map_,), references={0: map_.address}, kfuncs=KFUNCS)


def _number(source: random.Random, start: int) -> int:
    """Return a number near something: a page's start or end, the ends of 32 and 64 bits."""
    near = source.choice((start + source.randrange(-1, PAGES + 2) * PAGE, 0, 1 << 32, 1 << 31, 1 << 63))
    off = source.choice((0, 0, 0, -1, -2, -4, -7, -8, 1, 4, 8, 100, source.randrange(PAGE)))
    return near + off + (source.randrange(1 << 16) << 32) * source.randrange(2) & (1 << 64) - 1


def _step(source: random.Random, start: int, *, for_linux: bool) -> list[str]:
    """Return a few instructions: r6 adds up what is found, r9 is the map, most others are anything."""
    dst, src = source.choice(POINTERS), source.choice(POINTERS)
    size, offset = source.choice(SIZES), source.choice((0, 0, 4, 8, -8, -1, 32760, -32768, 4088))
    place = f"(r{dst} {'-' if offset < 0 else '+'} {abs(offset)})"
    cast = f"r{dst} = addr_space_cast(r{src}, 0, 1)"
    aligned = [cast, f"r{dst} &= -8"]
    return source.choice((
        [f"r{dst} = {_number(source, start):#x} ll"],
        [cast],
        [f"r{dst} = addr_space_cast(r{src}, 1, 0)", f"r6 += r{dst}"],
        [cast, f"r6 += r{dst}"],
        [cast, f"r{src} = *(u{size} *){place}", f"r6 += r{src}"],
        [cast, f"r{src} = *(s{source.choice(SIZES[:3])} *){place}", f"r6 ^= r{src}"],
        [cast, f"*(u{size} *){place} = r6"],
        [cast, f"*(u{size} *){place} = {source.randrange(-128, 128)}"],
        [*aligned, f"lock *(u64 *)(r{dst} + 8) += r6"],
        [*aligned, f"r6 = atomic_fetch_or((u64 *)(r{dst} + 0), r6)"],
        [*aligned, f"w6 = xchg32_32(r{dst} + 4, w6)"],
        [*aligned, f"r0 = r{src}", f"r0 = cmpxchg_64(r{dst} + 0, r0, r6)", "r6 += r0"],
        [*aligned, f"r6 = load_acquire((u64 *)(r{dst} + 0))"],
        [*aligned, f"store_release((u32 *)(r{dst} + 4), w6)"],
        [cast, f"r{dst} {source.choice(('+', '-', '*', '^', '>>', 's>>', '<<', '/', '%', 's/'))}= r{src}"],
        [cast, f"r{dst} {source.choice(('+', '&', '|', '>>'))}= {source.randrange(1, 31)}", f"r6 += r{dst}"],
        [cast, f"*(u64 *)(r10 - 16) = r{dst}", f"r{src} = *(u64 *)(r10 - 16)", f"r6 += r{src}",
         f"r{src} = *(u8 *)(r{src} + 0)", f"r6 += r{src}"],
        [cast, f"if r{dst} > r6 goto +1", f"r{dst} += 4096", f"r7 = *(u32 *)(r{dst} + 0)", "r6 += r7"],
        [cast, "if r6 & 1 goto +2", f"r{dst} = r10", f"r{dst} += -32",
         f"*(u64 *)(r{dst} + 0) = r6", f"r6 = *(u64 *)(r{dst} + 8)", f"r{dst} = 1"],
        _call(source, start, for_linux=for_linux),
    ))  # fmt: skip


def _call(source: random.Random, start: int, *, for_linux: bool) -> list[str]:
    """Return a call of a kernel function."""
    address = source.choice((0, start + source.randrange(-1, PAGES + 1) * PAGE, _number(source, start)))
    called = source.choice((1, 1, 1, 2, 2, 3))
    if called == 2 and for_linux:
        address = start + source.randrange(PAGES) * PAGE + source.choice((0, 0, 5))
    pages = source.choice((0, 1, 1, 1, 2, 3, PAGES, PAGES + 1, 0x7FFFFFFF, -1))
    flags = 0 if source.randrange(8) else 1
    result = {1: ["r6 += r0"], 2: [], 3: ["w6 += w0"]}[called]  # a pointer, nothing, an int
    return [
        "r1 = r9", f"r2 = {address & (1 << 64) - 1:#x} ll", f"r3 = {pages}", "r4 = -1", f"r5 = {flags}",
        f"call kfunc {called}", *result,
        *(f"r{register} = {_number(source, start):#x} ll" for register in range(1, 6)),
    ]  # fmt: skip


def text_of(source: random.Random, start: int, *, for_linux: bool = False) -> str:
    """Return a program's text: casts, accesses, arithmetic and calls with any numbers.

    `for_linux` leaves out what its verifier refuses, and freeing what lies in front of an arena or behind it,
    after which Linux gives out pages that are not the arena's.
    """
    lines = [f"r{register} = {_number(source, start):#x} ll" for register in POINTERS]
    lines += ["r6 = 0", f"*(u64 *)(r10 - 32) = {source.randrange(100)}", "*(u64 *)(r10 - 24) = 77"]
    lines += _call(source, start, for_linux=for_linux)
    for _ in range(25):
        step = _step(source, start, for_linux=for_linux)
        while for_linux and any(word in line for word in REFUSED_BY_LINUX for line in step):
            step = _step(source, start, for_linux=for_linux)
        lines += step
    where = start & 0xFFFFFFFF
    lines += [
        f"r7 = {where + 8:#x} ll", "r7 = addr_space_cast(r7, 0, 1)", "*(u64 *)(r7 + 0) = r6", "r0 = r6",
        "exit",
    ]  # fmt: skip
    return "\n".join(lines)
