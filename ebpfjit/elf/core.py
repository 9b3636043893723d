"""CO-RE: instructions that name a field, a type or an enum value get what the target's BTF says.

    local   struct task { int pid; }                 field offset of 0:0, "task.pid"
    target  struct task { long state; int pid; }     ldxw r0, [r1+0]  ->  ldxw r0, [r1+8]

Semantics are libbpf's (relo_core.c). Names decide; what stands behind `___` in a type's name does not
count. Without another BTF the object's own is the target, and every type is found as itself: then only
the ids of types change. What the target lacks becomes a call of a helper that is not there: it fails
only where it is reached, and `CoreResult.absent` says what was looked for.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator
from enum import IntEnum
from typing import Generic, TypeVar

from ebpfjit.elf.btf import ENUMS, MAX_DEPTH, Btf, Kind, Type, essential_name
from ebpfjit.elf.btf_ext import BtfExt, CoreRelocation
from ebpfjit.elf.budget import ERROR_COST, STEP, OverBudget
from ebpfjit.elf.core_types import MEMBERS_OF_STEP, SIGNED, Comparison, CoreError
from ebpfjit.elf.reader import ObjectFile, Section
from ebpfjit.errors import LoadError
from ebpfjit.record import dataclass, field, replace
from ebpfjit.runtime.faults import CORE_POISON

MAX_ACCESSES = 64
MAX_PATH = 4096
"""Characters of a path, many more than so many steps have: thousands of relocations may share a long one."""
MAX_INDEX = (1 << 32) - 1
MAX_PATH_SHOWN = 200
MAX_SHOWN = 8
"""How many types a message names."""

BPF_CALL, BPF_LDDW = 0x85, 0x18
SIZE_BITS = {4: 0x00, 2: 0x08, 1: 0x10, 8: 0x18}
"""BPF_W, BPF_H, BPF_B, BPF_DW."""
SIZE_MASK = 0x18


class RelocationKind(IntEnum):
    """What is asked of a field, type or enum value (enum bpf_core_relo_kind)."""

    FIELD_BYTE_OFFSET = 0
    FIELD_BYTE_SIZE = 1
    FIELD_EXISTS = 2
    FIELD_SIGNED = 3
    FIELD_LSHIFT_U64 = 4
    FIELD_RSHIFT_U64 = 5
    TYPE_ID_LOCAL = 6
    TYPE_ID_TARGET = 7
    TYPE_EXISTS = 8
    TYPE_SIZE = 9
    ENUMVAL_EXISTS = 10
    ENUMVAL_VALUE = 11
    TYPE_MATCHES = 12


K = RelocationKind
TYPE_KINDS = (K.TYPE_ID_LOCAL, K.TYPE_ID_TARGET, K.TYPE_EXISTS, K.TYPE_SIZE, K.TYPE_MATCHES)
ENUM_KINDS = (K.ENUMVAL_EXISTS, K.ENUMVAL_VALUE)
EXISTENCE_KINDS = (K.FIELD_EXISTS, K.TYPE_EXISTS, K.TYPE_MATCHES, K.ENUMVAL_EXISTS)


@dataclass(frozen=True, slots=True)
class Access:
    """One step into a type: member `index` of a struct where `name` is there, else element `index`.

    `type` is the id of the struct, or of the element.
    """

    type: int
    index: int
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """What a relocation names, in one BTF: `steps` into the type `root`, ending at `bit_offset`.

    `enumerator` is the index of an enum's value.
    """

    btf: Btf
    root: int
    steps: tuple[Access, ...] = ()
    bit_offset: int = 0
    enumerator: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """The value for an instruction; None where the target does not have it.

    `is_exact` is false where the compiler may have chosen another value for the same (bit-fields).
    `size` and `type` are those of a field whose offset is asked, 0 otherwise.
    """

    value: int | None
    is_exact: bool = True
    size: int = 0
    type: int = 0


UNCHANGED = Answer(0)
"""The instruction is right as it is."""

Said = TypeVar("Said")


@dataclass(slots=True)
class ByOffset(Generic[Said]):
    """What is said of instructions, by the index of their section and their offset in bytes."""

    sections: dict[int, dict[int, Said]] = field(default_factory=dict)
    _ordered: dict[int, list[int]] = field(default_factory=dict)

    def add(self, section: int, offset: int, said: Said) -> None:
        """Say something of an instruction of which nothing was said yet."""
        self.sections.setdefault(section, {}).setdefault(offset, said)

    def between(self, section: int, start: int, end: int) -> Iterator[tuple[int, Said]]:
        """Yield (offset, what is said) from byte `start` to before `end`; nothing is added any more."""
        said = self.sections.get(section)
        if said:
            if section not in self._ordered:
                self._ordered[section] = sorted(said)
            offsets = self._ordered[section]
            for offset in offsets[bisect_left(offsets, start) : bisect_left(offsets, end)]:
                yield offset, said[offset]


@dataclass(slots=True)
class CoreResult:
    """What CO-RE makes of an object.

    `code` are the changed instructions of sections, by their index, `places` the offsets of the instructions
    that have relocations, in order, and whether each only asks if something is there. `absent` is what the
    target lacks, where a call of what is not there stands now; `refusals` are those that cannot be made.
    """

    code: dict[int, bytes] = field(default_factory=dict)
    places: dict[int, list[tuple[int, bool]]] = field(default_factory=dict)
    absent: ByOffset[str] = field(default_factory=ByOffset)
    refusals: ByOffset[LoadError] = field(default_factory=ByOffset)


class Core:
    """Makes the CO-RE relocations of one object; what cannot be made is kept with its instruction."""

    def __init__(self, file: ObjectFile, ext: BtfExt, target: Btf | None) -> None:
        self.file = file
        self.ext = ext
        self.local = ext.btf
        self.target = target
        self._candidates: dict[int, list[int]] = {}
        self._answers: dict[tuple[int, str, int], tuple[Answer, Answer]] = {}
        self._result = CoreResult()

    def apply(self) -> CoreResult:
        """Return the changed instructions of the sections that have such relocations, and what went wrong."""
        sections = {section.name: section for section in self.file.sections if section.is_program}
        for name, relocations in self.ext.relocations.items():
            section = sections.get(name)
            if section is None:
                continue  # of data, or stripped
            code = bytearray(section.data)
            for relocation in relocations:
                self._relocate(section, code, relocation)
            self._result.code[section.index] = bytes(code)
            asking = {each.offset: each.kind in EXISTENCE_KINDS for each in relocations}
            self._result.places[section.index] = sorted(asking.items())
        return self._result

    def _relocate(self, section: Section, code: bytearray, relocation: CoreRelocation) -> None:
        try:
            key = (relocation.type, relocation.access, relocation.kind)
            if key not in self._answers:
                self._answers[key] = self._answer(relocation)
            local, target = self._answers[key]
            if target is not UNCHANGED and not self._patch(code, relocation.offset, local, target):
                self._leave_out(code, section, relocation, target)
        except OverBudget:
            raise
        except (CoreError, LoadError) as error:
            text = f"CO-RE relocation {self._describe(relocation)}: {error}"
            self.file.budget.spend(ERROR_COST + len(text), "CO-RE relocations that cannot be made")
            if not 0 <= relocation.offset < section.size:
                where = f"section {section.name!r}, byte {relocation.offset:#x}"
                raise LoadError(f"{self.file.name}: {where}: {text}") from error
            self._result.refusals.add(section.index, relocation.offset, LoadError(text))

    def _leave_out(
        self, code: bytearray, section: Section, relocation: CoreRelocation, target: Answer
    ) -> None:
        """Put a call of what is not there where an instruction has no meaning, and say what it lacks."""
        offset = relocation.offset
        wide = code[offset] == BPF_LDDW
        text = self._wanted(relocation)
        text += " is not among" if target.value is None else " has another size, and a sign, in"
        text += " the target's types; ask for it first (bpf_core_field_exists), or load(..., btf=) with types"
        text += " that have it"
        self.file.budget.spend(ERROR_COST + len(text), "what CO-RE does not find")
        for at in (offset, offset + 8) if wide else (offset,):
            struct.pack_into("<BBhi", code, at, BPF_CALL, 0, 0, CORE_POISON)
            self._result.absent.add(section.index, at, text)

    def _wanted(self, relocation: CoreRelocation) -> str:
        """Return what a relocation looks for, as C has it: "struct task_struct, field mm.pgd"."""
        spec = parse_spec(self.local, relocation, K(relocation.kind))
        name = self.local.describe(relocation.type)
        if relocation.kind in ENUM_KINDS:
            return f"{name}, value {self.local.resolve(spec.root).enumerators[spec.enumerator][0]}"
        path = ""
        for number, step in enumerate(spec.steps):
            if step.name is not None:
                path += f".{step.name}" if path else step.name
            elif number or step.index:
                path += f"[{step.index}]"
        path = path if len(path) <= MAX_PATH_SHOWN else f"{path[:MAX_PATH_SHOWN]}..."
        return f"{name}, field {path}" if path else name

    def _describe(self, relocation: CoreRelocation) -> str:
        kind = relocation.kind
        name = K(kind).name.lower().replace("_", " ") if kind in set(K) else f"kind {kind}"
        try:
            type_ = self.local.describe(relocation.type)
        except OverBudget:
            raise
        except LoadError:
            type_ = f"type {relocation.type}"
        access = relocation.access
        access = access if len(access) <= MAX_PATH_SHOWN else f"{access[:MAX_PATH_SHOWN]}..."
        return f"({name} of {type_}, {access})"

    # What is asked, and what the answer is

    def _answer(self, relocation: CoreRelocation) -> tuple[Answer, Answer]:
        """Return the values that the object has now, and is to have."""
        if relocation.kind not in set(K):
            raise CoreError("its kind is not known")
        kind = K(relocation.kind)
        if self.target is None and kind not in (K.TYPE_ID_LOCAL, K.TYPE_ID_TARGET):
            return UNCHANGED, UNCHANGED  # the compiler wrote what the object's own types say
        steps = min(relocation.access.count(":", 0, MAX_PATH), MAX_ACCESSES) + 1
        self.file.budget.spend(2 * STEP * steps, "CO-RE relocations")
        spec = parse_spec(self.local, relocation, kind)
        local = answer_for(kind, spec)
        if kind is K.TYPE_ID_LOCAL:
            return replace(local, is_exact=False), local
        if self.target is None:
            return local, local
        return local, self._ask_target(kind, spec, self.target)

    def _ask_target(self, kind: RelocationKind, spec: Spec, target: Btf) -> Answer:
        """Return the one answer of all types of the target that fit."""
        comparison = Comparison(self.local, target, budget=self.file.budget)
        matches = [match_spec(kind, spec, id, comparison) for id in self._find_candidates(spec.root, target)]
        found = [match for match in matches if match is not None]
        if not found:
            return answer_for(kind, None)
        answers = {(match.bit_offset, answer_for(kind, match).value) for match in found}
        if len(answers) > 1:
            shown = found[:MAX_SHOWN]
            ids = ", ".join(f"{target.describe(match.root)} (type {match.root})" for match in shown)
            ids += ", ..." if len(found) > len(shown) else ""
            raise CoreError(f"several types of the target fit, and disagree: {ids}")
        return answer_for(kind, found[0])

    def _find_candidates(self, id: int, target: Btf) -> list[int]:
        """Return the types of the target that have the name of a local type."""
        if id not in self._candidates:
            type_ = self.local.type(id)
            if not type_.name:
                raise CoreError("its type has no name to find it by")
            kinds = ENUMS if type_.is_enum else {type_.kind}
            name = essential_name(type_.name)
            found = self._candidates[id] = target.named(name, frozenset(kinds), flavors=True)
            self.file.budget.spend(STEP * (1 + len(found)), "the types that CO-RE looks for")
        return self._candidates[id]

    # Instructions

    def _patch(self, code: bytearray, offset: int, local: Answer, target: Answer) -> bool:
        """Give an instruction its value; False where there is none that it could have."""
        if offset % 8 or offset + 8 > len(code):
            raise CoreError("there is no instruction")
        opcode = code[offset]
        is_wide = opcode == BPF_LDDW
        if is_wide and offset + 16 > len(code):
            raise CoreError("the instruction is truncated")
        if target.value is None:
            return False
        match opcode & 0x07:
            case 0x04 | 0x07 if not opcode & 0x08:
                _patch_immediate(code, offset, local, target.value)
            case 0x01 | 0x02 | 0x03:
                return self._patch_access(code, offset, local, target, target.value)
            case 0x00 if is_wide:
                _patch_wide(code, offset, local, target.value)
            case _:
                raise CoreError(f"opcode {opcode:#04x} has no place for a value")
        return True

    def _patch_access(self, code: bytearray, offset: int, local: Answer, target: Answer, value: int) -> bool:
        """Change the offset of a load or store, and its size where the field's size differs."""
        _check(local, struct.unpack_from("<h", code, offset + 2)[0])
        if not 0 <= value <= 0x7FFF:
            raise CoreError(f"the offset {value} does not fit an instruction")
        opcode = code[offset]
        if local.size != target.size:
            if not self._may_resize(local, target):
                return False
            if SIZE_BITS.get(local.size) != opcode & SIZE_MASK or target.size not in SIZE_BITS:
                raise CoreError(f"an access of {local.size} bytes cannot become one of {target.size}")
            code[offset] = opcode & ~SIZE_MASK | SIZE_BITS[target.size]
        struct.pack_into("<h", code, offset + 2, value)
        return True

    def _may_resize(self, local: Answer, target: Answer) -> bool:
        """True for pointers and unsigned integers: what a longer or shorter load gives is right."""
        types = (self.local.resolve(local.type), (self.target or self.local).resolve(target.type))
        if all(type_.kind is Kind.PTR for type_ in types):
            return True
        return all(type_.kind is Kind.INT and not type_.encoding & SIGNED for type_ in types)


