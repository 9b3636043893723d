"""Inputs of programs as Hypothesis strategies; Hypothesis is an extra (`pip install 'ebpfjit[hypothesis]'`).

    packets("ipv4", "tcp")    Ethernet frames
    arguments(program)        keyword arguments of `Program.run`: data, and fields of its context
    keys(map), values(map)    the bytes of a key or a value, as its BTF type has them
    contents(map)             what a map holds: a mapping from keys to values

    @given(packets(), contents(obj.maps["blocked"]))
    def test_it_never_aborts(packet, blocked): ...

All shrink: packets through the choices that were drawn, the rest member by member.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ebpfjit.difftest.frames import LAYERS, frame
from ebpfjit.elf import codec as codecs
from ebpfjit.errors import InputError
from ebpfjit.fuzzing.samples import LARGEST_MEMORY, Inputs, whole
from ebpfjit.program import Program
from ebpfjit.runtime.contexts.fields import Field
from ebpfjit.runtime.maps.definition import Codec, MapDefinition, MapType

MOST_ENTRIES = 8
_METADATA = (0, 4, 8, 32)
_RANGES: Mapping[tuple[str, str], SearchStrategy[int]] = {
    ("xdp_md", "data"): st.sampled_from(_METADATA),
    ("__sk_buff", "gso_segs"): st.integers(0, 0xFFFF),
    ("bpf_sk_lookup", "family"): st.sampled_from((2, 10)),
    ("bpf_sk_lookup", "local_port"): st.integers(0, 0xFFFF),
}
"""Fields that do not take all numbers of their size."""
_NOT_GIVEN = {("bpf_sk_lookup", "cookie")}


def packets(*layers: str) -> SearchStrategy[bytes]:
    """Ethernet frames with right lengths and checksums, that have no other layers than these.

    Layers are ipv4, ipv6, arp (none of them: ipv4 and ipv6), tcp, udp, icmp, gre, ipip (none: tcp, udp and
    icmp), vlan, qinq, vxlan, geneve, options, extensions, fragments, and cut, for frames that end early. No
    layers at all: every one but cut. Raises ValueError for another name.
    """
    chosen = frozenset(layers) or LAYERS - {"cut"}
    unknown = chosen - LAYERS
    if unknown:
        raise ValueError(f"no layer {min(unknown)!r}; there are {', '.join(sorted(LAYERS))}")
    return st.builds(frame, st.randoms(use_true_random=False), st.just(chosen))


def arguments(program: Program) -> SearchStrategy[dict[str, Any]]:
    """Keyword arguments for `program.run`: `data`, and `context` where it has fields that runs may give.

    Packets for programs on packets, the fields of a struct by name, or memory of up to 128 bytes for a
    program without a type.
    """
    inputs = Inputs(program)
    given = inputs.givable if inputs.has_packet else _plain_fields(inputs)
    if inputs.has_packet:
        data = packets()
    elif given:
        data = st.just(b"")
    elif inputs.is_sized:
        data = st.binary(min_size=inputs.most, max_size=inputs.most)
    else:
        data = st.binary(max_size=LARGEST_MEMORY)
    if not given:
        return st.fixed_dictionaries({"data": data})
    struct = inputs.struct_name
    fields = {each.name: _field(struct, each) for each in given}
    context = st.fixed_dictionaries({}, optional=fields).map(lambda values: dict(whole(values)))
    return st.fixed_dictionaries({"data": data, "context": context})


def _plain_fields(inputs: Inputs) -> list[Field]:
    """Return the fields of a struct that are numbers, each of its bytes once."""
    if inputs.type is None or inputs.type.layout is None or inputs.type.has_payload:
        return []
    name = inputs.struct_name
    fields = [each for each in inputs.type.layout.fields if not each.pointer and not each.alias]
    return [each for each in fields if (name, each.name) not in _NOT_GIVEN]


def _field(struct: str, field: Field) -> SearchStrategy[Any]:
    numbers = _RANGES.get((struct, field.name), st.integers(0, (1 << 8 * field.size) - 1))
    return st.tuples(*[numbers] * field.count) if field.count else numbers


def keys(map_: Any) -> SearchStrategy[bytes]:
    """Keys of a map, as bytes: of arrays those that are there, of tries with a prefix that is not too long.

    Raises InputError for what is no map with keys.
    """
    definition = _definition(map_)
    if definition.type in (MapType.ARRAY, MapType.PERCPU_ARRAY):
        return st.integers(0, definition.max_entries - 1).map(lambda index: index.to_bytes(4, "little"))
    if definition.type == MapType.LPM_TRIE:
        size = definition.key_size - 4
        prefixes = st.integers(0, 8 * size).map(lambda length: length.to_bytes(4, "little"))
        return st.builds(bytes.__add__, prefixes, st.binary(min_size=size, max_size=size))
    return _bytes_of(definition.key_type, definition.key_size)


def values(map_: Any) -> SearchStrategy[bytes]:
    """Values of a map, as bytes, each member of a struct by itself. Raises InputError for what is no map."""
    definition = _definition(map_)
    return _bytes_of(definition.value_type, definition.value_size)


def contents(map_: Any, *, max_size: int = MOST_ENTRIES) -> SearchStrategy[dict[bytes, bytes]]:
    """What a map may hold: up to `max_size` entries, and no more than it has room for.

    Raises InputError for what is no map with keys.
    """
    size = min(max_size, _definition(map_).max_entries)
    return st.dictionaries(keys(map_), values(map_), max_size=size)


def _definition(map_: Any) -> MapDefinition:
    definition = getattr(map_, "definition", None)
    if not isinstance(definition, MapDefinition) or not (definition.key_size and definition.value_size):
        raise InputError(f"{map_!r} is no map with keys and values")
    return definition


def _bytes_of(codec: Codec | None, size: int) -> SearchStrategy[bytes]:
    if codec is None or codec.size != size:
        return st.binary(min_size=size, max_size=size)
    return _values_of(codec).map(codec.encode)


def _values_of(codec: Any) -> SearchStrategy[Any]:
    """Return values that a codec encodes."""
    match codec:
        case codecs.Integer():
            return st.integers(*codecs.signed_range(8 * codec.size, codec.signed))
        case codecs.Boolean():
            return st.booleans()
        case codecs.Float():
            return st.floats(width=_width(codec.size))
        case codecs.Array():
            return st.lists(_values_of(codec.element), min_size=codec.count, max_size=codec.count)
        case codecs.Struct():
            return st.fixed_dictionaries({name: _member(place) for name, place in codec.fields.items()})
        case _:
            return st.binary(max_size=codec.size)


def _member(place: Any) -> SearchStrategy[Any]:
    if isinstance(place, codecs.BitField):
        return st.integers(*codecs.signed_range(place.bit_size, place.signed))
    return _values_of(place.codec)


def _width(size: int) -> Any:
    return 8 * size
