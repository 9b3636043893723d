"""What analysis proves is true: programs full of copied and moved pointers fault the same on both engines.

EBPFJIT_FACTS_PROGRAMS sets how many (3,000 unless told); machine code runs in child processes:

    python -m tests.differential.test_facts_sound FIRST LAST PLACE

A program has few registers, loops, joins, and many accesses near the bounds of memory that lies in
the middle of a larger buffer: an access that a wrong proof lets through is seen as a fault that is
missing, or as a byte changed outside. Each program is compiled once and run on several sizes.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ebpfjit.analysis.facts import Promises, analyse
from ebpfjit.analysis.verified import prepare
from ebpfjit.errors import EbpfError, ExecutionError
from ebpfjit.interpreter import interpret
from ebpfjit.isa.table import BY_NAME
from ebpfjit.jit.entry import compile_program
from ebpfjit.program import Instruction, Program
from ebpfjit.runtime.execution import Execution
from ebpfjit.runtime.memory import Region, Stack, address_of, grant

PROGRAMS = int(os.environ.get("EBPFJIT_FACTS_PROGRAMS", "3000"))
CHILDREN = 2
SECONDS_A_PROGRAM = 1.0
CHECKOUT = Path(__file__).parents[2]

MARGIN = 4096
LIMIT = 150
FILLING = bytes(random.Random(1).choices((0, 1, 2, 4, 7, 8, 16, 255), (8, 2, 1, 1, 1, 1, 1, 1), k=2 * MARGIN))
POINTERS = (0, 1, 2, 3, 6, 7)
COUNTERS = (4, 8, 9)
ALL = (*POINTERS, *COUNTERS)
GRANT, HAND_BACK, FORGET = 1, 2, 3
EXIT = "EXIT"

LOADS = ("LDXB", "LDXH", "LDXW", "LDXDW", "LDXSW", "LOAD_ACQW")
STORES = ("STB", "STH", "STW", "STDW", "STXB", "STXH", "STXW", "STXDW")
ATOMICS = ("ATOMIC_ADD64", "ATOMIC_FETCH_ADD64", "ATOMIC_XCHG32", "ATOMIC_CMPXCHG64", "ATOMIC_FETCH_OR32")
SIZE = {"B": 1, "H": 2, "W": 4, "DW": 8}
BRANCHES = ("JEQ", "JNE", "JGT", "JGE", "JLT", "JLE", "JSGT", "JSLT", "JSET")
SCALAR_OPERATIONS = ("AND", "OR", "XOR", "LSH", "RSH", "ARSH", "MUL", "DIV", "MOD", "SDIV", "ADD", "SUB")


def word(name: str, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    """One slot of a row; fields that the row fixes keep its values."""
    row = BY_NAME[name]
    given = {"dst": dst, "src": src, "offset": offset, "imm": imm}
    fields = {key: fixed if isinstance(fixed := getattr(row, key), int) else given[key] for key in given}
    return Instruction(0, row.opcode, **{f"{k}_reg" if k in ("dst", "src") else k: v
                                         for k, v in fields.items()}).encode()  # fmt: skip


class Writer:
    """Writes one program, slot by slot; every instruction takes one slot, so jumps may go anywhere."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.slots: list[bytes] = []
        self.size = 0
        self.near = rng.choice((8, 16, 24, 32))
        self.writes_frame_pointer = rng.random() < 0.04
        self.functions: list[int] = []
        # Some programs are about frames that other functions had before: calls, and no helpers, which
        # would see all frames.
        self.calls_functions = rng.random() < 0.2

    def emit(self, *args: Any, **fields: Any) -> None:
        self.slots.append(word(*args, **fields))

    def start(self) -> None:
        """Give registers something to start from: mostly copies of r1, so that accesses hit."""
        for register in POINTERS:
            if register != 1:
                is_stack = self.rng.random() < 0.2
                self.emit("MOV64_X", register, 10 if is_stack else 1)
                if is_stack:
                    self.emit("ADD64_K", register, imm=-self.rng.choice((8, 16, 24, 504, 512)))
        if self.rng.random() < 0.4:
            self.fresh_value(self.rng.choice(POINTERS))
        if self.rng.random() < 0.5:
            self.emit("MOV64_K", 9, imm=self.rng.randrange(1, 5))

    def fresh_value(self, register: int) -> None:
        match self.rng.randrange(12):
            case 0 | 1 | 2 | 3 | 4 | 5:
                self.emit("MOV64_X", register, self.rng.choice(POINTERS))
            case 6 | 7 | 8:
                self.emit("MOV64_X", register, 10)
                if self.rng.random() < 0.8:
                    self.emit("ADD64_K", register, imm=-self.rng.choice((8, 16, 24, 504, 505, 512, 513)))
            case 9:
                # The memory holds two pointers: to itself and to more that is allowed.
                self.emit("LDXDW", register, self.rng.choice(POINTERS), self.rng.choice((0, 0, 8)))
            case 10:
                self.emit("LDXB", register, self.rng.choice(POINTERS), self.rng.randrange(0, 20))
            case _:
                self.emit("MOV64_K", register, imm=self.rng.choice((0, 1, 2, 7, 8, 16, 31, -1, -8, 511)))

    def access(self) -> None:
        rng = self.rng
        name = rng.choice(rng.choice((LOADS, LOADS, STORES, STORES, ATOMICS)))
        row = BY_NAME[name]
        base = 10 if rng.random() < 0.15 else rng.choice(POINTERS)
        if base == 10:
            offset = -rng.choice((8, 8, 16, 16, 24, 32, 504, 505, 508, 512))
            if rng.random() < 0.05:
                offset = rng.choice((-1, 0, 8, -513))
        elif rng.random() < 0.9:
            offset = rng.choice((0, 0, 0, 1, 2, 4, 8, 8, 16))
        else:
            offset = rng.choice((self.near, self.near - row.size, self.near - row.size + 1, -1, -8, 24, 32))
        if row.is_ordered and rng.random() < 0.98:
            offset -= offset % row.size
        loads = name in LOADS
        other = rng.choice(COUNTERS if loads and rng.random() < 0.9 else ALL)
        self.emit(name, other if loads else base, base if loads else other, offset, rng.randrange(0, 100))

    def move(self) -> None:
        rng = self.rng
        dst = rng.choice(POINTERS)
        match rng.randrange(40):
            case n if n < 15:
                self.emit("MOV64_X", dst, rng.choice(POINTERS))
            case n if n < 30:
                self.emit("ADD64_K", dst, imm=rng.choice((1, 1, 2, 4, 8, 8, 16, -1, -2, -4, -8, -8, -16)))
            case n if n < 35:
                self.emit(rng.choice(("ADD64_X", "SUB64_X")), dst, rng.choice(COUNTERS))
            case 35:
                self.emit(rng.choice(("ADD64_X", "SUB64_X", "ADD32_X")), dst, rng.choice(ALL))
            case 36:
                self.emit("SUB64_K", dst, imm=rng.choice((1, 4, 8, -8, 0x7FFFFFFF, -0x80000000)))
            case 37:
                self.emit(rng.choice(("MOV32_X", "MOVSX64_32", "BE64", "NEG64")), dst, rng.choice(POINTERS))
            case _:
                self.fresh_value(dst)

    def count(self) -> None:
        """Something with a scalar whose bounds are kept."""
        rng = self.rng
        dst = rng.choice(COUNTERS)
        match rng.randrange(6):
            case 0:
                self.emit("MOV64_K", dst, imm=rng.choice((0, 1, 2, 3, 4, 8, 8, 500, -1)))
            case 1:
                self.emit("LDXB", dst, rng.choice(POINTERS), rng.randrange(0, 8))
                self.emit("AND64_K", dst, imm=rng.choice((1, 3, 7, 15, 8)))
            case 2 | 3:
                width = rng.choice((32, 64))
                operation = rng.choice(SCALAR_OPERATIONS)
                self.emit(f"{operation}{width}_K", dst, imm=rng.choice((0, 1, 2, 3, 7, 8, 15, 248, -1, 504)))
            case 4:
                operation = rng.choice(SCALAR_OPERATIONS)
                self.emit(f"{operation}{rng.choice((32, 64))}_X", dst, rng.choice(COUNTERS))
            case _:
                self.emit(rng.choice(("MOV64_X", "MOV32_X", "MOVSX64_8")), dst, rng.choice(ALL))

    def branch(self) -> None:
        rng = self.rng
        here = len(self.slots)
        if rng.random() < 0.45:
            target = rng.randrange(0, here + 1)  # a loop, or into the middle of one
        else:
            target = min(here + rng.randrange(2, 9), self.size - 1)
        offset = target - here - 1
        suffix = rng.choice(("", "", "32"))
        match rng.randrange(8):
            case 0:
                self.emit("JA", offset=offset)
            case 1:
                self.emit("MAY_GOTO", offset=max(offset, 0))
            case 2 | 3:
                self.emit("SUB64_K", 9, imm=1)
                self.emit("JNE_K", 9, offset=offset - 1, imm=0)
            case 4:
                name = f"{rng.choice(BRANCHES)}{suffix}_X"
                self.emit(name, rng.choice(ALL), rng.choice(ALL), offset)
            case _:
                name = f"{rng.choice(BRANCHES)}{suffix}_K"
                imm = rng.choice((0, 0, 1, 3, 8, 16, 64, 500, -1))
                self.emit(name, rng.choice(ALL if rng.random() < 0.3 else COUNTERS), 0, offset, imm)

    def call(self) -> None:
        rng = self.rng
        if self.calls_functions:
            self.emit("CALL_LOCAL", imm=rng.choice(self.functions) - len(self.slots) - 1)
            return
        if self.functions and rng.random() < 0.5:
            target = rng.choice((*self.functions, *self.functions, *self.functions, 0))
            self.emit("CALL_LOCAL", imm=target - len(self.slots) - 1)
            return
        self.emit("CALL", imm=rng.choice((GRANT, HAND_BACK, FORGET)))
        for register in (1, 2, 3):
            if rng.random() < 0.8:
                self.emit("MOV64_X", register, rng.choice((0, 6, 7, 10)))

    def instruction(self) -> None:
        chance = self.rng.random()
        if self.calls_functions and chance < 0.09:
            self.call()
        elif chance < 0.42:
            self.access()
        elif chance < 0.66:
            self.move()
        elif chance < 0.78:
            self.count()
        elif chance < 0.93:
            self.branch()
        elif chance < 0.97:
            self.call()
        elif self.writes_frame_pointer:
            self.emit("ADD64_K", 10, imm=self.rng.choice((8, -8, 0, 512, -512)))
        elif chance < 0.975:
            self.emit(EXIT)

    def program(self) -> bytes:
        rng = self.rng
        length = rng.randrange(8, 36)
        self.size = length + 12
        if self.calls_functions:
            self.functions = [self.size // 3, 2 * self.size // 3]
        elif rng.random() < 0.3:  # functions start behind main, wherever
            self.functions = [rng.randrange(length // 2, self.size) for _ in range(rng.randrange(1, 3))]
        self.start()
        while len(self.slots) < self.size - 2:
            if self.calls_functions and len(self.slots) + 1 in self.functions:
                self.emit(EXIT)
            else:
                self.instruction()
        self.emit("MOV64_X", 0, rng.choice(COUNTERS))
        self.emit(EXIT)
        return b"".join(self.slots)


@dataclass(frozen=True)
class Case:
    """A program; how many bytes the compiler is promised behind r1; the sizes it is run on."""

    seed: int
    code: bytes
    promised: int
    sizes: tuple[int, ...]
    read_only: bool

    @property
    def writable(self) -> bool:
        """Whether what is promised is promised to be writable."""
        return not self.read_only


def case(seed: int) -> Case:
    """The case that a seed names."""
    rng = random.Random(seed)
    code = Writer(rng).program()
    promised = rng.choice((0, 0, 0, 16, 24))
    sizes = tuple(max(promised, size) for size in rng.sample((0, 12, 16, 20, 24, 32, 33, 40, 47, 64), 3))
    return Case(seed, code, promised, sizes, rng.random() < 0.15)


class World:
    """The memory of runs, always at the same addresses: what is allowed, granted, and all around."""

    def __init__(self) -> None:
        self.around = bytearray(2 * MARGIN)
        self.more = bytearray(2 * MARGIN)
        self.granted = bytearray(2 * MARGIN)
        self.stack = Stack()
        self.start = address_of(self.around) + MARGIN
        self.helpers = {GRANT: self.grant, HAND_BACK: self.hand_back, FORGET: self.forget}
        self.instructions = 0

    def grant(self, *arguments: int) -> int:
        memory = memoryview(self.granted)[MARGIN : MARGIN + 16]
        grant(memory)
        return address_of(memory)

    def hand_back(self, r1: int, *others: int) -> int:
        return r1

    def forget(self, *arguments: int) -> int:
        return 7

    def run(self, engine: Any, size: int, *, read_only: bool) -> tuple[Any, ...]:
        """Run on memory that is as new, and return all that can be told afterwards."""
        around, more = memoryview(self.around), memoryview(self.more)
        around[:] = FILLING
        more[:], self.granted[:] = around, around
        allowed = more[MARGIN : MARGIN + 16]
        pointers = self.start.to_bytes(8, "little") + address_of(allowed).to_bytes(8, "little")
        around[MARGIN : MARGIN + min(size, 16)] = pointers[:size]
        memory = around[MARGIN : MARGIN + size]
        if read_only:
            memory = memory.toreadonly()
        region, other = Region.of_buffer("mem", memory), Region.of_buffer("allowed", allowed)
        argument = (self.start, size) if size else (0, 0)
        self.stack.reset()
        execution = Execution(
            argument, [region, other], region, region, self.helpers, {}, LIMIT, True, self.stack
        )
        try:
            ending: tuple[Any, ...] = ("ok", engine(execution))
        except ExecutionError as error:
            ending = (type(error).__name__, str(error), sorted(vars(error).items()))
        self.instructions = max(self.instructions, execution.instructions)  # machine code counts none
        return (*ending, execution.budget_left, bytes(around), bytes(more), bytes(self.granted))


def complaint(world: World, case: Case, kinds: Counter[str]) -> str:
    """What the engines disagree on, as text; nothing where they agree."""
    verified = prepare(Program.from_bytes(case.code))
    compiled = compile_program(
        verified, helpers=world.helpers, argument_size=case.promised, argument_writable=case.writable
    )
    for access in analyse(
        verified.program, verified.frame_sizes, Promises(case.promised, case.writable)
    ).accesses.values():
        kinds["merged" if access.span or access.leader is not None else access.proof or "checked"] += 1
    for size in case.sizes:
        world.instructions = 0
        expected = world.run(lambda execution: interpret(verified, execution), size, read_only=case.read_only)
        actual = world.run(compiled.run, size, read_only=case.read_only)
        kinds[expected[0]] += 1
        kinds["instructions"] += world.instructions
        if expected != actual:
            shown = [(*result[:-3], [hash(part) for part in result[-3:]]) for result in (expected, actual)]
            return f"{case}: {size} bytes\ninterpreter {shown[0]}\njit {shown[1]}\n{case.code.hex()}"
    return ""


def main(first: int, last: int, place: str) -> int:
    kinds: Counter[str] = Counter()
    world, found = World(), 0
    where = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for seed in range(first, last):
        generated = case(seed)
        os.ftruncate(where, 0)
        os.pwrite(where, f"seed {seed}\n{generated.code.hex()}\n".encode(), 0)
        try:
            text = complaint(world, generated, kinds)
        except EbpfError as error:
            text = f"{generated}: {type(error).__name__}: {error}"
        if text:
            found += 1
            print(text, flush=True)
    print("kinds", *(f"{kind}={count}" for kind, count in sorted(kinds.items())), flush=True)
    return 1 if found else 0


def _complaint(first: int, last: int, place: Path) -> tuple[str, dict[str, int]]:
    command = [sys.executable, "-m", "tests.differential.test_facts_sound", str(first), str(last), str(place)]
    try:
        child = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=CHECKOUT,
            check=False,
            timeout=60 + SECONDS_A_PROGRAM * (last - first),
        )
    except subprocess.TimeoutExpired:
        return f"a child hangs at {place.read_text()}", {}
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        return f"a child died of {name} at {place.read_text()}{child.stdout[:2000]}", {}
    if child.returncode:
        return f"exit {child.returncode}\n{child.stdout[:4000]}{child.stderr[-2000:]}", {}
    kinds = child.stdout.strip().splitlines()[-1].split()
    return "", {kind: int(count) for kind, _, count in (item.partition("=") for item in kinds[1:])}


def test_what_is_proven_holds(tmp_path: Path) -> None:
    bounds = [PROGRAMS * part // CHILDREN for part in range(CHILDREN + 1)]
    places = [tmp_path / f"running_{part}" for part in range(CHILDREN)]
    with ThreadPoolExecutor(CHILDREN) as children:
        results = list(children.map(_complaint, bounds[:-1], bounds[1:], places))
    assert "".join(text for text, _ in results) == ""
    total: Counter[str] = Counter()
    for _, kinds in results:
        total.update(kinds)
    wanted = ("frame", "covered", "argument", "merged", "checked", "ok", "MemoryFault", "BudgetExhausted")
    assert [kind for kind in wanted if not total[kind]] == [], f"the generator no longer reaches all: {total}"


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
