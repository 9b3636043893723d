"""Bytes that are loaded one by one and put together again: one wide load.

    a = *(u8 *)(p + 0);  b = *(u8 *)(p + 1);  b <<= 8;  b |= a          movzx b, word ptr [p]

That is how clang loads what may lie at any address. The other way round it is a number in network
order. The instructions need not stand together; between them nothing stores. The first load's check
stays in its place and must be the only one: where that fails, the copy that checks one by one goes on,
where nothing is gathered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ebpfjit.isa.spec import Kind
from ebpfjit.program import Instruction
from ebpfjit.translators.x86_64.plan import Check
from ebpfjit.translators.x86_64.target import Context, address_operand, register

Emit = Callable[[Context], None]
Effect = tuple[int, int]

LOADS = {"LDXB": 1, "LDXH": 2, "LDXW": 4}
JOINS = {"OR64_X": 8, "OR32_X": 4}
SHIFTS = {"LSH64_K": 8, "LSH32_K": 4}
COPIES = {"MOV64_X": 8, "MOV32_X": 4}
"""Rows, and how many bytes they read or leave."""

MOST_MADE = 64
"""The instructions that may make one number: eight loads, shifts, joins, and some copies."""

HARMLESS = frozenset({Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.LOAD, Kind.LOAD_IMM64})
"""What may stand in between."""

MNEMONICS = {2: "movzx {r32}, word ptr {m}", 4: "mov {r32}, dword ptr {m}", 8: "mov {r64}, qword ptr {m}"}
SWAPS = {2: ("rol {r16}, 8",), 4: ("bswap {r32}",), 8: ("bswap {r64}",)}


@dataclass(frozen=True, slots=True)
class _Bytes:
    """A number made of bytes in memory: which byte of it lies at which offset from a base.

    `base` is the register with its last definition; `made` are the indices of what made the number.
    """

    base: tuple[int, int]
    offsets: Mapping[int, int]
    made: frozenset[int]

    def shifted(self, by: int, most: int) -> dict[int, int] | None:
        """Return the offsets after a shift to the left by some bytes, None where any is lost."""
        moved = {place + by: offset for place, offset in self.offsets.items()}
        return moved if max(moved) < most else None


def gathered(
    block: Sequence[Instruction],
    effects: Sequence[Effect],
    live: int,
    checks: Mapping[int, Check],
) -> dict[int, Emit | None]:
    """Return, by pc, what stands for the instructions of a block that are gathered: mostly nothing.

    `effects` are the registers that each instruction reads and writes, `live` those read behind the
    block.
    """
    numbers, readers = _followed(block, effects, live)
    found: dict[int, Emit | None] = {}
    candidates = [index for index in numbers if _size(numbers[index]) and _name(block[index]) in JOINS]
    for index in sorted(candidates, key=lambda i: (-len(numbers[i].offsets), i)):
        made = numbers[index].made
        pcs = {block[i].pc for i in made}
        if not found.keys().isdisjoint(pcs) or any(not readers[i] <= made for i in made if i != index):
            continue
        place = _place(block, effects, numbers[index], index, checks)
        if place is not None:
            found.update(dict.fromkeys(pcs))
            found[block[place].pc] = _emitter(block[index], numbers[index])
    return found


def _name(insn: Instruction) -> str:
    return insn.row.name if insn.row is not None else ""


def _followed(
    block: Sequence[Instruction], effects: Sequence[Effect], live: int
) -> tuple[dict[int, _Bytes], list[set[int]]]:
    """Return what numbers instructions make of bytes, and who reads what each instruction writes."""
    defined = [-1] * 11
    readers: list[set[int]] = [set() for _ in block]
    numbers: dict[int, _Bytes] = {}
    for index, insn in enumerate(block):
        reads, writes = effects[index]
        for number in range(11):
            if reads >> number & 1 and defined[number] >= 0:
                readers[defined[number]].add(index)
        made = _made(insn, index, defined, numbers)
        if made is not None and len(made.made) <= MOST_MADE:
            numbers[index] = made
        for number in range(11):
            if writes >> number & 1:
                defined[number] = index
    for number in range(11):
        if live >> number & 1 and defined[number] >= 0:
            readers[defined[number]].add(len(block))
    return numbers, readers


def _made(
    insn: Instruction, index: int, defined: Sequence[int], numbers: Mapping[int, _Bytes]
) -> _Bytes | None:
    """Return what number of bytes an instruction makes, if it does."""
    name = _name(insn)
    if name in LOADS:
        offsets = {place: insn.offset + place for place in range(LOADS[name])}
        return _Bytes((insn.src_reg, defined[insn.src_reg]), offsets, frozenset({index}))
    if name in COPIES:
        copied = numbers.get(defined[insn.src_reg])
        if copied is None or max(copied.offsets) >= COPIES[name]:
            return None
        return _Bytes(copied.base, copied.offsets, copied.made | {index})
    if name not in SHIFTS and name not in JOINS:
        return None  # its fields may be anything
    number = numbers.get(defined[insn.dst_reg])
    if number is None:
        return None
    if name in SHIFTS and insn.imm % 8 == 0:
        moved = number.shifted(insn.imm // 8 % SHIFTS[name], SHIFTS[name])  # modulo the width
        return None if moved is None else _Bytes(number.base, moved, number.made | {index})
    other = numbers.get(defined[insn.src_reg]) if name in JOINS else None
    if other is None or other.base != number.base or not other.offsets.keys().isdisjoint(number.offsets):
        return None
    joined = {**number.offsets, **other.offsets}
    if max(joined) >= JOINS[name]:
        return None
    return _Bytes(number.base, joined, number.made | other.made | {index})


def _size(number: _Bytes) -> int:
    """Return how many bytes the number has where they lie side by side, one way or the other; else 0."""
    size = len(number.offsets)
    if size not in MNEMONICS or number.offsets.keys() != set(range(size)):
        return 0
    steps = {number.offsets[place + 1] - number.offsets[place] for place in range(size - 1)}
    return size if steps in ({1}, {-1}) else 0


def _place(
    block: Sequence[Instruction],
    effects: Sequence[Effect],
    number: _Bytes,
    last: int,
    checks: Mapping[int, Check],
) -> int | None:
    """Return the index of the last load, where the wide one can stand; None where it cannot.

    There the base is what it is for all loads, as nothing that reads or makes it is left out.
    """
    loads = sorted(i for i in number.made if _name(block[i]) in LOADS)
    between = [i for i in range(loads[0], last + 1) if i not in number.made]
    for i in between:
        row = block[i].row
        if row is None or row.kind not in HARMLESS or row.is_ordered:
            return None
    for i in range(loads[0] + 1, last + 1):
        check = checks.get(block[i].pc)
        # Who goes on in the other copy from here would find the numbers half made.
        if check is not None and (check.merged or i in number.made):
            return None
    place, target = loads[-1], 1 << block[last].dst_reg
    return None if any((effects[i][0] | effects[i][1]) & target for i in between if i > place) else place


def _emitter(last: Instruction, number: _Bytes) -> Emit:
    size, target = len(number.offsets), last.dst_reg
    memory, offset = address_operand(register(number.base[0]), min(number.offsets.values()))
    names = {f"r{bits}": register(target, bits) for bits in (16, 32, 64)}
    load = MNEMONICS[size].format(m=memory, **names)
    swaps = [swap.format(**names) for swap in SWAPS[size]] if number.offsets[0] > number.offsets[1] else []

    def emit(cx: Context) -> None:
        cx.emit(load, offset=offset)
        for swap in swaps:
            cx.emit(swap)

    return emit
