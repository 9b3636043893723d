"""Classic BPF to eBPF, as Linux does it in spirit (bpf_convert_filter).

classic        A     X     M[k]            packet
socket_filter  r0    r7    [r10-4*(16-k)]  r6: struct __sk_buff, and eBPF's own packet loads
xdp            r0    r7    the same        r6: where it starts, r9: where it ends, compared as Linux wants it
plain memory   r0    r7    the same        r6: where it starts, r9: its length; in front of it, where that is
                                           asked for, 8 bytes: its length on the wire

Without packet loads of eBPF's own a constant place is compared with the end once, where all ways lead past a
comparison of a larger one. A load at X looks for no header where X is known to be small, as header lengths
are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal

from ebpfjit.assembler import assemble
from ebpfjit.capture.batch import WIRE_LENGTH_SIZE
from ebpfjit.classic import routines
from ebpfjit.classic.check import check, check_given
from ebpfjit.classic.code import Instruction, decode
from ebpfjit.classic.table import (
    CELLS,
    LINK,
    MOST_HEADER,
    NETWORK,
    Form,
    Kind,
    Machine,
    ancillary,
    check_machine,
    signed,
)
from ebpfjit.errors import TranslationError
from ebpfjit.literals import TypeName
from ebpfjit.program import Program

ETHERNET_HEADER = 14
CONTEXT = {
    "type": 4, "mark": 8, "queue": 12, "vlan_avail": 20, "vlan_tci": 24, "ifidx": 40, "rxhash": 68,
}  # fmt: skip
"""Where struct __sk_buff has what an ancillary load gives."""
SWAPPED = {"proto": 16, "vlan_tpid": 28}
"""The same of numbers that are in network order there."""
CALLS = {"cpu": 8, "rand": 7}
"""The helpers that give what an ancillary load does."""
ARPHRD_ETHER = 1
LARGEST_OFFSET = 0xFFFF
"""How far from its start Linux's verifier lets a program look into a packet (MAX_PACKET_OFF)."""
LARGEST_PLACE = NETWORK - LINK
"""Farther offsets from a header do not go, and no packet does."""
FAR = 1 << 32
NEAR = (1 << 15) - 2
"""Slots that a jump of 16 bits surely reaches over; no line here is of more than one."""
MASK = 0xFFFFFFFF
_LETTERS = {4: "w", 2: "h", 1: "b"}
Lengths = Literal["captured", "wire"]


def to_ebpf(
    code: bytes,
    type: Literal["socket_filter"] | None = "socket_filter",
    *,
    name: str | None = None,
    starts: Literal["link", "network"] = "link",
    ancillaries: Mapping[str, int] | None = None,
    loops: bool = False,
    machine: Machine = "linux",
    lengths: Lengths = "captured",
) -> Program:
    """Return a program of classic BPF (`code`: its bytes) as an eBPF program of the same behaviour.

    `name` is what errors and listings call it. With the type "socket_filter" it takes packets as runs of that
    type do, here and in Linux's test runs, with what ancillary loads give in its context; with None plain
    memory: r1 where the packet starts, r2 its length, which is the fastest. `starts` says what the program's
    packets begin with: "link" (an Ethernet header), or "network" (IP), where a socket filter's offsets count
    from that. `ancillaries` are what ancillary loads give, as for `run`, whatever the context has; `loops` is
    as for `check`, `machine` as for `run`: whose meaning the program has.

    `lengths` says what `ld len` gives: "captured", how many bytes there are; or "wire", with the type None,
    how many the packet had before a capture cut it off. Then the memory begins with 8 bytes, that length
    (u64, little-endian), and the packet follows: `capture.Batch.with_wire_lengths()` gives such.

    Raises VerifierError as `check`, DecodeError, ValueError for another type, start or lengths, and
    TranslationError for ancillary loads that nothing gives (without a context "mark" and others that are not
    of the packet).
    """
    made: Translation
    if starts not in ("link", "network"):
        raise ValueError(f'starts is "link" or "network", not {starts!r}')
    if lengths not in ("captured", "wire"):
        raise ValueError(f'lengths is "captured" or "wire", not {lengths!r}')
    if lengths == "wire" and type is not None:
        raise ValueError("a socket filter has the lengths of its packets: lengths='wire' takes type=None")
    check_machine(machine)
    if type == "socket_filter":
        made = OnSocketBuffer(machine, is_link=starts == "link")
    elif type is None:
        made = OnMemory(machine) if lengths == "captured" else OnCaptured(machine)
    else:
        raise ValueError(f"a filter becomes a program of type 'socket_filter', or None, not {type!r}")
    made.given = check_given(ancillaries)
    return made.program(code, name, type, loops=loops)


