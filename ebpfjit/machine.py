"""What the four machines of `ebpfjit.vm` share: a program, its helpers and memory, run by either engine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from ebpfjit.analysis import verifier as structural
from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import StackUsageCalculator, Verified, prepare
from ebpfjit.arguments import (
    check_context,
    check_environment,
    check_limit,
    check_repeat,
    checked_kfuncs,
    numbered,
)
from ebpfjit.errors import ExecutionError, JitUnavailable, TranslationError
from ebpfjit.interpreter import interpret
from ebpfjit.named import cut, few
from ebpfjit.once import import_alone, load_package
from ebpfjit.options import CHOSEN, Options
from ebpfjit.pickling import Functions, Here
from ebpfjit.program import Program
from ebpfjit.record import dataclass, replace
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.execution import Execution, HelperFunction, Stops, may_end_rights
from ebpfjit.runtime.kfuncs.given import given_functions
from ebpfjit.runtime.memory import Region
from ebpfjit.runtime.shared import SharedRegions
from ebpfjit.runtime.world import World
from ebpfjit.sealed import Entry, Sealed, inside, seal

if TYPE_CHECKING:
    from ebpfjit.arguments import Helpers, Kfuncs
    from ebpfjit.jit.entry import Compiled
    from ebpfjit.jit.gate import Mbuff
    from ebpfjit.listing.listing import Listing
    from ebpfjit.literals import AnyBuffer

VerifierFunction = Callable[[bytes], None]

_U32 = 1 << 32
_ADDRESSES = 1 << 64


Bytecode: TypeAlias = "Program | AnyBuffer"
"""A program, or the bytes of one."""


def _as_program(prog: Bytecode) -> Program:
    return prog if isinstance(prog, Program) else Program.from_bytes(_bytes_of(prog))


def _bytes_of(buffer: Any) -> bytes:
    return bytes(memoryview(buffer))


@dataclass(slots=True)
class _Plain:
    """A copy of a machine, which takes the calls that the gate does not understand."""

    machine: Any

    @property
    def compiled(self) -> Compiled:
        """The code that it runs."""
        compiled: Compiled = self.machine._compiled
        return compiled

    @compiled.setter
    def compiled(self, compiled: Compiled) -> None:
        self.machine._compiled = compiled


class _Function(Sealed):
    """A compiled machine's `execute_program_jit`, where it is called through the native gate."""

    __slots__ = ()

    def __init__(self, machine: Any) -> None:
        seal(self, Entry(_Plain(machine)))

    def __call__(self, *arguments: Any, **keywords: Any) -> int:
        """Run the machine code."""
        result: int = inside(self).plain.machine.execute_program_jit(*arguments, **keywords)
        return result


