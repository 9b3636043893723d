"""Which accesses of optimised code need no check of their own, and above all which do.

Each program says for its accesses, by pc, what is to be found out, as its listing says it. All of them are
run as well, by both engines on memory of many sizes, in a child: a proof that does not hold is a fault that
is missing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from ebpfjit import Program
from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.assembler import assemble
from ebpfjit.errors import ExecutionError
from ebpfjit.interpreter import interpret
from ebpfjit.jit.compiler import listing_of
from ebpfjit.jit.entry import compile_program
from ebpfjit.jit.map_calls import known_maps
from ebpfjit.jit.recipe import Recipe
from ebpfjit.optimizer.build import build
from ebpfjit.optimizer.rules.arithmetic import simplify
from ebpfjit.options import Options
from ebpfjit.runtime.execution import Execution
from ebpfjit.runtime.maps.base import Map
from ebpfjit.runtime.maps.definition import MapDefinition, MapType
from ebpfjit.runtime.memory import Region, Stack
from tests.support import warm
from tests.support.rows import over
from tests.support.whole import WHOLE

CHECKOUT = Path(__file__).parents[2]
CHECKED = ""
"""It has a check, which may stand for others too: these are "covered"."""


@dataclass(frozen=True)
class Case:
    """A program, and why each access (by pc) needs no check.

    `promised` is how many bytes the caller promises behind r1, to be written too where `writable`;
    where `measured`, r2 is how many there are;
    `moving` are helpers that may take memory away, `content` is what memory starts with.
    """

    text: str
    proofs: dict[int, str]
    promised: int = 0
    writable: bool = True
    moving: frozenset[int] = frozenset()
    content: bytes = b""
    frame_sizes: dict[int, int] = field(default_factory=dict)
    measured: bool = False

    @property
    def code(self) -> bytes:
        return assemble(self.text)

    @property
    def promises(self) -> Promises:
        """What its runs have; no helper calls a function of the program."""
        measured, none = self.measured, frozenset[int]()
        return Promises(
            self.promised, self.writable, self.moving, argument_is_measured=measured, calling=none
        )


def notes_of(case: Case) -> dict[int, str]:
    """Return what the listing says of each access."""
    verified = prepare(
        Program.from_bytes(case.code),
        lambda _, pc: case.frame_sizes.get(pc, 512) if case.frame_sizes else 512,
    )
    return notes(verified, case.promises)


def notes(verified: Verified, promises: Promises) -> dict[int, str]:
    return listing_of(Recipe(verified, Options(promises=promises))).notes


def proof_in(note: str) -> str:
    """Return why there is no check, in a word."""
    for start, word in STARTS.items():
        if note.startswith(start):
            return word
    return note.removeprefix("no check: ")


STARTS = {
    "checked": CHECKED,
    "no check: one at pc ": "covered",
    "no check: made before the loop at pc ": "loop",
    "no access: what is in the frame there is a value": "value",
}


PROVEN = {
    "the frame, at both ends": Case(
        "stb [r10-1], 1\nstdw [r10-8], 1\nstb [r10-512], 1\nldxdw r0, [r10-512]\nlock add [r10-8], r0\nexit",
        dict.fromkeys(range(5), "frame"),
    ),
    "copies of r10 at constant offsets": Case(
        "mov r2, r10\nadd r2, -16\nmov r3, r2\nsub r3, 8\nstdw [r3+16], 1\n"
        "ldxdw r0, [r2+8]\nldxb r0, [r3]\nexit",
        dict.fromkeys((4, 5, 6), "frame"),
    ),
    "a constant in a register": Case(
        "mov r3, -8\nmov r2, r10\nadd r2, r3\nstdw [r2], 1\nmov r4, 24\nsub r2, r4\nstdw [r2], 1\nexit",
        {3: "frame", 6: "frame"},
    ),
    "a frame pointer plus a number that is small": Case(
        "ldxb r3, [r1]\nand r3, 7\nmov r2, r10\nsub r2, 8\nadd r2, r3\nstb [r2], 1\nexit",
        {0: CHECKED, 5: "frame"},
    ),
    "a frame pointer minus a number that is small": Case(
        "ldxb r3, [r1]\nrsh r3, 4\nlsh r3, 2\nmov r2, r10\nsub r2, 4\nsub r2, r3\nstw [r2], 1\nexit",
        {0: CHECKED, 6: "frame"},
    ),
    "a number that a comparison bounds": Case(
        "ldxb r3, [r1]\nmov r2, r10\njgt r3, 8, out\nsub r2, 9\nadd r2, r3\nstb [r2], 1\nout: exit",
        {0: CHECKED, 5: "frame"},
    ),
    "a number that a comparison bounds, the other way": Case(
        "ldxb r3, [r1]\nmov r2, r10\njlt r3, 248, out\nsub r2, 256\nadd r2, r3\nstb [r2], 1\nout: exit",
        {0: CHECKED, 5: "frame"},
    ),
    "a frame of another size": Case(
        "stb [r10-64], 1\ncall local f\nexit\nf: stb [r10-16], 1\nexit",
        {0: "value", 3: "value"},
        frame_sizes={0: 64, 3: 16},
    ),
    "covered by the same access": Case("ldxdw r0, [r1]\nldxdw r0, [r1]\nexit", {0: CHECKED, 1: "covered"}),
    "covered by a wider one": Case(
        "ldxdw r0, [r1+8]\nldxb r0, [r1+8]\nldxb r0, [r1+15]\nldxw r0, [r1+10]\nexit",
        {0: CHECKED, 1: "covered", 2: "covered", 3: "covered"},
    ),
    "covered from a copy that has moved": Case(
        "ldxdw r0, [r1]\nmov r2, r1\nadd r2, 6\nldxh r0, [r2]\nsub r1, 100\nldxb r0, [r1+107]\nexit",
        {0: CHECKED, 3: "covered", 5: "covered"},
    ),
    "a store covers loads and stores": Case(
        "stdw [r1], 1\nldxdw r0, [r1]\nstw [r1+4], 1\nlock add32 [r1], r0\nexit",
        {0: CHECKED, 1: "covered", 2: "covered", 3: "covered"},
    ),
    "an atomic covers stores": Case(
        "mov r2, 1\nlock add [r1], r2\nstdw [r1], 1\nexit", {1: CHECKED, 2: "covered"}
    ),
    "covered on every path": Case(
        "jeq r2, 8, l\nldxdw r0, [r1]\nja k\nl: ldxdw r0, [r1]\nk: ldxb r0, [r1+7]\nexit",
        {1: CHECKED, 3: CHECKED, 4: "covered"},
    ),
    "covered on every path by spans that differ": Case(
        "jeq r2, 8, l\nldxdw r0, [r1]\nja k\nl: ldxw r0, [r1+2]\nk: ldxb r0, [r1+5]\nexit",
        {1: CHECKED, 3: CHECKED, 4: "covered"},
    ),
    "a store to what was loaded": Case(
        "ldxw r0, [r1]\njeq r0, 5, l\nstw [r1], 1\nl: exit", {0: CHECKED, 2: "covered"}
    ),
    "a store to what was loaded, some blocks on": Case(
        "ldxw r0, [r1]\nldxw r3, [r1+8]\njeq r0, 5, l\nadd r0, 1\n"
        "jeq r3, 5, l\nstw [r1+8], 1\nl: ldxb r0, [r1+4]\nexit",
        {0: CHECKED, 5: "covered", 6: "covered"},
    ),
    "a store to what was loaded, in a loop": Case(
        "mov r4, 3\nloop: ldxb r0, [r1]\njeq r0, 5, l\n"
        "stb [r1], 5\nl: add r1, 1\nsub r4, 1\njne r4, 0, loop\nexit",
        {1: "loop", 3: "covered"},
    ),
    "a store to what was loaded on both paths": Case(
        "jeq r2, 8, l\nldxdw r0, [r1]\nja k\nl: ldxdw r0, [r1]\nk: stb [r1+7], 1\nexit",
        {1: CHECKED, 3: CHECKED, 4: "covered"},
    ),
    "a store over a jump that is turned": Case(
        "mov r4, 3\nloop: ldxb r0, [r1]\nsub r4, 1\njeq r4, 0, 1\n"
        "ja k\nexit\nk: stb [r1], 5\nadd r1, 1\nja loop",
        {1: "loop", 6: "covered"},
    ),
    "covered before a loop": Case(
        "mov r4, 3\nldxb r0, [r1]\nloop: ldxb r0, [r1]\nsub r4, 1\njne r4, 0, loop\nexit",
        {1: CHECKED, 2: "covered"},
    ),
    "covered across a helper call": Case(
        "mov r6, r1\nstb [r6], 1\ncall 1\nstb [r6], 2\nexit", {1: CHECKED, 3: "covered"}
    ),
    "covered across a local call": Case(
        "mov r6, r1\nstb [r6], 1\ncall local f\nstb [r6], 2\nexit\nf: mov r6, 0\nexit",
        {1: CHECKED, 3: "covered"},
    ),
    "promised": Case(
        "ldxdw r0, [r1]\nstdw [r1+8], 1\nldxb r0, [r1+16]\nldxdw r0, [r1+9]\nldxb r0, [r1-1]\nexit",
        {0: "argument", 1: "argument", 2: CHECKED, 3: "covered", 4: CHECKED},
        promised=16,
    ),
    "promised, and not writable": Case(
        "ldxdw r0, [r1]\nldxb r0, [r1+15]\nstb [r1], 1\nexit",
        {0: "argument", 1: "argument", 2: CHECKED},
        promised=16,
        writable=False,
    ),
    "promised, across a call that moves other memory": Case(
        "mov r6, r1\nldxb r0, [r6+8]\ncall 1\nldxb r0, [r6]\nldxb r0, [r6+15]\nldxb r0, [r6+16]\nexit",
        {1: "argument", 3: "argument", 4: "argument", 5: CHECKED},
        promised=16,
        moving=frozenset({1}),
    ),
    "covered across a call of a helper that moves nothing": Case(
        "mov r6, r1\nldxb r0, [r6]\ncall 1\nldxb r0, [r6]\nexit",
        {1: CHECKED, 3: "covered"},
        moving=frozenset({2}),
    ),
}


NOT_PROVEN = {
    # -- the frame's ends
    "one byte above the frame": Case("ldxb r0, [r10]\nexit", {0: CHECKED}),
    "the last byte is above the frame": Case("ldxdw r0, [r10-7]\nexit", {0: CHECKED}),
    "one byte below the frame": Case("ldxb r0, [r10-513]\nexit", {0: CHECKED}),
    "below a smaller frame": Case("stb [r10-17], 1\nexit", {0: CHECKED}, frame_sizes={0: 16}),
    "in no frame at all": Case(
        "stb [r10-1], 1\ncall local f\nexit\nf: ldxb r0, [r10-1]\nexit",
        {0: "frame", 3: CHECKED},
        frame_sizes={0: 16, 3: 0},
    ),
    "a number that is one too large": Case(
        "ldxb r3, [r1]\nand r3, 8\nmov r2, r10\nsub r2, 8\nadd r2, r3\nstb [r2], 1\nexit",
        {5: CHECKED},
        content=b"\x08",
    ),
    # An exclusive or of 0 makes a number of what might be a pointer, loaded from r1.
    "a number that is any": Case(
        "ldxdw r3, [r1]\nxor r3, 0\nmov r2, r10\nsub r2, 8\nadd r2, r3\nstb [r2], 1\nexit",
        {5: CHECKED},
        content=b"\xff" * 8,
    ),
    # -- numbers whose bounds are not what they seem
    "a comparison of the lower half": Case(
        "ldxdw r3, [r1]\nxor r3, 0\nmov r2, r10\njgt32 r3, 7, out\nsub r2, 8\n"
        "add r2, r3\nstb [r2], 1\nout: exit",
        {6: CHECKED},
        content=b"\3\0\0\0\xff\xff\xff\xff",
    ),
    "a signed comparison": Case(
        "ldxdw r3, [r1]\nxor r3, 0\nmov r2, r10\njsgt r3, 7, out\nsub r2, 8\n"
        "add r2, r3\nldxb r0, [r2-505]\nout: exit",
        {6: CHECKED},
        content=b"\xfe" + b"\xff" * 7,
    ),
    "a comparison of bits": Case(
        "ldxb r3, [r1]\nmov r2, r10\njset r3, 8, out\nsub r2, 8\nadd r2, r3\nstb [r2], 1\nout: exit",
        {5: CHECKED},
        content=b"\x10",
    ),
    "a comparison with what is not a constant": Case(
        "ldxb r3, [r1]\nldxb r4, [r1+1]\nmov r2, r10\njgt r3, r4, out\nsub r2, 8\n"
        "add r2, r3\nstb [r2], 1\nout: exit",
        {6: CHECKED},
        content=b"\x20\x30",
    ),
    "a comparison with an immediate that is negative": Case(
        "ldxdw r3, [r1]\nxor r3, 0\nmov r2, r10\njgt r3, -5, out\nsub r2, 8\n"
        "add r2, r3\nstb [r2], 1\nout: exit",
        {6: CHECKED},
        content=b"\x50",
    ),
    "a comparison of a copy that has changed": Case(
        "ldxb r3, [r1]\nmov r4, r3\nadd r4, 8\nmov r2, r10\njgt r3, 7, out\n"
        "sub r2, 8\nadd r2, r4\nstb [r2], 1\nout: exit",
        {7: CHECKED},
        content=b"\1",
    ),
    "a comparison that holds on one path only": Case(
        "ldxb r3, [r1]\nmov r2, r10\njgt r3, 7, l\nl: sub r2, 8\nadd r2, r3\nstb [r2], 1\nexit",
        {5: CHECKED},
        content=b"\x80",
    ),
    "a comparison of what is compared with, loaded anew": Case(
        "ldxb r3, [r1]\nmov r2, r10\njgt r3, 7, out\nldxb r3, [r1+1]\nsub r2, 8\n"
        "add r2, r3\nstb [r2], 1\nout: exit",
        {6: CHECKED},
        content=b"\1\x80",
    ),
    "a remainder by what may be zero": Case(
        "ldxb r3, [r1]\nldxb r4, [r1+1]\nand r4, 7\nmod r3, r4\nmov r2, r10\n"
        "sub r2, 8\nadd r2, r3\nstb [r2], 1\nexit",
        {7: CHECKED},
        content=b"\x80\0",
    ),
    "a remainder by zero": Case(
        "ldxb r3, [r1]\nmod r3, 0\nmov r2, r10\nsub r2, 8\nadd r2, r3\nstb [r2], 1\nexit",
        {5: CHECKED},
        content=b"\x80",
    ),
    "a signed remainder": Case(
        "ldxdw r3, [r1]\nsmod r3, 8\nmov r2, r10\nsub r2, 8\nadd r2, r3\nldxb r0, [r2-505]\nexit",
        {5: CHECKED},
        content=b"\xfd" + b"\xff" * 7,
    ),
    "a signed division": Case(
        "ldxdw r3, [r1]\nsdiv r3, 64\nmov r2, r10\nsub r2, 8\nadd r2, r3\nldxb r0, [r2-505]\nexit",
        {5: CHECKED},
        content=b"\xc0\xff" + b"\xff" * 6,
    ),
    "a difference that wraps": Case(
        "ldxb r3, [r1]\nsub r3, 1\nmov r2, r10\nsub r2, 256\nadd r2, r3\nldxb r0, [r2-256]\nexit",
        {5: CHECKED},
        content=b"\0",
    ),
    "a difference of 32 bits that wraps": Case(
        "ldxb r3, [r1]\nsub32 r3, 1\nmov r2, r10\nsub r2, 256\nadd r2, r3\nldxb r0, [r2]\nexit",
        {5: CHECKED},
        content=b"\0",
    ),
    "a sum of 32 bits that wraps": Case(
        "ldxw r3, [r1]\nor32 r3, 0xfffffff0\nadd32 r3, 16\nmov r2, r10\n"
        "sub r2, 8\nadd r2, r3\nldxb r0, [r2]\nexit",
        {6: CHECKED},
        content=b"\x0f",
    ),
    "a sum that wraps": Case(
        "ldxb r3, [r1]\nlddw r4, 0xfffffffffffffff0\nadd r3, r4\nmov r2, r10\n"
        "sub r2, 256\nadd r2, r3\nldxb r0, [r2-256]\n"
        "exit",
        {7: CHECKED},
    ),
    "a shift that loses bits": Case(
        "ldxb r3, [r1]\nlsh r3, 60\nmov r2, r10\nsub r2, 8\nadd r2, r3\nldxb r0, [r2]\nexit",
        {5: CHECKED},
        content=b"\1",
    ),
    "a shift by what is not known": Case(
        "ldxb r3, [r1]\nand r3, 7\nldxb r4, [r1+1]\nlsh r3, r4\nmov r2, r10\n"
        "sub r2, 8\nadd r2, r3\nldxb r0, [r2]\nexit",
        {7: CHECKED},
        content=b"\1\5",
    ),
    "a shift by 64, which is by none": Case(
        "ldxb r3, [r1]\nrsh r3, 64\nmov r2, r10\nsub r2, 8\nadd r2, r3\nldxb r0, [r2]\nexit",
        {5: CHECKED},
        content=b"\x10",
    ),
    "a shift that keeps the sign": Case(
        "ldxdw r3, [r1]\narsh r3, 60\nmov r2, r10\nsub r2, 8\nadd r2, r3\nldxb r0, [r2-505]\nexit",
        {5: CHECKED},
        content=b"\xff" * 8,
    ),
    "bits that are set": Case(
        "ldxb r3, [r1]\nand r3, 5\nor r3, 8\nmov r2, r10\nsub r2, 8\nadd r2, r3\nldxb r0, [r2]\nexit",
        {6: CHECKED},
    ),
    "bits that are flipped": Case(
        "ldxb r3, [r1]\nand r3, 5\nxor r3, 10\nmov r2, r10\nsub r2, 8\nadd r2, r3\nldxb r0, [r2]\nexit",
        {6: CHECKED},
    ),
    "a mask that is negative": Case(
        "ldxdw r3, [r1]\nand r3, -8\nmov r2, r10\nsub r2, 8\nadd r2, r3\nldxb r0, [r2]\nexit",
        {5: CHECKED},
        content=b"\x10",
    ),
    "a product": Case(
        "ldxb r3, [r1]\nmul r3, 3\nmov r2, r10\nsub r2, 512\nadd r2, r3\nldxb r0, [r2]\nexit",
        {5: CHECKED},
        content=b"\xf0",
    ),
    "a byte with its sign": Case(
        "ldxsb r3, [r1]\nmov r2, r10\nsub r2, 256\nadd r2, r3\nldxb r0, [r2-256]\nexit",
        {4: CHECKED},
        content=b"\x80",
    ),
    "a byte extended with its sign": Case(
        "ldxb r3, [r1]\nmovsx864 r3, r3\nmov r2, r10\nsub r2, 256\nadd r2, r3\nldxb r0, [r2-256]\nexit",
        {5: CHECKED},
        content=b"\x80",
    ),
    "a negation": Case(
        "ldxb r3, [r1]\nneg r3\nmov r2, r10\nsub r2, 256\nadd r2, r3\nldxb r0, [r2-256]\nexit",
        {5: CHECKED},
        content=b"\1",
    ),
    "a byte swapped": Case(
        "ldxb r3, [r1]\nbe16 r3\nmov r2, r10\nsub r2, 512\nadd r2, r3\nldxb r0, [r2]\nexit",
        {5: CHECKED},
        content=b"\x40",
    ),
    "a count that a loop widens": Case(
        "mov r3, 0\nldxb r5, [r1]\nloop: mov r2, r10\nsub r2, 8\nadd r2, r3\nstb [r2], 1\nadd r3, 1\n"
        "sub r5, 1\njne r5, 0, loop\nexit",
        {5: CHECKED},
        content=b"\x0a",
    ),
    "a frame pointer that a loop moves": Case(
        "mov r2, r10\nldxb r5, [r1]\nloop: sub r2, 8\nstdw [r2], 1\nsub r5, 1\njne r5, 0, loop\nexit",
        {3: "loop"},
        content=b"\x42",
    ),
    "a frame pointer that two paths leave at different places": Case(
        "mov r2, r10\nldxb r5, [r1]\njeq r5, 0, l\nsub r2, 8\nl: stdw [r2], 1\nexit", {4: CHECKED}
    ),
    "a frame pointer or another": Case(
        "mov r2, r10\nldxb r5, [r1]\njeq r5, 0, l\nmov r2, r1\nl: ldxb r0, [r2-1]\nexit",
        {4: CHECKED},
        content=b"\1",
    ),
    "a frame pointer cut to 32 bits": Case("mov32 r2, r10\nldxb r0, [r2-8]\nexit", {1: CHECKED}),
    "a frame pointer after arithmetic of 32 bits": Case(
        "mov r2, r10\nsub32 r2, 8\nldxb r0, [r2]\nexit", {2: CHECKED}
    ),
    "a frame pointer from two": Case("mov r2, r10\nadd r2, r10\nldxb r0, [r2-8]\nexit", {2: CHECKED}),
    "a number less a frame pointer": Case("mov r2, 0\nsub r2, r10\nldxb r0, [r2-8]\nexit", {2: CHECKED}),
    "where another path writes r10": Case(
        "ldxb r5, [r1]\njeq r5, 9, l\nldxb r0, [r10-8]\nexit\nl: mov r10, r1\nldxb r0, [r10+600]\nexit",
        {0: CHECKED, 2: "frame"},
        content=b"\x09",
    ),
    "behind a write to r10, which nobody gets to": Case(
        "ldxb r5, [r1]\njeq r5, 9, l\nadd r10, 512\nl: ldxb r0, [r10-8]\nexit", {0: CHECKED, 3: "frame"}
    ),
    # -- what another access covers, and what it does not
    "one byte more": Case("ldxdw r0, [r1]\nldxdw r0, [r1+1]\nexit", {0: CHECKED, 1: "covered"}),
    "one byte before": Case("ldxdw r0, [r1+8]\nldxb r0, [r1+7]\nexit", {0: CHECKED, 1: "covered"}),
    "between two": Case(
        "ldxb r0, [r1]\nja l\nl: ldxb r0, [r1+16]\nja k\nk: ldxb r0, [r1+8]\nexit",
        {0: CHECKED, 2: "covered", 4: "covered"},
    ),
    "over two that touch": Case(
        "ldxw r0, [r1]\nja l\nl: ldxw r0, [r1+4]\nja k\nk: ldxdw r0, [r1]\nexit", {4: "covered"}
    ),
    "a store where loads were": Case(
        "ldxdw r0, [r1]\nja l\nl: stb [r1], 1\nexit", {0: CHECKED, 2: "covered"}
    ),
    "an atomic where loads were": Case(
        "ldxdw r0, [r1]\nja l\nl: lock add [r1], r0\nexit", {0: CHECKED, 2: "covered"}
    ),
    "a store where a store was on one path, a load on the other": Case(
        "jeq r2, 8, l\nstb [r1], 1\nja k\nl: ldxb r0, [r1]\nk: stb [r1], 1\nexit",
        {1: CHECKED, 3: CHECKED, 4: "covered"},
    ),
    "covered on one path only": Case(
        "jeq r2, 8, l\nldxb r0, [r1]\nl: ldxb r0, [r1]\nexit", {1: CHECKED, 2: CHECKED}
    ),
    "covered on both by accesses to different bytes": Case(
        "jeq r2, 8, l\nldxb r0, [r1]\nja k\nl: ldxb r0, [r1+8]\nk: ldxb r0, [r1+8]\nexit", {4: CHECKED}
    ),
    "covered on both, and then the base differs": Case(
        "mov r3, r1\njeq r2, 8, l\nldxb r0, [r3]\nadd r3, 8\nja k\nl: ldxb r0, [r3]\nk: ldxb r0, [r3]\nexit",
        {6: CHECKED},
    ),
    "the base has moved": Case("ldxb r0, [r1]\nadd r1, 8\nldxb r0, [r1]\nexit", {0: CHECKED, 2: "covered"}),
    "the base has moved by what is not known": Case(
        "ldxb r2, [r1]\nadd r1, r2\nldxb r0, [r1]\nexit", {0: CHECKED, 2: "covered"}, content=b"\x10"
    ),
    "the base is loaded anew": Case(
        "ldxdw r2, [r1]\nldxb r0, [r2]\nldxdw r2, [r1+8]\nldxb r0, [r2]\nexit",
        {0: CHECKED, 1: CHECKED, 2: "covered", 3: CHECKED},
    ),
    "the base is cut to 32 bits": Case(
        "ldxb r0, [r1]\nmov32 r1, r1\nldxb r0, [r1]\nexit", {0: CHECKED, 2: CHECKED}
    ),
    "the base is added to with 32 bits": Case(
        "ldxb r0, [r1]\nadd32 r1, 0\nldxb r0, [r1]\nexit", {0: CHECKED, 2: CHECKED}
    ),
    "the base is extended with its sign": Case(
        "ldxb r0, [r1]\nmovsx3264 r1, r1\nldxb r0, [r1]\nexit", {0: CHECKED, 2: CHECKED}
    ),
    "the base is moved far and the offset wraps": Case(
        "ldxb r0, [r1]\nadd r1, 0x7fffffff\nadd r1, 0x7fffffff\nadd r1, 2\nldxb r0, [r1]\nexit",
        {0: CHECKED, 4: CHECKED},
    ),
    "fetched into": Case(
        "mov r2, r1\nldxb r0, [r2]\nlock fetch add [r10-8], r2\nldxb r0, [r2]\nexit",
        {1: CHECKED, 3: CHECKED},
    ),
    "exchanged": Case(
        "mov r2, r1\nldxb r0, [r2]\nlock xchg [r10-8], r2\nldxb r0, [r2]\nexit", {1: CHECKED, 3: CHECKED}
    ),
    "compared and exchanged: r0": Case(
        "mov r0, r1\nldxb r2, [r0]\nlock cmpxchg [r10-8], r2\nldxb r2, [r0]\nexit", {1: CHECKED, 3: CHECKED}
    ),
    "r0 after a packet load": Case(
        "mov r0, r1\nldxb r2, [r0]\nldabsb 0\nldxb r2, [r0]\nexit", {1: CHECKED, 3: CHECKED}
    ),
    "r0 after a helper call": Case(
        "mov r0, r1\nldxb r2, [r0]\ncall 1\nldxb r2, [r0]\nexit", {1: CHECKED, 3: CHECKED}
    ),
    "r1 after a helper call": Case("ldxb r0, [r1]\ncall 1\nldxb r0, [r1]\nexit", {0: CHECKED, 2: CHECKED}),
    "r5 after a helper call": Case(
        "mov r5, r1\nldxb r0, [r5]\ncall 1\nldxb r0, [r5]\nexit", {1: CHECKED, 3: CHECKED}
    ),
    "r1 after a local call": Case(
        "ldxb r0, [r1]\ncall local f\nldxb r0, [r1]\nexit\nf: add r1, 8\nexit", {0: CHECKED, 2: "covered"}
    ),
    "r0 after a local call": Case(
        "mov r0, r1\nldxb r2, [r0]\ncall local f\nldxb r2, [r0]\nexit\nf: add r0, 8\nexit",
        {1: CHECKED, 3: "covered"},
    ),
    "what the caller has checked": Case(
        "mov r6, r1\nldxb r0, [r6]\ncall local f\nadd r6, 8\ncall local f\nexit\nf: ldxb r0, [r6]\nexit",
        {1: CHECKED, 6: CHECKED},
    ),
    # -- promises
    "a promise, from r1 that has moved": Case(
        "add r1, 8\nldxdw r0, [r1]\nldxb r0, [r1+8]\nexit", {1: "argument", 2: CHECKED}, promised=16
    ),
    "a promise, in main that is called again": Case(
        "ldxb r0, [r1+15]\njeq r6, 5, out\nmov r6, 5\nadd r1, 8\ncall local main\nout: exit".replace(
            "ldxb", "main: ldxb", 1
        ),
        {0: CHECKED},
        promised=16,
    ),
    "a promise, in main that may be called by address": Case(
        "ldxb r0, [r1+15]\njeq r6, 5, out\nmov r6, 5\nadd r1, 8\n"
        "lddw r7, 0xebf0000000000000\ncallx r7\nout: exit",
        {0: CHECKED},
        promised=16,
    ),
    "a store to less than what was loaded": Case(
        "ldxw r0, [r1]\njeq r0, 5, l\nstdw [r1], 1\nl: exit", {0: CHECKED, 2: CHECKED}
    ),
    "a store to what was loaded on one path": Case(
        "jeq r2, 8, l\nldxw r0, [r1]\nl: stw [r1], 1\nexit", {1: CHECKED, 2: CHECKED}
    ),
    "a store to what another register was loaded from": Case(
        "mov r3, r1\njeq r2, 8, l\nadd r3, 1\nl: ldxb r0, [r3]\njeq r0, 5, k\nk: stb [r1], 1\nexit",
        {3: CHECKED, 5: "covered"},
    ),
    "a promise to read": Case(
        "stb [r1+15], 1\nldxb r0, [r1+16]\nexit", {0: CHECKED, 1: "covered"}, promised=16, writable=False
    ),
    "what a helper may have moved": Case(
        "mov r6, r1\nldxb r0, [r6]\ncall 1\nldxb r0, [r6]\nexit",
        {1: CHECKED, 3: CHECKED},
        moving=frozenset({1}),
    ),
    "what a helper may have moved in a function": Case(
        "mov r6, r1\nldxb r0, [r6]\ncall local f\nldxb r0, [r6]\nexit\nf: call 1\nexit",
        {1: CHECKED, 3: CHECKED},
        moving=frozenset({1}),
    ),
    "what a helper may have moved on one path": Case(
        "mov r6, r1\nldxb r0, [r6]\njeq r0, 5, l\ncall 1\nl: ldxb r0, [r6]\nexit",
        {1: CHECKED, 4: CHECKED},
        moving=frozenset({1}),
    ),
    "a promise, moved, where a loop comes back to the start": Case(
        "start: ldxb r0, [r1+15]\nadd r1, 1\nmov r7, r1\ncall 1\n"
        "mov r1, r7\nadd r6, 1\njne r6, 5, start\nexit",
        {0: CHECKED},
        promised=16,
        moving=frozenset({1}),
    ),
    "a promise, where a loop comes back to the start": Case(
        "start: ldxb r0, [r1+15]\nadd r1, 1\nadd r6, 1\njne r6, 5, start\nexit", {0: "loop"}, promised=16
    ),
    "a promise, in another function": Case(
        "add r1, 8\ncall local f\nexit\nf: ldxb r0, [r1+15]\nexit", {3: CHECKED}, promised=16
    ),
    # -- loops, where a symbol means another value than it did
    "a base that moves in a loop": Case(
        "mov r4, 20\nloop: ldxb r0, [r1]\nadd r1, 1\nsub r4, 1\njne r4, 0, loop\nexit", {1: "loop"}
    ),
    "a base that moves in a loop, checked before it": Case(
        "mov r4, 20\nldxdw r0, [r1]\nloop: ldxb r0, [r1]\nadd r1, 1\nsub r4, 1\njne r4, 0, loop\nexit",
        {1: CHECKED, 2: "loop"},
    ),
    "a base that moves after its last check": Case(
        "mov r4, 20\nloop: add r1, 1\nldxb r0, [r1]\nsub r4, 1\njne r4, 0, loop\nldxb r0, [r1+1]\nexit",
        {2: "loop", 5: CHECKED},
    ),
    "what was checked in an earlier round through a copy": Case(
        "mov r4, 20\nmov r3, r1\nloop: ldxb r0, [r3]\nmov r3, r1\nadd r1, 2\n"
        "sub r4, 1\njne r4, 0, loop\nexit",
        {2: CHECKED},
    ),
    "two bases that swap": Case(
        "mov r4, 6\nmov r2, r1\nadd r2, 16\nloop: ldxb r0, [r1]\nmov r3, r1\n"
        "mov r1, r2\nmov r2, r3\nadd r2, 3\n"
        "sub r4, 1\njne r4, 0, loop\nldxb r0, [r1]\nldxb r0, [r2]\nexit",
        {3: CHECKED, 10: CHECKED, 11: CHECKED},
    ),
    "three bases that rotate": Case(
        "mov r5, 9\nmov r2, r1\nadd r2, 8\nmov r3, r1\nadd r3, 16\n"
        "loop: ldxb r0, [r1]\nmov r4, r1\nmov r1, r2\n"
        "mov r2, r3\nmov r3, r4\nadd r3, 5\nsub r5, 1\njne r5, 0, loop\nexit",
        {5: CHECKED},
    ),
    "loaded in each round, checked in the one before": Case(
        "mov r4, 3\nmov r6, r1\nmov r3, r1\nloop: ldxb r0, [r3]\nldxb r2, [r6]\nmov r3, r1\nadd r3, r2\n"
        "add r6, 1\nsub r4, 1\njne r4, 0, loop\nexit",
        {3: CHECKED, 4: "loop"},
        content=b"\2\x20\4",
    ),
    "made anew in each round, and an old copy": Case(
        "mov r4, 4\nmov r3, r1\nloop: ldxb r2, [r1]\nmov r5, r1\nadd r5, r2\n"
        "ldxb r0, [r5]\nldxb r0, [r3+4]\n"
        "mov r3, r5\nadd r1, 1\nsub r4, 1\njne r4, 0, loop\nexit",
        {5: CHECKED, 6: CHECKED},
        content=b"\1\2\x0c\x10",
    ),
    "checked in the first round only": Case(
        "mov r4, 20\nmov r5, 0\nloop: jne r5, 0, l\nldxb r0, [r1]\nmov r5, 1\nl: ldxb r0, [r1]\nadd r1, 1\n"
        "sub r4, 1\njne r4, 0, loop\nexit",
        {5: "loop"},
    ),
    "two loops, one in the other": Case(
        "mov r4, 4\nouter: mov r5, 3\nmov r3, r1\ninner: ldxb r0, [r3]\n"
        "add r3, 2\nsub r5, 1\njne r5, 0, inner\n"
        "ldxb r0, [r3]\nadd r1, 4\nsub r4, 1\njne r4, 0, outer\nexit",
        {3: "loop", 7: CHECKED},
    ),
    "a loop that is entered in its middle": Case(
        "mov r4, 20\njeq r2, 8, middle\nloop: ldxb r0, [r1]\n"
        "middle: add r1, 1\nsub r4, 1\njne r4, 0, loop\n"
        "ldxb r0, [r1]\nexit",
        {2: CHECKED, 6: CHECKED},
    ),
    "a loop by may_goto": Case(
        "mov r4, 20\nloop: ldxb r0, [r1]\nadd r1, 1\nsub r4, 1\njeq r4, 0, out\n"
        "may_goto out\nja loop\nout: exit",
        {1: "loop"},
    ),
    "a distance that a loop widens": Case(
        "mov r4, 40\nmov r3, r1\nloop: ldxb r0, [r3]\nadd r3, 1\nmov r5, r3\nsub r4, 1\njne r4, 0, loop\n"
        "ldxb r0, [r5+3]\nexit",
        {2: "loop", 7: CHECKED},
    ),
    "a distance that may be negative": Case(
        "ldxb r3, [r1]\nmov r2, r1\nsub r2, 4\nadd r2, r3\nldxb r0, [r2]\nldxb r0, [r2+4]\nexit",
        {4: CHECKED, 5: "covered"},
        content=b"\3",
    ),
    "a distance that two paths make different": Case(
        "ldxb r3, [r1]\nmov r2, r1\njeq r3, 0, l\nadd r2, 30\nl: ldxb r0, [r2]\n"
        "sub r2, 31\nldxb r0, [r2+1]\nexit",
        {4: "covered", 6: CHECKED},
        content=b"\0",
    ),
    # -- code that several functions share
    "a function that runs into another": Case(
        "call local f\nmov r2, 0\ncall local g\nexit\nf: mov r2, r10\ng: ldxb r0, [r2-8]\nexit", {5: CHECKED}
    ),
    "a jump into another function": Case(
        "mov r7, r1\ncall local f\ncall local g\nexit\nf: ldxb r0, [r7]\nja shared\n"
        "g: add r7, 30\nmov r0, 0\nshared: ldxb r0, [r7]\nexit",
        {8: CHECKED},
    ),
    "code that functions with frames of different sizes share": Case(
        "call local f\ncall local g\nexit\nf: ja shared\ng: mov r0, 0\n"
        "shared: ldxb r0, [r10-32]\nldxb r0, [r10-528]\n"
        "exit",
        {5: CHECKED, 6: "covered"},
        frame_sizes={0: 512, 3: 64, 4: 16},
    ),
    "the start of the program, jumped to by a function": Case(
        "start: ldxb r0, [r1+15]\njeq r6, 5, out\nmov r6, 5\ncall local f\nout: exit\nf: add r1, 8\nja start",
        {0: CHECKED},
        promised=16,
    ),
}

LENGTH_PROVEN = {
    "an index below the length": "ldxb r3, [r1]\njge r3, r2, out\nadd r3, r1\nldxb r0, [r3]\nout: exit",
    "an index below the length, seen from there": (
        "ldxb r3, [r1]\njle r2, r3, out\nadd r3, r1\nldxb r0, [r3]\nout: exit"
    ),
    "a loop over all bytes": (
        "mov r3, 0\njeq r2, 0, out\nl: mov r4, r1\nadd r4, r3\nldxb r0, [r4]\n"
        "add r3, 1\njlt r3, r2, l\nout: exit"
    ),
    "a loop over all words": (
        "mov r3, 0\nl: mov r4, r3\nadd r4, 8\njgt r4, r2, out\nmov r5, r1\nadd r5, r3\n"
        "ldxdw r0, [r5]\nmov r3, r4\nja l\nout: exit"
    ),
    "an index and what lies behind it": (
        "ldxb r3, [r1]\nmov r4, r3\nadd r4, 8\njgt r4, r2, out\nadd r3, r1\nldxdw r0, [r3]\nout: exit"
    ),
    "the last byte": "jeq r2, 0, out\njlt r2, 4, out\nmov r3, r1\nadd r3, r2\nldxw r0, [r3-4]\nout: exit",
    "below a number that is below the length": (
        "ldxb r3, [r1]\nldxb r4, [r1+1]\njge r4, r2, out\njgt r3, r4, out\nadd r3, r1\nldxb r0, [r3]\n"
        "out: exit"
    ),
    "as long as is needed": "jlt r2, 16, out\nldxdw r0, [r1+8]\nldxb r3, [r1]\nand r3, 15\nadd r1, r3\n"
    "ldxb r0, [r1]\nout: exit",
}
"""The last load is inside; the first loads are checked where there is no comparison before them."""

LENGTH_NOT_PROVEN = {
    "one byte too many": "ldxb r3, [r1]\njge r3, r2, out\nadd r3, r1\nldxb r0, [r3+1]\nout: exit",
    "two bytes": "ldxb r3, [r1]\njge r3, r2, out\nadd r3, r1\nldxh r0, [r3]\nout: exit",
    "at the length": "ldxb r3, [r1]\njgt r3, r2, out\nadd r3, r1\nldxb r0, [r3]\nout: exit",
    "a byte before": "ldxb r3, [r1]\njge r3, r2, out\nadd r3, r1\nldxb r0, [r3-1]\nout: exit",
    "the other way": "ldxb r3, [r1]\njlt r3, r2, out\nadd r3, r1\nldxb r0, [r3]\nout: exit",
    "a comparison of 32 bits": (
        "ldxb r3, [r1]\nlsh r3, 33\njge32 r3, r2, out\nadd r3, r1\nldxb r0, [r3]\nout: exit"
    ),
    "a comparison with a sign": (
        "ldxb r3, [r1]\nneg r3\njsge r3, r2, out\nadd r3, r1\nldxb r0, [r3]\nout: exit"
    ),
    "a number that wraps": (
        "ldxb r3, [r1]\nneg r3\nmov r4, r3\nadd r4, 8\njgt r4, r2, out\nadd r3, r1\nldxb r0, [r3]\nout: exit"
    ),
    "another number in the same register": (
        "ldxb r3, [r1]\njge r3, r2, out\nldxb r3, [r1]\nlsh r3, 1\nadd r3, r1\nldxb r0, [r3]\nout: exit"
    ),
    "what was the length": (
        "add r2, 8\nldxb r3, [r1]\njge r3, r2, out\nadd r3, r1\nldxb r0, [r3]\nout: exit"
    ),
    "an index of an earlier round": (
        "mov r3, 0\nmov r4, r1\nl: jge r3, r2, out\nadd r3, 1\nldxb r0, [r4]\nmov r4, r1\nadd r4, r3\n"
        "ja l\nout: ldxb r0, [r4]\nexit"
    ),
    "a start that is jumped to": (
        "s: ldxb r3, [r1]\njge r3, r2, out\nadd r3, r1\nldxb r0, [r3]\nadd r1, 9\nja s\nout: exit"
    ),
    "an end before the start": "mov r3, r1\nadd r3, r2\nldxw r0, [r3-4]\nexit",
    "on one path only": (
        "ldxb r3, [r1]\njeq r3, 3, k\njge r3, r2, out\nk: add r3, r1\nldxb r0, [r3]\nout: exit"
    ),
}
"""The last load must be checked; memory starts with what makes that matter."""


def _last(text: str) -> int:
    """The slot of the last access."""
    return max(notes_of(Case(text, {})))


def _measured(text: str, proof: str) -> Case:
    return Case(text, {_last(text): proof}, content=b"\3\2", measured=True)


PROVEN.update({name: _measured(text, "length") for name, text in LENGTH_PROVEN.items()})
NOT_PROVEN.update(
    {f"the length: {name}": _measured(text, CHECKED) for name, text in LENGTH_NOT_PROVEN.items()}
)
NOT_PROVEN["the length: on all rounds but the last"] = _measured(
    "mov r3, 0\nl: mov r4, r1\nadd r4, r3\nldxb r0, [r4]\nadd r3, 1\njle r3, r2, l\nexit", "loop"
)
CASES = {**PROVEN, **NOT_PROVEN}


@over("name", CASES)
def test_what_is_proven_and_what_is_not(name: str) -> None:
    case = CASES[name]
    found = notes_of(case)
    assert {pc: proof_in(found[pc]) for pc in case.proofs} == case.proofs


def run_all() -> None:
    """Run every case on both engines: memory of many sizes, writable and not."""
    from tests.unit.test_safety import Both, region

    faults = set()
    for name, case in CASES.items():
        both = Both(
            case.code,
            helpers={1: lambda *_: 7},
            promises=replace(case.promises, calling=None),
            frame_size=(lambda _, pc, case=case: case.frame_sizes.get(pc, 512)) if case.frame_sizes else None,
        )
        for size in (*range(case.promised, 48), 64, 300):
            content = case.content.ljust(size, b"\0")[:size]
            around = bytearray(1024)  # what is read by a wrong proof is ours
            around[256 : 256 + size] = content
            view = memoryview(around)[256 : 256 + size]
            try:
                left = both.run(region(view))
                promised = case.promised and case.writable
                frozen = both.run(region(view.toreadonly())) if not promised else left
            except AssertionError as error:
                raise AssertionError(f"{name}, {size} bytes: {error}") from None
            faults |= {(name, kind.kind) for kind in (left, frozen)}
    quiet = [name for name in NOT_PROVEN if (name, "MemoryFault") not in faults]
    assert quiet == [], f"these never fault, so they show nothing: {quiet}"


def test_both_engines_agree_on_every_case() -> None:
    """Each program that has something unproven faults on some memory, and does so on both engines."""
    command = [sys.executable, "-c", "from tests.unit.test_proofs import run_all; run_all()"]
    child = warm.run(command, text=True, cwd=CHECKOUT)
    assert child.returncode == 0, f"exit {child.returncode}\n{child.stderr[-4000:]}"


def test_a_store_below_the_length_is_asked_only_whether_memory_may_be_written() -> None:
    case = _measured(
        "ldxb r3, [r1]\njge r3, r2, out\nadd r3, r1\nstb [r3], 1\nstb [r3], 2\nout: exit", CHECKED
    )
    found = notes_of(case)
    assert found[3] == "checked: may it be written"
    assert proof_in(found[4]) == "covered"


# -- checks that stand for others ---------------------------------------------------------------


def covered_by(text: str, **fields: object) -> dict[int, int | None]:
    """Return by whose check each access is covered, None where it has its own."""
    found = notes_of(Case(text, {}, **fields))  # type: ignore[arg-type]  # fields of a case
    by = {pc: note.split()[5] for pc, note in found.items() if proof_in(note) == "covered"}
    return {pc: int(by[pc]) if pc in by else None for pc in found}


def test_the_first_of_a_group_stands_for_all() -> None:
    text = (
        "ldxdw r2, [r1]\nldxw r4, [r2+8]\nldxb r3, [r2]\nstdw [r2+16], 1\nmov r4, r2\nldxh r5, [r4+30]\nexit"
    )
    assert covered_by(text) == {0: None, 1: None, 2: 1, 3: 1, 5: 1}
    assert ": 32 bytes; " in notes_of(Case(text, {}))[1]


def test_a_call_that_may_move_memory_ends_a_group() -> None:
    text = "mov r6, r1\nldxb r0, [r6]\ncall 1\nldxb r0, [r6+1]\nldxb r0, [r6+2]\nexit"
    for moving, by in ((frozenset({2}), [None, 1, 1]), (frozenset({1}), [None, None, 3])):
        found = covered_by(text, moving=moving)
        assert [found[pc] for pc in (1, 3, 4)] == by


def test_groups_are_by_base_and_end_with_the_block() -> None:
    assert covered_by(
        "ldxdw r2, [r1]\nldxdw r3, [r1+8]\nldxb r0, [r2]\nldxb r0, [r3]\nldxb r0, [r2+1]\njeq r0, 0, l\n"
        "l: ldxb r0, [r1+20]\nldxb r0, [r2+9]\nldxb r0, [r2+8]\nexit"
    ) == {0: None, 1: 0, 2: None, 3: None, 4: 2, 6: None, 7: None, 8: 7}


def test_what_is_far_apart_is_not_put_together() -> None:
    far, near = (f"ldxdw r2, [r1]\nldxb r3, [r2]\nldxb r4, [r2+{n}]\nexit" for n in (4096, 4095))
    assert covered_by(far) == {0: None, 1: None, 2: None}
    assert covered_by(near) == {0: None, 1: None, 2: 1}


def test_accesses_that_cannot_be_reached_do_no_harm() -> None:
    assert notes_of(Case("exit\nldxb r0, [r1]\nexit", {})) == {
        1: "no access: nothing comes here, or what it would find is known"
    }


def test_the_region_that_is_tried_first() -> None:
    found = notes_of(
        Case(
            "ldxdw r2, [r1]\nldxb r0, [r2]\nldxw r3, [r1+8]\nldxb r0, [r3]\nldxdw r0, [r10+8]\nadd r1, r0\n"
            "ldxb r0, [r1]\nexit",
            {},
        )
    )
    assert found == {
        0: "checked: 12 bytes of the argument",
        1: "checked, packet first: 1 byte; where that ends only the run knows",
        2: "no check: one at pc 0 covers it",
        3: "checked: 1 byte; where it points is not known",
        4: "checked, stack first: 8 bytes; where in the frame is not known",
        6: "checked, argument first: 1 byte; how long that is only the run knows",
    }


def test_every_access_has_a_reason() -> None:
    for case in CASES.values():
        assert all(note.startswith(("checked", "no ", "not ")) for note in notes_of(case).values())


def test_a_large_program_is_looked_at_in_time_that_grows_with_its_size() -> None:
    """Loops in a row (1,000 where all is looked at), and one in the other (300), end."""
    row_size, nest_size = (1000, 300) if WHOLE else (250, 150)
    row = "".join(
        f"mov r3, 2\nl{n}: ldxb r0, [r1]\nadd r1, 1\nsub r3, 1\njne r3, 0, l{n}\n" for n in range(row_size)
    )
    assert len(notes_of(Case(f"{row}exit", {}))) == row_size
    nest = "".join(f"l{n}: ldxb r0, [r1]\nadd r1, 1\n" for n in range(nest_size))
    nest += "".join(f"sub r3, 1\njne r3, 0, l{n}\n" for n in reversed(range(nest_size)))
    assert len(notes_of(Case(f"{nest}exit", {}))) == nest_size


# -- maps ---------------------------------------------------------------------------------------

LOOKUP = 1


class Values(Map):
    """A map that finds what it is told to: the values' memory, or nothing."""

    def __init__(self, size: int, *, readonly: bool = False, stable: bool = True) -> None:
        self.memory = bytearray(size + 64)  # what is read by a wrong proof is ours
        values = memoryview(self.memory)[:size]
        self.regions = (Region.of_buffer("map", values.toreadonly() if readonly else values),)
        self.definition = MapDefinition("map", MapType.ARRAY, 4, size, 1, is_readonly=readonly)
        self.address = 0x1234 + (id(self) << 8)
        self.value_is_stable = stable
        self.found = True

    def lookup(self, key: bytes) -> int:
        return self.value_address if self.found else 0

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        return 0

    def delete(self, key: bytes) -> int:
        return 0


