"""Global functions: each is verified by itself, from what its types say of its arguments.

    int f(struct xdp_md *c, u64 n, struct pair *p)    a context, some number, 16 bytes of memory or NULL

A caller holds what it gives against these, and knows nothing of the result (btf_prepare_func_args,
btf_check_func_arg_match). Static functions are walked from each of their callers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

from ebpfjit.elf.btf import NO_MEMBER, VOID, Btf, Kind, Type, essential_name
from ebpfjit.elf.types import EXCEPTION_CALLBACK
from ebpfjit.errors import LoadError
from ebpfjit.isa.spec import Kind as InstructionKind
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime.contexts.types import program_type
from ebpfjit.verifier import memory, structure
from ebpfjit.verifier.arguments import Dynptr, dynptr_at
from ebpfjit.verifier.kernel_functions import KernelFunction, kernel_functions
from ebpfjit.verifier.prototypes import Prototype, prototype
from ebpfjit.verifier.refusals import Refused, Undecided
from ebpfjit.verifier.state import State
from ebpfjit.verifier.values import Pointer, Poison, Scalar, Value, fresh, mark_precise, unknown

GLOBAL = 1
"""BTF_FUNC_GLOBAL."""

_MOST, _WORD = 5, 8
_MAY_END = {InstructionKind.PACKET_LOAD: "LD_ABS"}
_NUMBERS = frozenset({Kind.INT, Kind.ENUM, Kind.ENUM64})
_TAG = "arg:"
_TAGS = frozenset({"ctx", "nonnull", "trusted", "nullable", "untrusted", "arena"})
_OTHER_CONTEXTS: Mapping[str, frozenset[str]] = {
    "kprobe": frozenset({"pt_regs", "user_pt_regs", "user_regs_struct", "bpf_user_pt_regs_t"}),
    "perf_event": frozenset({"bpf_perf_event_data"}),
    "raw_tracepoint": frozenset({"bpf_raw_tracepoint_args"}),
    "raw_tracepoint_writable": frozenset({"bpf_raw_tracepoint_args"}),
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a function takes: "scalar", "ctx", "dynptr", "arena", "mem": `size` bytes; "bytes": what anything
    points to, read with care; or "trusted" and "untrusted": the kernel's struct `name`. `null`: or NULL.
    """

    kind: str
    size: int = 0
    null: bool = False
    name: str = ""


