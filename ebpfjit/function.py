"""A compiled program as a Python function of one buffer; what `Program.compile` returns."""

from __future__ import annotations

import operator
import os
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, cast

from ebpfjit.bits import W64
from ebpfjit.once import import_alone, load_package
from ebpfjit.pickling import Functions
from ebpfjit.record import dataclass, field
from ebpfjit.runtime.execution import Execution, HelperFunction, Stops
from ebpfjit.runtime.memory import Region
from ebpfjit.sealed import Entry, Sealed, inside, seal

if TYPE_CHECKING:
    from ebpfjit.errors import ExecutionError, InputError
    from ebpfjit.jit.entry import Compiled
    from ebpfjit.listing.listing import Listing
    from ebpfjit.literals import AnyBuffer, Places
    from ebpfjit.options import Options
    from ebpfjit.program import Program
    from ebpfjit.runtime.changed import Changed


@dataclass(slots=True)
class Plain:
    """A compiled program, called in Python: (mem) -> r0.

    `helpers` and `kfuncs` are what whoever compiled it gave, `optimize` is as it was asked for. A call runs
    the program `repeat` times.
    """

    compiled: Compiled
    helpers: Mapping[int, HelperFunction]
    limit: int | None = None
    kfuncs: Mapping[int | str, Callable[..., Any]] = field(default_factory=dict)
    stops: Stops = field(default_factory=Stops)
    repeat: int = field(default=1, init=False)
    optimize: bool | None = field(init=False)

    def __post_init__(self) -> None:
        self.optimize = self.compiled.recipe.options.optimize

    def why_prepared(self) -> str:
        """Return why calls do not go through the native gate."""
        load_package("ebpfjit.jit")
        from ebpfjit.jit.gate import why_not

        if self.repeat > 1:
            return f"it runs the program {self.repeat} times"
        return why_not() or "a run takes too much of the thread's stack"

    def __call__(self, mem: Any) -> int:
        """Run the program on memory, as often as it repeats, and return the last r0."""
        return self.taken(mem)

    def taken(self, mem: Any, take: Take | None = None) -> int:
        """Run the program as a call does, and have what the last run leaves taken; return r0."""
        for _ in range(self.repeat - 1):
            self.once(mem)
        return self.once(mem, take)

    def once(self, mem: Any, take: Take | None = None) -> int:
        """Run the program one time, and have what it leaves taken; return r0."""
        execution = raw_execution(mem, self.helpers, self.limit)
        execution.mark = self.stops.mark()
        value = self.compiled.run(execution)
        if take is not None:
            take(execution, ended=True)
        return value


class Take(Protocol):
    """What takes what a run leaves: it `ended`, or a fault did."""

    def __call__(self, execution: Execution, *, ended: bool) -> None:
        """Take it."""


