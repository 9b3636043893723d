"""tcpdump's filter expressions as programs: `compile` for here, `to_xdp` for Linux.

"tcp port 80" -> libpcap's own compiler -> classic BPF -> Program
"""

from __future__ import annotations

from typing import Literal

from ebpfjit.classic.code import decode
from ebpfjit.classic.table import ancillary
from ebpfjit.classic.translate import Lengths, OnXdp, to_ebpf
from ebpfjit.errors import FilterError, TranslationError, VerifierError
from ebpfjit.filters import pcap
from ebpfjit.filters.elf import to_object
from ebpfjit.filters.source import is_function_name, to_source
from ebpfjit.program import Program

Action = Literal["XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX"]
ACTIONS = {"XDP_ABORTED": 0, "XDP_DROP": 1, "XDP_PASS": 2, "XDP_TX": 3}
SNAPLEN = 262_144
"""What tcpdump keeps of a packet where it is not told."""

NETWORK = (pcap.LINK_TYPES["raw"], 12, 14)
"""Link types of packets that begin with their IP header."""


def compile(
    expression: str,
    *,
    linktype: str | int = "ethernet",
    snaplen: int = SNAPLEN,
    type: Literal["socket_filter"] | None = "socket_filter",
    optimize: bool = True,
    netmask: str | int | None = None,
    lengths: Lengths = "captured",
) -> Program:
    """Return an expression of tcpdump's (man 7 pcap-filter) as a program, whose result is 0 or `snaplen`.

    `linktype` is what packets begin with: "ethernet", "raw" (IP), "linux_sll", "linux_sll2", "null", "loop",
    or a name or number of libpcap's. The program is a socket filter, which takes frames; with the type None
    it takes plain memory, from the link header on, which is faster, and the only way for link types that are
    neither Ethernet nor IP. `optimize` is that of libpcap's compiler, `netmask` ("255.255.255.0") that of the
    network, which `ip broadcast` asks for. `lengths` says what `len`, `greater` and `less` are about, as for
    `classic.to_ebpf`: with "wire" the program takes packets of a capture that cut them off, as
    `batch.with_wire_lengths()` gives them, and means what `tcpdump -r` does.

    Raises FilterError in libpcap's words, and where there is no libpcap; TranslationError with type=None for
    expressions about more than the packet ("inbound").

        web = filters.compile("tcp port 80", type=None).compile()
        web(frame) != 0
    """
    number = pcap.link_number(linktype)
    if type is not None and number != pcap.LINK_TYPES["ethernet"] and number not in NETWORK:
        raise FilterError(f"socket filters take Ethernet frames, not packets of {linktype!r}: say type=None")
    code = pcap.compile(expression, linktype, snaplen, optimize=optimize, netmask=netmask)
    starts: Literal["link", "network"] = "network" if number in NETWORK else "link"
    if type is None:
        _check_alone(expression, code)
    return to_ebpf(code, type, name="filter", starts=starts, loops=True, machine="libpcap", lengths=lengths)


def to_classic(
    expression: str,
    *,
    linktype: str | int = "ethernet",
    snaplen: int = SNAPLEN,
    optimize: bool = True,
    netmask: str | int | None = None,
) -> bytes:
    """Return an expression as a program of classic BPF, as `compile` has it before it is translated: bytes.

    `linktype`, `snaplen` (0 to 0x7fffffff, what packets that match give), `optimize` and `netmask` are those
    of `compile`. One with `protochain` goes back with `ja`, as libpcap's machine does: `classic.run(...,
    loops=True)`. Raises FilterError.
    """
    return pcap.compile(expression, linktype, snaplen, optimize=optimize, netmask=netmask)


def to_xdp(
    expression: str, match: Action = "XDP_DROP", *, otherwise: Action = "XDP_PASS", name: str = "filter"
) -> Program:
    """Return an expression as an XDP program, which gives packets that `match` one action, and `otherwise`
    another.

    Actions are names of XDP's ("XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_ABORTED"), `name` is the program's. It
    compares with the packet's end as Linux's verifier wants it; `to_object(program, "xdp")` is a file that
    bpftool and ip load. Raises FilterError, ValueError for an action that is none, and TranslationError for
    expressions about what XDP does not have.
    """
    _check_actions(match, otherwise)
    code = pcap.compile(expression, "ethernet", SNAPLEN)
    return OnXdp(ACTIONS[match], ACTIONS[otherwise]).program(code, name, "xdp", loops=True)


def to_c(
    expression: str, match: Action = "XDP_DROP", *, otherwise: Action = "XDP_PASS", name: str = "filter"
) -> str:
    """Return an expression as C source of the XDP program that `to_xdp` gives, to be read, changed and built.

    `match` and `otherwise` are the actions of packets that match, and of the others; `name` is the
    function's. What to do with the file is said in its head; it needs linux/bpf.h, no more. Raises
    FilterError, also for a loop (protochain); ValueError for an action, or a name that is none of C's; and
    TranslationError for expressions about what XDP does not have.
    """
    _check_actions(match, otherwise)
    if not is_function_name(name):
        raise ValueError(f"{name!r} is no name of a function in C that the file does not have already")
    code = pcap.compile(expression, "ethernet", SNAPLEN)
    try:
        return to_source(code, expression, match, otherwise, name)
    except VerifierError as error:
        raise FilterError(f"{pcap.named(expression)}: no XDP program has such a loop: {error}") from None


def _check_alone(expression: str, code: bytes) -> None:
    for each in decode(code):
        name = ancillary(each.row, each.k) if each.row is not None else None
        if name:
            what = f"{pcap.named(expression)}: a packet alone has nothing that gives {name!r}"
            raise TranslationError(f"{what}; socket filters have, which come without type=None")


def _check_actions(*actions: str) -> None:
    for action in actions:
        if action not in ACTIONS:
            raise ValueError(f"no action {action!r}; there are {', '.join(ACTIONS)}")


__all__ = ["compile", "to_c", "to_classic", "to_object", "to_xdp"]