class Functions:
    """What is known of the functions of a program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._known: dict[int, tuple[Parameter, ...] | None] = {}

    def parameters(self, start: int) -> tuple[Parameter, ...] | None:
        """Return what a global function takes, None of a static one. Raises Refused, Undecided."""
        if start not in self._known:
            self._known[start] = self._parameters(start)
        return self._known[start]

    def values(self, start: int) -> list[Value]:
        """Return what a global function has in r0 to r5 at its start. Raises Undecided."""
        return [None, *(_given(each) for each in self.parameters(start) or ())]

    @cached_property
    def _types(self) -> Btf | None:
        info = self.program.types
        return None if info is None else Btf(info.btf, "BTF")

    @cached_property
    def _ids(self) -> dict[int, int]:
        info = self.program.types
        return {} if info is None else dict(info.functions)

    def thrown(self, start: int) -> list[Value]:
        """Return what the function has that an exception calls. Raises Refused, Undecided."""
        parameters = self.parameters(start)
        if parameters is not None and [each.kind for each in parameters] != ["scalar"]:
            raise Refused("call", "exception cb only supports single integer argument")
        return [None, _given(Parameter("scalar"))]

    def _parameters(self, start: int) -> tuple[Parameter, ...] | None:
        try:
            types = self._types
            if types is None or not self._ids.get(start):
                return None
            function = types.type(self._ids[start])
            if function.linkage != GLOBAL:
                return None
            return tuple(self._each(types, function))
        except LoadError as error:
            raise Undecided(f"its types are damaged: {error}") from error

    def _each(self, types: Btf, function: Type) -> Iterator[Parameter]:
        said, what = types.resolve(function.target), f"Global function {function.name}()"
        if len(said.parameters) > _MOST:
            raise Refused("call", f"{what} with {len(said.parameters)} > {_MOST} args. Buggy compiler.")
        if types.resolve(said.target).kind not in _NUMBERS:
            raise Refused("call", f"{what} doesn't return scalar. Only those are supported.")
        tags: dict[int, set[str]] = {}
        for tag, rest in types.tags(_TAG):
            if tag.target == function.id and tag.index != NO_MEMBER:
                tags.setdefault(tag.index, set()).add(rest)
        for index, (_, id) in enumerate(said.parameters):
            yield self._parameter(types, index, id, tags.get(index, set()), what)

    def _parameter(self, types: Btf, index: int, id: int, tags: set[str], what: str) -> Parameter:
        type_ = types.resolve(id)
        if tags - _TAGS:
            raise Refused("call", f"arg#{index} has unsupported set of tags")
        if tags and type_.kind is not Kind.PTR:
            raise Refused("call", f"arg#{index} has pointer tag, but is not a pointer type")
        if type_.kind in _NUMBERS:
            return Parameter("scalar")
        if type_.kind is not Kind.PTR:
            raise Refused("call", f"Arg#{index} type {types.describe(id)} in {what} is not supported yet.")
        target = types.resolve(type_.target)
        if "ctx" in tags or self._is_context(types, type_.target, target):
            _only(index, tags, {"ctx"})
            return Parameter("ctx")
        if target.name == "bpf_dynptr":
            _only(index, tags, set())
            return Parameter("dynptr")
        if "trusted" in tags or "untrusted" in tags:
            return self._struct(types, index, type_.target, tags, what)
        if "arena" in tags:
            _only(index, tags, {"arena"})
            return Parameter("arena")
        _only(index, tags, {"nonnull"})
        size = types.size_of(target.id) if target is not VOID and target.kind is not Kind.FWD else 0
        if not size:
            said = types.describe(type_.target)
            raise Refused("call", f"arg#{index} reference type('{said}') size cannot be determined")
        return Parameter("mem", size, null="nonnull" not in tags)

    def _struct(self, types: Btf, index: int, id: int, tags: set[str], what: str) -> Parameter:
        """Return what a pointer to a struct of the kernel's is."""
        target = types.resolve(id)
        _only(index, tags, {"trusted", "nullable"} if "trusted" in tags else {"untrusted"})
        if target.kind not in (Kind.STRUCT, Kind.UNION, Kind.FWD):
            if "untrusted" in tags and (target is VOID or target.kind in _NUMBERS):
                return Parameter("bytes")
            raise Undecided(f"{what}: arguments with the tag {min(tags)!r} are not decided but for structs")
        name = essential_name(target.name)
        kernel = self.program.kernel_types
        if kernel is not None and not kernel.named(name, frozenset({Kind.STRUCT, Kind.UNION})):
            said = f"arg#{index} reference type('{types.describe(id)}') has no matches"
            raise Refused("call", said, "name a struct of the kernel's")
        return Parameter("trusted" if "trusted" in tags else "untrusted", null="nullable" in tags, name=name)

    def _is_context(self, types: Btf, id: int, target: Type) -> bool:
        if self.program.type is None:
            return False
        kind = program_type(self.program.type)
        names = _OTHER_CONTEXTS.get(kind.name, frozenset())
        if kind.layout is not None:
            names |= {kind.layout.name}
        return target.name in names or types.type(id).name in names

    def wrong_tags(self) -> Iterator[structure.Error]:
        """Return what is wrong with the tags of the main function (bpf_find_exception_callback_insn_off)."""
        types, main = self._types, self._ids.get(0)
        if types is not None and main is not None:
            named = {rest for tag, rest in types.tags(EXCEPTION_CALLBACK) if tag.target == main}
            if len(named) > 1:
                yield 0, "structure", "multiple exception callback tags for main subprog", ""

    def wrong_endings(self) -> Iterator[structure.Error]:
        """Return the functions that an instruction may end, but which return no number (check_btf_func)."""
        types, starts = self._types, sorted(self.program.functions)
        seen: set[int] = set()
        for insn in self.program.instructions if types is not None else ():
            name = "" if insn.row is None else _MAY_END.get(insn.row.kind, "")
            if insn.row is not None and insn.row.kind is InstructionKind.CALL_HELPER:
                name = "tail_call" if insn.imm == structure.TAIL_CALL else ""
            start = structure.function_of(starts, insn.pc) if name else 0
            if not start or start in seen or start not in self._ids:
                continue
            seen.add(start)
            if types is not None and not self._returns_a_number(types, self._ids[start]):
                yield insn.pc, "structure", f"{name} is only allowed in functions that return 'int'.", ""

    def _returns_a_number(self, types: Btf, id: int) -> bool:
        try:
            result = types.resolve(types.resolve(types.type(id).target).target)
        except LoadError:
            return True  # Linux says more of damaged types
        return result.kind in _NUMBERS and result.size <= _WORD

    @cached_property
    def moving(self) -> frozenset[int]:
        """The functions that move packets, or call one that does."""
        return self._that_call(
            lambda takes: (
                takes.moves_packet or (isinstance(takes, Prototype) and takes.name == "bpf_tail_call")
            )
        )

    @cached_property
    def sleeping(self) -> frozenset[int]:
        """The functions that may sleep, or call one that does."""
        return self._that_call(lambda takes: takes.might_sleep)

    def _that_call(self, is_meant: Callable[[Prototype | KernelFunction], bool]) -> frozenset[int]:
        """Return the functions with a call of what is meant in them, or in one that they call."""
        type_ = self.program.type
        name = None if type_ is None else program_type(type_).name
        found: set[int] = set()
        called = structure.calls(self.program)
        starts = sorted(called)
        for insn in self.program.instructions:
            takes: Prototype | KernelFunction | None = None
            if insn.row is not None and insn.row.kind is InstructionKind.CALL_HELPER:
                takes = prototype(insn.imm, name)
            elif insn.row is not None and insn.row.kind is InstructionKind.CALL_KFUNC:
                named = self.program.kfuncs.get(insn.imm)
                takes = None if named is None else kernel_functions().get(named.name)
            if takes is not None and is_meant(takes):
                found.add(structure.function_of(starts, insn.pc))
        return frozenset(
            start for start in starts if start in found or found & structure.below(called, called[start])
        )


