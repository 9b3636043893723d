"""What loads through pointers to the kernel's structs give, by the types that a program comes with.

    task->pid          a number
    task->mm           a pointer to struct mm_struct, which may be gone
    ctx->meta->seq     a pointer to struct seq_file, which is trusted as the struct that it stands in is

The types are those of the kernel that the program was loaded for (`load(btf=)`), else its own. Rules:
kernel/bpf/btf.c (btf_struct_walk, btf_struct_access, btf_ctx_access), kernel/bpf/verifier.c
(check_ptr_to_btf_access and the BTF_TYPE_SAFE lists), Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from ebpfjit.elf.btf import VOID, Btf, Kind, Type, essential_name
from ebpfjit.elf.contexts import BPF_TRACE_ITER, PREFIX
from ebpfjit.elf.map_structs import MAP, struct_of
from ebpfjit.elf.objects import members_of
from ebpfjit.elf.operations import member_of, structs_of
from ebpfjit.errors import LoadError
from ebpfjit.program import Program
from ebpfjit.runtime.attach import attachment
from ebpfjit.verifier import operations, traced
from ebpfjit.verifier.numbers import DOMAIN
from ebpfjit.verifier.refusals import Refused, Undecided
from ebpfjit.verifier.values import Pointer, Scalar, Value, fresh, unknown

_STRUCTS = frozenset({Kind.STRUCT, Kind.UNION})
_NUMBERS = frozenset({Kind.INT, Kind.ENUM, Kind.ENUM64, Kind.FLOAT})
_TRUSTED = frozenset({"trusted"})
_DEEPEST = 16
"""Structs in structs."""

_TRUSTED_MEMBERS: Mapping[str, frozenset[str]] = {
    "bpf_iter_meta": frozenset({"seq"}),
    "bpf_iter__task": frozenset({"meta", "task"}),
    "linux_binprm": frozenset({"file"}),
    "file": frozenset({"f_inode"}),
}
_TRUSTED_OR_NULL: Mapping[str, frozenset[str]] = {
    "socket": frozenset({"sk"}),
    "dentry": frozenset({"d_inode"}),
}
_RCU_MEMBERS: Mapping[str, frozenset[str]] = {
    "task_struct": frozenset({"cpus_ptr", "cgroups", "real_parent", "group_leader"}),
    "cgroup": frozenset({"kn"}),
    "css_set": frozenset({"dfl_cgrp"}),
    "cgroup_subsys_state": frozenset({"cgroup"}),
}
_RCU_OR_NULL: Mapping[str, frozenset[str]] = {
    "mm_struct": frozenset({"exe_file"}),
    "sk_buff": frozenset({"sk"}),
    "request_sock": frozenset({"sk"}),
}
"""Members that are as trusted as what they are loaded from, or while RCU is held (BTF_TYPE_SAFE)."""

_TAGS = frozenset({"user", "percpu", "rcu"})
"""Tags of pointers in the kernel's types that say whose memory they point to."""

_OF_TRUSTED = frozenset({"trusted", "rcu", "alloc", "borrowed"})

_PROMOTED: Mapping[tuple[str, str], str] = {("tcp_congestion_ops", "sock"): "tcp_sock"}
"""What operations of a struct are given is more than the prototype says (bpf_tcp_ca_is_valid_access)."""

_NEVER_NULL = frozenset({"meta", "map"})
"""Arguments of iterators that are there on each call, the one behind the last object too."""

_MAY_MISS = frozenset({("bpf_iter__bpf_map", "map")})
_BUFFERS = {"key": frozenset({"rdonly"}), "value": frozenset[str]()}
"""Arguments of iterators of maps that are memory of a map, and what is so of it."""


