"""What a program needs: a walk over its instructions, its maps, its section and its types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from ebpfjit.analysis.cfg import is_inside, loop_headers
from ebpfjit.compatibility import lookup
from ebpfjit.compatibility.lookup import Answer, Caller, unknown
from ebpfjit.compatibility.need import Evidence, Kind, Need, need
from ebpfjit.compatibility.reached import Ways
from ebpfjit.compatibility.release import OLDEST, Release
from ebpfjit.compatibility.tables import kernel
from ebpfjit.elf import builtins
from ebpfjit.elf.btf import Btf, Type
from ebpfjit.elf.btf import Kind as BtfKind
from ebpfjit.errors import EbpfError
from ebpfjit.isa.spec import Kind as Shape
from ebpfjit.isa.spec import Reference
from ebpfjit.program import SLOT_SIZE, Instruction, Program
from ebpfjit.runtime import faults
from ebpfjit.runtime.attach import SLEEPABLE, XDP_FRAGS, attachment
from ebpfjit.runtime.contexts.types import TYPES
from ebpfjit.runtime.helpers.licenses import describe, restricted_calls
from ebpfjit.runtime.helpers.names import NAMES, NUMBERS
from ebpfjit.runtime.maps.definition import MapDefinition

TAIL_CALL = NUMBERS["bpf_tail_call"]
_STORAGES = frozenset({"sk_storage", "inode_storage", "task_storage", "cgrp_storage"})
_POINTERS = frozenset({"kptr", "kptr_untrusted", "percpu_kptr"})
_UNSIZED = frozenset({"ringbuf", "user_ringbuf", "arena", "struct_ops"}) | _STORAGES
_IN_MAPS = (Reference.MAP_BY_INDEX, Reference.MAP_VALUE_BY_INDEX)
_ENUMERATORS = {"tc": "SCHED_CLS"}


def caller_of(program: Program) -> Caller:
    """Return what decides what a program may call."""
    known = TYPES.get(program.type or "")
    type_ = program.type if known is None else known.name.removesuffix(".frags")
    head, slash, target = (program.section or "").removeprefix("?").partition("/")
    what = attachment(type_, program.section)
    section = f"{head.removesuffix('.s')}{slash}{target}"
    operation = program.operation[0] if program.operation is not None else ""
    return Caller(type_, section, operation, bool(what.flags & SLEEPABLE))


class Needs:
    """The needs of one program, in the order in which they are found; each feature once."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.caller = caller_of(program)
        self.found: dict[tuple[str, str, str | None], Need] = {}
        self.ways = Ways(program)
        self.btf = _types_of(program)

    def find(self) -> tuple[Need, ...]:
        """Return all that the program needs."""
        self._add_type()
        self._add_instructions()
        self._add_fields()
        self._add_shape()
        self._add_maps()
        self._add_types()
        self._add_refusals()
        return tuple(self.found.values())

    def add(self, kind: Kind, feature: str, answer: Answer, pc: int | None = None, **others: Any) -> None:
        """Add a need, or one more place of it."""
        self._keep(need(kind, feature, answer, pc=pc, line=self.program.line_at(pc), **others))

    def _keep(self, made: Need) -> None:
        key = made.kind, made.feature, made.map
        known = self.found.get(key)
        if known is not None and made.is_needed and not known.is_needed:
            self.found[key] = replace(made, count=known.count + 1)
        else:
            self.found[key] = made if known is None else known.once_more()

    # The type

    def _add_type(self) -> None:
        program, caller = self.program, self.caller
        if caller.type is None:
            what = "no section of libbpf's says its type" if program.section else "nothing says its type"
            self.add("program type", "a program without a type", unknown(what))
            return
        name = f"BPF_PROG_TYPE_{_ENUMERATORS.get(caller.type, caller.type.upper())}"
        answer = lookup.program_type(caller.type)
        self.add("program type", f"program type {caller.type}", answer, evidence=("name", name))
        attached = lookup.attach_type(caller)
        if attached is not None:
            section, enumerator, answer = attached
            self.add("attach type", f'SEC("{section}")', answer, evidence=("name", enumerator))
        elif caller.type in ("tracing", "lsm"):
            what = f"its section {program.section!r} does not say what it is attached to"
            self.add("attach type", "an attach type", unknown(what))
        flags = attachment(program.type, program.section).flags
        if flags & XDP_FRAGS:
            self.add("flag", "packets in pieces (xdp.frags)", Answer(Release(kernel.FRAGS)))
        if caller.sleeps:
            self.add("flag", "it may sleep", lookup.sleeping(caller))
        self._add_target()

    def _add_target(self) -> None:
        """Add what the program is for, where its section or its object names that."""
        caller = self.caller
        head, target = caller.section.partition("/")[0], caller.target
        if caller.type == "struct_ops":
            struct = caller.operation
            answer = lookup.in_table(kernel.OPERATIONS, struct) if struct else unknown("nothing points to it")
            self.add("attach type", f"struct {struct or '?'}", answer, evidence=("struct", struct))
        elif head == "iter" and caller.type == "tracing":
            answer = (
                lookup.in_table(kernel.ITERATORS, target) if target else unknown("its section names none")
            )
            self.add(
                "attach type",
                f"iterator over {target or '?'}",
                answer,
                evidence=("function", f"bpf_iter_{target}"),
            )
        evidence: dict[str, Evidence] = {
            "fentry": ("function", target),
            "fexit": ("function", target),
            "fmod_ret": ("function", target),
            "tp_btf": ("typedef", f"btf_trace_{target}"),
            "lsm": ("function", f"bpf_lsm_{target}"),
            "lsm_cgroup": ("function", f"bpf_lsm_{target}"),
        }
        if head in evidence and target and caller.type in ("tracing", "lsm"):
            asked = Answer(None)
            self.add(
                "target", f"{evidence[head][1]} to attach to", asked, evidence=evidence[head], of_types=True
            )

    # Instructions

    def _add_instructions(self) -> None:
        program = self.program
        weak = {pc: kfunc for pc, (_, kfunc) in program.weak_kfuncs.items()}
        for pc, kfunc in weak.items():
            self._add_kfunc(kfunc.name, pc, is_needed=False)
        symbols = {pc: name for pc, name in program.kernel_symbols.items() if pc not in weak}
        for insn in program.instructions:
            row = insn.row
            if row is None:
                what = f"instruction with opcode {insn.opcode:#04x}, offset {insn.offset}, imm {insn.imm:#x}"
                self.add("instruction", what, unknown("no row of the instruction table is it"), insn.pc)
            elif row.kind is Shape.CALL_HELPER:
                self._add_call(insn)
            elif row.kind is Shape.CALL_KFUNC:
                called = program.kfuncs.get(insn.imm)
                if called is None:
                    self.add("kfunc", f"kernel function {insn.imm}", unknown("nothing names it"), insn.pc)
                else:
                    self._add_kfunc(called.name, insn.pc, is_needed=not called.is_weak)
            elif row.kind is Shape.LOAD_IMM64 and insn.pc in symbols:
                self._add_symbol(symbols[insn.pc], insn.pc)
            else:
                self._add_instruction(insn, row.operation)

    def _add_instruction(self, insn: Instruction, operation: str) -> None:
        found = lookup.instruction(operation)
        if found is not None:
            kind: Kind = "calls" if operation in ("CALL_LOCAL", "LDDW_CODE") else "instruction"
            self.add(kind, *found, insn.pc)
        elif operation.startswith(("LDABS", "LDIND")) and self.caller.type is not None:
            may = self.caller.type in kernel.PACKET_LOADERS
            answer = OLDEST if may else None
            reason = "" if may else f"programs of type {self.caller.type} may not have it"
            self.add("instruction", "packet load (LD_ABS, LD_IND)", Answer(answer, reason), insn.pc)

    def _add_call(self, insn: Instruction) -> None:
        number = insn.imm & 0xFFFFFFFF
        if number in faults.POISON:
            return  # nothing that is reached: `_add_types` tells what CO-RE did not find
        name = NAMES.get(number)
        if name is None:
            self.add(
                "helper",
                f"helper {number}",
                unknown("Linux up to 6.18 has no helper of that number"),
                insn.pc,
            )
            return
        evidence: Evidence = ("name", f"BPF_FUNC_{name.removeprefix(lookup.BPF)}")
        answer = lookup.helper(name, self.caller)
        is_needed = self._is_reached(insn.pc, answer.since)
        self.add("helper", name, answer, insn.pc, evidence=evidence, is_needed=is_needed)

    def _is_reached(self, pc: int, since: Release | None) -> bool:
        """Say whether a call is reached on kernels that lack what is called."""
        reached = self.ways.before(since)
        return reached is None or pc in reached

    def _add_kfunc(self, name: str, pc: int, *, is_needed: bool) -> None:
        answer = lookup.kfunc(name, self.caller)
        self.add("kfunc", name, answer, pc, evidence=("function", name), is_needed=is_needed)

    def _add_symbol(self, name: str, pc: int) -> None:
        """Add a variable of the kernel: its type is in the kernel's own types, or its address in kallsyms."""
        if self._is_untyped(name):
            return  # a loader reads /proc/kallsyms: any kernel will do
        answer = lookup.instruction("LDDW_VARIABLE")
        assert answer is not None
        found: Evidence = ("variable", name)
        is_needed = pc in self.program.unmet  # a weak one may be missing
        self.add(
            "variable", f"variable {name} of the kernel", answer[1], pc, evidence=found, is_needed=is_needed
        )

    def _is_untyped(self, name: str) -> bool:
        """True for a variable of the kernel that the object declares as void."""
        btf = self.btf
        with suppress(EbpfError):  # damaged types
            ids = btf.named(name, {BtfKind.VAR}) if btf is not None else []
            return btf is not None and bool(ids) and btf.resolve(btf.type(ids[0]).target).kind is BtfKind.VOID
        return False

    def _add_fields(self) -> None:
        """Add fields of the context that younger kernels have."""
        known = TYPES.get(self.program.type or "")
        layout = known.layout if known is not None else None
        if layout is None or layout.name not in kernel.CONTEXT_FIELDS:
            return
        since = lookup.releases(kernel.CONTEXT_FIELDS[layout.name])
        younger = [field for field in layout.fields if field.name in since]
        fields = {offset: field.name for field in younger for offset in range(field.offset, field.stop)}
        for pc, offset in self.ways.uses_of_context(fields):
            name = fields[offset]
            is_needed = self._is_reached(pc, since[name])
            self.add("context field", f"{layout.name}.{name}", Answer(since[name]), pc, is_needed=is_needed)

    # Calls, loops, size

    def _add_shape(self) -> None:
        program = self.program
        tail_calls = (
            insn
            for insn in program.instructions
            if insn.row is not None and insn.row.kind is Shape.CALL_HELPER and insn.imm == TAIL_CALL
        )
        tail_call = next(tail_calls, None)
        if tail_call is not None and any(
            insn.row and insn.row.kind is Shape.CALL_LOCAL for insn, _ in program.jumps
        ):
            since = Answer(Release(kernel.TAIL_CALLS_OF_FUNCTIONS))
            self.add("calls", "a tail call of a program with functions", since, tail_call.pc)
        for pc in back_edges(program):
            self.add("loop", "a loop", Answer(Release(kernel.LOOPS)), pc)
        slots = len(program)
        if slots > kernel.MOST_SLOTS:
            reason = f"a program has at most {kernel.MOST_SLOTS} slots"
            self.add("size", f"{slots} slots", Answer(None, reason))
        elif slots > kernel.SMALL_SLOTS:
            self.add("size", f"more than {kernel.SMALL_SLOTS} slots ({slots})", Answer(Release(kernel.LARGE)))

    # Maps

    def _add_maps(self) -> None:
        program = self.program
        first: dict[int, int] = {}
        for insn in program.instructions:
            if insn.row is not None and insn.row.reference in _IN_MAPS:
                first.setdefault(insn.imm, insn.pc)
        for number, map_ in enumerate(program.maps):
            pc = first.get(number)
            for made in needs_of_map(map_.definition, self.caller):
                self._keep(replace(made, pc=pc, line=program.line_at(pc)))

    # Types, CO-RE

    def _add_types(self) -> None:
        program = self.program
        if program.types is not None and self.btf is not None:
            since = Answer(Release(kernel.GLOBAL_FUNCTION))
            for start, id in program.types.functions[1:]:
                type_ = _type(self.btf, id)
                if type_ is not None and type_.linkage == 1:
                    feature = f"global function {type_.name}, verified on its own"
                    self.add("types", feature, since, start, is_needed=False)
        for pc in program.relocations:
            self.add("CO-RE", "CO-RE relocation", Answer(Release(kernel.CORE)), pc, is_needed=False)
        reached = self.ways.as_linked() if program.absent else None
        for pc, what in program.absent.items():
            missing, is_missing, _ = what.partition(" is not among the target's types")
            if is_missing and pc in program.relocations and (reached is None or pc in reached):
                self.add("CO-RE", missing, Answer(None, "it is not among the types of the target"), pc)

    def _add_refusals(self) -> None:
        program = self.program
        for name, call in restricted_calls(program).items():
            self.add(
                "license",
                f"{name} under a licence that is not the GPL",
                Answer(None, describe(program, name, call)),
                call.pc,
            )
        prefix = f"{program.origin}: "
        refused = {map_.name: str(map_.refused).removeprefix(prefix) for map_ in program.maps if map_.refused}
        sized = [
            text
            for map_ in program.maps
            if (text := refused.get(map_.name)) and not has_size(map_.definition)
        ]
        for error in program.refusals:
            text = str(error).removeprefix(prefix).splitlines()[0]
            if not any(each in text for each in sized):
                self.add("object", text, unknown("the object is not whole"))
        for map_ in program.maps:
            if map_.refused is None:
                continue
            name = map_.definition.name
            if not has_size(map_.definition):
                later = Answer(OLDEST)
                self.add(
                    "object", f"a size for map {name}, which it leaves to its loader", later, is_needed=False
                )
            elif lookup.map_type(map_.definition.type_name).is_known:
                self.add(
                    "object", refused[map_.name].splitlines()[0], unknown("the map is refused"), map=name
                )
        for start, name in program.functions.items():
            code = builtins.CODE.get(name)
            if code is not None and program.code[start * SLOT_SIZE :].startswith(code):
                reason = "the object does not define it, and only ebpfjit brings it along: libbpf does not"
                self.add("object", name, Answer(None, reason), start)


