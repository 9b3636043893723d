"""The special fields of a map's value, found in its BTF as the kernel finds them (btf_parse_fields)."""

from __future__ import annotations

from ebpfjit.elf.btf import Btf, Kind, Type
from ebpfjit.runtime.maps.special import KINDS, MOST_FIELDS, POINTERS, SpecialField, is_valid

MOST_NESTED = 4
"""Structs in structs that are looked into (MAX_RESOLVE_DEPTH is more, but no value has so many)."""

FIELD_COST = 16
"""Bytes of the load's budget for each member that is looked at."""

Found = tuple[SpecialField, ...]


def special_fields(btf: Btf, id: int) -> Found:
    """Return the special fields of a type, by offset; none where it is no struct, or the kernel takes none.

    Raises LoadError where there is more to look through than the file may cost.
    """
    type_ = btf.resolve(id)
    if type_.kind is not Kind.STRUCT:
        return ()
    found = _Search(btf).struct(type_, MOST_NESTED)
    return found if is_valid(found) else ()


class _Search:
    """Looks through the members of structs, each struct's once."""

    def __init__(self, btf: Btf) -> None:
        self.btf = btf
        self.known: dict[tuple[int, int], Found] = {}

    def struct(self, type_: Type, depth: int) -> Found:
        known = self.known.get((type_.id, depth))
        if known is None:
            known = self.known[type_.id, depth] = self._members(type_, depth)
        return known

    def _members(self, type_: Type, depth: int) -> Found:
        self.btf.budget.spend(FIELD_COST * len(type_.members), "the members of values")
        found: list[SpecialField] = []
        for member in type_.members:
            if member.bit_size or member.bit_offset % 8:
                continue
            start = member.bit_offset // 8
            for field in self._of(member.type, depth):
                joint = "." if member.name and field.name and not field.name.startswith("[") else ""
                name = member.name + joint + field.name
                offset = start + field.offset
                kind = KINDS[field.kind]
                if offset % kind.alignment == 0 and offset + kind.size <= type_.size:
                    found.append(SpecialField(field.kind, offset, name))
            if len(found) > MOST_FIELDS:
                break
        return tuple(sorted(found, key=lambda field: field.offset))

    def _of(self, id: int, depth: int) -> Found:
        """Return the special fields of a member's type, an array's elements one after the other."""
        type_ = self.btf.resolve(id)
        if type_.kind is Kind.ARRAY:
            return self._array(type_, depth)
        if type_.kind is Kind.PTR:
            tag = self.btf.type(type_.target)
            is_special = tag.kind is Kind.TYPE_TAG and tag.name in POINTERS
            return (SpecialField(tag.name, 0, ""),) if is_special else ()
        if type_.kind is not Kind.STRUCT:
            return ()
        if type_.name in KINDS and type_.name not in POINTERS:
            return (SpecialField(type_.name, 0, ""),) if type_.size == KINDS[type_.name].size else ()
        return self.struct(type_, depth - 1) if depth else ()

    def _array(self, type_: Type, depth: int) -> Found:
        inner = self.btf.resolve(type_.target)
        if inner.kind is Kind.ARRAY:  # the kernel looks into one dimension
            return ()
        element = self._of(type_.target, depth)
        if not element or not type_.count:
            return ()
        size = self.btf.size_of(type_.target)
        return tuple(
            SpecialField(
                field.kind,
                index * size + field.offset,
                f"[{index}]" + (f".{field.name}" if field.name else ""),
            )
            for index in range(min(type_.count, MOST_FIELDS + 1))
            for field in element
        )
