"""Maps and variables on the command line: filled before a run, shown after it.

--map ports=ports.json           {"23": {"action": 1}}, or [{"key": 23, "value": {"action": 1}}, ...]
--map 'ports[23]={"action": 1}'  one entry; keys and values are of the types that BTF has for them
--global limit=10                a variable

Integers may be written as text ("0x17"), bytes are hex ("0a:00:00:01", "0x0a000001"); an array of characters
takes its text. What --show-maps prints with --json can be given to --map.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ebpfjit.cli import files
from ebpfjit.cli.parameters import WrongUsage
from ebpfjit.errors import EbpfError
from ebpfjit.named import absent, printable

if TYPE_CHECKING:
    from ebpfjit.elf.loader import Object
    from ebpfjit.runtime.maps.definition import Codec

MOST_ENTRIES = 1000
"""Entries of a map that are shown."""


class StateError(EbpfError):
    """A map, a variable or a value on the command line that is not what it should be."""


def prepare(obj: Object | None, file: str, maps: Iterable[str], variables: Iterable[str]) -> None:
    """Set variables, then fill maps. Raises StateError, OSError, MapError."""
    maps, variables = list(maps), list(variables)
    if obj is None and (maps or variables):
        option = "--map" if maps else "--global"
        raise StateError(f"{file}: no object file, so it has no maps and no variables for {option}")
    for text in variables:
        _set_variable(obj, text)
    for text in maps:
        _fill(obj, text)


def _set_variable(obj: Any, text: str) -> None:
    name, is_pair, value = text.partition("=")
    if not is_pair:
        raise WrongUsage(f"--global takes NAME=VALUE, limit=10, not {text!r}")
    if name not in obj.globals:
        raise StateError(f"--global {printable(name)}: {absent(name, 'variable', obj.globals)}")
    what = f"--global {name}"
    codec = obj.globals.codec(name)
    obj.globals[name] = _encoded(_read(value, what), codec, codec.size, what)


def _fill(obj: Any, text: str) -> None:
    """Do what one --map says: NAME=FILE.json, or NAME[KEY]=VALUE."""
    head, is_pair, value = text.partition("=")
    name, has_key, key = head.partition("[")
    if not is_pair or (has_key and not key.endswith("]")):
        raise WrongUsage(f"--map takes NAME=FILE.json or NAME[KEY]=VALUE, not {text!r}")
    map_ = obj.maps.get(name)
    if map_ is None:
        raise StateError(f"--map {printable(name)}: {absent(name, 'map', obj.maps)}")
    if has_key:
        what = f"--map {printable(head)}"
        _store(map_, _read(key[:-1], what), _read(value, what), what)
        return
    for number, (each, content) in enumerate(_entries(value)):
        _store(map_, each, content, f"--map {name}: {value}: entry {number}")


def _entries(file: str) -> Iterator[tuple[Any, Any]]:
    """Yield the entries of a file: of an object, or of a list of keys and values."""
    data = files.read_bytes(file)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StateError(f"--map: {file}: no JSON: {error}") from None
    if isinstance(found, dict):
        yield from ((_read(key, f"--map: {file}"), value) for key, value in found.items())
        return
    for number, entry in enumerate(found if isinstance(found, list) else [found]):
        entry = (
            entry.get("formatted", entry) if isinstance(entry, dict) else entry
        )  # bpftool's own typed form
        if not isinstance(entry, dict) or not {"key", "value"} <= entry.keys():
            raise StateError(f'--map: {file}: entry {number} is no {{"key": ..., "value": ...}}')
        yield entry["key"], entry["value"]


def _read(text: str, what: str) -> Any:
    """Return a text of `what` on the command line as JSON reads it; what is no JSON stays text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if text.lstrip()[:1] in ("{", "["):
            raise StateError(f"{what}: no JSON: close what is open, put names in double quotes") from None
        return text


def _store(map_: Any, key: Any, value: Any, what: str) -> None:
    """Store one entry of a map."""
    definition = map_.definition
    if not hasattr(map_, "put"):
        raise StateError(f"{what}: {definition} takes no entries by key")
    encoded = _encoded(key, definition.key_type, definition.key_size, f"{what}: key")
    values = value if isinstance(value, list) and isinstance(_any_value(map_), list) else None
    size, codec = definition.value_size, definition.value_type
    if values is not None:  # one for each processor
        map_.put(encoded, [_encoded(each, codec, size, f"{what}: value") for each in values])
    else:
        map_.put(encoded, _encoded(value, codec, size, f"{what}: value"))


def _any_value(map_: Any) -> Any:
    """Return a value as the map gives them, None where it has none."""
    return next(iter(map_.values()), None)


def _encoded(value: Any, codec: Codec | None, size: int, what: str) -> bytes:
    """Return the bytes of a value that came as JSON. Raises StateError, which says the type."""
    try:
        made = _converted(value, codec, size)
        if isinstance(made, bytes):
            if len(made) == size:
                return made
            raise ValueError(f"{len(made)} bytes")
        if codec is not None:
            return codec.encode(made)
        number = int(made)
        return number.to_bytes(size, "little", signed=number < 0)
    except (TypeError, ValueError, OverflowError) as error:
        reason = f"{value!r} does not fit" if isinstance(error, OverflowError) else str(error)
        raise StateError(f"{what}: {reason}: it is {kind_of(codec, size)}") from None


