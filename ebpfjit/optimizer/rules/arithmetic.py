"""Code -> Code with simpler arithmetic: constants, copies, what was made before, rotations.

    before                          after
    v1 = 8                          v1 = 8                      (for dead.py)
    v2 = v0 * v1                    v2 = v0 << 3
    w3 = w2                         w3 = w2
    w4 = w3                                                     v4 is v3: its upper half is zero
    v5 = v0 << 13                   v5 = v0 << 13
    v6 = v0 >> 51                   v6 = v0 >> 51
    v7 = v5 | v6                    v7 = v0 rotate 13
    v9 = v0 / v2
    v11 = v9 * v2
    v10 = v0 - v11                  v10 = v0 % v2
    v8 = v0 * 8                                                 v8 is v2
    goto b3(v3, v5, v5)                                         the third argument is the second
    if v2 > v1 goto b1 else b2      if v2 > 8 goto b1 else b2

Contract: each value is what it was, or is gone, and what is instead is read where it was, by exits as well.
Nothing moves, and no check, payment or store goes. No value is kept longer than it was unless another is
gone for it: what was made before is taken instead only where it is read later anyhow, in the blocks that
follow each other without another way in, with no call in between. Linear: each operation is looked at once,
behind what it reads, and rewritten a few times at most. `algebra` has the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ebpfjit.bits import W32, W64, Width
from ebpfjit.isa import semantics
from ebpfjit.isa.spec import Kind, Row
from ebpfjit.isa.table import BY_NAME, TABLE
from ebpfjit.isa.unencoded import UNENCODED
from ebpfjit.optimizer.code import Block, Code, Exit, Op, Way
from ebpfjit.optimizer.flow import homes_of, reads_of, without
from ebpfjit.optimizer.rules import algebra
from ebpfjit.optimizer.rules.bits import low_arguments

CONSTANT, WIDE, LOW_HALF, JUMP = (BY_NAME[name] for name in ("MOV64_K", "LDDW", "MOV32_X", "JA"))
WITH_NUMBER: dict[Row, Row] = {
    row: BY_NAME[row.name[:-1] + "K"]
    for row in TABLE
    if row.kind in (Kind.BINARY, Kind.BRANCH) and row.name.endswith("_X")
}
"""Rows with a register by theirs with an immediate."""
BINARY: dict[tuple[str, int], Row] = {
    (row.meaning, row.width.bits): row
    for row in (*TABLE, UNENCODED["ROTATE64"], UNENCODED["ROTATE32"])
    if row.kind is Kind.BINARY and not row.uses_src
}
"""Rows with an immediate."""
WITH_VALUE = {with_number: row for row, with_number in WITH_NUMBER.items()}
STORED_NUMBER = {BY_NAME[f"STX{size}"]: BY_NAME[f"ST{size}"] for size in ("B", "H", "W", "DW")}
EXTENSIONS = {(64, 8): "MOVSX64_8", (64, 16): "MOVSX64_16", (64, 32): "MOVSX64_32",
              (32, 8): "MOVSX32_8", (32, 16): "MOVSX32_16"}  # fmt: skip
NARROW = frozenset({"ADD", "SUB", "MUL", "OR", "AND", "XOR"})
"""Operations whose low half follows from those of the operands."""
EXCHANGED = {"JGT": "JLT", "JGE": "JLE", "JLT": "JGT", "JLE": "JGE", "JSGT": "JSLT", "JSGE": "JSLE",
             "JSLT": "JSGT", "JSLE": "JSGE", "JEQ": "JEQ", "JNE": "JNE", "JSET": "JSET"}  # fmt: skip
"""Comparisons with the operands the other way round."""
UNARY_BITS = {
    row: row.imm if isinstance(row.imm, int) and row.imm else row.width.bits
    for row in TABLE
    if row.kind is Kind.UNARY
}
JOINS = frozenset({"OR", "XOR", "ADD"})
"""What puts two shifts together to a rotation."""
BY_A_COUNT = frozenset({"LSH", "RSH", "ARSH"})
"""Of whose second operand only as many bits count as the first has places for."""
SHIFTS = frozenset(BY_NAME[f"{shift}{bits}_K"] for shift in ("LSH", "RSH") for bits in (32, 64))
MOST_REWRITES = 6


def simplify(code: Code) -> Code:
    """Return the code with its arithmetic rewritten."""
    return _Pass(code).run()


def fits(number: int) -> bool:
    """Return whether a signed number can be an immediate."""
    return -(1 << 31) <= number < 1 << 31


LOW_ROWS = frozenset(
    row
    for row in (*TABLE, *UNENCODED.values())
    if (row.kind in (Kind.BINARY, Kind.MOVE, Kind.UNARY, Kind.SUM) and row.width is W32)
    or (row.kind in (Kind.LOAD, Kind.INDEXED_LOAD, Kind.PACKET_LOAD) and row.size <= 4 and not row.signed)
    or (row.kind is Kind.ATOMIC and row.fetch and row.size == 4)
    or (row.kind is Kind.UNARY and row.meaning.endswith(("16", "32")))
)
"""Rows of which each result is below 2**32."""


ASKING = frozenset(BY_NAME[name] for name in ("MOV32_X", "LSH64_K"))
"""Rows of which something is simpler where what they read has no upper half."""


class _Comparison(NamedTuple):
    """What a branch or a choice depends on: the name of a branch's row, and its operands."""

    name: str
    args: tuple[int, ...]
    imm: int
    is_inverse: bool = False
    """Whether it holds where the one before does not."""