class Translation(ABC):
    """The text of one program; what packets are to it is for subclasses to say."""

    what = ""
    takes_ancillaries = True  # callers can say what they give

    def __init__(self, machine: Machine = "linux") -> None:
        self.machine: Machine = machine
        self.is_linux = machine == "linux"
        self.lines: list[str] = []
        self.asked = 0  # how long the packet is at least, on all ways here; FAR: there is no way
        self.asked_at: dict[int, int] = {}
        self.x_most = 0  # no X is larger, on all ways here
        self.x_most_at: dict[int, int] = {}
        self.given: Mapping[str, int] = {}  # what ancillary loads give
        self.keeps_payload = False  # where the payload begins is looked for once, and kept

    def program(
        self, code: bytes, name: str | None, type: TypeName | None, *, loops: bool = False
    ) -> Program:
        """Return the eBPF program of one that is checked here."""
        check(code, loops=loops, machine=self.machine)
        for each in decode(code):  # nothing is known where a loop starts
            if each.row is not None and each.row.kind is Kind.JUMP and signed(each.k) < 0:
                start = each.pc + 1 + signed(each.k)
                self.asked_at[start], self.x_most_at[start] = 0, MASK
        self.lines += self.start()
        if sum(ancillary(each.row, each.k) == "poff" for each in decode(code) if each.row is not None) > 1:
            self.lines += [*(self.ancillary("poff") or ()), f"stxdw {routines.PAYLOAD}, r0"]
            self.keeps_payload = True
        self.lines += ["mov32 r0, 0", "mov32 r7, 0"]
        for instruction in decode(code):
            self._one(instruction)
        if any(line.endswith(" short") for line in self.lines):
            self.lines += ["short:", *self.end(0)]
        return Program(assemble("\n".join(reaching(self.lines))), name=name, type=type)

    @abstractmethod
    def start(self) -> list[str]:
        """Return what comes first: r1 and r2 are as the program gets them."""

    @abstractmethod
    def length(self, register: str) -> list[str]:
        """Return what puts into a register how many bytes of the packet there are."""

    def wire_length(self, register: str) -> list[str]:
        """Return what puts the packet's length into a register, as programs ask for it."""
        return self.length(register)

    @abstractmethod
    def load(self, size: int, place: int, register: str) -> None:
        """Emit a load at a constant place; below 0 it counts from a header. Clobbers r1 to r5, and r8."""

    @abstractmethod
    def load_at_x(self, size: int, k: int) -> None:
        """Emit a load into r0, at X and a number."""

    @abstractmethod
    def peek(self, size: int) -> list[str]:
        """Return what loads into r0 a number at the offset in r1, which is inside of the packet.

        Clobbers r1 to r5.
        """

    @abstractmethod
    def ethertype(self, otherwise: str) -> list[str]:
        """Return what puts the packet's ethertype into r0, or goes to a label where it has none."""

    network = ETHERNET_HEADER
    most = 1 << 31

    def ancillary(self, name: str) -> list[str] | None:
        """Return what puts into r0 what an ancillary load gives; None where nothing does."""
        if name == "xor_x":
            return ["xor32 r0, r7"]
        if name in self.given:
            return [f"mov32 r0, {signed(self.given[name] & 0xFFFFFFFF)}"]
        label, length = f"{name}{len(self.lines)}_", self.length("r1")
        if name in ("nla", "nlan"):
            return routines.attribute(label, length, self.peek, nested=name == "nlan", most=self.most)
        if name == "poff":
            if self.keeps_payload:
                return [f"ldxdw r0, {routines.PAYLOAD}"]
            kind = self.given.get("proto")
            lines = self.ethertype(f"{label}bad") if kind is None else [f"mov64 r0, {kind & 0xFFFF}"]
            return routines.payload_offset(label, length, self.peek, lines, self.network)
        return self.about(name)

    def about(self, name: str) -> list[str] | None:
        """Return what puts into r0 what the context says, or a helper; None where nothing does."""
        return [f"call {CALLS[name]}", "mov32 r0, r0"] if name in CALLS else None

    def end(self, result: int | None) -> list[str]:
        """Return what ends the program, with a number or (None) with A."""
        return ["exit"] if result is None else [f"mov32 r0, {signed(result)}", "exit"]

    def round(self) -> list[str]:
        """Return what comes before a jump back."""
        return []

    def emit(self, *lines: str) -> None:
        """Add lines."""
        self.lines += lines

    def give_up(self) -> None:
        """End the program with 0, whatever the packet is."""
        self.emit("ja short")
        self.asked = FAR

    def _one(self, this: Instruction) -> None:
        row = this.row
        assert row is not None  # it was checked
        x_most = 0 if self.asked == FAR else self.x_most
        self.x_most = max(x_most, self.x_most_at.get(this.pc, 0))
        self.asked = min(self.asked, self.asked_at.get(this.pc, FAR))
        if self.asked == FAR:  # no way leads here: Linux's verifier takes no such instructions
            return
        self.emit(f"at_{this.pc}:")
        operand = "r7" if row.form is Form.INDEX else str(signed(this.k))
        match row.kind:
            case Kind.LOAD:
                self._load(this, "r0")
            case Kind.LOAD_INDEX:
                self._load(this, "r7")
                self.x_most = {Form.NUMBER: this.k, Form.HEADER: MOST_HEADER}.get(row.form, MASK)
            case Kind.STORE:
                self.emit(f"stxw {_cell(this.k)}, {'r0' if row.name == 'st' else 'r7'}")
            case Kind.ARITHMETIC:
                self._arithmetic(row.name, operand, row.form)
            case Kind.JUMP:
                to = this.pc + 1 + signed(this.k)
                self.emit(*self.round() if signed(this.k) < 0 else ())
                self._branch(f"ja at_{to}", to)
            case Kind.BRANCH:
                self._branch_on(this, f"{row.name}32 r0, {operand}")
            case Kind.RETURN:
                self.emit(*self.end(this.k if row.form is Form.NUMBER else None))
                self.asked = FAR  # no way leads on from here
            case Kind.MOVE:
                self._move(row.name)

    def _branch(self, line: str, *targets: int) -> None:
        """Emit a jump; note what is known where it leads."""
        for target in targets:
            self.asked_at[target] = min(self.asked_at.get(target, FAR), self.asked)
            self.x_most_at[target] = max(self.x_most_at.get(target, 0), self.x_most)
        self.emit(line)
        self.asked = FAR

    def _branch_on(self, this: Instruction, test: str) -> None:
        taken, other = this.pc + 1 + this.jt, this.pc + 1 + this.jf
        if taken == other:
            self._branch(f"ja at_{other}", other)
            return
        self._branch(f"{test}, at_{taken}", taken, other)
        if other != this.pc + 1:
            self.emit(f"ja at_{other}")

    def _arithmetic(self, name: str, operand: str, form: Form) -> None:
        if form is Form.NOTHING:
            self.emit("neg32 r0")
            return
        if form is Form.INDEX and name in ("div", "mod"):
            self.emit("jeq32 r7, 0, short")
        if form is Form.INDEX and name in ("lsh", "rsh") and not self.is_linux:
            shifts = f"shift_{len(self.lines)}"
            self.emit(f"jlt32 r7, 32, {shifts}", "mov32 r0, 0", f"{shifts}:")
        self.emit(f"{name}32 r0, {operand}")

    def _move(self, name: str) -> None:
        if name == "tax":
            self.emit("mov32 r7, r0")
            self.x_most = MASK
        else:
            self.emit("mov32 r0, r7")

    def _stays_positive(self, size: int, k: int) -> bool:
        """True where X and a number are a place that is no header's, as 32 bits hold them: or nothing is."""
        return not self.is_linux or self.x_most + k + size <= self.most

    def _load(self, this: Instruction, register: str) -> None:
        row, k = this.row, this.k
        assert row is not None  # it was checked
        name = ancillary(row, k)
        if name:
            lines = self.ancillary(name)
            if lines is None:
                advice = f": say ancillaries={{{name!r}: ...}}" if self.takes_ancillaries else ""
                what = f"instruction {this.pc}: {self.what} has nothing that gives {name!r}"
                raise TranslationError(what + advice)
            self.emit(*lines)
        elif row.form is Form.NUMBER:
            self.emit(f"mov32 {register}, {signed(k)}")
        elif row.form is Form.CELL:
            self.emit(f"ldxw {register}, {_cell(k)}")
        elif row.form is Form.LENGTH:
            self.emit(*self.wire_length(register))
        elif row.form is Form.INDIRECT:
            self.load_at_x(row.size, k)
        else:
            self.load(row.size, signed(k), register)
            if row.form is Form.HEADER and self.asked != FAR:
                self.emit("and32 r7, 15", "lsh32 r7, 2")