class JitFunction(Sealed):
    """A compiled program that is called like a function: fn(mem) -> r0, or fn() without memory.

    `Program.compile` makes them, of a `plain` one that is called through Python. `mem` is a buffer, written
    in place; r1 is its address and r2 its length. May be called from several threads at once.
    """

    __slots__ = ()

    def __init__(self, plain: Plain) -> None:
        seal(self, Entry(plain))

    def __call__(self, mem: AnyBuffer = b"") -> int:
        """Run the program and return r0, unsigned. Raises ExecutionError for a wrong program.

        A program with a type runs on a copy of `mem`, as `Program.run` does; its r0 has 32 bits.
        """
        plain: Plain = inside(self).plain
        return plain(mem)

    def __repr__(self) -> str:
        try:
            plain: Plain = inside(self).plain
        except TypeError:  # only allocated
            return f"<{type(self).__name__} that was never made>"
        code = "optimised code" if self.is_optimized else "baseline code"
        later = (
            ", optimised once it has run for long" if plain.optimize is None and not self.is_optimized else ""
        )
        return f"<compiled {str(plain.compiled.verified.program)[1:-1]}; {code}{later}>"

    @property
    def optimize(self) -> bool | None:
        """As it was asked for; None: baseline code at first, optimised once its calls have cost enough."""
        plain: Plain = inside(self).plain
        return plain.optimize

    @property
    def call(self) -> Callable[..., int]:
        """The same as a built-in function, which some versions of CPython call a little faster."""
        if inside(self).gate is None:
            return self.__call__
        from ebpfjit.jit.callables import built_in

        return built_in(self, "call", "Run the program and return r0, unsigned.")

    @property
    def program(self) -> Program:
        """The program that it was compiled from; what is done to it does not change the function."""
        program: Program = inside(self).plain.compiled.verified.program
        return program

    def map(
        self,
        buffers: AnyBuffer | Sequence[AnyBuffer] | Places,
        *,
        offsets: AnyBuffer | Sequence[int] | None = None,
        lengths: AnyBuffer | Sequence[int] | None = None,
        stride: int | None = None,
        on_fault: int | None = None,
        faults: list[ExecutionError | InputError] | None = None,
        changed: Changed | None = None,
        events: list[tuple[int, str, bytes]] | None = None,
        output: list[tuple[int, str]] | None = None,
        reasons: array[int] | None = None,
    ) -> array[int]:
        """Run the program on many packets, in one native loop; return all r0 as array("Q").

        map(buffers)                             a sequence of buffers
        map(buffer, stride=64)                   records of one size, which fill the buffer
        map(buffer, offsets=..., lengths=...)    places in the buffer: arrays of integers, as numpy
                                                 and the standard library have them (bytes)
        map(buffer, offsets=...)                 one offset more than packets, as Arrow has them
        map(batch)                               a batch of a capture: its buffer, offsets and lengths

        Each packet has the whole instruction limit. The first fault stops the batch; the exception
        has the packet's number as `index`. With `on_fault` that value (its low 64 bits) stands
        where a fault's r0 would, and the batch goes on; the errors are added to the list `faults`, if there
        is one. What a helper raises stops it all the same.

        `changed` takes the packets as the runs left them (an `ebpfjit.Changed`, which is packets for the next
        program); a program without a type writes its own in place besides. To the list `events` is added what
        went to ring and perf buffers, (number of the packet, name of the map, bytes), which are empty again;
        without the list they keep it, until they are full. The list `output` gets lines that were printed,
        (number of the packet, line). The array("Q") `reasons` gets the pc of what set each result, all ones
        where that is not known: of functions that `compiling.with_reasons` makes.

        Bytes are taken as they lie: of any type but Python objects, in any number of dimensions, row by row.
        Raises ValueError for places outside of the buffer, and for one whose bytes do not lie one behind the
        other (a slice with steps, Fortran's order), and TypeError for what are no packets or arrays, before
        anything is run. Where packets are a sequence that is so with the first that is none.
        """
        load_package("ebpfjit.jit")
        from ebpfjit.jit import batch

        if offsets is None and hasattr(buffers, "offsets"):
            found: Any = buffers
            buffers, offsets, lengths = found.buffer, found.offsets, found.lengths
        batch.check_options(offsets, lengths, stride, on_fault)
        fill = None if on_fault is None else W64.wrap(operator.index(on_fault))
        left = None
        if reasons is not None:
            batch.check_reasons(self, reasons)
        if not (changed is None and events is None and output is None and reasons is None):
            left = batch.Left(changed, events, output, reasons)
        runner = batch.Batch(self, fill, inside(self).plain.stops.mark(), faults, left)
        if stride is not None:
            return runner.run(batch.records(buffers, stride))
        if offsets is not None:
            return runner.run(batch.places(buffers, offsets, lengths))
        return runner.run_objects(cast("Iterable[AnyBuffer]", buffers))

    def stop(self) -> None:
        """Have all calls and batches that are running now, in whichever thread, end with Stopped.

        They do so within a fraction of a second, unless they are inside of a helper that does not return.
        Calls that begin later run as ever. May be called from any thread, and from a helper.
        """
        inside(self).plain.stops.stop()

    @property
    def is_optimized(self) -> bool:
        """True where calls from now on run optimised code; it may become true, and stays so."""
        plain: Plain = inside(self).plain
        return bool(plain.compiled.recipe.options.optimize)

    def listing(self) -> Listing:
        """Return eBPF, assembly text and bytes side by side, of the code that calls run in the end.

        It is a str, and has `.json()` and `.html()`; see `ebpfjit.Listing`.
        """
        load_package("ebpfjit.listing")
        from ebpfjit.listing.machine import render

        return render(self._best())

    def explain(self) -> str:
        """Return what of the program is not fast, and why, in the code that calls run in the end.

        The first line says whether that is optimised code, and why not; then come why each call is prepared
        in Python, where it is, calls that leave machine code, with how often they did, and what passes of the
        optimizer left alone as too large for them, or too tangled.
        """
        load_package("ebpfjit.listing")
        from ebpfjit.listing.machine import explained

        compiled, it = self._best(), inside(self)
        why_prepared = "" if it.gate is not None else it.plain.why_prepared()
        return explained(compiled, it.latest, why_prepared)

    def _best(self) -> Compiled:
        """Return the code that calls run from now on: the best there will be."""
        it: Entry = inside(self)
        if it.gate is not None:
            from ebpfjit.jit.callables import tier_up

            tier_up(self)
        compiled: Compiled = it.plain.compiled
        return compiled

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the program with its machine code to the file `path`, for `JitFunction.load`.

        Whoever can write to the file can run code as the one who loads it. Raises LoadError for a
        program whose code holds addresses (maps, references) or is hardened, OSError as `open`.
        """
        load_package("ebpfjit.jit")
        import_alone("ebpfjit.jit.cache")
        from ebpfjit.jit import cache

        compiled = self._best()
        cache.save(path, compiled.recipe, compiled.image)

    @staticmethod
    def load(
        path: str | os.PathLike[str],
        *,
        helpers: Mapping[int, HelperFunction] | None = None,
        limit: int | None = None,
        release_gil: bool = False,
    ) -> JitFunction:
        """Return the function that `save` wrote to `path`, without compiling it again.

        It has the settings that it was compiled with, but for `limit` and `release_gil`; `helpers`
        must have the numbers that it was compiled with. Only load what you would run: the file
        holds machine code. Raises LoadError for a file that is damaged, that others may write to, or
        that was saved by another version, on another kind of processor or with other helpers.
        """
        import_alone("ebpfjit.compiling")
        from ebpfjit import compiling

        return compiling.load_function(path, helpers or {}, limit, release_gil=release_gil)

    def __reduce__(self) -> tuple[Callable[..., JitFunction], tuple[Any, ...]]:
        plain: Plain = inside(self).plain
        recipe = plain.compiled.recipe
        given = Functions("helper", plain.helpers)
        kfuncs = Functions("kfunc", plain.kfuncs)
        chosen = {**recipe.options.chosen, "optimize": plain.optimize}
        options = {"kfuncs": kfuncs, "limit": plain.limit, "repeat": plain.repeat, **chosen}
        context: Mapping[str, Any] | None = getattr(plain, "context", None)
        options |= {} if context is None else {"context": context}
        return _compile_again, (recipe.verified.program, given, options)


def _compile_again(
    program: Program, helpers: Mapping[int, HelperFunction], options: Mapping[str, Any]
) -> JitFunction:
    """Return what a pickled function becomes on arrival."""
    return program.compile(helpers=helpers, **options)


def make_function(
    compiled: Compiled,
    helpers: Mapping[int, HelperFunction],
    limit: int | None = None,
    better: Callable[[Options], Compiled] | None = None,
    kfuncs: Mapping[int | str, Callable[..., Any]] = MappingProxyType({}),
    repeat: int = 1,
) -> JitFunction:
    """Return a compiled program as a function of memory; see `gated`."""
    plain = Plain(compiled, helpers, limit, kfuncs)
    plain.repeat = repeat
    return gated(plain, "optional", ("mem",), better)


def gated(
    plain: Plain,
    shape: str,
    names: tuple[str, ...],
    better: Callable[[Options], Compiled] | None,
    lanes: Sequence[Mapping[str, Any]] = ({},),
    **special: Any,
) -> JitFunction:
    """Return a function that is called through the native gate, where there is one, and as `plain` where not.

    `better` compiles, as options say, what is to take the code's place one day; without a gate it does so
    now. `special` is what a `Gate` takes besides, and each of `lanes` what one in that lane does: calls go
    through the first gate whose lane is free.
    """
    load_package("ebpfjit.jit")
    from ebpfjit.jit.callables import native_type, open_gate
    from ebpfjit.jit.gate import Gate, why_not
    from ebpfjit.jit.tiers import heat_of

    function, compiled = JitFunction(plain), plain.compiled
    if why_not() or plain.repeat > 1:
        return function
    gate: Gate | None = None
    for lane in reversed(lanes):
        gate = Gate(
            compiled,
            shape,
            names,
            limit=plain.limit,
            better=better,
            heat=heat_of(compiled.verified.program),
            stops=plain.stops,
            other=gate,
            **special,
            **lane,
        )
    assert gate is not None  # there is one lane at least, or the place of none
    if not gate.fits:
        if better is not None:
            plain.compiled, plain.optimize = better(compiled.recipe.options.better), True
        return function
    native: JitFunction = native_type(JitFunction)(plain)
    open_gate(native, gate, function.__call__)
    return native


def raw_execution(mem: Any, table: Mapping[int, HelperFunction], limit: int | None = None) -> Execution:
    """Return the start of a run on plain memory: r1 its address, r2 its length, 0 where it is empty."""
    region = Region.of_buffer("mem", mem)
    start = region.start if region.size else 0
    return Execution((start, region.size), [region], region, region, helpers=table, limit=limit)
