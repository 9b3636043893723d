"""Objects of a program's own: their structs, which its types tell of, and what loads from them give."""

from __future__ import annotations

from functools import cached_property

from ebpfjit.elf.btf import Btf, Kind
from ebpfjit.elf.special import ObjectTypes
from ebpfjit.errors import LoadError
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime.maps.special import REFERENCED, SpecialField
from ebpfjit.verifier.kernel_types import walked
from ebpfjit.verifier.refusals import Refused, Undecided
from ebpfjit.verifier.values import Pointer, Value, unknown


@dataclass(frozen=True, slots=True)
class Own:
    """A struct of the program's: its number in the program's types, bytes, and special fields.

    `is_scalar` is true where there is nothing but numbers in it.
    """

    id: int
    name: str
    size: int
    fields: tuple[SpecialField, ...]
    is_scalar: bool

    def __str__(self) -> str:
        return self.name

    def field_at(self, offset: int, kinds: frozenset[str]) -> SpecialField | None:
        """Return the special field of one of some kinds that starts at an offset."""
        return next((each for each in self.fields if each.offset == offset and each.kind in kinds), None)


_KERNEL_STRUCTS = frozenset({
    "task_struct", "cgroup", "bpf_cpumask", "bpf_crypto_ctx", "sk_buff", "prog_test_ref_kfunc",
    "prog_test_member",
})  # fmt: skip
"""Structs of the kernel's that a kptr may own: those that Linux knows how to give back."""


class Objects:
    """The structs that a program makes objects of."""

    def __init__(self, program: Program) -> None:
        self.program = program

    @cached_property
    def _types(self) -> Btf:
        if self.program.types is None:
            raise Undecided("the program's types say what its objects are, and there are none", goes_on=True)
        return Btf(self.program.types.btf, "BTF")

    @cached_property
    def _layouts(self) -> ObjectTypes:
        assert self.program.types is not None
        return ObjectTypes(self.program.types.btf)

    def of(self, id: int) -> Own | None:
        """Return the struct of a number, None where there is none. Raises Undecided."""
        try:
            known = len(self._types)  # there are types
            layout = self._layouts(id) if 0 < id < known else None
        except LoadError as error:
            raise Undecided(f"its types are damaged: {error}") from error
        if layout is None:
            return None
        return Own(id, layout.name, layout.size, layout.fields, layout.is_scalar)

    def named(self, name: str) -> Own:
        """Return the struct of a name. Raises Undecided."""
        try:
            ids = self._types.named(name, {Kind.STRUCT})
        except LoadError as error:
            raise Undecided(f"its types are damaged: {error}") from error
        found = self.of(ids[0]) if len(ids) == 1 else None
        if found is None:
            raise Undecided(f"its types have {len(ids)} structs {name}", goes_on=True)
        return found

    def pointed_to(self, field: SpecialField) -> Own | str:
        """Return what a kptr points to: a struct of the program's, or the name of one of the kernel's.

        Raises Refused, Undecided.
        """
        if field.contains is None:
            raise Refused("type", f"{field.name!r} is no valid kptr: its struct is declared only")
        name = field.contains[0]
        if field.kind not in REFERENCED or name in _KERNEL_STRUCTS:
            return name
        return self.named(name)

    def access(self, pointer: Pointer, at: int, size: int) -> Value:
        """Return what `size` bytes at an offset of an object are: no pointer. Raises Refused, Undecided."""
        own = pointer.what
        if not isinstance(own, Own):
            raise Undecided("its types do not say what a pointer points to", goes_on=True)
        if "percpu" in pointer.flags:
            raise Refused("type", f"access percpu memory: off={at}", "ask bpf_per_cpu_ptr for a processor's")
        for field in own.fields:
            if field.offset < at + size and at < field.offset + field.size:
                raise Refused("type", f"direct access to {field.kind} is disallowed: {field}")
        try:
            value = walked(self._types, self._types.type(own.id), pointer, at, size, is_whole=True)
        except LoadError as error:
            raise Undecided(f"its types are damaged: {error}") from error
        return unknown() if isinstance(value, Pointer) else value