def _converted(value: Any, codec: Codec | None, size: int) -> Any:
    """Return JSON as the codec takes it: text as a number, or as bytes, where the type has none."""
    load_codecs()
    from ebpfjit.elf.codec import Array, Field, Integer, Raw, Struct

    if isinstance(codec, Struct) and isinstance(value, dict):
        places = {name: codec.fields.get(name) for name in value}
        return {
            name: _converted(each, place.codec, place.codec.size)
            if isinstance(place := places[name], Field)
            else each
            for name, each in value.items()
        }
    if isinstance(codec, Array) and isinstance(value, list):
        return [_converted(each, codec.element, codec.element.size) for each in value]
    if not isinstance(value, str):
        if isinstance(value, list) and codec is None:
            return bytes(int(each, 0) if isinstance(each, str) else each for each in value)
        return value
    if isinstance(codec, Raw) and not value.startswith("0x"):
        return value
    is_number = isinstance(codec, Integer) or (codec is None and size in (1, 2, 4, 8))
    return _number(value) if is_number and not _is_bytes(value, size) else _from_hex(value)


def _is_bytes(text: str, size: int) -> bool:
    """True for the hex of so many bytes that is written with something between them."""
    return len(text.replace(":", " ").split()) == size > 1


def _number(text: str) -> int:
    for base in (0, 10):  # "010" is no number in Python
        try:
            return int(text, base)
        except ValueError:
            continue
    raise ValueError(f"{text!r} is no number")


def _from_hex(text: str) -> bytes:
    digits = "".join(text.removeprefix("0x").replace(":", " ").split())
    try:
        return bytes.fromhex(digits)
    except ValueError:
        raise ValueError(f"{text!r} is no hex") from None


def load_codecs() -> None:
    """Import what reads values, which is the loader's."""
    from ebpfjit.once import load_package

    load_package("ebpfjit.elf")


def kind_of(codec: Codec | None, size: int) -> str:
    """Return a type in words: what it is, how many bytes it has."""
    load_codecs()
    from ebpfjit.elf.codec import Array, Boolean, Field, Float, Integer, Raw, Struct

    match codec:
        case Struct():
            members = ", ".join(
                f"{name}: {kind_of(place.codec, place.codec.size) if isinstance(place, Field) else 'bits'}"
                for name, place in codec.fields.items()
            )
            return f"{codec.name} {{{members}}}"
        case Array():
            return f"a list of {codec.count}, each {kind_of(codec.element, codec.element.size)}"
        case Integer():
            bits = 8 * codec.size
            return f"{'s' if codec.signed else 'u'}{bits}"
        case Boolean():
            return "true or false"
        case Float():
            return f"a float of {codec.size} bytes"
        case Raw():
            return f"{codec.size} bytes, as hex (0x...) or text"
        case _:
            numbers = " (hex), or a number" if size in (1, 2, 4, 8) else " (hex)"
            return f"{size} bytes{numbers}"


def is_section(map_: Any) -> bool:
    """True for a map that is a section of variables."""
    return bool(map_.definition.section == map_.definition.name)


# Showing


def shown_state(obj: Object | None) -> dict[str, Any]:
    """Return the maps and variables of an object as JSON has them, {} without an object."""
    if obj is None:
        return {}
    variables = {}
    for name in obj.globals:
        try:
            variables[name] = _json(obj.globals[name])
        except EbpfError as error:
            variables[name] = {"refused": str(error)}
    maps = {name: _map_json(map_) for name, map_ in obj.maps.items() if not is_section(map_)}
    return {"maps": maps, "globals": variables}


def _map_json(map_: Any) -> Any:
    """Return the entries of a map but for the zeros of an array; None for one that has no entries by key."""
    if map_.refused is not None or not hasattr(map_, "typed"):
        return None
    entries = []
    for raw, (key, value) in zip(map_.items(), map_.typed.items(), strict=False):
        if _is_set(raw[1]):
            entries.append({"key": _json(key), "value": _json(value)})
        if len(entries) == MOST_ENTRIES:
            break
    return entries


def _is_set(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return any(any(one) if isinstance(one, bytes) else one is not None for one in values)


def _json(value: Any) -> Any:
    """Return a value as JSON has it: bytes as hex, what has no form as text."""
    if isinstance(value, bytes | bytearray):
        return f"0x{value.hex()}"
    if isinstance(value, Mapping):
        return {str(name): _json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_json(each) for each in value]
    return value if isinstance(value, int | float | str | None) else str(value)


def print_state(obj: Object | None) -> None:
    """Print maps and variables, a line for each entry."""
    state = shown_state(obj)
    for name, entries in state.get("maps", {}).items():
        assert obj is not None  # it has maps
        print(f"{obj.maps[name].definition}:")
        if entries is None:
            print(f"  {obj.maps[name]!r}")
        for entry in entries or ():
            print(f"  {json.dumps(entry['key'])}: {json.dumps(entry['value'])}")
        if entries == []:
            print("  empty, or nothing but zeros")
    for name, value in state.get("globals", {}).items():
        print(f"{name} = {json.dumps(value)}")
