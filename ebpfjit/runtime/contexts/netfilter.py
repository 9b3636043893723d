"""The context of netfilter programs: struct bpf_nf_ctx, whose state and skb are structs of the kernel's
(net/bpf/test_run.c, bpf_prog_test_run_nf).

    frame, hook, pf -> Hooked -> [ bpf_nf_ctx ]    8 bytes each
                                   | state `--> nf_hook_state   laid out by BTF for the run (`elf.objects`)
                                   | skb   `--> sk_buff, whose head and data lead to the bytes of the packet
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ebpfjit.errors import InputError
from ebpfjit.record import dataclass
from ebpfjit.runtime.contexts.ip import FAMILIES, NFPROTO_IPV4, NFPROTO_IPV6, family_of_frame
from ebpfjit.runtime.contexts.named import NamedContext
from ebpfjit.runtime.contexts.outcome import Outcome
from ebpfjit.runtime.contexts.packet import LINK_HEADER_SIZE
from ebpfjit.runtime.contexts.skb import packet_type
from ebpfjit.runtime.contexts.types import ProgramType
from ebpfjit.runtime.memory import Region
from ebpfjit.runtime.objects import FIRST_OF_RUN, WINDOW, KernelObject, KernelPointer

LOCAL_OUT = 3
"""NF_INET_LOCAL_OUT: the hook of a test run that names none, and the one without a link header."""

LARGEST = LINK_HEADER_SIZE + 0xFFFF
"""Bytes of a frame: as much as IP has. A test run of Linux's has 3712, which fit a page."""

SETTABLE = ("hook", "pf", "in", "out")
_MEMBERS = (*SETTABLE, "sk", "net", "okfn")
_LARGEST_BYTE = 255


_HEADROOM, _SHARED_INFO, _SK_BUFF = 64, 320, 256
"""NET_SKB_PAD; struct skb_shared_info and struct sk_buff in whole cache lines."""
_NOWHERE = 0xFFFF
"""Where a header is that nobody has looked for."""
_LOOPBACK = {"ifindex": 1, "name": "lo", "type": 772, "mtu": 65536, "hard_header_len": 14, "addr_len": 6}

STATE, SKB, DEVICE, HEAD = (
    KernelPointer(FIRST_OF_RUN + index * WINDOW, name)
    for index, name in enumerate(("nf_hook_state", "sk_buff", "net_device", "bytes"))
)


@dataclass(frozen=True, slots=True)
class Hooked:
    """What a netfilter program is run on, and where: checked as bpf_prog_test_run_nf does.

    `data` are the bytes of the test run: from the IP header on at NF_INET_LOCAL_OUT, a frame elsewhere.
    `device_in` and `device_out` are addresses of a struct net_device, None where nothing is said.
    """

    data: bytes
    hook: int
    pf: int
    device_in: int | None = None
    device_out: int | None = None

    @classmethod
    def of(cls, given: bytes | memoryview, fields: Mapping[str, Any] | None) -> Hooked:
        """Return it for a frame of IPv4 or IPv6, or a packet from its IP header on.

        A frame loses its link header where there is to be none, a packet gets one of zeros where there is to
        be one. Raises InputError for a packet, a hook or a family that Linux takes for none.
        """
        data, said = bytes(given), dict(fields or {})
        _refuse_unknown(said)
        shortest = FAMILIES[NFPROTO_IPV4].header
        if not shortest <= len(data) <= LARGEST:
            raise InputError(
                f"netfilter programs run on packets of {shortest} bytes (an IP header) to {LARGEST}, "
                f"this one has {len(data)} (EINVAL)"
            )
        frame = family_of_frame(data)
        looks_like = NFPROTO_IPV6 if data[0] >> 4 == 6 else NFPROTO_IPV4
        hook, pf = said.get("hook", LOCAL_OUT), said.get("pf", frame or looks_like)
        if not isinstance(hook, int) or not 0 <= hook <= _LARGEST_BYTE:
            raise InputError(f"context field hook is a number of 8 bits (enum nf_inet_hooks), not {hook!r}")
        if pf not in FAMILIES:
            raise InputError(
                f"context field pf is 2 (NFPROTO_IPV4) or 10 (NFPROTO_IPV6), not {pf!r} (EINVAL)"
            )
        if hook == LOCAL_OUT:
            data = data[LINK_HEADER_SIZE:] if frame else data
        else:
            data = _as_frame(data, frame, pf)
        return cls(data, hook, pf, said.get("in"), said.get("out"))

    @property
    def link_header(self) -> int:
        """How many bytes are in front of the packet."""
        return 0 if self.hook == LOCAL_OUT else LINK_HEADER_SIZE

    @property
    def packet(self) -> bytes:
        """The packet as the program sees it."""
        return self.data[self.link_header :]

    def objects(self) -> list[KernelObject]:
        """Return the structs that such a test run makes; what is not said is zero."""
        start = _HEADROOM + self.link_header
        room = 1 << (_HEADROOM + len(self.data) + _SHARED_INFO - 1).bit_length()  # a class of kmalloc
        tail = _HEADROOM + len(self.data)
        # Linux looks at the hook that it has by default: `out` is there and `in` is not, whatever is said.
        out = DEVICE if self.device_out is None else self.device_out
        state = {"hook": self.hook, "pf": self.pf, "in": self.device_in or 0, "out": out}
        ethertype = FAMILIES[self.pf].ethertype.to_bytes(2, "big")
        skb: dict[str, Any] = {
            "len": tail - start,
            "head": HEAD,
            "data": HEAD + start,
            "tail": tail,
            "end": room - _SHARED_INFO,
            "truesize": room + _SK_BUFF,
            "protocol": int.from_bytes(ethertype, "little"),
            "mac_header": _HEADROOM if self.link_header else _NOWHERE,
            "network_header": start if self.link_header else 0,
            "transport_header": _NOWHERE,
        }
        if self.link_header:
            skb |= {"dev": DEVICE, "pkt_type": packet_type(self.data[:6])}
        content = (bytes(_HEADROOM) + self.data).ljust(room - _SHARED_INFO, b"\0")
        return [
            KernelObject(STATE, state, lenient=True),
            KernelObject(SKB, skb, lenient=True),
            KernelObject(DEVICE, _LOOPBACK, lenient=True),
            KernelObject(HEAD, data=content),
        ]