def reaching(lines: list[str]) -> list[str]:
    """Return lines of assembly whose jumps all reach: those too far for 16 bits become ja32 (gotol).

    jeq32 r0, 1, at_9    ->    jeq32 r0, 1, far0_;  ja near0_;  far0_: ja32 at_9;  near0_:
    """
    far = 0
    while True:
        places, pc = {}, 0
        for line in lines:
            if line.endswith(":"):
                places[line[:-1]] = pc
            else:
                pc += 1
        if pc < NEAR:
            return lines
        made, pc, before = [], 0, far
        for line in lines:
            pc += not line.endswith(":")
            head, _, target = line.rpartition(" ")
            if target not in places or line.startswith("ja32") or abs(places[target] - pc) < NEAR:
                made.append(line)
            elif head == "ja":
                made.append(f"ja32 {target}")
                far += 1
            else:
                made += [f"{head} far{far}_", f"ja near{far}_"]
                made += [f"far{far}_:", f"ja32 {target}", f"near{far}_:"]
                far += 1
        if far == before:
            return lines
        lines = made


def _cell(k: int) -> str:
    return f"[r10-{4 * (CELLS - k)}]"


class OnSocketBuffer(Translation):
    """On the context of a socket filter, with eBPF's packet loads, whose offsets count from the network
    header.
    """

    what = "a program of type socket_filter"
    most = 0xFFFF  # no packet is larger, and Linux's verifier sees that a walk ends

    def __init__(self, machine: Machine, *, is_link: bool) -> None:
        super().__init__(machine)
        self.base, self.header = (LINK, ETHERNET_HEADER) if is_link else (0, 0)
        self.network = self.header

    def start(self) -> list[str]:
        """Keep the context where packet loads want it."""
        return ["mov64 r6, r1"]

    def length(self, register: str) -> list[str]:
        """Load skb->len, which in runs of this type is without the link header."""
        return [f"ldxw {register}, [r6]", f"add32 {register}, {self.header}"]

    def about(self, name: str) -> list[str] | None:
        """Load a field of the context."""
        if name in CONTEXT:
            return [f"ldxw r0, [r6+{CONTEXT[name]}]"]
        if name in SWAPPED:
            return [f"ldxw r0, [r6+{SWAPPED[name]}]", "be16 r0"]
        return [f"mov32 r0, {ARPHRD_ETHER}"] if name == "hatype" else super().about(name)

    def peek(self, size: int) -> list[str]:
        """Return a packet load."""
        return [f"add32 r1, {self.base}", f"ldind{_LETTERS[size]} r1, 0"]

    def ethertype(self, otherwise: str) -> list[str]:
        """Load skb->protocol."""
        return [f"ldxw r0, [r6+{SWAPPED['proto']}]", "be16 r0"]

    def load(self, size: int, place: int, register: str) -> None:
        """Emit a packet load, which gives r0."""
        if place >= LARGEST_PLACE or (place < 0 and not self.is_linux):
            self.give_up()
            return
        keep, give = (["mov32 r8, r0"], ["mov32 r7, r0", "mov32 r0, r8"]) if register != "r0" else ([], [])
        at = place if place < 0 else self.base + place
        self.emit(*keep, f"ldabs{_LETTERS[size]} {at}", *give)

    def load_at_x(self, size: int, k: int) -> None:
        """Emit a packet load at X: what is below 0, as of 32 bits, counts from a header already."""
        if self._stays_positive(size, k):
            if k >= LARGEST_PLACE:
                self.give_up()
                return
            if self.x_most + k >= LARGEST_PLACE:
                self.emit(f"jge32 r7, {LARGEST_PLACE - k}, short")
            self.emit(f"ldind{_LETTERS[size]} r7, {self.base + k}")
            return
        ready = f"place_{len(self.lines)}"
        self.emit(
            "mov32 r1, r7", f"add32 r1, {signed(k)}", f"jslt32 r1, 0, {ready}",
            f"jge32 r1, {LARGEST_PLACE}, short", f"add32 r1, {self.base}", f"{ready}:",
            f"ldind{_LETTERS[size]} r1, 0",
        )  # fmt: skip


