"""Records as numpy has them, laid out as the C struct that a program reads: by the program's own types.

struct event { __u32 kind; char name[4]; };      dtype([("kind", "<u4"), ("name", "S4")])
int f(struct event *e)                           dtype_of(program)
columns by name -> records(dtype, columns) -> fn.map(records, stride=records.itemsize)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ebpfjit.elf.btf import COMPOSITES, Kind
from ebpfjit.elf.codec import Array, Boolean, Field, Float, Integer, Raw, Struct, codec_of
from ebpfjit.elf.contexts import first_parameter
from ebpfjit.errors import LoadError
from ebpfjit.program import Program

if TYPE_CHECKING:
    import numpy as np


def dtype_of(program: Program, struct: str | None = None) -> np.dtype[Any]:
    """Return the struct that a program's function takes a pointer to, or one that is named, as a numpy dtype.

    Offsets and size are those of C; integers, enums and pointers are integers, `char[8]` is "S8", arrays and
    structs inside are such. Raises LoadError where the program has no types (it was compiled without -g),
    where its function takes no struct or there is none of that name, and for bit-fields and flexible arrays.
    """
    types, parameter = first_parameter(program)
    if types is None:
        named = f"program {program.name!r}" if program.name else "the program"
        raise LoadError(f"{named} has no types that say how records look; compile with -g")
    if struct is not None:
        ids = types.named(struct.removeprefix("struct "), COMPOSITES)
        if not ids:
            raise LoadError(f"program {program.name!r}: its types have no struct {struct!r}")
        return _dtype(codec_of(types, ids[0]), types.describe(ids[0]))
    pointer = types.resolve(parameter) if parameter else None
    found = types.resolve(pointer.target) if pointer is not None and pointer.kind is Kind.PTR else None
    if found is None or found.kind not in COMPOSITES:
        takes = types.describe(parameter) if parameter else "nothing"
        raise LoadError(f"program {program.name!r}: its function takes {takes}, no pointer to a struct")
    return _dtype(codec_of(types, found.id), types.describe(found.id))


def _dtype(codec: Any, what: str) -> np.dtype[Any]:
    """Return how numpy has the values of a codec."""
    import numpy as np

    if isinstance(codec, Boolean):
        return np.dtype("?" if codec.size == 1 else f"<u{codec.size}")
    if isinstance(codec, Integer) and codec.size in (1, 2, 4, 8):
        return np.dtype(f"<{'i' if codec.signed else 'u'}{codec.size}")
    if isinstance(codec, Float):
        return np.dtype(f"<f{codec.size}")
    if isinstance(codec, Array):
        return np.dtype((_dtype(codec.element, what), (codec.count,)))
    if isinstance(codec, Struct):
        return _struct(codec, what)
    if isinstance(codec, (Raw, Integer)) and codec.size:
        return np.dtype(f"S{codec.size}")
    raise LoadError(f"{what}: a member without a size has no place in records of one size")


def _struct(codec: Struct, what: str) -> np.dtype[Any]:
    import numpy as np

    fields: dict[str, Field] = {}
    for name, place in codec.fields.items():
        if not isinstance(place, Field):
            raise LoadError(f"{what}: member {name!r} is a bit-field, which numpy has no column for")
        fields[name] = place
    return np.dtype(
        {
            "names": list(fields),
            "formats": [_dtype(place.codec, f"{what}, member {name!r}") for name, place in fields.items()],
            "offsets": [place.offset for place in fields.values()],
            "itemsize": codec.size,
        }
    )


def records(dtype: np.dtype[Any], columns: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    """Return columns (anything that numpy takes as an array) as records, by the names of a dtype's fields.

    All columns have one length. Raises TypeError naming the column that is missing, that is one too many or
    that holds something else than the field, ValueError for numbers and bytes that do not fit the field.
    """
    import numpy as np

    names = dtype.names or ()
    for name in columns:
        if name not in names:
            raise TypeError(f"there is no member {name!r}; there are: {', '.join(names)}")
    missing = [name for name in names if name not in columns]
    if missing:
        raise TypeError(f"no column for member {', '.join(map(repr, missing))}")
    arrays = {name: _array(name, column) for name, column in columns.items()}
    counts = {name: len(column) for name, column in arrays.items()}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name}: {count}" for name, count in counts.items())
        raise ValueError(f"columns of several lengths ({said})")
    made = np.zeros(next(iter(counts.values()), 0), dtype=dtype)
    for name, column in arrays.items():
        made[name] = _fitting(name, column, dtype[name])
    return made


def _array(name: str, column: Any) -> np.ndarray[Any, Any]:
    """Return a column as an array. Raises TypeError for one value, ValueError for values that are masked."""
    import numpy as np

    if np.ma.is_masked(column):
        raise ValueError(f"the column of member {name!r} has values that are masked: no record has none")
    made = np.asarray(column)
    if not made.ndim:
        raise TypeError(f"the column of member {name!r} is one value, of type {type(column).__name__}")
    return made


def _of_bytes(name: str, column: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a column of Python objects, which have to be bytes, as numpy has bytes."""
    import numpy as np

    values = column.ravel()
    for each in values:
        if not isinstance(each, (bytes, bytearray, memoryview)):
            raise TypeError(f"member {name!r} is bytes, and its column has a {type(each).__name__}")
    return np.asarray([bytes(each) for each in values], dtype="S").reshape(column.shape)


