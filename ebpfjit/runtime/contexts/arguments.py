"""Contexts of operations (struct_ops): the arguments that the kernel would call them with, a word each.

context={"args": [{"val": 5}, -1, 2]}

[ args[0] | args[1] | args[2] ]
     `--> [ val ]    what a pointer points to is memory of the run, which the result shows as it was left
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ebpfjit.bits import W64
from ebpfjit.errors import InputError
from ebpfjit.record import dataclass
from ebpfjit.runtime.contexts.outcome import Outcome
from ebpfjit.runtime.contexts.packet import LARGEST_PACKET
from ebpfjit.runtime.contexts.plain import StructContext
from ebpfjit.runtime.contexts.types import ProgramType
from ebpfjit.runtime.maps.definition import Codec
from ebpfjit.runtime.memory import Region, flat_view

WORD = 8
ARGUMENTS = "args"


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument as C declares it: `what` it is, and the `codec` of the number, or of what it points to.

    A pointer without a codec points to bytes of any kind.
    """

    what: str
    codec: Codec | None
    is_pointer: bool = False
    is_signed: bool = False


@dataclass(frozen=True, slots=True)
class Prototype:
    """What an operation is called with; `name` is that of its struct and member."""

    name: str
    arguments: tuple[Argument, ...]

    def context(
        self, type_: ProgramType, data: bytes | memoryview, fields: Mapping[str, Any]
    ) -> ArgumentsContext:
        """Return a context of these arguments. Raises InputError for what they cannot be."""
        return ArgumentsContext(type_, self, data, fields)


class ArgumentsContext(StructContext):
    """The words of arguments; `pointed` is the memory behind those that are pointers, by their number."""

    def __init__(
        self,
        type_: ProgramType,
        prototype: Prototype,
        data: bytes | memoryview,
        fields: Mapping[str, Any],
    ) -> None:
        self.prototype = prototype
        self.pointed: dict[int, Region] = {}
        self._mappings: set[int] = set()
        if data or fields.keys() - {ARGUMENTS}:
            raise InputError(
                f"{type_.name} programs get the words of their arguments as data, or "
                f"context={{'{ARGUMENTS}': [...]}}"
            )
        given = fields.get(ARGUMENTS, ())
        declared = ", ".join(argument.what for argument in prototype.arguments)
        if not isinstance(given, Sequence) or len(given) != len(prototype.arguments):
            raise InputError(f"{prototype.name} takes ({declared}), not {given!r} (EINVAL)")
        words = b"".join(map(self._word, range(len(given)), given))
        super().__init__(type_, words)
        self.regions += self.pointed.values()

    def _word(self, number: int, value: Any) -> bytes:
        """Return an argument as it stands in the context."""
        argument = self.prototype.arguments[number]
        where = f"{self.prototype.name}: args[{number}] ({argument.what})"
        try:
            if not argument.is_pointer and argument.codec is not None:
                word = int.from_bytes(argument.codec.encode(value), "little", signed=argument.is_signed)
            elif value is None or isinstance(value, int):
                word = value or 0
            else:
                self.pointed[number] = self._memory(number, argument, value)
                word = self.pointed[number].start
        except (TypeError, ValueError) as error:
            raise InputError(f"{where}: {error}") from None
        if not -(1 << 63) <= word < 1 << 64:
            raise InputError(f"{where}: {word} is no address")
        return W64.wrap(word).to_bytes(WORD, "little")

    def _memory(self, number: int, argument: Argument, value: Any) -> Region:
        """Return a copy of what an argument points to: the members of a struct, or bytes."""
        if isinstance(value, Mapping):
            if argument.codec is None:
                raise TypeError("nothing says what members it has; give bytes")
            self._mappings.add(number)
            content = argument.codec.encode(value)
        else:
            content = bytes(flat_view(value))
        if argument.codec is not None and len(content) != argument.codec.size:
            raise ValueError(f"{len(content)} bytes were given, and there are {argument.codec.size} of it")
        if len(content) > LARGEST_PACKET:
            raise ValueError(f"at most {LARGEST_PACKET} bytes, not {len(content)}")
        return Region.of_buffer(f"{self.prototype.name}, args[{number}]", bytearray(content))

    def outcome(self) -> Outcome:
        """Return the words after the run, and the arguments as they were given."""
        return self.after(bytes(self.memory))

    def after(self, data: bytes) -> Outcome:
        """Return what is left of a run that left these words: no addresses of ours."""
        words, values = bytearray(data), list[Any]()
        for number, argument in enumerate(self.prototype.arguments):
            place = slice(WORD * number, WORD * (number + 1))
            region = self.pointed.get(number)
            if region is None:
                size = WORD if argument.is_pointer or argument.codec is None else argument.codec.size
                values.append(int.from_bytes(words[place][:size], "little", signed=argument.is_signed))
                continue
            words[place] = bytes(WORD)
            content = bytes(region.view)
            codec = argument.codec if number in self._mappings else None
            values.append(content if codec is None else codec.decode(content))
        return Outcome(bytes(words), b"", {ARGUMENTS: values})