class OnMemory(Translation):
    """On plain memory: r1 where it starts, r2 its length."""

    what = "a program without a context"
    most = (1 << 31) - 1

    def start(self) -> list[str]:
        """Keep both."""
        return ["mov64 r6, r1", "mov64 r9, r2"]

    def length(self, register: str) -> list[str]:
        """Move the length."""
        return [f"mov32 {register}, r9"]

    def peek(self, size: int) -> list[str]:
        """Return a load."""
        swap = [f"be{8 * size} r0"] if size > 1 else []
        return ["add64 r1, r6", f"ldx{_LETTERS[size]} r0, [r1]", *swap]

    def ethertype(self, otherwise: str) -> list[str]:
        """Load it from the Ethernet header."""
        end = [*self.length("r1"), f"jlt r1, {ETHERNET_HEADER}, {otherwise}"]
        return [*end, f"mov64 r1, {ETHERNET_HEADER - 2}", *self.peek(2)]

    def about(self, name: str) -> list[str] | None:
        """Return the ethertype too, which the frame has."""
        if name != "proto":
            return super().about(name)
        none = f"proto{len(self.lines)}"
        return ["mov32 r2, 0", *self.ethertype(none), "mov32 r2, r0", f"{none}:", "mov32 r0, r2"]

    def check(self, end: int) -> list[str]:
        """Return what ends the program where the packet has fewer bytes."""
        return [f"jlt r9, {end}, short"]

    def load(self, size: int, place: int, register: str) -> None:
        """Emit a load at a constant place, compared with the length where that is not known."""
        if place < 0 and self.is_linux:
            place = place - NETWORK + ETHERNET_HEADER if place >= NETWORK else place - LINK
        if place < 0 or place + size > self.most:
            self.give_up()
            return
        if self.asked < place + size:
            self.emit(*self.check(place + size))
            self.asked = place + size
        if place < 1 << 15:
            self._swapped(size, f"[r6+{place}]", register)
        else:
            self.emit("mov64 r1, r6", f"add64 r1, {place}")
            self._swapped(size, "[r1]", register)

    def load_at_x(self, size: int, k: int) -> None:
        """Emit a load at X: what is below 0, as of 32 bits, counts from a header."""
        if self._stays_positive(size, k):
            if k + size > self.most:
                self.give_up()
                return
            self.emit("mov32 r1, r7", f"add64 r1, {k}", *self.check_at(size))
            self._swapped(size, "[r1]", "r0")
            return
        done = f"place_{len(self.lines)}"
        self.emit(
            "mov32 r1, r7", f"add32 r1, {signed(k)}", f"jsge32 r1, 0, {done}", f"jslt32 r1, {LINK}, short",
            f"jslt32 r1, {NETWORK}, {done}_link", f"add32 r1, {-NETWORK + ETHERNET_HEADER}", f"ja {done}",
            f"{done}_link:", f"add32 r1, {-LINK}", f"{done}:", *self.check_at(size),
        )  # fmt: skip
        self._swapped(size, "[r1]", "r0")

    def check_at(self, size: int) -> list[str]:
        """Return what makes the place in r1 an address, and ends the program where so many bytes are not
        there.
        """
        return ["mov64 r2, r1", f"add64 r2, {size}", "jgt r2, r9, short", "add64 r1, r6"]

    def _swapped(self, size: int, memory: str, register: str) -> None:
        self.emit(f"ldx{_LETTERS[size]} {register}, {memory}")
        if size > 1:
            self.emit(f"be{8 * size} {register}")


