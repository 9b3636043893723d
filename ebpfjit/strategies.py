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

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from ebpfjit.difftest.frames import LAYERS, frame
from ebpfjit.elf import codec as codecs
from ebpfjit.errors import InputError
from ebpfjit.fuzzing.contexts import RANGES, completed, numbers
from ebpfjit.fuzzing.samples import Inputs
from ebpfjit.program import Program
from ebpfjit.runtime.contexts.fields import Field
from ebpfjit.runtime.maps.definition import Codec, MapDefinition, MapType

MOST_ENTRIES = 8


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
    given = inputs.givable if inputs.frames else numbers(inputs.type)
    if inputs.frames:
        data = packets()
    elif given and inputs.is_sized:
        data = st.just(b"")  # its fields are all there is
    else:
        data = st.binary(min_size=inputs.least, max_size=inputs.most)
    if inputs.described is not None:
        drawn = st.randoms(use_true_random=False).map(lambda rng: dict(inputs.contexts(rng)))
        return st.fixed_dictionaries({"data": data, "context": drawn})
    if not given:
        return st.fixed_dictionaries({"data": data})
    struct = inputs.struct_name

    def completed_of(values: dict[str, Any]) -> dict[str, Any]:
        return dict(completed(struct, b"", tuple(values.items())))

    optional = {each.name: _field(struct, each) for each in given}
    context = st.fixed_dictionaries({}, optional=optional).map(completed_of)
    return st.fixed_dictionaries({"data": data, "context": context})


def _field(struct: str, field: Field) -> SearchStrategy[Any]:
    known = RANGES.get((struct, field.name))
    one = st.integers(0, (1 << 8 * field.size) - 1) if known is None else st.sampled_from(known)
    return st.tuples(*[one] * field.count) if field.count else one


def keys(map_: Any) -> SearchStrategy[bytes]:
    """Keys of `map_`, as bytes: of arrays those that are there, of tries with a prefix that is not too long.

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
    """Values of `map_`, as bytes, each member of a struct by itself. Raises InputError for what is no map."""
    definition = _definition(map_)
    return _bytes_of(definition.value_type, definition.value_size)


def contents(map_: Any, *, max_size: int = MOST_ENTRIES) -> SearchStrategy[dict[bytes, bytes]]:
    """What `map_` may hold: up to `max_size` entries, and no more than it has room for.

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