def _only(index: int, tags: set[str], allowed: set[str]) -> None:
    if tags - allowed:
        raise Refused("call", f"arg#{index} has invalid combination of tags")


def _given(parameter: Parameter) -> Value:
    match parameter.kind:
        case "scalar":
            value = unknown()
            mark_precise(value)
            return value
        case "ctx":
            return Pointer("ctx")
        case "mem":
            return Pointer("mem", size=parameter.size, id=fresh(), null=parameter.null)
        case "arena":
            return Pointer("arena")
        case "bytes":
            return Pointer("mem", flags=frozenset({"rdonly", "untrusted"}))
        case "dynptr":
            return Pointer("dynptr", Dynptr("local", 0, 0, fresh()))
    flags = frozenset({parameter.kind})
    return Pointer("btf_id", parameter.name, id=fresh(), null=parameter.null, flags=flags)


def check_call(setting: memory.Setting, state: State, parameters: tuple[Parameter, ...]) -> None:
    """Hold r1 to r5 against what a global function takes. Raises Refused."""
    for number, parameter in enumerate(parameters, 1):
        value = state.registers[number]
        if isinstance(value, Poison):
            continue
        if value is None:
            raise Refused(
                "uninitialised", f"R{number} !read_ok", "write the register on every path that leads here"
            )
        match parameter.kind:
            case "scalar":
                if not isinstance(value, Scalar):
                    raise Refused("type", f"R{number} is not a scalar")
            case "ctx":
                if (
                    not isinstance(value, Pointer)
                    or value.kind != "ctx"
                    or value.off
                    or value.var is not None
                ):
                    raise Refused("type", f"arg#{number - 1} expects pointer to ctx")
            case "dynptr":
                dynptr_at(state, number, value)
            case "mem":
                _memory(setting, state, number, parameter, value)
            case "arena":
                if isinstance(value, Pointer) and value.kind != "arena":
                    raise Refused("type", f"R{number} is not a pointer to arena or scalar.")
            case "trusted":
                _trusted(setting, number, parameter, value)


def _trusted(setting: memory.Setting, number: int, parameter: Parameter, value: Value) -> None:
    """Hold a register against a pointer to a struct of the kernel's."""
    if isinstance(value, Scalar) and value.number.is_known and not value.number.value and parameter.null:
        mark_precise(value)
        return
    expected = "ptr_, trusted_ptr_, rcu_ptr_"
    if not isinstance(value, Pointer) or value.kind != "btf_id" or value.flags - {"trusted", "rcu"}:
        raise memory.wrong_type(number, value, expected)
    if value.null and not parameter.null:
        raise memory.wrong_type(number, value, expected)
    if value.what == parameter.name and not value.off and value.var is None:
        return
    if setting.types is None or value.var is not None:
        raise Undecided("the types of the kernel say whether a struct begins with another", goes_on=True)
    if not setting.types.begins_with(value.what, value.off, parameter.name):
        raise Refused("type", f"R{number} is of type {value.what} but {parameter.name} is expected")


def _memory(setting: memory.Setting, state: State, number: int, parameter: Parameter, value: Value) -> None:
    if isinstance(value, Scalar):
        is_null = value.number.is_known and not value.number.value
        if is_null and parameter.null:
            return
        if is_null:
            raise Refused("null", f"arg#{number - 1} is expected to be non-NULL")
        raise memory.wrong_type(number, value, "fp, pkt, pkt_meta, map_key, map_value, mem")
    assert isinstance(value, Pointer)
    if value.null and not parameter.null:
        raise Refused("null", f"arg#{number - 1} is expected to be non-NULL")
    there = value.but(null=False) if value.null else value
    for writes in (False, True):
        memory.region(
            setting, state, number, there, parameter.size, reads=not writes, writes=writes, packet_access=True
        )