class OnCaptured(OnMemory):
    """On plain memory that begins with the packet's length on the wire (u64), before what was captured."""

    def start(self) -> list[str]:
        """Keep where the packet starts, and its length."""
        size = WIRE_LENGTH_SIZE
        return [f"jlt r2, {size}, short", *super().start(), f"add64 r6, {size}", f"sub64 r9, {size}"]

    def wire_length(self, register: str) -> list[str]:
        """Load the lower half of what is in front of the packet."""
        return [f"ldxw {register}, [r6-{WIRE_LENGTH_SIZE}]"]


class OnXdp(OnMemory):
    """On an XDP packet, with the comparisons that Linux's verifier wants; results are actions."""

    what = "an XDP program"
    takes_ancillaries = False
    most = LARGEST_OFFSET

    def __init__(self, match: int, otherwise: int) -> None:
        super().__init__("libpcap")
        self.match, self.otherwise = match, otherwise

    def start(self) -> list[str]:
        """Keep data and data_end."""
        return ["ldxw r6, [r1]", "ldxw r9, [r1+4]"]

    def length(self, register: str) -> list[str]:
        """Subtract them."""
        return ["mov64 r1, r9", "sub64 r1, r6", f"mov32 {register}, r1"]

    def check(self, end: int) -> list[str]:
        """Return what ends the program where the packet has fewer bytes."""
        return ["mov64 r1, r6", f"add64 r1, {end}", "jgt r1, r9, short"]

    def check_at(self, size: int) -> list[str]:
        """Return the same for the place in r1, which the verifier wants to be no larger than packets are."""
        return [
            f"jgt r1, {LARGEST_OFFSET - size}, short", "mov64 r2, r6", "add64 r2, r1", "mov64 r1, r2",
            f"add64 r2, {size}", "jgt r2, r9, short",
        ]  # fmt: skip

    def round(self) -> list[str]:
        """Return what has Linux's verifier see that a loop ends: after 8 million rounds, at the latest."""
        return ["may_goto short"]

    def peek(self, size: int) -> list[str]:
        """Return a load behind a comparison with the packet's end."""
        swap = [f"be{8 * size} r0"] if size > 1 else []
        return [*self.check_at(size), f"ldx{_LETTERS[size]} r0, [r1]", *swap]

    def end(self, result: int | None) -> list[str]:
        """Return the action: whether a result is 0 is all that counts."""
        if result is not None:
            return [f"mov32 r0, {self.match if result else self.otherwise}", "exit"]
        no = f"none_{len(self.lines)}"
        return [
            f"jeq32 r0, 0, {no}", f"mov32 r0, {self.match}", "exit",
            f"{no}:", f"mov32 r0, {self.otherwise}", "exit",
        ]  # fmt: skip