ANDS = frozenset(BY_NAME[f"AND{bits}_{form}"] for bits in (32, 64) for form in "KX")


class _Pass:
    """What is known of each value by number, while blocks are gone through."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.homes = homes_of(code)
        count = len(self.homes)
        self.same: dict[int, int] = {}
        """What is to be read instead of values that are gone."""
        self.gone: set[int | None] = set()
        """These values."""
        self.constants: list[int | None] = [None] * count
        self.bits = [64] * count
        """How many low bits at most are not zero."""
        self.makers: list[Op | None] = [None] * count
        self.left, named = reads_of(code)
        self.uses = self.left.copy()
        for value in named:
            self.uses[value] += 1
        ops = (op for block in code.blocks for op in block.ops if op.row in ASKING)
        for value in low_arguments(code, {value for op in ops for value in op.args}, LOW_ROWS):
            self.bits[value] = 32
        self.ways_stay = True
        """Whether each block still leads to the same ones."""
        self.made: dict[tuple[object, ...], int] = {}
        """What was made before: values by row, arguments and numbers."""

    def run(self) -> Code:
        """Go through all blocks."""
        code = self.code
        self.twins()
        before = code.shape.before
        tables: dict[int, dict[tuple[object, ...], int]] = {}
        done: list[Block | None] = [None] * len(code.blocks)
        for number in code.shape.order:
            ways_in = before[number]
            table = tables.pop(ways_in[0], None) if len(ways_in) == 1 else None
            self.made = {} if table is None else table
            done[number] = self.block(code.blocks[number])
            tables[number] = self.made
        starts = [None if start is None else self.renamed_exit(start) for start in code.starts]
        return without(code, done, self.homes, starts, ways_stay=self.ways_stay)

    def twins(self) -> None:
        """Of arguments of a block that are the same on each way to it the first is read."""
        code = self.code
        came: dict[int, list[tuple[int, ...]]] = {}
        for block in code.blocks:
            for way in block.ways:
                if len(way.args) > 1:
                    came.setdefault(way.block, []).append(way.args)
        for number in came.keys() - set(code.shape.entered):
            given = [*zip(*came[number], strict=True)]
            if len(set(given)) < len(given):
                first: dict[tuple[int, ...], int] = {}
                for arg, values in zip(code.blocks[number].args, given, strict=True):
                    if first.setdefault(values, arg) != arg:
                        self.replace(arg, first[values])

    def block(self, block: Block) -> Block:
        """Return a block rewritten."""
        left, gone, makers = self.left, self.gone, self.makers
        ops: list[Op] = []
        for op in block.ops:
            is_there = True
            for value in op.args:
                left[value] -= 1
                if value in gone:
                    is_there = False
            if not is_there or (op.exit is not None and not gone.isdisjoint(op.exit.registers)):
                op = self.renamed(op)
            rewrite = _STEPS.get(op.row)
            if rewrite is None:
                ops.append(op)
                continue
            new = rewrite(self, op)
            if new is not None:
                ops.append(new)
                if new.results:
                    makers[new.results[0]] = new
        end = self.renamed(block.end)
        for value in end.args:
            left[value] -= 1
        ways = block.ways
        for index, way in enumerate(ways):
            if way.args:
                for value in way.args:
                    left[value] -= 1
                if not gone.isdisjoint(way.args):
                    through = Way(way.block, self.through(way.args))
                    ways = (*ways[:index], through, *ways[index + 1 :])
        if end.row.kind is Kind.BRANCH:
            end, ways_left = self.branch(end, ways)
            if ways_left is not ways:
                ways, self.ways_stay = ways_left, False
        return Block(block.pc, block.args, tuple(ops), end, ways)

    def through(self, values: tuple[int, ...]) -> tuple[int, ...]:
        """Return what is to be read instead of some values."""
        same = self.same
        return tuple([same.get(value, value) for value in values])

    def renamed(self, op: Op) -> Op:
        """Return an operation with what is to be read instead of what it reads."""
        leaves, gone = op.exit, self.gone
        if gone.isdisjoint(op.args) and (leaves is None or gone.isdisjoint(leaves.registers)):
            return op
        if leaves is not None:
            leaves = self.renamed_exit(leaves)
        return changed(op, op.row, self.through(op.args), op.imm, leaves)

    def renamed_exit(self, leaves: Exit) -> Exit:
        """Return an exit with the values that are to be read instead of those it names."""
        if self.gone.isdisjoint(leaves.registers):
            return leaves
        same = self.same
        return leaves.naming(
            [None if value is None else same.get(value, value) for value in leaves.registers]
        )

    # -- what becomes of an operation --

    def alias(self, op: Op, value: int) -> None:
        """Have another value read instead of an operation's result."""
        self.replace(op.results[0], value)

    def replace(self, gone: int, value: int) -> None:
        """Have a value read instead of one that is gone."""
        self.same[gone] = value
        self.gone.add(gone)
        self.left[value] += self.left[gone]
        self.uses[value] += self.uses[gone]

    def number(self, op: Op, value: int) -> Op:
        """Return the operation that makes a constant (u64) instead."""
        result = op.results[0]
        self.constants[result] = value
        self.bits[result] = value.bit_length()
        signed = W64.signed(value)
        if fits(signed):
            return changed(op, CONSTANT, (), signed)
        return changed(op, WIDE, (), value)

    def low_half(self, op: Op, value: int) -> Op | None:
        """Return the operation that takes the low half of a value instead; None where that is the value."""
        if self.bits[value] <= 32:
            self.alias(op, value)
            return None
        self.bits[op.results[0]] = 32
        return self.numbered(changed(op, LOW_HALF, (value,), 0))

    def numbered(self, op: Op) -> Op | None:
        """Return an operation, None where its value was made before and is read later anyhow."""
        key = (op.row, op.args, op.imm)
        known = self.made.get(key)
        if known is not None and self.left[known] > 0:
            self.alias(op, known)
            return None
        self.made[key] = op.results[0]
        return op

    def is_free(self, inner: int, outer: int) -> bool:
        """Return whether `outer` may be read instead of `inner`, which is made of it: no more values live."""
        return self.uses[inner] == 1 or self.left[outer] > 0

    # -- kinds --

    def constant(self, op: Op) -> Op:
        """A number is known from here on."""
        value = W64.wrap(op.imm)
        self.constants[op.results[0]] = value
        self.bits[op.results[0]] = value.bit_length()
        return op

    def loaded(self, op: Op) -> Op:
        """The size of what is loaded is known."""
        row = op.row
        if op.results and not row.signed:
            self.bits[op.results[0]] = 8 * row.size
        return op

    def store(self, op: Op) -> Op:
        """A constant, and the low bits that are stored, are taken where they come from."""
        row = op.row
        if len(op.args) < 2 or row.is_ordered:
            return op
        base, value = op.args
        number = self.constants[value]
        if number is not None and (row.size < 8 or fits(W64.signed(number))):
            imm = W64.signed(number) if row.size == 8 else W32.signed(number)
            return changed(op, STORED_NUMBER[row], (base,), imm)
        inner = self.before_masking(value, 8 * row.size)
        return op if inner == value else changed(op, row, (base, inner), op.imm)

    def before_masking(self, value: int, bits: int) -> int:
        """Return a value that has the same low bits, as it was before others were made zero."""
        maker = self.makers[value]
        if maker is None or len(maker.args) != 1 or not self.is_free(value, maker.args[0]):
            return value
        row, mask = maker.row, (1 << bits) - 1
        keeps = row is LOW_HALF and bits <= 32
        if row.meaning == "AND" and row.kind is Kind.BINARY:
            keeps = row.width.bits >= bits and maker.imm & mask == mask
        return maker.args[0] if keeps else value

    def move(self, op: Op) -> Op | None:
        """Constants, copies and extensions."""
        row = op.row
        if not op.args:
            return self.constant(op) if row.width is W64 else self.number(op, W32.wrap(op.imm))
        value = op.args[0]
        number = self.constants[value]
        if number is not None:
            return self.number(op, semantics.MOVE[row.meaning](row.width, row.width.wrap(number)))
        if row is LOW_HALF:
            return self.narrowed(op)
        if row.meaning == "MOV" or self.bits[value] < int(row.meaning.removeprefix("MOVSX")):
            self.alias(op, value)  # it has no sign
            return None
        if row.width is W32:
            self.bits[op.results[0]] = 32
        return self.numbered(op)

    def narrowed(self, op: Op) -> Op | None:
        """The low half of what 64 bits are made for: made of 32 bits at once."""
        value = op.args[0]
        maker = self.makers[value]
        if self.bits[value] <= 32 or maker is None or self.uses[value] != 1:
            return self.low_half(op, value)
        row = maker.row
        is_shift = row.meaning == "LSH" and not row.uses_src and maker.imm & 63 < 32
        if row.kind is Kind.BINARY and row.width is W64 and (row.meaning in NARROW or is_shift):
            narrow = BINARY[row.meaning, 32]
            if row.uses_src:
                narrow = WITH_VALUE[narrow]
            return self.binary(changed(op, narrow, maker.args, maker.imm))
        if row is BY_NAME["NEG64"]:
            return self.unary(changed(op, BY_NAME["NEG32"], maker.args, 0))
        return self.low_half(op, value)

    def unary(self, op: Op) -> Op | None:
        """Negations and orders of bytes."""
        row, value = op.row, op.args[0]
        number = self.constants[value]
        if number is not None:
            return self.number(op, semantics.UNARY[row.meaning](row.width, row.width.wrap(number)))
        if row.meaning == "LE32":
            return self.low_half(op, value)
        if row.meaning == "LE64" or (row.meaning == "LE16" and self.bits[value] <= 16):
            self.alias(op, value)
            return None
        self.bits[op.results[0]] = UNARY_BITS[row]
        return self.numbered(op)

    def binary(self, op: Op) -> Op | None:
        """Arithmetic, rewritten until nothing applies."""
        for _ in range(MOST_REWRITES):
            new = self.of_two(op) if op.row.uses_src else self.of_one(op)
            if new is op:
                break
            if new is None or new.row.kind is not Kind.BINARY:
                return new
            op = new
        return self.finished(op)

    def finished(self, op: Op) -> Op | None:
        """Note how many bits the result of an operation has at most; it may have been made before."""
        row, bits, args = op.row, self.bits, op.args
        width = most = row.width.bits
        first = bits[args[0]]
        if first > width:
            first = width
        if row.uses_src:
            of_two = algebra.BITS_OF_TWO.get(row.meaning)
            if of_two is not None:
                second = bits[args[1]]
                most = of_two(first, second if second < width else width)
        else:
            of_one = algebra.BITS.get(row.meaning)
            if of_one is not None:
                most = of_one(row.width, first, op.imm & row.width.mask)
        bits[op.results[0]] = most if most < width else width
        return self.numbered(op)

    def of_two(self, op: Op) -> Op | None:
        """An operation on two values: one of them a constant, both the same, or shifts of the same."""
        row, (a, b) = op.row, op.args
        constants, width = self.constants, row.width
        number = constants[b]
        if number is None and constants[a] is not None and row.meaning in algebra.COMMUTATIVE:
            a, b, number = b, a, constants[a]
        if number is not None:
            signed = width.signed(number)
            if fits(signed):
                return changed(op, WITH_NUMBER[row], (a,), signed)
            first = constants[a]
            if first is not None:
                made = semantics.BINARY[row.meaning](width, width.wrap(first), width.wrap(number))
                return self.number(op, made)
        if a == b and row.meaning in algebra.OF_ITSELF:
            return self.simpler(op, a, algebra.OF_ITSELF[row.meaning])
        if row.meaning == "SUB" and constants[a] == 0:
            return self.unary(changed(op, BY_NAME[f"NEG{width.bits}"], (b,), 0))
        if row.meaning == "SUB":
            divisor = self.divisor(width, a, b)
            if divisor is not None:
                return changed(op, WITH_VALUE[BINARY["MOD", width.bits]], (a, divisor), 0)
        if row.meaning in JOINS and self.is_shift(a) and self.is_shift(b):
            rotated = self.rotated(op, a, b)
            if rotated is not None:
                return rotated
        if row.meaning in BY_A_COUNT:
            count = self.before_masking(b, width.bits.bit_length() - 1)
            if count != b:
                op = changed(op, row, (a, count), op.imm)
                b = count
        return self.of_low_halves(op, a, b) if width is W32 else op

    def divisor(self, width: Width, a: int, b: int) -> int | None:
        """Return d where b is a / d * d, made for nothing else; None for any other b."""
        product = self.makers[b]
        if product is None or product.row.meaning != "MUL" or product.row.width is not width:
            return None
        if not product.row.uses_src or self.uses[b] != 1:
            return None
        same = self.low if width is W32 else int
        for q, d in (product.args, product.args[::-1]):
            maker = self.makers[q]
            if maker is None or maker.row.meaning != "DIV" or maker.row.width is not width:
                continue
            if maker.row.uses_src and self.uses[q] == 1:
                dividend, by = maker.args
                if same(dividend) == same(a) and same(by) == same(d):
                    return d
        return None

    def of_low_halves(self, op: Op, a: int, b: int) -> Op:
        """Of an operand only the low half is read; from where it was taken."""
        args = self.before_masking(a, 32), self.before_masking(b, 32)
        return op if args == op.args else changed(op, op.row, args, op.imm)

    def is_shift(self, value: int) -> bool:
        """Return whether a shift by a constant made a value."""
        maker = self.makers[value]
        return maker is not None and maker.row in SHIFTS

    def rotated(self, op: Op, a: int, b: int) -> Op | None:
        """Return the rotation that two shifts of one value are, joined; None where they are not."""
        bits = 32 if self.is_narrow(a) and self.is_narrow(b) else op.row.width.bits
        left, right = self.shifted(a, "LSH", bits), self.shifted(b, "RSH", bits)
        if left is None or right is None:
            left, right = self.shifted(b, "LSH", bits), self.shifted(a, "RSH", bits)
        if left is None or right is None or left[1] + right[1] != bits or not 0 < left[1] < bits:
            return None
        value = left[0]
        if value != right[0] and (bits != 32 or self.low(value) != self.low(right[0])):
            return None
        is_free = self.left[value] > 0 or self.uses[a] == 1 or self.uses[b] == 1
        if bits == 32 and self.uses[value] <= 2:
            value = self.low(value)
        return changed(op, BINARY["ROTATE", bits], (value,), left[1]) if is_free else None

    def is_narrow(self, value: int) -> bool:
        """Return whether 32 bits make a value."""
        maker = self.makers[value]
        return maker is not None and maker.row.kind is Kind.BINARY and maker.row.width is W32

    def low(self, value: int) -> int:
        """Return what a value is the low half of, or itself: for rotations of 32 bits."""
        maker = self.makers[value]
        return maker.args[0] if maker is not None and maker.row is LOW_HALF else value

    def shifted(self, value: int, meaning: str, bits: int) -> tuple[int, int] | None:
        """Return of what a value is the shift, of so many bits, and by how much."""
        maker = self.makers[value]
        if maker is None or maker.row.meaning != meaning:
            return None
        inner, by = maker.args[0], maker.imm % maker.row.width.bits
        if maker.row.width.bits == bits:
            return inner, by
        # The low half of 64 bits.
        if bits == 32 and by < 32 and (meaning == "LSH" or self.bits[inner] <= 32):
            return inner, by
        return None

    def of_one(self, op: Op) -> Op | None:
        """An operation with a constant: on another constant, behind another one, or nothing at all."""
        row, a, width = op.row, op.args[0], op.row.width
        k = op.imm & width.mask
        number = self.constants[a]
        if number is not None:
            return self.number(op, semantics.BINARY[row.meaning](width, width.wrap(number), k))
        rule = algebra.WITH_CONSTANT.get(row.meaning)
        found = None if rule is None else rule(width, k)
        if found is None and self.bits[a] <= width.bits:
            of_few = algebra.OF_FEW_BITS.get(row.meaning)
            found = None if of_few is None else of_few(width, self.bits[a], k)
        if found is not None:
            return self.simpler(op, a, found)
        maker = self.makers[a]
        if maker is None or maker.row.kind is not Kind.BINARY or maker.row.uses_src:
            return self.of_low_half(op, a) if width is W32 else op
        return self.behind(op, a, maker, k)

    def of_low_half(self, op: Op, a: int) -> Op:
        """As `of_low_halves`, of one operand."""
        inner = self.before_masking(a, 32)
        return op if inner == a else changed(op, op.row, (inner,), op.imm)

    def behind(self, op: Op, a: int, maker: Op, k: int) -> Op | None:
        """An operation with a constant on what was made with another."""
        width = op.row.width
        inner = maker.args[0]
        if maker.row.width is not width or not self.is_free(a, inner):
            return op
        j = width.wrap(maker.imm)
        if maker.row.meaning == "LSH" and op.row.meaning == "RSH" and self.bits[inner] <= width.bits:
            found = algebra.of_few_bits_shifted(width, self.bits[inner], j, k)
            if found is not None:
                return self.simpler(op, inner, found)
        rule = algebra.CHAINS.get((maker.row.meaning, op.row.meaning))
        found = None if rule is None else rule(width, j, k)
        return op if found is None else self.simpler(op, inner, found)

    def simpler(self, op: Op, a: int, found: algebra.Simpler) -> Op | None:
        """Return the operation that a rule found; `op` where no row says it."""
        meaning, k = found
        width = op.row.width
        match meaning:
            case algebra.SAME if width is W32:
                return self.low_half(op, a)
            case algebra.SAME:
                self.alias(op, a)
                return None
            case algebra.CONSTANT:
                return self.number(op, k)
            case algebra.NEGATED:
                return self.unary(changed(op, BY_NAME[f"NEG{width.bits}"], (a,), 0))
            case algebra.SIGNED if (width.bits, k) in EXTENSIONS:
                return self.move(changed(op, BY_NAME[EXTENSIONS[width.bits, k]], (a,), 0))
            case algebra.SIGNED:
                return op
            case algebra.UNSIGNED if k == 32:
                return self.low_half(op, a)
            case algebra.UNSIGNED:
                meaning, k = "AND", (1 << k) - 1
        signed = width.signed(k)
        return changed(op, BINARY[meaning, width.bits], (a,), signed) if fits(signed) else op

    def branch(self, end: Op, ways: tuple[Way, ...]) -> tuple[Op, tuple[Way, ...]]:
        """A branch, of which one way may be gone."""
        found = self.comparison(end.row, end.args, end.imm)
        if found is None:
            return end, ways
        if isinstance(found, bool):
            return changed(end, JUMP, (), 0), (ways[0 if found else 1],)
        row = BY_NAME[found.name]
        return changed(end, row, found.args, found.imm), ways[::-1] if found.is_inverse else ways

    def select(self, op: Op) -> Op | None:
        """One of two values."""
        row, (chosen, other) = op.row, op.args[-2:]
        found = self.comparison(row, op.args[:-2], op.imm)
        if chosen == other or isinstance(found, bool):
            self.alias(op, chosen if found else other)
            return None
        self.bits[op.results[0]] = max(self.bits[chosen], self.bits[other])
        if found is None:
            return op
        values = (other, chosen) if found.is_inverse else (chosen, other)
        return changed(op, UNENCODED[f"SELECT_{found.name}"], (*found.args, *values), found.imm)

    def comparison(self, row: Row, args: tuple[int, ...], imm: int) -> _Comparison | bool | None:
        """Return a simpler comparison: with a constant, of low halves, of bits with zero; whether it holds
        where that is known; None where it is as simple as can be.
        """
        width, meaning, a, is_simpler = row.width, row.meaning, args[0], False
        if row.uses_src:
            b = args[1]
            if self.constants[b] is None and self.constants[a] is not None:
                a, b, meaning = b, a, EXCHANGED[meaning]
            number = self.constants[b]
            if number is None or not fits(width.signed(number)):
                return None
            imm, is_simpler = width.signed(number), True
        number, k = self.constants[a], width.wrap(imm)
        if number is not None:
            return semantics.CONDITION[meaning](width, width.wrap(number), k)
        suffix = "32" if width is W32 else ""
        maker = self.makers[a]
        if maker is not None and all(self.is_free(a, value) for value in maker.args):
            if maker.row in ANDS and not k and meaning in ("JEQ", "JNE"):
                suffix = "" if width is W64 and maker.row.width is W64 else "32"
                name = f"JSET{suffix}_{'X' if maker.row.uses_src else 'K'}"
                return _Comparison(name, maker.args, maker.imm, meaning == "JEQ")
            if maker.row is LOW_HALF and (width is W32 or (imm >= 0 and meaning[:2] != "JS")):
                return _Comparison(f"{meaning}32_K", maker.args, imm)
        return _Comparison(f"{meaning}{suffix}_K", (a,), imm) if is_simpler else None

    def call(self, op: Op) -> Op:
        """What was made before a call is made anew behind it, rather than kept."""
        self.made.clear()
        return op


