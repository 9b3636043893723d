"""Random Code, as text, in which much can be rewritten: what machines do at once, and nearly that.

It reads and writes the memory that v0 points to, SIZE bytes of it, and never faults; so no bound is needed.
"""

from __future__ import annotations

import random

SIZE = 64
TELLING = (0, 1, -1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 24, 31, 32, 33, 48, 56, 63, 64, 127, 128, 255, 256, 0xFFFF,
           -8, 0x7FFFFFFF, -0x80000000)  # fmt: skip
OPERATIONS = ("+", "+", "-", "*", "/", "s/", "%", "s%", "|", "&", "^", "<<", ">>", "s>>")
CONDITIONS = ("==", "!=", "&", ">", ">=", "<", "<=", "s>", "s>=", "s<", "s<=")


class CodeMaker:
    """Writes one piece of Code."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.count = 1
        self.heads = ["b0 pc 0 (v0):"]
        self.blocks: list[list[str]] = [[]]
        self.values: list[int] = []
        """What may be read where the next operation stands."""
        self.results: list[int] = []
        """What counts in the end."""

    # -- writing --

    def new(self, text: str) -> int:
        """Add an operation, whose result's number goes where `{}` is."""
        number = self.count
        self.count += 1
        self.blocks[-1].append(text.replace("{}", str(number)))
        return number

    def emit(self, text: str) -> None:
        """Add a line."""
        self.blocks[-1].append(text)

    def chance(self, share: float) -> bool:
        """True in so many cases."""
        return self.rng.random() < share

    def value(self) -> int:
        """Return a value, one of the last ones more often."""
        return self.rng.choice(self.values[-6:] if self.chance(0.6) else self.values)

    def number(self) -> int:
        """Return a constant of 32 bits."""
        return self.rng.choice(TELLING) if self.chance(0.8) else self.rng.randrange(-(1 << 31), 1 << 31)

    def letter(self) -> str:
        """Return a width."""
        return self.rng.choice("vvw")

    def done(self, value: int) -> None:
        """Let a value be read by anything that follows."""
        self.values.append(value)
        self.results.append(value)

    # -- parts --

    def arithmetic(self) -> None:
        """A chain of operations, each on what the one before made."""
        value = self.value()
        for _ in range(self.rng.randrange(1, 5)):
            letter = self.letter()
            match self.rng.randrange(12):
                case 0:
                    value = self.new(f"w{{}} = w{value}")
                case 1:
                    bits = self.rng.choice((8, 16, 32) if letter == "v" else (8, 16))
                    value = self.new(f"{letter}{{}} = (s{bits}){letter}{value}")
                case 2:
                    value = self.new(f"{letter}{{}} = -{letter}{value}")
                case 3:
                    word = f"{self.rng.choice(('be', 'le', 'bswap'))}{self.rng.choice((16, 32, 64))}"
                    value = self.new(f"v{{}} = {word} v{value}")
                case 4:
                    up = self.rng.choice((8, 16, 24, 31, 32, 32, 48, 56))
                    down = self.rng.choice((up, up, up, up - 3, up + 1, 30))
                    value = self.new(f"v{{}} = v{value} << {up}")
                    value = self.new(f"v{{}} = v{value} {self.rng.choice(('>>', 's>>'))} {down}")
                case 5:
                    value = self.new(f"v{{}} = {self.number()}")
                case 6 | 7:
                    a, b = (value, self.value()) if self.chance(0.5) else (self.value(), value)
                    value = self.new(f"{letter}{{}} = {letter}{a} {self.rng.choice(OPERATIONS)} {letter}{b}")
                case _:
                    text = f"{letter}{value} {self.rng.choice(OPERATIONS)} {self.number()}"
                    value = self.new(f"{letter}{{}} = {text}")
            if self.chance(0.15):
                self.values.append(value)
        self.done(value)

    def rotation(self) -> None:
        """Two shifts of one value, joined."""
        letter, value = self.letter(), self.value()
        bits = 64 if letter == "v" else 32
        by = self.rng.randrange(1, bits)
        rest = bits - by if self.chance(0.8) else self.rng.randrange(bits)
        shifted = [value, value]
        for at in range(2):
            if self.chance(0.3):
                shifted[at] = self.new(f"w{{}} = w{value}")
        letters = [letter if self.chance(0.8) else "v" for _ in range(3)]
        one = self.new(f"{letters[0]}{{}} = {letters[0]}{shifted[0]} << {by}")
        other = self.new(f"{letters[1]}{{}} = {letters[1]}{shifted[1]} >> {rest}")
        if self.chance(0.5):
            one, other = other, one
        joined = f"{letters[2]}{one} {self.rng.choice('||^+')} {letters[2]}{other}"
        self.done(self.new(f"{letters[2]}{{}} = {joined}"))

    def gathered(self) -> None:
        """Bytes, loaded one by one and put together, perhaps of two pieces, perhaps swapped then."""
        size = self.rng.choice((2, 2, 4, 4, 8))
        piece = self.rng.choice((1, 1, 1, 2)) if size > 2 else 1
        start, places = self.rng.randrange(SIZE - size), [*range(0, size, piece)]
        order = places if self.chance(0.5) else places[::-1]
        ways = [*zip(order, places, strict=True)]
        if self.chance(0.5):
            self.rng.shuffle(ways)
        wrong = self.rng.randrange(16)
        letter = "w" if size <= 4 and self.chance(0.4) else "v"
        bases = [0, 0]
        if wrong == 4:
            bases[1] = self.new("v{} = v0 + 1")
        whole = -1
        for index, (place, at) in enumerate(ways):
            off = start + place + (wrong == 1 and index == 1)
            byte = self.new(f"v{{}} = *(u{8 * piece} *)(v{bases[index == 1]} + {off})")
            if wrong == 2 and index == 1:
                self.overwrite(start, size)
            if shift := 8 * at + self.rng.choice((3, 8)) * (wrong == 0 and index == 1):
                byte = self.new(f"{letter}{{}} = {letter}{byte} << {shift}")
            if wrong == 3 and index == 1:
                self.values.append(byte)
            if wrong == 5 and index == 1:
                self.overwrite(start, size)
            joined = f"{letter}{whole} {self.rng.choice('||+^')} {letter}{byte}"
            whole = byte if whole < 0 else self.new(f"{letter}{{}} = {joined}")
        if self.chance(0.3):
            bits = 8 * size if self.chance(0.7) else self.rng.choice((16, 32, 64))
            whole = self.new(f"v{{}} = be{bits} v{whole}")
        self.done(whole)

    def overwrite(self, start: int, size: int) -> None:
        """A store into bytes, of some of them or more."""
        bits = self.rng.choice((8, 8, 16, 32))
        self.emit(f"*(u{bits} *)(v0 + {min(start + self.rng.randrange(size), SIZE - 4)}) = v{self.value()}")

    def swapped(self) -> None:
        """Bytes in network order, loaded or stored."""
        size = self.rng.choice((2, 4, 8))
        bits = 8 * size if self.chance(0.75) else self.rng.choice((16, 32, 64))
        word, off = f"{self.rng.choice(('be', 'bswap'))}{bits}", self.rng.randrange(SIZE - size)
        if self.chance(0.5):
            value = self.new(f"v{{}} = *(u{8 * size} *)(v0 + {off})")
            self.done(self.new(f"v{{}} = {word} v{value}"))
        else:
            value = self.new(f"v{{}} = {word} v{self.value()}")
            self.emit(f"*(u{8 * size} *)(v0 + {off}) = v{value}")
            if self.chance(0.2):
                self.done(value)

    def address(self) -> None:
        """An element of an array: base, index and scale, with something added; each may be read again."""
        index = self.new(f"v{{}} = v{self.value()} & {self.rng.choice((1, 3, 7))}")
        shift = self.rng.choice((0, 1, 2, 3))
        scaled = index
        if shift and self.chance(0.15):
            scaled = self.new(f"w{{}} = w{index} << {shift}")
        elif shift:
            scaled = self.new(f"v{{}} = v{index} << {shift}")
        base, more = 0, 0
        if self.chance(0.3):
            more = self.rng.choice((1, 8, 16))
            base = self.new(f"v{{}} = v0 + {more}")
        a, b = (base, scaled) if self.chance(0.5) else (scaled, base)
        place = self.new(f"v{{}} = v{a} + v{b}")
        if self.chance(0.3):
            more += 4
            place = self.new(f"v{{}} = v{place} + 4")
        most = SIZE - 8 - more - (7 << shift)
        for _ in range(self.rng.randrange(1, 4)):
            self.access(f"v{place}", self.rng.randrange(-more, max(most, 1 - more)))
        if self.chance(0.2):
            self.new(f"v{{}} = v{place} - v0")
            self.done(self.count - 1)

    def access(self, base: str, off: int) -> None:
        """A load, a store or a change in memory."""
        size = self.rng.choice((1, 2, 4, 4, 8, 8))
        memory = f"{8 * size} *)({base} {'-' if off < 0 else '+'} {abs(off)})"
        match self.rng.randrange(4):
            case 0:
                sign = "s" if size < 8 and self.chance(0.3) else "u"
                self.done(self.new(f"v{{}} = *({sign}{memory}"))
            case 1:
                stored = self.new(f"w{{}} = w{self.value()}") if self.chance(0.2) else self.value()
                self.emit(f"*(u{memory} = {f'v{stored}' if self.chance(0.7) else self.number()}")
            case _:
                self.operand(size, memory)

    def operand(self, size: int, memory: str) -> None:
        """What is loaded is used once; perhaps behind a store, and perhaps more than once."""
        sign = "s" if size < 8 and self.chance(0.15) else "u"
        loaded, letter = self.new(f"v{{}} = *({sign}{memory}"), self.letter()
        if self.chance(0.15):
            self.overwrite(0, SIZE)
        if self.chance(0.1):
            self.emit(f"bound load v0 + 0..8 else leave 0 (r1 = v0, r2 = v{loaded})")
        other = f"{letter}{self.value()}" if self.chance(0.6) else str(self.number())
        operation = self.rng.choice(OPERATIONS)
        if other[0] in "vw" and self.chance(0.4):
            changed = self.new(f"{letter}{{}} = {other} {operation} {letter}{loaded}")
        else:
            changed = self.new(f"{letter}{{}} = {letter}{loaded} {operation} {other}")
        if self.chance(0.6):
            if self.chance(0.1):
                self.emit(f"*(u8 *)(v0 + {self.rng.randrange(SIZE)}) = 5")
            wrong, where = self.rng.randrange(10), memory
            if wrong == 1:
                where = f"{8 * size} *)(v0 + {self.rng.randrange(SIZE - 8)})"
            elif wrong == 2:
                where = "8" + memory[memory.index(" ") :]
            self.emit(f"*(u{where} = v{changed}")
            if self.chance(0.1):
                self.done(changed)
        else:
            self.done(changed)
        if self.chance(0.1):
            self.done(loaded)

    def used(self) -> None:
        """An operand anywhere."""
        size = self.rng.choice((1, 2, 4, 4, 8, 8))
        self.operand(size, f"{8 * size} *)(v0 + {self.rng.randrange(SIZE - size)})")

    def condition(self) -> str:
        """Return a comparison, perhaps of what was loaded for it, or of bits."""
        letter, one = self.letter(), self.value()
        if self.chance(0.5):
            size = self.rng.choice((1, 2, 4, 8))
            sign = "s" if size < 8 and self.chance(0.1) else "u"
            one = self.new(f"v{{}} = *({sign}{8 * size} *)(v0 + {self.rng.randrange(SIZE - size)})")
        elif self.chance(0.4):
            one = self.new(f"{letter}{{}} = {letter}{one} & {self.rng.choice((1, 8, -2, 255))}")
        elif self.chance(0.4):
            one = self.new(f"w{{}} = w{one}")
        number = self.rng.choice((0, 0, 255, 256, 65536, -1, self.number()))
        other = f"{letter}{self.value()}" if self.chance(0.4) else str(number)
        if other[0] in "vw" and self.chance(0.4):
            return f"if {other} {self.rng.choice(CONDITIONS)} {letter}{one}"
        return f"if {letter}{one} {self.rng.choice(CONDITIONS)} {other}"

    def choice(self) -> None:
        """A branch around next to nothing: one arm, or two."""
        condition, one, other = self.condition(), self.value(), self.value()
        arms: list[list[str]] = []
        given: list[int] = []
        for value in (one, other):
            lines: list[str] = []
            if self.chance(0.4):
                made = str(self.number()) if self.chance(0.5) else f"v{self.value()} * v{self.value()}"
                lines, value = [f"v{self.count} = {made}"], self.count
                self.count += 1
            arms.append(lines)
            given.append(value)
        here = len(self.blocks)
        direct = self.rng.choice((0, 1, None))
        if direct is not None and arms[direct]:
            direct = None
        places = [here + at if at != direct else None for at in range(2)]
        if direct == 0:
            places[1] = here
        join = here + sum(place is not None for place in places)
        ways = [
            f"b{join}(v{value})" if place is None else f"b{place}()"
            for place, value in zip(places, given, strict=True)
        ]
        self.emit(f"{condition} goto {ways[0]} else {ways[1]}")
        for place, lines, value in zip(places, arms, given, strict=True):
            if place is not None:
                self.heads.append(f"b{place} pc 0 ():")
                self.blocks.append([*lines, f"goto b{join}(v{value})"])
        self.heads.append(f"b{join} pc 0 (v{self.count}):")
        self.blocks.append([])
        self.count += 1
        self.done(self.count - 1)

    def loop(self) -> None:
        """A few rounds, with a number that comes round."""
        start = self.new("v{} = 3")
        here = len(self.blocks)
        self.emit(f"goto b{here}(v{start}, v{self.value()})")
        rounds, carried = self.count, self.count + 1
        self.count += 2
        self.heads.append(f"b{here} pc 0 (v{rounds}, v{carried}):")
        self.blocks.append([])
        self.values.append(carried)
        for _ in range(self.rng.randrange(1, 4)):
            self.part(self.rng.choice(self.straight))
        given = self.value()
        if self.chance(0.6):
            given = self.new(f"w{{}} = w{given} + w{carried}")
        left = self.new(f"v{{}} = v{rounds} - 1")
        back = len(self.blocks)
        self.emit(f"if v{left} != 0 goto b{here}(v{left}, v{given}) else b{back}()")
        self.heads.append(f"b{back} pc 0 ():")
        self.blocks.append([])
        self.done(given)

    straight = ("arithmetic", "arithmetic", "rotation", "gathered", "swapped", "address", "used", "choice")

    def part(self, name: str) -> None:
        """Write one part."""
        getattr(self, name)()

    def text(self) -> str:
        """Return the whole."""
        self.values = [self.new(f"v{{}} = *(u64 *)(v0 + {8 * at})") for at in range(8)]
        for _ in range(self.rng.randrange(2, 9)):
            self.part("loop" if self.chance(0.08) else self.rng.choice(self.straight))
        whole = self.results[-1] if self.results else self.values[0]
        for value in self.rng.sample(self.results, min(len(self.results), 8)):
            whole = self.new(f"v{{}} = v{whole} * 31")
            whole = self.new(f"v{{}} = v{whole} + v{value}")
        self.emit(f"exit v{whole}")
        lines = ["entry 0: b0 (r1)"]
        for head, block in zip(self.heads, self.blocks, strict=True):
            lines += [head, *(f"  {line}" for line in block)]
        return "\n".join(lines) + "\n"
