"""Objects of the kernel as bytes: what an environment describes, laid out by BTF types for a run.

Environment (memory, structs, the process) + types  ->  Surroundings (ForeignMemory, where the process is)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ebpfjit.elf.btf import MAX_DEPTH, Btf, Kind, Member, Type
from ebpfjit.elf.budget import STEP
from ebpfjit.elf.codec import codec_of
from ebpfjit.elf.loader import read_btf
from ebpfjit.errors import ExecutionError, LoadError
from ebpfjit.record import dataclass
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.foreign import NOTHING, ForeignMemory
from ebpfjit.runtime.memory import flat_view
from ebpfjit.runtime.objects import CURRENT_TASK, FIRST_OF_RUN, WINDOW, KernelObject, KernelPointer
from ebpfjit.runtime.symbols import memory_of

STRUCTS = frozenset({Kind.STRUCT, Kind.UNION})
ALIGNMENT = 64
PACKETS: Mapping[str, Callable[[Mapping[str, Any]], tuple[int, int]]] = {
    "sk_buff": lambda skb: (skb.get("data", 0), skb.get("len", 0)),
    "xdp_buff": lambda xdp: (xdp.get("data", 0), xdp.get("data_end", 0) - xdp.get("data", 0)),
}
"""Where the packet of a struct is, and its bytes."""

MOST_KEPT = 16
"""How many layouts an environment keeps: one for each set of types that its programs have."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The memory around a run, the types that it was laid out by, and where the process is (0: nowhere)."""

    memory: ForeignMemory
    types: Btf | None = None
    current_task: int = 0


def surroundings(
    environment: Environment,
    types: Btf | None,
    *,
    needs_task: bool,
    of_run: Sequence[KernelObject] = (),
    looks: bool = False,
) -> Surroundings:
    """Return what is around a run of a program made for these types (None: it does not say).

    The process is laid out where the program `needs_task`. `of_run` are objects that the run comes with:
    without types they are nothing but zeros, which is an error where the program `looks` at them. Raises
    ExecutionError for an object that the types cannot lay out, LoadError and OSError for `Environment.btf`.
    """
    objects = list(environment.objects.all)
    if of_run:
        chosen = _types_of(environment) or types
        if looks and chosen is None:
            raise ExecutionError(_no_struct(of_run[0].pointer.struct, None))
        return _lay_out(environment, [*objects, *of_run], chosen, needs_task=needs_task)
    if not objects and not environment.memory and not environment.symbols and not needs_task:
        return Surroundings(NOTHING)
    chosen = _types_of(environment) or types
    kept = environment.objects.laid_out
    task = environment.current_task if needs_task else None
    # `dataclasses.replace` gives the objects to environments of other memory and symbols.
    said = environment.memory, environment.symbols
    key = chosen, len(objects), task, *map(id, said)
    made: Surroundings | None = kept.get(key, (None,))[0]
    if made is None:
        made = _lay_out(environment, objects, chosen, needs_task=needs_task)
        if all(isinstance(data, bytes) for data in environment.memory.values()):
            if len(kept) > MOST_KEPT:
                kept.clear()
            kept[key] = made, said  # as long as they are there, nothing else has their ids
    return made


def _types_of(environment: Environment) -> Btf | None:
    """Return the types that an environment has itself, read once."""
    kept = environment.objects.laid_out
    if environment.btf is not None and "btf" not in kept:
        kept["btf"] = environment.btf, read_btf(environment.btf)
    source, found = kept.get("btf", (None, None))
    if source is not environment.btf:  # `dataclasses.replace` made another of it
        found = read_btf(environment.btf)
    types: Btf | None = found
    return types


def _lay_out(
    environment: Environment, objects: list[KernelObject], types: Btf | None, *, needs_task: bool
) -> Surroundings:
    layout = _Layout(types)
    for described in objects:
        layout.add(described)
    task = environment.current_task
    address = task.address
    is_ours = needs_task and not address
    address = CURRENT_TASK if is_ours else address
    if is_ours:
        members = {
            "pid": task.pid,
            "tgid": task.tgid,
            "comm": task.name,
            "group_leader": address,
        }
        layout.add(KernelObject(KernelPointer(address, "task_struct"), members, lenient=True))
    try:
        variables = memory_of(environment.symbols, environment.cpus)
        memory = ForeignMemory(
            {**environment.memory, **layout.memory, **variables}, layout.paths, layout.packets
        )
    except ValueError as error:
        raise ExecutionError(f"{error}; objects are at {FIRST_OF_RUN:#x} and behind") from None
    return Surroundings(memory, types, address)