def changed(op: Op, row: Row, args: tuple[int, ...], imm: int, leaves: Exit | None = None) -> Op:
    """Return an operation with another row, arguments and immediate."""
    leaves = leaves or op.exit
    return Op(row, args, imm, op.offset, op.pc, op.results, leaves, op.stores, op.region, op.scale)


_OF_KIND: dict[Kind, Callable[[_Pass, Op], Op | None]] = {
    Kind.BINARY: _Pass.binary,
    Kind.MOVE: _Pass.move,
    Kind.UNARY: _Pass.unary,
    Kind.LOAD_IMM64: _Pass.constant,
    Kind.LOAD: _Pass.loaded,
    Kind.INDEXED_LOAD: _Pass.loaded,
    Kind.PACKET_LOAD: _Pass.loaded,
    Kind.ATOMIC: _Pass.loaded,
    Kind.STORE: _Pass.store,
    Kind.SELECT: _Pass.select,
    Kind.CALL_HELPER: _Pass.call,
    Kind.CALL_KFUNC: _Pass.call,
    Kind.CALL_LOCAL: _Pass.call,
    Kind.CALL_REGISTER: _Pass.call,
}
_STEPS = {row: _OF_KIND[row.kind] for row in (*TABLE, *UNENCODED.values()) if row.kind in _OF_KIND}