def _types_of(program: Program) -> Btf | None:
    """Return the types of a program's object, None where there are none, or damaged ones."""
    with suppress(EbpfError):
        return None if program.types is None else Btf(program.types.btf, "the object's BTF")
    return None


def _type(btf: Btf, id: int) -> Type | None:
    with suppress(EbpfError):
        return btf.type(id) if id else None
    return None


# Maps


def has_size(definition: MapDefinition) -> bool:
    """False for a map whose sizes the program that loads it sets first."""
    needs_value = definition.type_name not in _UNSIZED
    needs_entries = definition.type_name not in _STORAGES
    return bool((definition.value_size or not needs_value) and (definition.max_entries or not needs_entries))


def is_section(definition: MapDefinition) -> bool:
    """True for a map that is a section of variables, which loaders leave out where a kernel has none."""
    return definition.section == definition.name


def needs_of_map(definition: MapDefinition, caller: Caller | None = None) -> Iterator[Need]:
    """Yield what a map needs, of a program that uses it too where there is a `caller`.

    Of a section of variables that is what its special fields need: loaders do without the map.
    """
    yield from _needs_of_fields(definition, caller)
    if is_section(definition):
        return
    name = definition.name
    type_ = definition.type_name
    answer = lookup.map_type(type_)
    called = f"map {type_}" if type_.startswith("type ") else f"map type {type_}"
    yield need("map type", called, answer, map=name, evidence=("name", f"BPF_MAP_TYPE_{type_.upper()}"))
    for flag, answer in lookup.map_flags(definition.flags):
        yield need("map flag", flag, answer, map=name, evidence=("name", flag))
    if caller is not None and caller.sleeps:
        since = lookup.releases(kernel.MAPS_OF_SLEEPERS).get(type_)
        reason = "" if since else "programs that may sleep may not have it"
        yield need(
            "map type", f"map type {type_} in a program that may sleep", Answer(since, reason), map=name
        )
    if definition.inner is not None:
        yield from needs_of_map(definition.inner, caller)