class _Layout:
    """Bytes of objects by address, as they are laid out one by one."""

    def __init__(self, types: Btf | None) -> None:
        self.types = types
        self.memory: dict[int, Any] = {}
        self.paths: dict[int, str] = {}
        self.packets: dict[int, tuple[int, int]] = {}
        self._end = 0

    def find(self, name: str) -> Type | None:
        """Return the struct or union of that name."""
        ids = self.types.named(name, STRUCTS) if self.types is not None else ()
        return self.types.type(ids[0]) if ids and self.types is not None else None

    def add(self, described: KernelObject) -> None:
        """Lay out one object."""
        pointer = described.pointer
        if described.data is not None:
            self.memory[pointer] = bytes(flat_view(described.data))
            return
        type_ = self.find(pointer.struct)
        if type_ is None or self.types is None:
            if described.lenient:  # nobody asks for it by name
                return
            if described.path is not None and pointer.struct == "path":  # its text is all there is to know
                self.memory[pointer] = bytes(16)
                self.paths[pointer] = described.path
                return
            raise ExecutionError(_no_struct(pointer.struct, self.types))
        offsets = dict(_offsets(self.types, type_))
        members = _with_itself(pointer, described.members) if "self" in offsets else described.members
        if described.lenient:
            members = {name: value for name, value in members.items() if name in offsets}
        self._end = pointer + -(-max(type_.size, 1) // ALIGNMENT) * ALIGNMENT
        self._check_room(pointer)  # the size is the file's: nothing is made of a damaged one
        try:
            values = self._values(type_, members)
            self.memory[pointer] = codec_of(self.types, type_.id).encode(values)
            if pointer.struct in PACKETS:
                self.packets[pointer] = PACKETS[pointer.struct](values)
        except (TypeError, ValueError, LoadError) as error:
            raise ExecutionError(f"struct {pointer.struct} of the environment: {error}") from None
        self._check_room(pointer)
        if described.path is not None:
            where = offsets.get("f_path", 0) if pointer.struct == "file" else 0
            self.paths[pointer + where // 8] = described.path

    def _check_room(self, pointer: KernelPointer) -> None:
        """Raise ExecutionError where what is laid out is more than an object may have."""
        if self._end > pointer + WINDOW:
            raise ExecutionError(f"struct {pointer.struct} of the environment takes more than {WINDOW} bytes")

    def _values(self, type_: Type, members: Mapping[str, Any]) -> dict[str, Any]:
        """Return the members; bytes and strings for pointers are put behind the struct."""
        assert self.types is not None  # whoever asks has a type
        found = {member.name: member for member, _ in members_of(self.types, type_)}
        values: dict[str, Any] = {}
        for name, value in members.items():
            member = self.types.resolve(found[name].type) if name in found else None
            if member is not None and isinstance(value, Mapping):
                value = self._values(member, value)
            elif member is not None and member.kind is Kind.PTR and not isinstance(value, int):
                value = self._put(value.encode() if isinstance(value, str) else bytes(flat_view(value)))
            values[name] = value
        return values

    def _put(self, data: bytes) -> int:
        """Put bytes, and a zero byte, behind what was laid out last; return where they are."""
        address = self._end
        self.memory[address] = data + b"\0"
        self._end += -(-(len(data) + 1) // ALIGNMENT) * ALIGNMENT
        return address


def _with_itself(pointer: KernelPointer, members: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the members of a cgroup, whose own css says that it is the cgroup's."""
    inside = members.get("self", {})
    if pointer.struct != "cgroup" or not isinstance(inside, Mapping):
        return members
    return {**members, "self": {"cgroup": int(pointer), **inside}}


def _no_struct(name: str, types: Btf | None) -> str:
    where = "neither the program nor the environment has types" if types is None else f"{types.name} has none"
    return (
        f"struct {name} of the environment cannot be laid out: {where}; give Environment(btf=) the types of"
        f" the kernel that the program is for, as load(btf=) takes them"
    )


def members_of(types: Btf, type_: Type) -> tuple[tuple[Member, int], ...]:
    """Return the members of a struct that have names, those of anonymous ones among them; and their bit.

    They are found once. Raises LoadError for structs in structs that go on for too long.
    """
    known = types.members.get(type_.id)
    if known is None:
        found: list[tuple[Member, int]] = []
        _add_members(types, type_, 0, MAX_DEPTH, found)
        known = types.members[type_.id] = tuple(found)
    return known


def _add_members(types: Btf, type_: Type, base: int, depth: int, found: list[tuple[Member, int]]) -> None:
    types.budget.spend(STEP * (1 + len(type_.members)), "the members of structs")
    for member in type_.members if depth else ():
        if member.name:
            found.append((member, base + member.bit_offset))
        elif (inner := types.resolve(member.type)).is_composite:
            _add_members(types, inner, base + member.bit_offset, depth - 1, found)


def _offsets(types: Btf, type_: Type) -> Iterator[tuple[str, int]]:
    """Yield the names of a struct's members, and the bit where each starts."""
    return ((member.name, bit) for member, bit in members_of(types, type_))


def check_layout(
    environment: Environment, used: Btf | None, types: Btf | None, of_run: Iterable[KernelObject] = ()
) -> None:
    """Raise ExecutionError where objects were laid out otherwise than a program's types say.

    `used` are the types that they were laid out by, `types` those that the program was made for (CO-RE).
    """
    if used is None or types is None or used is types:
        return
    for name in dict.fromkeys(each.pointer.struct for each in (*environment.objects.all, *of_run)):
        kept = environment.objects.laid_out
        key = "differs", used, types, name
        if key not in kept:
            kept[key] = _difference(name, used, types)
        if kept[key]:
            raise ExecutionError(kept[key])


def _difference(name: str, used: Btf, types: Btf) -> str:
    """Return in what a program's struct differs from the one that was laid out, "" for nothing."""
    mine, theirs = (each.named(name, STRUCTS) for each in (used, types))
    if not mine or not theirs:
        return ""
    laid_out = dict(_offsets(used, used.type(mine[0])))
    for member, bit in _offsets(types, types.type(theirs[0])):
        there = laid_out.get(member)
        if there == bit:
            continue
        where = "has no such member" if there is None else f"has it at byte {there // 8}"
        return (
            f"struct {name} was laid out for another kernel: the program reads member {member!r} at byte"
            f" {bit // 8} ({types.name}), and {used.name} {where}; give load(btf=) and Environment(btf=)"
            f" the same types"
        )
    return ""