class KernelTypes:
    """The structs that a program's types tell of. What they do not tell is Undecided."""

    def __init__(self, program: Program) -> None:
        self.program = program

    @cached_property
    def _types(self) -> tuple[Btf, ...]:
        """Types of the kernel, and the program's own, as far as there are any."""
        found = [] if self.program.kernel_types is None else [self.program.kernel_types]
        if self.program.types is not None:
            found.append(Btf(self.program.types.btf, "BTF"))
        return tuple(found)

    def _struct(self, name: str) -> tuple[Btf, Type]:
        try:
            for types in self._types:
                for id in types.named(name, _STRUCTS):
                    if types.type(id).size:
                        return types, types.type(id)
        except LoadError as error:
            raise Undecided(f"its types are damaged: {error}") from error
        raise Undecided(f"its types do not say what is in struct {name}: give load(btf=)", goes_on=True)

    def must_be_relocated(self, pc: int) -> None:
        """Raise Undecided for a load whose offset was compiled in: a kernel may have something else there."""
        if pc not in self.program.relocations and self.program.kernel_types is None:
            raise Undecided(
                "the offset of a member of the kernel's struct is compiled in, so that it says nothing of "
                "another kernel: preserve_access_index lets CO-RE find it",
                goes_on=True,
            )

    def load(self, pointer: Pointer, offset: int, size: int, *, has_rcu: bool = False) -> Value:
        """Return what a load through a pointer to a struct gives; RCU may be held.

        Raises Refused, Undecided.
        """
        if not pointer.what:
            raise Undecided("its types do not say what a pointer of the kernel's points to", goes_on=True)
        types, struct = self._struct(pointer.what)
        try:
            return walked(types, struct, pointer, offset, size, has_rcu=has_rcu)
        except LoadError as error:
            raise Undecided(f"its types are damaged: {error}") from error

    def of_map(self, map_: Any, offset: int, size: int) -> Value:
        """Return what a load through the address of a map gives. Raises Refused, Undecided."""
        name = struct_of(map_.definition.type)
        if not any(types.type(id).size for types in self._types for id in types.named(name, _STRUCTS)):
            name = MAP
        return self.load(Pointer("btf_id", name), offset, size)

    def writes_to(self, pointer: Pointer) -> bool:
        """True where the program may write to something of the struct that a pointer points to."""
        found = operations.written_by(self.program)
        return found is None or (
            str(pointer.what).removesuffix("___init") == _whole(found) and "untrusted" not in pointer.flags
        )

    def store(self, offset: int, size: int) -> None:
        """Hold a store to the struct of the kernel's that the program writes to against what it may write.

        Raises Refused, Undecided.
        """
        found = operations.written_by(self.program)
        if found is None:
            raise Undecided("which fields an operation may write to, its struct says in Linux", goes_on=True)
        name = _whole(found)
        types, struct = self._struct(name)
        try:
            for start, stop, is_inside in self._written(types, struct, found):
                if start == offset or (is_inside and start < offset < stop):
                    if offset + size <= stop:
                        return
                    said = f"write access at off {offset} with size {size} beyond the member"
                    raise Refused("memory", f"{said} of {name} ended at {stop}")
        except LoadError as error:
            raise Undecided(f"its types are damaged: {error}") from error
        raise Refused("memory", f"no write support to {name} at off {offset}")

    def _written(self, types: Btf, struct: Type, rules: operations.Rules) -> Iterator[tuple[int, int, bool]]:
        """Return from where to where the members lie that operations write to, and whether parts may be."""
        for name in rules.written or {}:
            for path in (rules.written or {})[name]:
                if path == operations.WHOLE:
                    yield 0, struct.size, True
                    continue
                there, at, size = _outermost(types, struct, name), 0, 0
                for part in path.split("."):
                    found = {each.name: (each, bit) for each, bit in members_of(types, there)}
                    if part not in found:
                        said = f"its types do not say where {name}.{path} is: give load(btf=)"
                        raise Undecided(said, goes_on=True)
                    at += found[part][1] // 8
                    size = types.size_of(found[part][0].type)
                    there = types.resolve(found[part][0].type)
                yield at, at + size, path in rules.inside

    def named_by(self, id: int) -> str:
        """Return the name of the struct that has a number in the kernel's types; "" for void.

        Raises Refused, Undecided.
        """
        types = self.program.kernel_types
        if types is None:
            raise Undecided("which struct of the kernel has a number, its types say", goes_on=True)
        try:
            found = types.resolve(id)
        except LoadError:
            found = None
        if found is VOID and not id:
            return ""
        if found is None or found.kind not in _STRUCTS:
            raise Refused("type", "kfunc bpf_rdonly_cast type ID argument must be of a struct or void")
        return essential_name(found.name)

    def size_of(self, name: str) -> int:
        """Return how many bytes a struct of the kernel's has. Raises Undecided."""
        if self.program.kernel_types is None:
            said = f"how large a struct {name} is, the kernel's types say: give load(btf=)"
            raise Undecided(said, goes_on=True)
        return self._struct(name)[1].size

    def most_processors(self, otherwise: int) -> int:
        """Return NR_CPUS of the kernel that the program is for, `otherwise` where its types do not say it."""
        types: Btf | None = self.program.kernel_types
        if types is None or not types.named("bpf_get_smp_processor_id", {Kind.FUNC}):
            return otherwise  # its own types, in which it may say what it likes of struct cpumask
        found = types.named("cpumask", _STRUCTS)
        return 8 * types.size_of(found[0]) if found else otherwise

    def begins_with(self, name: str, offset: int, wanted: str) -> bool:
        """True where a struct of that name is at an offset of another, which is one itself."""
        try:
            types, struct = self._struct(name)
            for _ in range(_DEEPEST):
                if not offset and essential_name(struct.name) == wanted:
                    return True
                inside = [
                    (types.resolve(member.type), bit // 8)
                    for member, bit in members_of(types, struct)
                    if not bit % 8 and types.resolve(member.type).kind in _STRUCTS
                ]
                found = [each for each in inside if each[1] <= offset < each[1] + each[0].size]
                if not found:
                    return False
                struct, offset = found[0][0], offset - found[0][1]
        except LoadError as error:
            raise Undecided(f"its types are damaged: {error}") from error
        return False

    def argument(self, offset: int, size: int) -> Value:
        """Return what a load from a context of arguments gives. Raises Refused, Undecided."""
        program = self.program
        if program.type == "struct_ops":
            return self._of_operation(offset, size)
        attached = attachment(program.type, program.section)
        if program.type == "tracing" and attached.type == BPF_TRACE_ITER and attached.is_said:
            return self._of_iterator(PREFIX + attached.target.partition("/")[0], offset, size)
        if program.type in ("tracing", "lsm") and attached.is_said:
            try:
                return traced.argument(program, offset, size)
            except LoadError as error:
                raise Undecided(f"its types are damaged: {error}") from error
        raise Undecided("what an argument is, the types of the kernel say: not decided yet", goes_on=True)

    def _operations(self) -> Iterator[tuple[Btf, str, Type]]:
        """Return the prototypes that a program of an operation may have, with the struct of each."""
        names, member = structs_of(self.program), member_of(self.program)
        for types in self._types:
            for name in names:
                for id in types.named(name, _STRUCTS):
                    places = {each.name: each.type for each in types.type(id).members}
                    pointer = types.resolve(places[member]) if member in places else VOID
                    said = types.resolve(pointer.target) if pointer.kind is Kind.PTR else VOID
                    if said.kind is Kind.FUNC_PROTO:
                        yield types, name, said

    def operation_gives_nothing(self) -> bool:
        """True where the operation that a program is returns nothing."""
        try:
            return any(types.resolve(said.target) is VOID for types, _, said in self._operations())
        except LoadError:
            return False

    def _of_operation(self, offset: int, size: int) -> Value:
        number, rest = divmod(offset, 8)
        if rest:
            raise Refused("memory", f"func '{member_of(self.program)}' offset {offset} is not multiple of 8")
        for types, name, said in self._operations():
            if number >= len(said.parameters):
                member = member_of(self.program)
                raise Refused("memory", f"func '{member}' doesn't have {number + 1}-th argument")
            target = types.resolve(said.parameters[number][1])
            if target.kind in _NUMBERS:
                return Scalar(DOMAIN.sized(size))
            inner = types.resolve(target.target) if target.kind is Kind.PTR else VOID
            if inner.kind in _STRUCTS and size != 8:
                raise Refused("memory", f"func '{member_of(self.program)}' size {size} must be 8")
            if inner.kind in _STRUCTS:
                struct = essential_name(inner.name)
                null = number in operations.nullable(name, member_of(self.program))
                return Pointer(
                    "btf_id",
                    _PROMOTED.get((name, struct), struct),
                    id=fresh() if null else 0,
                    null=null,
                    flags=_TRUSTED,
                )
        raise Undecided("its types do not say what the operation is called with", goes_on=True)

    def _of_iterator(self, name: str, offset: int, size: int) -> Value:
        types, struct = self._struct(name)
        for member, bit in members_of(types, struct):
            target = types.resolve(member.type)
            room = types.size_of(member.type)
            if not bit // 8 <= offset < bit // 8 + room:
                continue
            if target.kind in _NUMBERS and offset % size == 0:
                return Scalar(DOMAIN.sized(size))
            inner = types.resolve(target.target) if target.kind is Kind.PTR else VOID
            if member.name in _BUFFERS and target.kind is Kind.PTR and (offset, size) == (bit // 8, 8):
                return Pointer("buf", id=fresh(), null=True, flags=_BUFFERS[member.name])
            if inner.kind not in {*_STRUCTS, Kind.FWD}:
                break
            if (offset, size) != (bit // 8, 8):
                break
            null = member.name not in _NEVER_NULL or (name, member.name) in _MAY_MISS
            named = essential_name(inner.name)
            return Pointer("btf_id", named, id=fresh() if null else 0, null=null, flags=_TRUSTED)
        raise Undecided(f"its types do not say what struct {name} has there", goes_on=True)


def _whole(rules: operations.Rules) -> str:
    """Return the struct that a program may write to, with those that it begins with; "": none."""
    return next(reversed(list(rules.written or ())), "")


def _outermost(types: Btf, struct: Type, name: str) -> Type:
    """Return the struct of a name that another one begins with, or is. Raises Undecided."""
    for _ in range(_DEEPEST):
        if essential_name(struct.name) == name:
            return struct
        if not struct.members:
            break
        struct = types.resolve(struct.members[0].type)
    raise Undecided(f"its types do not say where struct {name} is: give load(btf=)", goes_on=True)


def walked(
    types: Btf,
    struct: Type,
    pointer: Pointer,
    offset: int,
    size: int,
    *,
    is_whole: bool = False,
    has_rcu: bool = False,
) -> Value:
    """Return what `size` bytes at an offset of a struct are (btf_struct_walk).

    `is_whole`: the types tell of all of its members. `has_rcu`: RCU is held.
    """
    name, at = struct.name, offset
    flags: set[str] = set()
    for _ in range(_DEEPEST):
        if struct.kind is Kind.UNION and len(struct.members) != 1:
            flags.add("untrusted")  # which member it is, nobody knows
        if at + size > struct.size:
            last = _last(types, struct, at)
            if last is not None and last[0].kind is Kind.INT:
                return Scalar(DOMAIN.sized(size))
            if last is not None and last[0].kind is Kind.STRUCT and last[0].size:
                struct, at = last[0], (at - last[1]) % last[0].size
                continue
            said = f"access beyond struct {name} at off {offset} size {size}"
            raise Refused("memory", said, f"it has {struct.size} bytes")
        found = None
        for member, bit in members_of(types, struct):
            start, room = bit // 8, types.size_of(member.type)
            if member.bit_size:
                if start <= at and at * 8 < bit + member.bit_size:
                    return Scalar(DOMAIN.sized(size))
                continue
            if start <= at < start + room:
                found = member, start, room
                break
        if found is None and is_whole:
            raise Refused("memory", f"struct {struct.name} doesn't have field at offset {at}")
        if found is None:
            return unknown()  # bytes that no member has
        member, start, room = found
        inner, stop = types.resolve(member.type), start + room
        while inner.kind is Kind.ARRAY:
            element = types.size_of(inner.target)
            if not element:
                break
            start += (at - start) // element * element
            inner = types.resolve(inner.target)
        if inner.kind in _STRUCTS:
            struct, at = inner, at - start
            continue
        is_pointer = inner.kind is Kind.PTR
        if at + size > stop and not is_pointer and "untrusted" not in pointer.flags:
            said = f"access beyond the end of member {member.name} in struct {name}"
            raise Refused("memory", f"{said} with off {offset} size {size}")
        if not is_pointer:
            return Scalar(DOMAIN.sized(size))
        if (at, size) != (start, 8):
            raise Refused("type", f"cannot access ptr member {member.name} with off {offset} size {size}")
        target = types.resolve(inner.target)
        if target.kind not in {*_STRUCTS, Kind.FWD}:
            return unknown()
        tag = types.type(inner.target)
        if tag.kind is Kind.TYPE_TAG and tag.name in _TAGS:
            flags.add(tag.name)
        return _followed(pointer, member.name, essential_name(target.name), flags, has_rcu=has_rcu)
    raise Undecided("its types have structs in structs without end")


def _last(types: Btf, struct: Type, at: int) -> tuple[Type, int] | None:
    """Return what a struct has any number of at its end, and where that begins; None: nothing so."""
    if not struct.members:
        return None
    member = struct.members[-1]
    array, start = types.resolve(member.type), member.bit_offset // 8
    if array.kind is not Kind.ARRAY or types.size_of(array.id) or at < start:
        return None
    return types.resolve(array.target), start


def _followed(pointer: Pointer, member: str, target: str, flags: set[str], *, has_rcu: bool) -> Value:
    """Return a pointer that was loaded from a member of what another one points to.

    `flags` are what the types say of the member (check_ptr_to_btf_access).
    """
    null, struct = False, pointer.what
    if "untrusted" in pointer.flags:
        flags = {"untrusted"}
    elif not (pointer.ref or pointer.flags & _OF_TRUSTED):
        flags -= {"rcu"}
    elif member in _TRUSTED_MEMBERS.get(struct, ()):
        flags.add("trusted")
    elif member in _TRUSTED_OR_NULL.get(struct, ()):
        flags.add("trusted")
        null = True
    elif not has_rcu:
        flags = {"untrusted"}
    elif member in _RCU_MEMBERS.get(struct, ()):
        flags.add("rcu")
    elif member in _RCU_OR_NULL.get(struct, ()):
        flags = flags - {"untrusted"} | {"rcu"}
        null = True
    else:
        null = "rcu" in flags
    return Pointer("btf_id", target, id=fresh() if null else 0, null=null, flags=frozenset(flags))