@dataclass(frozen=True)
class MapCase:
    """A program with one map of a value of 16 bytes; the proofs; which lines load the map and its value."""

    text: str
    proofs: dict[int, str]
    maps: tuple[int, ...] = ()
    values: tuple[int, ...] = ()
    readonly: bool = False
    stable: bool = True
    moving: frozenset[int] = frozenset()
    lookups: frozenset[int] = frozenset({LOOKUP})

    def program(self, map_: Values) -> Program:
        code = bytearray(assemble(self.text))
        references = {}
        for pcs, source, address in ((self.maps, 5, map_.address), (self.values, 6, map_.value_address)):
            for pc in pcs:
                code[8 * pc + 1] |= source << 4
                references[pc] = address + int.from_bytes(code[8 * pc + 12 : 8 * pc + 16], "little")
        return Program(bytes(code), references=references, maps=(map_,))

    @property
    def promises(self) -> Promises:
        return Promises(moving=self.moving, lookups=self.lookups, calling=frozenset())


FIND = "mov r9, r1\nlddw r1, 0\ncall 1\n"  # pc 0, 1 and 3
MAP_CASES = {
    "a value at an address that is known": MapCase(
        "lddw r1, 0\nldxdw r0, [r1]\nstdw [r1+8], 1\nldxb r0, [r1+16]\nldxdw r0, [r1+9]\n"
        "ldxb r0, [r1-1]\nexit",
        {2: "map value", 3: "map value", 4: CHECKED, 5: "covered", 6: "covered"},
        values=(0,),
    ),
    "an offset in the instruction": MapCase(
        "lddw r1, 0x800000000\nldxdw r0, [r1]\nldxb r0, [r1+8]\nexit",
        {2: "map value", 3: CHECKED},
        values=(0,),
    ),
    "values that are read only": MapCase(
        "lddw r1, 0\nldxdw r0, [r1]\nstdw [r1+8], 1\nexit",
        {2: "map value", 3: CHECKED},
        values=(0,),
        readonly=True,
    ),
    "values that do not stay": MapCase(
        "lddw r1, 0\nldxdw r0, [r1]\nexit", {2: CHECKED}, values=(0,), stable=False
    ),
    "an index that is small enough": MapCase(
        "ldxb r3, [r1]\nand r3, 15\nlddw r1, 0\nadd r1, r3\nldxb r0, [r1]\nldxh r0, [r1]\nexit",
        {5: "map value", 6: CHECKED},
        values=(2,),
    ),
    "what a lookup found": MapCase(
        f"{FIND}jeq r0, 0, out\nldxdw r2, [r0]\nstdw [r0+8], 1\nldxdw r2, [r0+9]\nout: exit",
        {5: "map value", 6: "map value", 7: CHECKED},
        maps=(1,),
    ),
    "what a lookup found, in another register": MapCase(
        f"{FIND}mov r6, r0\njne r6, 0, in\nexit\nin: ldxdw r2, [r0]\nadd r6, 8\nldxdw r2, [r6]\nexit",
        {7: "map value", 9: "map value"},
        maps=(1,),
    ),
    "what a lookup may not have found": MapCase(f"{FIND}ldxdw r2, [r0]\nexit", {4: CHECKED}, maps=(1,)),
    "where it has not been found": MapCase(
        f"{FIND}jne r0, 0, out\nldxdw r2, [r0]\nout: exit", {5: CHECKED}, maps=(1,)
    ),
    "a comparison of the low half": MapCase(
        f"{FIND}jeq32 r0, 0, out\nldxdw r2, [r0]\nout: exit", {5: CHECKED}, maps=(1,)
    ),
    "a comparison with another number": MapCase(
        f"{FIND}jeq r0, 1, out\nldxdw r2, [r0]\nout: exit", {5: CHECKED}, maps=(1,)
    ),
    "a comparison behind the start": MapCase(
        f"{FIND}mov r6, r0\nadd r6, 8\njeq r6, 0, out\nldxdw r2, [r0]\nout: exit", {7: CHECKED}, maps=(1,)
    ),
    "found on one path": MapCase(
        f"{FIND}jeq r9, 0, l\njeq r0, 0, out\nl: ldxdw r2, [r0]\nout: exit", {6: CHECKED}, maps=(1,)
    ),
    "what a lookup found, to read": MapCase(
        f"{FIND}jeq r0, 0, out\nldxdw r2, [r0]\nstdw [r0+8], 1\nout: exit",
        {5: "map value", 6: CHECKED},
        maps=(1,),
        readonly=True,
    ),
    "another helper": MapCase(
        f"{FIND}jeq r0, 0, out\nldxdw r2, [r0]\nout: exit", {5: CHECKED}, maps=(1,), lookups=frozenset({2})
    ),
    "another lookup, not looked at": MapCase(
        f"mov r8, 2\nmov r7, r1\nloop: {FIND}jeq r0, 0, out\nldxdw r2, [r0+8]\nmov r6, r0\n"
        f"ldxb r0, [r6]\nsub r8, 1\nmov r1, r7\nlddw r1, 0\ncall 1\nldxb r2, [r6]\nldxb r2, [r0]\n"
        "jne r8, 0, loop\nout: exit",
        {7: "map value", 9: "map value", 15: "map value", 16: CHECKED},
        maps=(3, 12),
    ),
    "a value while other memory is moved": MapCase(
        f"{FIND}jeq r0, 0, out\nldxdw r2, [r0]\nldxdw r2, [r9]\nmov r6, r0\ncall 2\nldxdw r2, [r6]\n"
        "ldxdw r2, [r9]\nout: exit",
        {5: "map value", 6: CHECKED, 9: "map value", 10: CHECKED},
        maps=(1,),
        moving=frozenset({2}),
    ),
}