def _refuse_unknown(said: Mapping[str, Any]) -> None:
    for name, value in said.items():
        if name not in SETTABLE and (name not in _MEMBERS or value):
            what = "cannot be set" if name in _MEMBERS else "is not there"
            raise InputError(
                f"field {name!r} of nf_hook_state {what}; those that can be set for a packet: "
                f"{', '.join(SETTABLE)}"
            )
        if name in ("in", "out") and not (value is None or isinstance(value, int)):
            raise InputError(
                f"context field {name} takes a pointer (environment.struct('net_device', ifindex=2)), "
                f"not {value!r}"
            )


def _as_frame(data: bytes, frame: int, pf: int) -> bytes:
    """Return a frame of that family. Raises InputError where Linux has an error number."""
    if not frame and len(data) >= LINK_HEADER_SIZE:
        version = data[0] >> 4
        named = [each for each in FAMILIES.values() if each.version == version]
        if named:
            ethertype = named[0].ethertype.to_bytes(2, "big")
            data, frame = bytes(12) + ethertype + data, NFPROTO_IPV4 if version == 4 else NFPROTO_IPV6
    if not frame:
        raise InputError("at hooks but NF_INET_LOCAL_OUT (3) packets are frames of IPv4 or IPv6 (EPROTO)")
    if frame != pf:
        raise InputError(f"context field pf is {pf}, and the frame is one of {frame} (EINVAL)")
    least = LINK_HEADER_SIZE + FAMILIES[frame].header
    if len(data) < least:
        raise InputError(
            f"a frame of that family has at least {least} bytes, this one has {len(data)} (EINVAL)"
        )
    return data


class NetfilterContext(NamedContext):
    """bpf_nf_ctx: with a packet that is the run's data; or by its two fields, or their 16 bytes.

    `objects` are the structs of the kernel's that the packet comes with, `payload` is what the program sees.
    """

    def __init__(
        self, type_: ProgramType, data: bytes | memoryview, fields: Mapping[str, Any] | None = None
    ) -> None:
        assert type_.layout is not None  # `take` has looked
        self._given: bytes | None = None
        if len(data) <= type_.layout.size:
            super().__init__(type_, data, fields)
            return
        self._given = bytes(data)
        hooked = Hooked.of(self._given, fields)
        super().__init__(type_, b"", {"state": STATE, "skb": SKB})
        self.objects = hooked.objects()
        self.payload = Region.of_buffer("packet", bytearray(hooked.packet))
        self.payload.writable = False
        self.regions.append(self.payload)

    def packet_at(self, address: int) -> Region:
        """Return the packet of a struct sk_buff. Raises InputError where it has none."""
        if self.payload is None or address != SKB:
            raise InputError(
                f"bpf_dynptr_from_skb: r1 is {address:#x}, and the run's packet is at "
                f"{'none: give it as data' if self.payload is None else hex(SKB)}"
            )
        return self.payload

    def outcome(self) -> Outcome:
        """Return the packet, which no program changes; or the struct."""
        return super().outcome() if self._given is None else Outcome(self._given)