def _needs_of_fields(definition: MapDefinition, caller: Caller | None) -> Iterator[Need]:
    """Yield what the kernel's fields in a map's values, or among variables, need."""
    in_section = is_section(definition)
    where = "among variables" if in_section else "in a map's values"
    for field in dict.fromkeys(special.kind for special in definition.special):
        answer = lookup.in_table(kernel.MAP_FIELDS, field)
        if field in _POINTERS and definition.type_name in _STORAGES:
            answer = answer.and_since(Release(kernel.POINTERS_IN_STORAGE))
        if in_section and field == "bpf_spin_lock":
            answer = answer.and_since(Release(kernel.LOCKS_OF_VARIABLES))
        if caller is not None and caller.type in kernel.REFUSED_FIELDS.get(field, ()):
            answer = Answer(None, f"programs of type {caller.type} may have no map with one")
        yield need("map field", f"{field} {where}", answer, map=definition.name)


def needs_of_types(kinds: Iterable[int]) -> Iterator[Need]:
    """Yield what kinds of BTF need; loaders leave out what a kernel does not know."""
    yield need("types", "BTF", Answer(Release(kernel.TYPES)), is_needed=False)
    for name in sorted({BtfKind(kind).name for kind in kinds} & kernel.TYPE_KINDS.keys()):
        since = Answer(Release(kernel.TYPE_KINDS[name]))
        yield need("types", f"BTF_KIND_{name}", since, is_needed=False)