def _fitting(name: str, column: np.ndarray[Any, Any], wanted: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return a column as a field has it. Raises TypeError and ValueError."""
    import numpy as np

    base, given = wanted.base, column.dtype
    if given.kind == "O" and base.kind == "S":
        column = _of_bytes(name, column)
        given = column.dtype
    if given.kind == "O" and base.kind in "ui" and all(isinstance(each, int) for each in column.ravel()):
        given = base  # numbers of more than 64 bits: how far they go is said below
    same = {"u": "uib", "i": "uib", "b": "b", "f": "fui", "S": "S", "V": "V"}[base.kind]
    if given.kind not in same:
        raise TypeError(f"member {name!r} is {base}, and its column {_held(column)}")
    if column.shape[1:] != wanted.shape:
        raise ValueError(f"member {name!r} has the shape {wanted.shape}, and its column {column.shape[1:]}")
    if base.kind == "V":
        return _inner(name, column, base)
    if base.kind in "ui" and column.size:
        limits = np.iinfo(base)
        low, high = int(column.min()), int(column.max())
        if low < limits.min or high > limits.max:
            raise ValueError(
                f"member {name!r} holds {limits.min} to {limits.max}, and its column {low} to {high}"
            )
    if base.kind == "S" and given.itemsize > base.itemsize:
        longest = int(np.char.str_len(column).max()) if column.size else 0
        if longest > base.itemsize:
            raise ValueError(f"member {name!r} has {base.itemsize} bytes, and its column up to {longest}")
    return column


def _held(column: np.ndarray[Any, Any]) -> str:
    """Return what a column holds, in words where numpy has only "O" and "U" for it."""
    if column.dtype.kind == "U":
        return "text"
    if column.dtype.kind != "O":
        return str(column.dtype)
    names = dict.fromkeys(type(each).__name__ for each in column.ravel())
    return f"Python objects ({', '.join(names)})"


def _inner(name: str, column: np.ndarray[Any, Any], base: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return a column of structs, each of their members as the struct of a field has it."""
    if base.names is None or column.dtype.names is None:
        if column.dtype != base:  # numpy would take the first bytes, or nothing
            raise TypeError(f"member {name!r} is {base}, and its column {column.dtype}")
        return column
    flat = column.reshape(-1)
    made = records(base, {each: flat[each] for each in column.dtype.names})
    return made.reshape(column.shape)
