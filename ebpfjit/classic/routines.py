"""Ancillary loads that eBPF has no field and no helper for, as instructions: nla, nlan, poff.

What they keep lies in the frame below M[]; A is r0, X is r7. What a byte of the packet is, is for the
translation to say: `peek` gives in r0 the number at the offset r1, which is inside, and clobbers r1 to r5.
"""

from __future__ import annotations

from collections.abc import Callable

from ebpfjit.classic import payload as headers

AT, KIND, PROTOCOL, COUNT, END, REST, SCRATCH = (f"[r10-{72 + 8 * n}]" for n in range(7))
"""Where the next header is, its ethertype, its protocol; headers so far, the packet's end, whether it is the
rest of a fragment.
"""
PAYLOAD = "[r10-128]"
"""Where the payload begins, in programs that ask more than once."""

Peek = Callable[[int], list[str]]


class Routine:
    """The lines of one; `name` is in front of its labels, which must be its own."""

    def __init__(self, name: str, length: list[str], peek: Peek) -> None:
        self.name, self.peek = name, peek
        self.lines = [*length, f"stxdw {END}, r1"]

    def emit(self, *lines: str) -> None:
        """Add lines; `$` in a label stands for the routine's name."""
        self.lines += [line.replace("$", self.name) for line in lines]

    def need(self, size: int, otherwise: str = "$bad") -> None:
        """Go to a label where the packet has not so many bytes from AT on."""
        self.emit(f"ldxdw r1, {AT}", f"add64 r1, {size}", f"ldxdw r2, {END}", f"jgt r1, r2, {otherwise}")

    def read(self, size: int, place: int) -> None:
        """Load into r0 a number at a place from AT on, which is inside."""
        self.emit(f"ldxdw r1, {AT}", f"add64 r1, {place}", *self.peek(size))

    def advance(self, by: int | str) -> None:
        """Add a number, or a register that is not r1, to AT."""
        self.emit(f"ldxdw r1, {AT}", f"add64 r1, {by}", f"stxdw {AT}, r1")

    def again(self, label: str) -> None:
        """Go to a label, but for the sixteenth time."""
        self.emit(
            f"ldxdw r1, {COUNT}", "add64 r1, 1", f"stxdw {COUNT}, r1",
            f"jgt r1, {headers.MOST_HEADERS}, $good", f"ja {label}",
        )  # fmt: skip


def attribute(name: str, length: list[str], peek: Peek, *, nested: bool, most: int) -> list[str]:
    """Return what finds a netlink attribute of the type X from A on, or (`nested`) inside of the one at A.

    Places from `most` on are none, so that Linux's verifier sees an end of the walk.
    """
    it = Routine(name, length, peek)
    # struct nlattr { u16 len; u16 type; }, in the machine's order
    word = ["be32 r0"]
    it.emit("mov32 r0, r0", f"stxdw {AT}, r0")
    it.need(4)
    if nested:
        it.read(4, 0)
        it.emit(
            *word, "and64 r0, 0xffff", "jlt r0, 4, $bad", f"ldxdw r1, {AT}", "mov64 r2, r1", "add64 r2, r0",
            f"ldxdw r3, {END}", "jgt r2, r3, $bad", f"stxdw {END}, r2", "add64 r1, 4", f"stxdw {AT}, r1",
        )  # fmt: skip
    it.emit("$next:")
    it.emit(f"ldxdw r1, {AT}", f"jgt r1, {most}, $bad")
    it.need(4)
    it.read(4, 0)
    it.emit(
        *word, "mov64 r3, r0", "and64 r3, 0xffff", "jlt r3, 4, $bad", f"ldxdw r1, {AT}", "mov64 r2, r1",
        "add64 r2, r3", f"ldxdw r4, {END}", "jgt r2, r4, $bad", "rsh64 r0, 16", "and64 r0, 0x3fff",
        "jeq r0, r7, $found", "add64 r3, 3", "and64 r3, -4", "add64 r1, r3", f"stxdw {AT}, r1", "ja $next",
        "$found:", f"ldxdw r0, {AT}", "ja $end", "$bad:", "mov32 r0, 0", "$end:",
    )  # fmt: skip
    return it.lines