# Loops


def back_edges(program: Program) -> list[int]:
    """Return the slots of the jumps that close loops: they lead to what is walked through still.

    That is what Linux before 5.3 looks for (check_cfg): a jump to an earlier slot alone is no loop.
    """
    if not loop_headers(program):
        return []
    ways = _ways(program)
    entered: set[int] = set()
    left: set[int] = set()
    found: dict[int, None] = {}
    for start in program.functions:
        path = [(start, iter(ways.get(start, ())))]
        entered.add(start)
        while path:
            at, rest = path[-1]
            following = next(rest, None)
            if following is None:
                left.add(at)
                path.pop()
            elif following not in entered:
                entered.add(following)
                path.append((following, iter(ways.get(following, ()))))
            elif following not in left:
                found[at] = None
    return sorted(found)


def _ways(program: Program) -> Mapping[int, tuple[int, ...]]:
    """Return the slots that each slot is followed by inside of its function."""
    found: dict[int, tuple[int, ...]] = {}
    for insn in program.instructions:
        row = insn.row
        if row is None or row.kind is Shape.EXIT:
            continue
        target = insn.target if row.has_target and row.kind is not Shape.CALL_LOCAL else None
        following = () if row.kind is Shape.JUMP else (insn.next_pc,)
        ways = following if target is None else (*following, target)
        found[insn.pc] = tuple(pc for pc in ways if is_inside(program, pc))
    return found
