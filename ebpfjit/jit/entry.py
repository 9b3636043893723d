"""From Python into machine code and back: the block, the call, faults as exceptions."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

from ebpfjit.analysis.verified import Verified
from ebpfjit.bits import W64
from ebpfjit.errors import ExecutionError
from ebpfjit.jit import cpu
from ebpfjit.jit.code_buffer import CodeBuffer
from ebpfjit.jit.image import Image, relocate
from ebpfjit.jit.promises import Given, check
from ebpfjit.jit.recipe import Listing, Recipe
from ebpfjit.jit.routines import WORD, routines
from ebpfjit.jit.stages import done
from ebpfjit.once import import_alone, once
from ebpfjit.options import DEFAULTS, Options
from ebpfjit.program import Program
from ebpfjit.record import dataclass, field, replace
from ebpfjit.runtime import counters, faults
from ebpfjit.runtime.execution import (
    CODE_ADDRESS,
    MAX_ARGUMENTS,
    SLICE,
    Execution,
    HelperFunction,
    NativeHelper,
    callback_arguments,
)
from ebpfjit.runtime.memory import MAX_FRAMES, Region, active, address_of
from ebpfjit.runtime.shared import BEHIND, HEADER_SIZE, ROW_SIZE
from ebpfjit.runtime.world import Thrown, engine_of
from ebpfjit.translators.block import FAULTS, LEAVE_FUNCTION, LEAVE_PROGRAM, block_size, limit_place
from ebpfjit.translators.labels import COUNTERS, COUNTS, MAP_ROUTINES, host_symbol

_RUN = ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
"""The lock stays held, and an exception that the host has pending is raised after the call."""
_CALLBACK = ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p)

_BUFFERS = {
    name: tuple(WORD[f"{name}_{part}"] >> 3 for part in ("start", "size", "room"))
    for name in ("argument", "packet")
}
"""The words of the block that say where a buffer is, how large, and how much of it may be written."""

HEADER_WORDS, ROW_WORDS = HEADER_SIZE // 8, ROW_SIZE // 8

ENDLESS = (1 << 64) - 1 - SLICE

NO_FUNCTIONS: Mapping[int, HelperFunction] = MappingProxyType({})


def slices_of(limit: int | None) -> tuple[int, int]:
    """Return how many instructions the first slice of a run has, and how many there are behind it."""
    budget = ENDLESS if limit is None else min(limit, ENDLESS)
    first = min(budget, SLICE)
    return first, budget - first


def _row(region: Region) -> tuple[int, int, int, int]:
    """Return a region as machine code has it in a table."""
    return region.start, region.stop, region.writable, region.rights_address


class Run:
    """A run that machine code is in the middle of: its block and its regions.

    `words` are the block's, `address` is where it is.
    """

    def __init__(self, compiled: Compiled, execution: Execution, words: memoryview, address: int) -> None:
        self.compiled = compiled
        self.execution = execution
        self.words = words
        self.address = address
        self.space = execution.space
        self.space.before_access = self.follow_stack
        self.space.after_change = self.publish
        self.space.after_grant = self.publish_one
        self.space.after_revoke = self.withdraw
        self.space.spend = self.spend
        self._table = (ctypes.c_uint64 * 0)()
        self._ended = False
        self._order: list[int] = []  # the ids of the regions in the table, row by row
        self._rows: dict[int, int] = {}  # which row is whose, by those ids

    @classmethod
    def start(cls, compiled: Compiled, execution: Execution) -> Run:
        """Return a run that is about to start, in a block of its own.

        Raises ExecutionError where the code was promised more than the run has.
        """
        check(compiled.recipe, Given.of(execution, looks=bool(compiled.recipe.options.promises.proven)))
        block = bytearray(block_size(len(compiled.image.limits)))
        run = cls(compiled, execution, memoryview(block).cast("Q"), address_of(block))
        run._fill()
        run.publish()
        return run

    def _fill(self) -> None:
        execution = self.execution
        stack = execution.stack
        first, later = slices_of(execution.limit)
        words = {
            "stack_start": stack.start,
            "stack_top": stack.top,
            "stack_limit": stack.limit,
            "budget": first,
            "later": later,
            "frames_left": MAX_FRAMES - 1,
            "argument_1": execution.arguments[0],
            "argument_2": execution.arguments[1],
            "foreign": execution.world.foreign.table_address if execution.world is not None else 0,
        }
        if execution.mark is not None:
            words |= {"stop_cell": execution.mark.stops.address, "stops": execution.mark.count}
        for name, value in words.items():
            self.set_word(name, value)

    def word(self, name: str) -> int:
        """Return a word of the block, unsigned."""
        return self.words[WORD[name] >> 3]

    def set_word(self, name: str, value: int) -> None:
        """Set a word of the block."""
        self.words[WORD[name] >> 3] = value

    def call_function(self, address: int, arguments: tuple[int, ...]) -> int:
        """Run a function of the program for a helper that is being called; return its r0."""
        compiled = self.compiled
        if self.execution.mark is not None:
            self.execution.mark.check()  # helpers call what ends before its slice does, again and again
        target = address - CODE_ADDRESS
        if target not in compiled.verified.program.functions or compiled.image.callback is None:
            raise faults.bad_function(None, address)  # who called the helper adds the pc
        room = self.word("stack_start") - self.word("stack_limit")
        if not self.word("frames_left") or room < compiled.verified.frame_sizes[target]:
            raise faults.call_depth_exceeded(None, MAX_FRAMES)
        values = (ctypes.c_uint64 * MAX_ARGUMENTS)(*callback_arguments(arguments))
        enter = _CALLBACK(compiled.buffer.address + compiled.image.callback)
        leave = self.word("leave")
        self.set_word("leave", 0)
        try:
            result: int = enter(self.address, address, ctypes.addressof(values))
        except Exception as error:
            compiled.name_helper(error, self)
            raise
        finally:
            kind = FAULTS[self.word("fault_kind")]
            self.set_word("fault_kind", 0)
            self.set_word("leave", leave)
            ended, self._ended = self._ended, False
        if kind != "none":
            raise compiled.exception(self, kind)
        if ended:
            raise Thrown(result)
        return result

    def place(self) -> tuple[Program, int]:
        """Return the program, and the slot of the helper call that is going on."""
        return self.compiled.verified.program, self.compiled.fault_pc(self)

    def leave_function(self) -> None:
        """Make the function that called the helper exit once the helper has returned."""
        self.set_word("leave", LEAVE_FUNCTION)

    def leave_program(self) -> None:
        """Make the program, or the function that another helper called, exit once the helper has returned."""
        self._ended = True
        self.set_word("leave", LEAVE_PROGRAM)

    def budget_left(self) -> int | None:
        """Return how many instructions the run may still execute, None for no limit."""
        if self.execution.limit is None:
            return None
        beyond = max(self.execution.limit - ENDLESS, 0)  # a run does not live to need it
        return W64.signed(self.word("budget")) + self.word("later") + beyond

    def spend(self, instructions: int) -> None:
        """Pay for the work of a helper, from this slice first; who called it adds the pc to the fault."""
        left = self.budget_left()
        if left is None:
            return
        if left < instructions:
            raise faults.budget_exhausted(None, self.execution.limit)
        now = min(instructions, max(W64.signed(self.word("budget")), 0))
        self.set_word("budget", W64.wrap(self.word("budget") - now))
        self.set_word("later", max(self.word("later") - (instructions - now), 0))

    def follow_stack(self) -> None:
        """Take over how far down the stack is live now."""
        self.execution.stack.start = self.word("stack_start")

    def publish(self) -> None:
        """Give machine code the memory as it is now.

        The table is written over: nothing reads it while a helper runs. Where it is too small there is one of
        twice the size.
        """
        self._publish_buffers()
        stack = self.execution.stack.region
        regions = [region for region in self.space.own if region is not stack]
        words = [word for region in regions for word in _row(region)]
        if len(self._table) < HEADER_WORDS + len(words):
            self._table = (ctypes.c_uint64 * (HEADER_WORDS + 2 * len(words)))()
        start = ctypes.addressof(self._table) + HEADER_SIZE
        shared = self.space.shared
        then = shared.address if shared is not None else 0
        self._table[: HEADER_WORDS + len(words)] = [start, start + 8 * len(words), then, *words]
        self._order = [id(region) for region in regions]
        self._rows = {id_: row for row, id_ in enumerate(self._order)}
        if len(self._rows) < len(self._order):  # one is there twice: all are written at each change
            self._order, self._rows = [], {}
        self.set_word("regions", ctypes.addressof(self._table))

    def publish_one(self, region: Region) -> None:
        """Give machine code one more region: that costs the same however many there are."""
        end = HEADER_WORDS + ROW_WORDS * len(self._order)
        if not self._order or id(region) in self._rows or end + ROW_WORDS > len(self._table):
            self.publish()
            return
        self._table[end : end + ROW_WORDS] = [*_row(region)]
        self._table[BEHIND] += 8 * ROW_WORDS
        self._rows[id(region)] = len(self._order)
        self._order.append(id(region))

    def withdraw(self, region: Region) -> None:
        """Take a region away from machine code: the last one goes to its place."""
        row = self._rows.pop(id(region), None)
        if row is None:
            self.publish()
            return
        last = self._order.pop()
        if row != len(self._order):
            self._order[row], self._rows[last] = last, row
            at, end = (HEADER_WORDS + ROW_WORDS * each for each in (row, len(self._order)))
            self._table[at : at + ROW_WORDS] = [*self._table[end : end + ROW_WORDS]]
        self._table[BEHIND] -= 8 * ROW_WORDS

    def stop_watching(self) -> None:
        """Be told no more of what becomes of the memory."""
        space = self.space
        space.before_access = space.after_change = space.after_grant = space.after_revoke = space.spend = None

    def _publish_buffers(self) -> None:
        """Write down where the packet and the argument are, and how far into each an access may start.

        An argument with rights is a row of the table as well, which is asked.
        """
        execution, words = self.execution, self.words
        regions = {"argument": execution.argument, "packet": execution.packet}
        for name, region in [*regions.items()]:
            start_at, size_at, room_at = _BUFFERS[name]
            words[start_at] = region.start if region is not None else 0
            if region is not None and region.rights is not None:
                region = regions[name] = None
            size = words[size_at] = region.size if region is not None else 0
            words[room_at] = size if region is not None and region.writable else 0
        headers = execution.headers
        self.set_word("link_header", headers.link if headers else 0)
        self.set_word("network_header", headers.network if headers else 0)
        for index, (name, span, stores) in enumerate(self.compiled.image.limits):
            region = regions[name]
            room = region.size - span + 1 if region and (region.writable or not stores) else 0
            self.words[limit_place(index) >> 3] = max(room, 0)

    def finish(self) -> None:
        """Leave in the execution what a run leaves behind."""
        self.follow_stack()
        self.stop_watching()
        self.execution.budget_left = self.budget_left()


@dataclass(frozen=True)
class Compiled:
    """A program as machine code, ready to be called by any number of threads at once.

    `helpers` are the objects whose addresses are in the code, `assembled` is the listing that the
    image was made from, None where the image was found somewhere, or the program is large. `pins` keep the
    memory of the maps whose addresses are in the code, and `counts`: for each slot how often its call went to
    Python, or nothing where none does. `before` is other code of the program: runs come from there, and
    functions return to it.
    """

    recipe: Recipe
    image: Image
    buffer: CodeBuffer
    helpers: tuple[HelperFunction, ...] = field(repr=False)
    assembled: Listing | None = field(repr=False)
    pins: tuple[Any, ...] = field(default=(), repr=False)
    before: Compiled | None = field(default=None, repr=False)
    counts: ctypes.Array[ctypes.c_uint64] | None = field(default=None, repr=False)

    @property
    def entry(self) -> int:
        """The address at which `run` and the gate enter the program."""
        return self.buffer.address + self.image.entry

    @property
    def unlocked(self) -> bool:
        """True where runs go on without Python's lock."""
        return self.recipe.options.release_gil

    @property
    def verified(self) -> Verified:
        """The program, with its facts."""
        return self.recipe.verified

    def calls_out(self, pc: int) -> int:
        """Return how often the call at a slot went to Python so far, in this code and in what was before."""
        before = 0 if self.before is None else self.before.calls_out(pc)
        return before + (0 if self.counts is None else self.counts[pc])

    @cached_property
    def listing(self) -> Listing:
        """The assembly text; written anew where it was not kept."""
        if self.assembled is not None:
            return self.assembled
        import_alone("ebpfjit.jit.translation")
        from ebpfjit.jit.translation import listing_of

        return listing_of(self.recipe)

    def run(self, execution: Execution) -> int:
        """Run the program and return r0, unsigned; raises what the interpreter raises."""
        run = Run.start(self, execution)
        try:
            with active(run.space, execution.mark), engine_of(execution.world, run):
                if execution.function is not None:
                    return run.call_function(*execution.function)
                call = _RUN(routines().addresses["run"])
                result: int = call(run.address, self.entry, self.unlocked)
        except Exception as error:
            self.name_helper(error, run)
            if isinstance(error, ExecutionError):
                faults.name_line(error, self.verified.program)
            raise
        finally:
            run.finish()
        kind = FAULTS[run.word("fault_kind")]
        if kind != "none":
            raise faults.name_line(self.exception(run, kind), self.verified.program)
        return result

    def fault_pc(self, run: Run) -> int:
        """Return the pc of the fault, or of the helper call, that a run is at."""
        return self.pc_of(run.word("fault_place"))

    def pc_of(self, place: int) -> int:
        """Return the pc whose code called what returns to an address."""
        inside = place - self.buffer.address - 1
        if self.before is not None and not 0 <= inside < len(self.image.code):
            return self.before.pc_of(place)
        pc = self.image.pc_at(inside)
        assert pc is not None  # only code that belongs to an instruction reports faults or ends slices
        return pc

    def name_helper(self, error: Exception, run: Run) -> None:
        """Tell an exception from inside of a run where the helper is called that it came from."""
        if run.word("fault_place"):  # else it was raised before there was any code to come from
            pc = self.fault_pc(run)
            faults.locate(error, pc)
            faults.name_helper(error, self.verified.program, pc)

    def exception(self, run: Run, kind: str) -> ExecutionError:
        """Return the exception that the interpreter raises for the same fault."""
        program, pc = self.verified.program, self.fault_pc(run)
        address = run.word("fault_address")
        if kind == "illegal":
            fell_off = "control fell off the end of the program"
            return faults.illegal_instruction(pc, self.verified.illegal.get(pc, fell_off))
        instruction = program.slots[pc]
        assert instruction is not None  # code belongs to slots where instructions start
        match kind:
            case "memory" | "alignment":
                row = instruction.row
                assert row is not None  # an access is a known instruction
                if kind == "alignment":
                    return faults.alignment_fault(pc, address, row.size)
                access = faults.access_of(row)
                run.execution.stack.start = run.word("fault_stack")
                return faults.memory_fault(pc, address, row.size, access, run.space.regions)
            case "target":
                return faults.bad_target(instruction, len(program))
            case "function":
                return faults.bad_function(pc, address)
            case "budget":
                return faults.budget_exhausted(pc, run.execution.limit)
            case "depth":
                return faults.call_depth_exceeded(pc, MAX_FRAMES)
            case "audit" | "audit_map" | "audit_depth":
                import_alone("ebpfjit.jit.audit")
                from ebpfjit.jit.audit import failure

                return failure(program, self.listing.notes, kind, pc, address)
            case _:
                assert kind == "helper_missing"  # "raised" never comes back from the call
                return faults.helper_not_found(instruction)