def _check(local: Answer, found: int) -> None:
    """Refuse an instruction that does not hold what the compiler must have put there."""
    if local.is_exact and local.value != found:
        raise CoreError(f"the instruction has {found}, where the object's own types give {local.value}")


def _patch_immediate(code: bytearray, offset: int, local: Answer, value: int) -> None:
    found = struct.unpack_from("<i", code, offset + 4)[0]
    if local.value is not None:
        _check(replace(local, value=_signed(local.value, 32)), found)
    struct.pack_into("<i", code, offset + 4, _signed(value, 32))


def _patch_wide(code: bytearray, offset: int, local: Answer, value: int) -> None:
    low, high = (struct.unpack_from("<I", code, offset + at)[0] for at in (4, 12))
    if local.value is not None:
        _check(replace(local, value=local.value & (1 << 64) - 1), low | high << 32)
    struct.pack_into("<I", code, offset + 4, value & 0xFFFF_FFFF)
    struct.pack_into("<I", code, offset + 12, value >> 32 & 0xFFFF_FFFF)


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


# Specs


def parse_spec(btf: Btf, relocation: CoreRelocation, kind: RelocationKind) -> Spec:
    """Return what a relocation names in the object's own types."""
    if len(relocation.access) > MAX_PATH:
        length = len(relocation.access)
        raise CoreError(f"the path has {length} characters, 1 to {MAX_ACCESSES} steps are possible")
    count = relocation.access.count(":") + 1
    if count > MAX_ACCESSES:
        raise CoreError(f"the path has {count} steps, 1 to {MAX_ACCESSES} are possible")
    try:
        indices = [int(part) for part in relocation.access.split(":")]
    except ValueError:
        raise CoreError("the path is no list of numbers") from None
    if not all(0 <= index <= MAX_INDEX for index in indices):
        raise CoreError(f"a step of the path is not from 0 to {MAX_INDEX}")
    root = relocation.type
    if kind in TYPE_KINDS or kind in ENUM_KINDS:
        if len(indices) > 1 or (kind in TYPE_KINDS and indices[0]):
            raise CoreError("the path leads into what has no parts")
        if kind in ENUM_KINDS:
            enum = btf.resolve(root)
            if not enum.is_enum or indices[0] >= len(enum.enumerators):
                raise CoreError(f"{btf.describe(root)} has no value {indices[0]}")
        return Spec(btf, root, enumerator=indices[0])
    steps = [Access(root, indices[0])]
    bits = indices[0] * btf.size_of(root) * 8
    id = root
    for index in indices[1:]:
        type_ = btf.resolve(id)
        if type_.is_composite and index < len(type_.members):
            member = type_.members[index]
            bits += member.bit_offset
            if member.name:
                steps.append(Access(type_.id, index, member.name))
            id = member.type
        elif type_.kind is Kind.ARRAY and (index < type_.count or _is_flexible(btf, steps[-1], type_)):
            id = btf.resolve(type_.target).id
            steps.append(Access(id, index))
            bits += index * btf.size_of(id) * 8
        else:
            raise CoreError(f"{btf.describe(id)} has no part {index}")
    return Spec(btf, root, tuple(steps), bits)