def payload_offset(name: str, length: list[str], peek: Peek, kind: list[str], network: int) -> list[str]:
    """Return what finds where the payload begins (`ebpfjit.classic.payload` says the same in Python).

    `kind` puts the packet's ethertype into r0, and may go to the label `{name}bad`.
    """
    it = Routine(name, length, peek)
    it.emit(*kind, f"stxdw {KIND}, r0", f"mov64 r1, {network}", f"stxdw {AT}, r1", "mov64 r1, 0")
    it.emit(*(f"stxdw {place}, r1" for place in (PROTOCOL, COUNT, REST)))
    _kinds(it)
    _inside(it)
    it.emit(
        "$good:", f"ldxdw r1, {AT}", "and64 r1, 0xffff", f"ldxdw r2, {END}", "and64 r2, 0xffff",
        "jle r1, r2, $start", "mov64 r1, r2", "$start:", f"stxdw {AT}, r1", f"ldxdw r0, {REST}",
        "jne r0, 0, $whole", f"ldxdw r0, {PROTOCOL}", f"jeq r0, {headers.TCP}, $tcp",
    )  # fmt: skip
    sizes = sorted(set(headers.SIZES.values()))
    it.emit(*(f"jeq r0, {protocol}, $size{size}" for protocol, size in headers.SIZES.items()))
    it.emit("$whole:", f"ldxdw r0, {AT}", "ja $end")
    for size in sizes:
        it.emit(f"$size{size}:", f"ldxdw r0, {AT}", f"add64 r0, {size}", "ja $end")
    it.emit("$tcp:")
    it.need(13, "$whole")
    it.read(1, 12)
    it.emit(
        "rsh64 r0, 2", "and64 r0, 0x3c", "jge r0, 20, $long", "mov64 r0, 20", "$long:",
        f"ldxdw r1, {AT}", "add64 r0, r1", "ja $end", "$bad:", "mov32 r0, 0", "$end:",
    )  # fmt: skip
    return it.lines


def _kinds(it: Routine) -> None:
    """Headers by their ethertype."""
    named = {headers.IP: "ip", headers.IPV6: "ip6", headers.PPPOE: "pppoe", headers.BATMAN: "batman"}
    shims = {kind: way for kind, way in headers.SHIMS.items() if kind != headers.BATMAN}
    it.emit("$kind:", f"ldxdw r0, {KIND}")
    it.emit(*(f"jeq r0, {kind}, ${label}" for kind, label in named.items()))
    it.emit(*(f"jeq r0, {kind}, $shim{way[0]}" for kind, way in shims.items()))
    it.emit(*(f"jeq r0, {kind}, $ends{way[0]}_{way[1]}" for kind, way in headers.ENDS.items()), "ja $bad")
    for there, counts in sorted(set(headers.ENDS.values())):
        it.emit(f"$ends{there}_{counts}:")
        it.need(there)
        it.advance(counts)
        it.emit("ja $good")
    for size, place in sorted(set(shims.values())):
        it.emit(f"$shim{size}:")
        _shim(it, size, place)
    it.emit("$batman:")
    it.need(2)
    it.read(2, 0)
    it.emit(f"jne r0, {headers.BATMAN_UNICAST}, $bad")
    _shim(it, *headers.SHIMS[headers.BATMAN])
    it.emit("$ip:")
    it.need(20)
    it.read(1, 0)
    it.emit("and64 r0, 15", "jlt r0, 5, $bad", "lsh64 r0, 2", f"stxdw {SCRATCH}, r0")
    it.read(1, 9)
    it.emit(f"stxdw {PROTOCOL}, r0")
    it.read(2, 6)
    it.emit(f"ldxdw r2, {SCRATCH}")
    it.advance("r2")
    it.emit("mov64 r1, r0", "and64 r1, 0x1fff", f"stxdw {REST}, r1", "jset r0, 0x3fff, $good", "ja $inside")
    it.emit("$ip6:")
    it.need(40)
    it.read(1, 6)
    it.emit(f"stxdw {PROTOCOL}, r0")
    it.advance(40)
    it.emit("ja $inside", "$pppoe:")
    it.need(8)
    it.read(2, 0)
    it.emit(f"jne r0, {headers.PPPOE_SESSION}, $bad")
    it.read(2, 6)
    it.advance(8)
    _ppp(it, headers.PPP)
    it.emit("and64 r0, 0x0101", "jeq r0, 1, $good", "ja $bad")


