"""What runs may be told beside their bytes: fields of contexts by name, and how each is drawn at random.

struct of the type's     a field that is no part of its bytes (a pointer), and what helpers ask for
packet                   the fields that a test run takes
struct of the program's  what its pointers point to
arguments (struct_ops)   args: a number, or the bytes behind a pointer, each
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ebpfjit.difftest.frames import frame
from ebpfjit.runtime.contexts.arguments import ARGUMENTS, Argument, Prototype
from ebpfjit.runtime.contexts.described import Layout
from ebpfjit.runtime.contexts.fields import Field
from ebpfjit.runtime.contexts.types import ContextKind, ProgramType

Fields = tuple[tuple[str, Any], ...]
"""Fields of a context, in the order of their names; values that can be hashed."""
Draw = Callable[[random.Random], Any]


class Usual(dict[str, Any]):
    """Nothing said of a struct, so that it is a usual one: a mapping that can be hashed."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 0


XDP_FIELDS = ("ingress_ifindex", "rx_queue_index", "data")
SKB_FIELDS = ("mark", "priority", "ingress_ifindex", "ifindex", "cb", "tstamp", "gso_segs", "gso_size")
MAY_BE_NULL = {("bpf_sk_lookup", "sk"), ("bpf_sock_ops", "sk"), ("sk_reuseport_md", "migrating_sk")}
"""Sockets that are there for some runs only."""
RANGES: Mapping[tuple[str, str], Sequence[int]] = {
    ("xdp_md", "data"): (0, 4, 8, 32),  # bytes of metadata
    ("__sk_buff", "gso_segs"): range(1 << 16),
    ("bpf_sk_lookup", "family"): (2, 10),
    ("bpf_sk_lookup", "local_port"): range(1 << 16),
}
"""Fields that do not take all numbers of their size."""
NOT_GIVEN = {
    ("sk_msg_md", "size"),
    ("sk_reuseport_md", "len"),
}
"""Numbers that follow from something else."""
_NUMBERS = (0, 1, 2, 3, 4, 8, 16, 0x7F, 0x80, 0xFF, 0x100, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_SIZES = (0, 1, 4, 8, 64)
_SYSCTLS = (b"net/ipv4/ip_forward", b"net/ipv4/tcp_mem", b"net/core/somaxconn", b"kernel/hostname")
_TEXTS = (b"", b"0", b"1", b"1\n", b"-1", b"4096 131072 6291456", b"4294967296", b"on", b"x" * 64)
_TCP_HEADER = bytes(12) + b"\x50" + bytes(7)
_WRITE_HEADER = 15
"""BPF_SOCK_OPS_WRITE_HDR_OPT_CB: there is a header then."""

USUAL: Mapping[str, Mapping[str, Any]] = {"bpf_sysctl": {"name": _SYSCTLS[0]}}
"""What all runs are told, by the struct's name: without it helpers have nothing to say."""
_BESIDE: Mapping[str, Mapping[str, Draw]] = {
    "bpf_sysctl": {
        "name": lambda rng: rng.choice(_SYSCTLS),
        "current_value": lambda rng: rng.choice(_TEXTS),
        "new_value": lambda rng: rng.choice(_TEXTS),
    },
    "bpf_sock_ops": {
        "remaining_opt_len": lambda rng: rng.randrange(41),
        "syn": lambda rng: frame(rng, {"ipv4", "ipv6", "tcp"}),
    },
    "bpf_nf_ctx": {"hook": lambda rng: rng.randrange(5)},
}
"""What is no field and can be told with them."""


def frozen(value: Any) -> Any:
    """Return a value of a field as one that can be hashed."""
    if isinstance(value, Mapping):
        return Usual(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


def metadata_size(context: Mapping[str, Any] | None) -> int:
    """Return how many bytes of an XDP run's data are metadata, in front of the packet."""
    size = (context or {}).get("data")  # no other program's context is given a field of this name
    return size if isinstance(size, int) else 0


def without_metadata(data: bytes, context: Mapping[str, Any] | None) -> bytes:
    """Return the packet that a run is on."""
    return data[metadata_size(context) :]


def completed(struct: str, data: bytes, fields: Fields) -> Fields:
    """Return fields with those that runs with these bytes need."""
    given = {**USUAL.get(struct, {}), **dict(fields)}
    if struct == "bpf_sock_ops" and data[:4] == _WRITE_HEADER.to_bytes(4, "little"):
        given.setdefault("skb_data", _TCP_HEADER)
    if given.get("rx_queue_index"):
        given["ingress_ifindex"] = given.get("ingress_ifindex") or 1
    return tuple(sorted(given.items()))


def givable(type_: ProgramType | None) -> list[Field]:
    """Return the fields of a type's struct that runs may be told beside their bytes."""
    layout = None if type_ is None else type_.layout
    if type_ is None or layout is None or type_.name in ("flow_dissector", "netfilter"):
        return []
    if type_.has_packet:
        names = XDP_FIELDS if type_.context is ContextKind.XDP else SKB_FIELDS
        return [layout.by_name[name] for name in names if name in layout.by_name]
    found = [field for field in layout.fields if field.pointer and field.pointer != "end"]
    if type_.has_payload:  # its data are no bytes of the struct
        return [field for field in found if field.pointer == "sock"] + numbers(type_)
    return found


def numbers(type_: ProgramType | None) -> list[Field]:
    """Return the fields of a type's struct that are numbers, each of its bytes once."""
    layout = None if type_ is None else type_.layout
    if layout is None:
        return []
    fields = [each for each in layout.fields if not each.pointer and not each.alias]
    return [each for each in fields if (layout.name, each.name) not in NOT_GIVEN]


def draws_of(
    type_: ProgramType | None, described: Layout | Prototype | None
) -> tuple[dict[str, Draw], list[str]]:
    """Return how fields are drawn, by their names; and those that are whether a run reads them or not."""
    if isinstance(described, Prototype):
        return {ARGUMENTS: partial(_arguments, described)}, [ARGUMENTS]
    if described is not None:
        given = ("key", "value") if described.has_memory else ()
        memory: list[str] = [name for name in given if name in described.pointers]
        return dict.fromkeys(memory, _element), memory
    if type_ is None or type_.layout is None:
        return {}, []
    struct = type_.layout.name
    beside = dict(_BESIDE.get(struct, {}))
    draws = {field.name: _draw(struct, field, has_packet=type_.has_packet) for field in givable(type_)}
    return {**draws, **beside}, [*beside]


def _draw(struct: str, field: Field, *, has_packet: bool) -> Draw:
    """Return what draws one field."""
    known = RANGES.get((struct, field.name))
    if known is not None:
        return lambda rng: rng.choice(known)
    if field.pointer and not has_packet:
        if field.pointer != "sock":
            return _some_bytes
        is_optional = (struct, field.name) in MAY_BE_NULL
        return lambda rng: rng.choice((None, Usual())) if is_optional else Usual()
    if field.count:
        return lambda rng: tuple(number(rng, field.size) for _ in range(field.count))
    return lambda rng: number(rng, field.size)


def _some_bytes(rng: random.Random) -> bytes:
    return rng.randbytes(rng.choice(_SIZES))


def _element(rng: random.Random) -> bytes | None:
    """Return a key or a value of an iterator; None at its end."""
    return rng.randbytes(_SIZES[-1]) if rng.random() < 0.8 else None


def _arguments(prototype: Prototype, rng: random.Random) -> tuple[Any, ...]:
    return tuple(_argument(each, rng) for each in prototype.arguments)


def _argument(argument: Argument, rng: random.Random) -> Any:
    size = 8 if argument.codec is None else argument.codec.size
    if argument.is_pointer:
        if argument.codec is None or rng.random() < 0.2:
            return None
        return rng.randbytes(size) if rng.random() < 0.5 else bytes(size)
    value = number(rng, size)
    return value - (1 << 8 * size) if argument.is_signed and value >> 8 * size - 1 else value


def nothing(prototype: Prototype) -> tuple[Any, ...]:
    """Return arguments that are zeros, and structs of zeros."""
    return tuple(
        bytes(each.codec.size) if each.is_pointer and each.codec is not None else 0
        for each in prototype.arguments
    )


def number(rng: random.Random, size: int) -> int:
    """Return a number of so many bytes, unsigned."""
    return rng.choice((*_NUMBERS, rng.getrandbits(8 * size))) & (1 << 8 * size) - 1