def _is_flexible(btf: Btf, step: Access, array: Type) -> bool:
    """True for an array without a length that is the last member of the struct of `step`."""
    if step.name is None or array.count:
        return False
    return step.index == len(btf.type(step.type).members) - 1


def match_spec(kind: RelocationKind, local: Spec, id: int, comparison: Comparison) -> Spec | None:
    """Return what `local` names in the target's type `id`, None where that has no such thing."""
    target = comparison.target
    comparison.step()
    if kind in TYPE_KINDS:
        fits = comparison.types_match if kind is K.TYPE_MATCHES else comparison.types_fit
        return Spec(target, id) if fits(local.root, id) else None
    if kind in ENUM_KINDS:
        return _match_enumerator(local, id, comparison)
    spec = Spec(target, id)
    current = id
    for number, step in enumerate(local.steps):
        if step.name is not None:
            member = local.btf.type(step.type).members[step.index]
            found = _match_member(step.name, member.type, current, comparison, MAX_DEPTH)
            if found is None:
                return None
            bits, access, current = found
        else:
            if number:
                array = target.resolve(current)
                if array.kind is not Kind.ARRAY:
                    return None
                if step.index >= array.count and not _is_flexible(target, spec.steps[-1], array):
                    return None
                current = target.resolve(array.target).id
            access = Access(current, step.index)
            bits = step.index * target.size_of(current) * 8
        spec = replace(spec, steps=(*spec.steps, access), bit_offset=spec.bit_offset + bits)
    return spec