@over("name", MAP_CASES)
def test_what_is_known_of_map_values(name: str) -> None:
    case = MAP_CASES[name]
    map_ = Values(16, readonly=case.readonly, stable=case.stable)
    found = notes(prepare(case.program(map_)), case.promises)
    assert {pc: proof_in(found[pc]) for pc in case.proofs} == case.proofs


def test_the_map_that_a_helper_is_given() -> None:
    case = MapCase("jeq r1, 0, l\nlddw r1, 0\nl: call 1\nlddw r1, 0\ncall 1\ncall 1\nexit", {}, maps=(1, 4))
    found = known_maps(simplify(build(prepare(case.program(Values(16))))))
    assert [found.get(pc) for pc in (3, 6, 7)] == [None, 0, None]


def run_map_cases() -> None:
    """Run every case on both engines, found and not."""
    for name, case in MAP_CASES.items():
        for found in (True, False):
            map_ = Values(16, readonly=case.readonly, stable=case.stable)
            map_.found = found
            verified = prepare(case.program(map_))
            helpers = {1: lambda *_: map_.lookup(b""), 2: lambda *_: 7}  # noqa: B023 - called here and now
            if case.lookups == frozenset({2}):
                helpers = {1: lambda *_: 8, 2: helpers[1]}
            promises = Promises(moving=case.moving, lookups=case.lookups)
            compiled = compile_program(verified, Options(promises=promises), helpers)
            results = []
            for engine in (lambda execution: interpret(verified, execution), compiled.run):  # noqa: B023
                map_.memory[:] = bytes(len(map_.memory))
                packet = Region.of_buffer("mem", bytearray(8))
                argument = (packet.start, packet.size)
                execution = Execution(
                    argument, [packet, *map_.regions], packet, packet, helpers, {}, None, stack=Stack()
                )
                try:
                    ending: tuple[object, ...] = ("ok", engine(execution))
                except ExecutionError as error:
                    place = getattr(error, "address", 0) - map_.value_address
                    ending = (type(error).__name__, error.pc, place)
                results.append((*ending, bytes(map_.memory)))
            if results[0] != results[1]:
                raise AssertionError(f"{name}, found {found}: {results}")


def test_both_engines_agree_on_map_values() -> None:
    command = [sys.executable, "-c", "from tests.unit.test_proofs import run_map_cases; run_map_cases()"]
    child = warm.run(command, text=True, cwd=CHECKOUT)
    assert child.returncode == 0, f"exit {child.returncode}\n{child.stderr[-4000:]}"