def _shim(it: Routine, size: int, place: int) -> None:
    it.need(size)
    it.read(2, place)
    it.emit(f"stxdw {KIND}, r0")
    it.advance(size)
    it.again("$kind")


def _ppp(it: Routine, inner: dict[int, int]) -> None:
    """Go on with what is inside of PPP, whose protocol is in r0; else stay here."""
    it.emit(*(f"jeq r0, {protocol}, $ppp{len(inner)}_{kind}" for protocol, kind in inner.items()))
    it.emit(f"ja $ppp{len(inner)}_none")
    for kind in inner.values():
        it.emit(f"$ppp{len(inner)}_{kind}:", f"mov64 r1, {kind}", f"stxdw {KIND}, r1")
        it.again("$kind")
    it.emit(f"$ppp{len(inner)}_none:")


def _inside(it: Routine) -> None:
    """What is inside of IP, by its protocol."""
    it.emit("$inside:", f"ldxdw r0, {PROTOCOL}", f"jeq r0, {headers.GRE}, $gre")
    it.emit(*(f"jeq r0, {protocol}, $tunnel{kind}" for protocol, kind in headers.TUNNELS.items()))
    it.emit(f"ldxdw r1, {KIND}", f"jne r1, {headers.IPV6}, $good", f"jeq r0, {headers.FRAGMENT}, $fragment")
    it.emit(*(f"jeq r0, {protocol}, $options" for protocol in headers.EXTENSIONS), "ja $good")
    for kind in headers.TUNNELS.values():
        it.emit(f"$tunnel{kind}:", f"mov64 r1, {kind}", f"stxdw {KIND}, r1")
        it.again("$kind")
    it.emit("$fragment:")
    it.need(8)
    it.read(1, 0)
    it.emit(f"stxdw {PROTOCOL}, r0")
    it.read(2, 2)
    it.emit("and64 r0, 0xfff8", f"stxdw {REST}, r0")
    it.advance(8)
    it.emit("ja $good", "$options:")
    it.need(2)
    it.read(1, 0)
    it.emit(f"stxdw {PROTOCOL}, r0")
    it.read(1, 1)
    it.emit("mov64 r2, r0", "add64 r2, 1", "lsh64 r2, 3")
    it.advance("r2")
    it.again("$inside")
    _gre(it)


def _gre(it: Routine) -> None:
    """GRE: SCRATCH keeps the flags, then AT is where the header's next part is."""
    it.emit("$gre:")
    it.need(4)
    it.read(2, 0)
    version = headers.VERSION
    it.emit(
        f"stxdw {SCRATCH}, r0", f"jset r0, {headers.ROUTED}, $good", f"and64 r0, {version}",
        "jgt r0, 1, $good",
    )  # fmt: skip
    it.read(2, 2)
    it.emit(
        f"stxdw {KIND}, r0", f"ldxdw r2, {SCRATCH}", f"jset r2, {version}, $pptp", "ja $parts", "$pptp:",
        f"jne r0, {headers.PPP_IN_GRE}, $good", f"jset r2, {headers.KEY}, $parts", "ja $good", "$parts:",
    )  # fmt: skip
    # AT moves over parts that need not be there: where a later one is short, all is
    it.advance(4)
    for flag, label in ((headers.CHECKSUM, "key"), (headers.KEY, "sequence"), (headers.SEQUENCE, "version")):
        it.emit(f"ldxdw r2, {SCRATCH}", f"jset r2, {flag}, $has_{label}", f"ja $to_{label}", f"$has_{label}:")
        if flag == headers.KEY:
            it.need(4)
        it.advance(4)
        it.emit(f"$to_{label}:")
    it.emit(f"ldxdw r2, {SCRATCH}", f"jset r2, {version}, $one")
    it.emit(f"ldxdw r0, {KIND}", f"jeq r0, {headers.ETHERNET_IN_GRE}, $frame")
    it.again("$kind")
    it.emit("$frame:")
    _shim(it, 14, 12)
    it.emit("$one:", f"jset r2, {headers.ACKNOWLEDGED}, $acknowledged", "ja $ppp", "$acknowledged:")
    it.advance(4)
    it.emit("$ppp:")
    it.need(4)
    it.read(2, 2)
    it.emit(f"stxdw {SCRATCH}, r0")
    it.advance(4)
    it.emit(f"ldxdw r0, {SCRATCH}")
    _ppp(it, headers.PPP_OF_GRE)
    it.again("$kind")