def _match_enumerator(local: Spec, id: int, comparison: Comparison) -> Spec | None:
    target = comparison.target
    comparison.step(1 + len(target.resolve(id).enumerators) // MEMBERS_OF_STEP)
    name = essential_name(local.btf.resolve(local.root).enumerators[local.enumerator][0])
    names = [essential_name(other) for other, _ in target.resolve(id).enumerators]
    return Spec(target, id, enumerator=names.index(name)) if name in names else None


def _match_member(
    name: str, local_type: int, id: int, comparison: Comparison, depth: int
) -> tuple[int, Access, int] | None:
    """Return where a member of that name is in a struct: (bits from its start, step, type).

    Members of anonymous structs and unions count as the struct's own.
    """
    type_ = comparison.target.resolve(id)
    comparison.step(1 + len(type_.members) // MEMBERS_OF_STEP)
    if not type_.is_composite or not depth:
        return None
    for index, member in enumerate(type_.members):
        if not member.name:
            found = _match_member(name, local_type, member.type, comparison, depth - 1)
            if found is not None:
                bits, access, next_id = found
                return member.bit_offset + bits, access, next_id
        elif member.name == name:
            if not comparison.fields_fit(local_type, member.type):
                return None
            return member.bit_offset, Access(type_.id, index, name), member.type
    return None


# Values


def answer_for(kind: RelocationKind, spec: Spec | None) -> Answer:
    """Return the value that a relocation asks for; without a spec, what stands for its absence."""
    if kind in EXISTENCE_KINDS:
        return Answer(int(spec is not None))
    if kind in TYPE_KINDS:
        if spec is None:
            return Answer(0)
        if kind is K.TYPE_SIZE:
            return Answer(spec.btf.size_of(spec.root))
        return Answer(spec.root, is_exact=False)
    if spec is None:
        return Answer(None)
    if kind is K.ENUMVAL_VALUE:
        enum = spec.btf.resolve(spec.root)
        value = enum.enumerators[spec.enumerator][1]
        if enum.kind is Kind.ENUM:  # old compilers do not say which enums are signed
            value = _signed(value, 32)
        return Answer(value, is_exact=value >= 0)
    return _field_answer(kind, spec)


def _field_answer(kind: RelocationKind, spec: Spec) -> Answer:
    btf, last = spec.btf, spec.steps[-1]
    if last.name is None:
        size = btf.size_of(last.type)
        match kind:
            case K.FIELD_BYTE_OFFSET:
                return Answer(spec.bit_offset // 8, size=size, type=last.type)
            case K.FIELD_BYTE_SIZE:
                return Answer(size)
            case _:
                raise CoreError("an element of an array is no member of a struct")
    member = btf.type(last.type).members[last.index]
    type_ = btf.resolve(member.type)
    is_bit_field = member.bit_size > 0
    if is_bit_field:
        start, size = _storage(spec.bit_offset, member.bit_size, type_.size)
    else:
        start, size = spec.bit_offset // 8, btf.size_of(type_.id)
    bits = member.bit_size or 8 * size
    match kind:
        case K.FIELD_BYTE_OFFSET if is_bit_field:
            return Answer(start, is_exact=False)
        case K.FIELD_BYTE_OFFSET:
            return Answer(start, size=size, type=type_.id)
        case K.FIELD_BYTE_SIZE:
            return Answer(size, is_exact=not is_bit_field)
        case K.FIELD_SIGNED:
            return Answer(int(type_.is_signed))
        case K.FIELD_LSHIFT_U64:
            return Answer(64 - (spec.bit_offset + bits - 8 * start), is_exact=not is_bit_field)
        case _:
            return Answer(64 - bits)


def _storage(bit_offset: int, bits: int, size: int) -> tuple[int, int]:
    """Return (start, size) in bytes of the aligned integer that a bit-field is read from."""
    while 0 < size <= 8:
        start = bit_offset // 8 // size * size
        if bit_offset + bits <= 8 * (start + size):
            return start, size
        size *= 2
    raise CoreError(f"no aligned integer holds the bit-field of {bits} bits at bit {bit_offset}")