class _Chosen:
    """An option of a machine; where it is changed, programs that are compiled from then on have it."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, machine: Machine | None, owner: type) -> Any:
        return self if machine is None else getattr(machine._options, self._name)

    def __set__(self, machine: Machine, value: Any) -> None:
        machine._options = replace(machine._options, **{self._name: value})


class Machine:
    """What the four machines share.

    `prog` is bytecode (8 bytes a slot) or a `Program`, None until `set_program`. `mem` of their runs is the
    packet, and `mbuff` the metadata buffer: any buffer, written in place; of a read-only one, such as bytes,
    a store is a MemoryFault.

    `helpers` are those of `register_helper` by number or by Linux's name, `kfuncs` those of `register_kfunc`
    by BTF id or by name; `environment` is the world that helpers of Linux's find which are registered here.
    With `repeat` each call runs the program so often, each time on the memory as the run before has left it.
    There is no `context` whose fields could be set: that is for programs with a type.

    `limit` (or `instruction_limit`) is the budget of a run in instructions (None: no limit), charged for each
    basic block as it is entered. It is looked at where a function starts or ends, where a loop
    comes round and before a helper is called; a block there that the rest does not pay for raises
    BudgetExhausted. So a run that takes more than its limit never ends as if it had not. A branch that
    only chooses between short pieces of arithmetic costs as much as the longer one, whichever way it goes.
    `checked=False` leaves out all memory checks in machine code, as rbpf's and uBPF's JIT do: a
    wrong program can then read, write and crash the whole process. Trust the program, or leave it.

    `harden=True` keeps immediates of the program's choosing out of the machine code (two more
    instructions for each) and puts guard pages around it.

    `release_gil=True` runs machine code without Python's lock, so that other threads run meanwhile;
    helpers in Python take it back. It pays for programs that run for a microsecond or more.

    `optimize=False` translates the program as it stands: that takes a fraction of the time, and the
    program longer to run. `optimize=True` looks for all there is to save. Without either, machine code
    starts as the first and goes on as the second once its calls have taken about as long as that takes.

    `audit=True` is for who works on the compiler: machine code looks again at what analysis found, and ends
    with an AuditFailure where that does not hold.

    `cache` is a folder where machine code is kept for the next process: nobody else must be able to
    write there, as it is run.

    A machine may be called from several threads at once: each run has its own state. It pickles as
    bytecode, settings and helpers, and is compiled anew on arrival; memory that was allowed stays
    behind, so a machine with any does not pickle. Copies share such memory, and functions.
    """

    checked, harden, release_gil, optimize, audit = (_Chosen() for _ in CHOSEN)

    _shape: tuple[str, tuple[str, ...]]
    """What the native gate takes, and the names of the buffers."""
    _execute: ClassVar[Any] = None
    """The class's own `execute_program_jit`."""

    def __init__(
        self,
        prog: Bytecode | None = None,
        *,
        instruction_limit: int | None = None,
        limit: int | None = None,
        helpers: Helpers | None = None,
        kfuncs: Kfuncs | None = None,
        environment: Environment | None = None,
        context: Mapping[str, Any] | None = None,
        repeat: int = 1,
        checked: bool = True,
        harden: bool = False,
        cache: str | os.PathLike[str] | None = None,
        release_gil: bool = False,
        optimize: bool | None = None,
        audit: bool = False,
    ) -> None:
        self._take(limit, instruction_limit, helpers, kfuncs, environment, context, repeat)
        self._begin(prog, Options(checked, harden, release_gil, optimize, audit), cache)

    def _take(
        self,
        limit: int | None,
        instruction_limit: int | None,
        helpers: Helpers | None,
        kfuncs: Kfuncs | None,
        environment: Environment | None,
        context: Mapping[str, Any] | None,
        repeat: int,
    ) -> None:
        """Take what runs are given, under the names that `Program.run` has, checked as there."""
        check_limit(limit)
        check_environment(environment)
        check_context(context)
        check_repeat(repeat)
        if context:
            raise ValueError(
                "a machine's program gets memory, and no context whose fields could be set; context= is for "
                "run() and compile() of a program with a type"
            )
        if limit is not None and instruction_limit is not None:
            raise ValueError("limit and instruction_limit are two names of one option: give one of them")
        self._entry: _Function | None = None
        self.instruction_limit = instruction_limit
        self._limit = instruction_limit if limit is None else limit
        self._helpers: dict[int, HelperFunction] = {**numbered(helpers)}
        self._brought = checked_kfuncs(kfuncs)
        self._kfuncs: dict[int, HelperFunction] = {}
        self._environment = environment
        self._repeat = repeat

    def _begin(self, prog: Bytecode | None, options: Options, cache: str | os.PathLike[str] | None) -> None:
        self._options = options
        self.cache = cache
        self._verifier: VerifierFunction | None = None
        self._calculator: StackUsageCalculator | None = None
        self._allowed = SharedRegions()
        self._verified: Verified | None = None
        self._program: Program | None = None
        self._compiled: Compiled | None = None
        self._compile_wanted = False
        self._stops = Stops()
        if prog is not None:
            self._load(prog)

    def __repr__(self) -> str:
        if "_program" not in self.__dict__:
            return f"<{type(self).__name__} that was never made>"
        about = [str(self._program)[1:-1] if self._program is not None else "nothing loaded"]
        if self._helpers:
            about.append(f"helpers {few(map(str, self._helpers))}")
        if self._allowed:
            about.append(f"{len(self._allowed)} allowed regions")
        about.append("compiled" if self._compiled is not None else "not compiled")
        return cut(f"<{type(self).__name__}: {'; '.join(about)}>")

    def _settings(self) -> dict[str, Any]:
        """The keyword arguments that make such a machine."""
        given = {"limit": self._limit, "kfuncs": self._brought or None, "environment": self.environment}
        return {**given, "repeat": self.repeat, "cache": self.cache, **self._options.chosen}

    def __getstate__(self) -> dict[str, Any]:
        allowed = Here(
            tuple(self._allowed),
            f"a machine with allowed memory ({len(self._allowed)} regions) cannot be pickled: the memory is "
            f"this process's; register it on arrival",
        )
        asked = {"verifier": self._verifier, "stack usage calculator": self._calculator}
        return {
            "settings": {name: value for name, value in self._settings().items() if name != "kfuncs"},
            "brought": Functions("kfunc", self._brought),
            "helpers": Functions("helper", self._helpers),
            "kfuncs": Functions("kfunc", self._kfuncs),
            "asked": Functions("the machine's", asked),
            "allowed": allowed if allowed.value else None,
            "program": self.program,
            "compile": self._compile_wanted,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        type(self).__init__(self, None, **state["settings"], kfuncs=dict(state["brought"]) or None)
        self._helpers.update(state["helpers"])
        self._kfuncs.update(state["kfuncs"])
        self._verifier, self._calculator = state["asked"].values()
        for region in state["allowed"].value if state["allowed"] is not None else ():
            self._allowed.add(region)
        if state["program"] is not None:
            self._load(state["program"])
        self._compile_wanted = state["compile"]

    @property
    def instruction_limit(self) -> int | None:
        """The budget of a run in instructions, None for no limit; to be changed at any time."""
        return self._limit

    @instruction_limit.setter
    def instruction_limit(self, limit: int | None) -> None:
        if limit is not None and (not isinstance(limit, int) or limit <= 0):
            raise ValueError(f"instruction_limit is a positive number or None, not {limit!r}")
        self._limit = limit
        entry = self._entry
        if entry is not None:
            it: Entry = inside(entry)
            assert it.gate is not None  # it is opened at once
            with it.gate.lock.held:
                it.plain.machine.instruction_limit = limit
                it.gate.set_limit(limit)

    @property
    def environment(self) -> Environment | None:
        """The world of runs; for another one the program is compiled anew."""
        return self._environment

    @environment.setter
    def environment(self, environment: Environment | None) -> None:
        check_environment(environment)
        self._environment = environment
        self._forget_code()

    @property
    def repeat(self) -> int:
        """How often each call runs the program; for another number it is compiled anew."""
        return self._repeat

    @repeat.setter
    def repeat(self, repeat: int) -> None:
        check_repeat(repeat)
        self._repeat = repeat
        self._forget_code()

    @property
    def program(self) -> Program | None:
        """The loaded program."""
        return self._program

    def _load(self, prog: Bytecode) -> None:
        if not isinstance(prog, Program):
            prog = _bytes_of(prog)
        else:
            prog.refuse()
            prog.refuse_unmet(self._given_to(prog))
        self._verify(prog, self._verifier)
        program = _as_program(prog)
        self._verified = prepare(program, self._calculator)
        self._program = program
        self._forget_code()
        self._compile_wanted = False

    def _given_to(self, program: Program) -> dict[int, HelperFunction]:
        """Return the kernel functions that a program finds: those of `kfuncs`, and those registered."""
        return {**given_functions(program, self._brought), **self._kfuncs} if self._brought else self._kfuncs

    def set_program(self, prog: Bytecode) -> None:
        """Load a program: bytes-like or a Program. Raises VerifierError where it is refused."""
        self._load(prog)

    def _verify(self, prog: Program | bytes, verifier: VerifierFunction | None) -> None:
        if verifier is None:
            structural.check(prog)
        else:
            verifier(prog.to_bytes() if isinstance(prog, Program) else prog)

    def set_verifier(self, verifier: VerifierFunction) -> None:
        """Replace the verifier: verifier(prog: bytes) -> None, raising VerifierError to refuse.

        It is run at once on a loaded program; where it refuses, the old one stays. Raises TypeError for what
        cannot be called.
        """
        if not callable(verifier):
            raise TypeError(f"a verifier is a function, not {type(verifier).__name__}")
        if self._verified is not None:
            self._verify(self._verified.program, verifier)
        self._verifier = verifier

    def register_helper(self, key: int, function: HelperFunction) -> None:
        """Register a helper under `key`, a number (u32): function(r1, r2, r3, r4, r5) -> int, all u64.

        A Python callable, or a native address wrapped by NativeHelper. What it raises reaches the
        caller of the program unchanged. It counts for runs that begin later; a program that is compiled
        already is compiled anew before the next.
        """
        self._helpers = self._with(self._helpers, "helper", key, function)
        self._forget_code()

    def register_kfunc(self, btf_id: int, function: HelperFunction) -> None:
        """Register what `call` with src_reg 2 and `btf_id` (u32) calls; as `register_helper`."""
        self._kfuncs = self._with(self._kfuncs, "kfunc", btf_id, function)
        self._forget_code()

    def _with(
        self, table: dict[int, HelperFunction], what: str, key: int, function: HelperFunction
    ) -> dict[int, HelperFunction]:
        """Return a new table with one more: runs that are in progress keep the one that they began with."""
        if not isinstance(key, int):
            raise TypeError(f"a {what}'s number is an int, not {type(key).__name__}")
        if not 0 <= key < _U32:
            raise ValueError(f"a {what}'s number is from 0 to {_U32 - 1}, not {key}")
        if not callable(function):
            raise TypeError(f"a {what} is callable or a NativeHelper, not {type(function).__name__}")
        return {**table, key: function}

    def register_allowed_memory(self, memory: AnyBuffer | range) -> None:
        """Let programs touch more memory: a buffer, kept alive and in place, or range(start, stop).

        It counts at once, also in runs that are in progress: a helper may allow what it returns.
        A read-only buffer can be read. Whoever gives a range vouches for its addresses.
        Raises ValueError for memory that is empty or outside of the address space.
        """
        if isinstance(memory, range):
            fits = memory.step == 1 and 0 <= memory.start < memory.stop <= _ADDRESSES
            if not fits or memory.stop - memory.start > sys.maxsize:
                raise ValueError(f"allowed memory is a range of one address to {sys.maxsize}, not {memory}")
            region = Region.of_range("allowed memory", memory.start, memory.stop)
        else:
            region = Region.of_buffer("allowed memory", memory)
            if region.size == 0:
                raise ValueError("allowed memory is empty")
        self._allowed.add(region)

    def set_stack_usage_calculator(self, calculator: StackUsageCalculator) -> None:
        """Set how much stack functions take: calculator(prog: bytes, pc: int) -> int, in bytes.

        It is asked for each function of the program (pc 0 first), and answers 0 to 4096; rounded up to a
        multiple of 16. Without one each frame has 512 bytes. All live frames together have 4096 bytes. Raises
        LoadError at once where a loaded program's function gets another answer, TypeError for what cannot be
        called.
        """
        if not callable(calculator):
            raise TypeError(f"a stack usage calculator is a function, not {type(calculator).__name__}")
        if self._verified is not None:
            self._verified = prepare(self._verified.program, calculator)
            self._forget_code()
        self._calculator = calculator

    def jit_compile(self) -> None:
        """Compile the loaded program to machine code.

        Raises JitUnavailable where that cannot be done here; the interpreter works everywhere.
        """
        self._compile()
        self._compile_wanted = True

    def _compile(self) -> Compiled:
        """Compile the program and open the gate, where there is one; the code may tier up later."""
        load_package("ebpfjit.jit")
        from ebpfjit.jit.gate import why_not
        from ebpfjit.jit.tiers import decided

        # A subclass may have a method of its own, which stays in front.
        has_gate = (
            not why_not()
            and self.repeat == 1
            and getattr(type(self), "execute_program_jit", None) is type(self)._execute
        )
        options = decided(self._all_options(), counted=has_gate)
        compile_as = self._compiler()
        compiled = self._compiled = compile_as(options)
        improve = compile_as if options.optimize is None else None
        if has_gate and not self._open_gate(compiled, improve) and improve is not None:
            compiled = self._compiled = improve(options.better)
        return compiled

    def _open_gate(self, compiled: Compiled, better: Callable[[Options], Compiled] | None) -> bool:
        """Have `execute_program_jit` be called through the native gate; False where that cannot be.

        It then stands in the machine's own dictionary, in front of the method, which it calls on a
        copy of the machine where a call is unusual.
        """
        load_package("ebpfjit.jit")
        from ebpfjit.jit.callables import built_in, native_type, open_gate
        from ebpfjit.jit.gate import Gate
        from ebpfjit.jit.tiers import heat_of

        gate = Gate(
            compiled,
            *self._shape,
            limit=self._limit,
            allowed=self._memory(),
            checked=self._options.checked,
            mbuff=self._mbuff(),
            better=better,
            heat=heat_of(compiled.verified.program),
            stops=self._stops,
            world=None if self.environment is None else partial(World, self.environment),
        )
        if not gate.fits:
            return False
        machine = self._as_compiled(compiled)
        entry = native_type(_Function)(machine)
        open_gate(entry, gate, machine.execute_program_jit)
        self._entry = entry
        method = type(self).execute_program_jit  # type: ignore[attr-defined] # who has a gate has it
        self.__dict__["execute_program_jit"] = built_in(entry, method.__name__, method.__doc__)
        return True

    def _as_compiled(self, compiled: Compiled) -> Any:
        """Return a copy of the machine as it is now, with this code and without a gate."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy._forget_code()
        copy._compiled = compiled
        return copy

    def _mbuff(self) -> Mbuff | None:
        """What the gate is to make behind r1, if anything."""
        return None

    def _forget_code(self) -> None:
        """Drop the machine code: it is not that of the program any more."""
        self._compiled = None
        self._entry = None
        self.__dict__.pop("execute_program_jit", None)

    def _all_options(self) -> Options:
        """Return what was chosen, with what all runs have."""
        promises = Promises(
            self._argument_size(),
            moving=frozenset(number for number, each in self._helpers.items() if may_end_rights(each)),
            argument_is_measured=self._ARGUMENT_IS_PACKET,
            calling=frozenset() if self.environment is None else None,  # without a world nobody is asked
        )
        options = replace(self._options, promises=promises)
        if self.cache is None:
            return options
        import_alone("ebpfjit.jit.cache")
        from ebpfjit.jit.cache import Folder

        return replace(options, cache=Folder(self.cache))

    def _compiler(self) -> Callable[[Options], Compiled]:
        """Return what compiles the machine as it is now."""
        load_package("ebpfjit.jit")
        from ebpfjit.jit.entry import compile_program

        verified = self._loaded()
        helpers, kfuncs = dict(self._helpers), dict(self._given_to(verified.program))
        return partial(compile_program, verified, helpers=helpers, kfuncs=kfuncs)

    _ARGUMENT_IS_PACKET = False

    def _argument_size(self) -> int:
        """How many writable bytes every run has behind r1."""
        return 0

    def stop(self) -> None:
        """Have all runs of this machine, on either engine and in any thread, end with Stopped.

        Those that are going on now do so within a fraction of a second, unless they are inside of a helper
        that does not return. Runs that begin later run as ever.
        """
        self._stops.stop()

    def listing(self) -> Listing:
        """Return eBPF, assembly text and bytes side by side, of the code that runs in the end.

        It is a str, and has `.json()` and `.html()`; see `ebpfjit.Listing`. Of a program that cannot be
        compiled it shows what there is. Raises ExecutionError where none is loaded.
        """
        load_package("ebpfjit.jit")
        load_package("ebpfjit.listing")
        from ebpfjit.listing.listing import Listing
        from ebpfjit.listing.machine import render
        from ebpfjit.listing.program import uncompiled

        compiled = self._compiled
        if compiled is None:
            options = self._all_options()
            try:
                compiled = self._compiler()(replace(options, optimize=options.optimize is not False))
            except (JitUnavailable, TranslationError) as error:
                return Listing(uncompiled(self._loaded().program, str(error)))
        elif self._entry is not None:
            load_package("ebpfjit.jit")
            from ebpfjit.jit.callables import tier_up

            tier_up(self._entry)
            compiled = inside(self._entry).plain.compiled
        return render(compiled)

    def _loaded(self) -> Verified:
        if self._verified is None:
            raise ExecutionError("no program is loaded; set_program() loads one")
        return self._verified

    def _execution(self, argument: Region | None, regions: list[Region], packet: Region | None) -> Execution:
        return Execution(
            arguments=(argument.start, argument.size) if argument and argument.size else (0, 0),
            regions=regions,
            shared=self._memory(),
            packet=packet,
            argument=argument,
            helpers=self._helpers,
            kfuncs=self._given_to(self._loaded().program),
            limit=self._limit,
            checked=self._options.checked,
            mark=self._stops.mark(),
            world=None if self.environment is None else World(self.environment),
        )

    def _memory(self) -> SharedRegions:
        """Return what runs may touch besides their buffers: allowed memory, values of the program's maps."""
        maps = self._verified.program.maps if self._verified is not None else ()
        regions = [region for map_ in maps for region in map_.regions]
        return SharedRegions(regions, self._allowed) if regions else self._allowed

    def _interpret(self, start: Callable[..., Execution], *buffers: AnyBuffer) -> int:
        """Interpret the program, as often as it repeats, on these buffers; return the last r0."""
        for _ in range(self.repeat - 1):
            interpret(self._loaded(), start(*buffers))
        return interpret(self._loaded(), start(*buffers))

    def _run_compiled(self, start: Callable[..., Execution], *buffers: AnyBuffer) -> int:
        """Run the machine code, as often as it repeats, on these buffers; return the last r0."""
        for _ in range(self.repeat - 1):
            self._run_once(start(*buffers))
        return self._run_once(start(*buffers))

    def _run_once(self, execution: Execution) -> int:
        compiled = self._compiled  # read once: another thread may register a helper meanwhile
        if compiled is None:
            self._loaded()
            if not self._compile_wanted:
                raise ExecutionError("the program is not compiled; jit_compile() compiles it")
            compiled = self._compile()
        return compiled.run(execution)