def compile_program(
    verified: Verified,
    options: Options = DEFAULTS,
    helpers: Mapping[int, HelperFunction] = NO_FUNCTIONS,
    kfuncs: Mapping[int, HelperFunction] = NO_FUNCTIONS,
) -> Compiled:
    """Compile a program for this machine.

    `helpers` and `kfuncs` are bound now: a call of any other number is HelperNotFound when it is reached.
    Without `options.checked` a wrong program can crash the process. Raises JitUnavailable where machine code
    cannot be made or run here, and VerifierError for a program that is to be sound and is not (one whose
    image is found in the cache was).
    """
    cpu.target()
    if counters.are_on():
        options = replace(options, counted=True)
    recipe = Recipe(verified, options, _natives(helpers), _natives(kfuncs))
    cache = options.cache
    image = cache.find(recipe) if cache is not None else None
    kept = None
    if image is None:
        import_alone("ebpfjit.jit.translation")
        from ebpfjit.jit.translation import translated_anew

        recipe, kept, image = translated_anew(recipe)
        if cache is not None and not recipe.why_baseline:  # another time it may be what was asked for
            cache.keep(recipe, image)
    symbols = {f"helper_{number}": function for number, function in helpers.items()}
    symbols |= {f"kfunc_{number}": function for number, function in kfuncs.items()}
    called = {symbol: symbols[symbol] for symbol in image.slots if symbol in symbols}
    addresses = {symbol: _address_of(function) for symbol, function in called.items()}
    counts = (ctypes.c_uint64 * len(verified.program))() if COUNTS in image.slots else None
    if counts is not None:
        addresses[COUNTS] = ctypes.addressof(counts)
    if COUNTERS in image.slots:
        addresses[COUNTERS] = counters.counters_of(verified.program).address
    code = relocate(image, addresses | host_addresses() | _map_routines(image))
    buffer = CodeBuffer(code, guarded=options.harden)
    if os.environ.get("EBPFJIT_PERF"):
        import_alone("ebpfjit.jit.perf").tell(verified.program, image, buffer.address)
    done("map")
    pins = (counts, *(map_.pins for map_ in verified.program.maps))
    return Compiled(recipe, image, buffer, tuple(called.values()), kept, pins, counts=counts)


def _map_routines(image: Image) -> dict[str, int]:
    """Return the addresses of the routines of maps that an image calls: they are optimised code."""
    called = [symbol for symbol in image.slots if symbol.startswith(MAP_ROUTINES)]
    if not called:
        return {}
    import_alone("ebpfjit.jit.map_routines")
    from ebpfjit.jit.map_routines import map_routine_addresses

    return map_routine_addresses(called)


@once
def host_addresses() -> dict[str, int]:
    """Return where the routines are that programs reach through stubs."""
    addresses = routines().addresses
    return {host_symbol(name): addresses[name] for name in addresses}


def _natives(helpers: Mapping[int, HelperFunction]) -> dict[int, bool]:
    return {number: isinstance(function, NativeHelper) for number, function in helpers.items()}


def _address_of(function: HelperFunction) -> int:
    """Return what machine code is given: a function's address, or that of a Python object."""
    return function.address if isinstance(function, NativeHelper) else id(function)
