"""A program's listing, compiled for it: what `Program.listing` does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ebpfjit.arguments import Helpers, Kfuncs, check_environment, checked_kfuncs, numbered
from ebpfjit.errors import EbpfError
from ebpfjit.isa.spec import Kind
from ebpfjit.once import load_package
from ebpfjit.options import Options
from ebpfjit.program import Program
from ebpfjit.ready import Brought, Ready, environment_of, is_plain, ready_with
from ebpfjit.record import replace
from ebpfjit.runtime.environment import Environment

if TYPE_CHECKING:
    from ebpfjit.listing.listing import Listing
    from ebpfjit.verifier.verdict import Verdict


def listing(
    program: Program,
    *,
    optimize: bool = True,
    checked: bool = True,
    harden: bool = False,
    audit: bool = False,
    environment: Environment | None = None,
    helpers: Helpers | None = None,
    kfuncs: Kfuncs | None = None,
    verdict: Verdict | None = None,
) -> Listing:
    """Return the listing of the code that the program's calls run; without code, of the program alone.

    The options are those of `Program.compile`; helpers are those of `Program.run`. What a `verdict`
    on the program says stands beside the instructions.
    """
    made = _listing(program, optimize, checked, harden, audit, environment, helpers, kfuncs)
    return made if verdict is None else _with_verdict(made, verdict)


def _with_verdict(made: Listing, verdict: Verdict) -> Listing:
    """Return a listing with what a verdict says of it, and of its instructions."""
    from ebpfjit.listing.listing import Listing

    errors: dict[int, list[str]] = {}
    for error in verdict.errors:
        errors.setdefault(error.pc, []).append(error.message + (f"; {error.advice}" if error.advice else ""))
    view = made.view
    steps = tuple(
        replace(step, errors=tuple(errors[step.pc])) if step.pc in errors else step for step in view.steps
    )
    return Listing(replace(view, steps=steps, remarks=(*view.remarks, f"verdict: {verdict.summary}")))


def _listing(
    program: Program,
    optimize: bool,
    checked: bool,
    harden: bool,
    audit: bool,
    environment: Environment | None,
    helpers: Helpers | None,
    kfuncs: Kfuncs | None,
) -> Listing:
    check_environment(environment)
    options = Options(checked=checked, harden=harden, optimize=optimize, audit=audit, keeps_text=True)
    brought = Brought(numbered(helpers), checked_kfuncs(kfuncs))
    load_package("ebpfjit.jit")
    load_package("ebpfjit.listing")
    from ebpfjit.compiling import compiled_as
    from ebpfjit.listing.listing import Listing
    from ebpfjit.listing.machine import render
    from ebpfjit.listing.program import uncompiled

    try:
        start = ready_with(program, brought)
        if is_plain(program):  # the code of its calls is better than that of its runs
            given = {number: start.helpers[number] for number in _called(program) & start.helpers.keys()}
            made = compiled_as(program, options, given, brought.kfuncs, None).listing()
            missing = _in_the_way(start)
            if not missing:
                return made
            return Listing(replace(made.view, remarks=(*missing, *made.view.remarks)))
        compiled = start.compiled_anew(environment or environment_of(program), options)
    except EbpfError as error:
        return Listing(uncompiled(program, str(error)))
    return render(compiled, _in_the_way(start))


def _called(program: Program) -> set[int]:
    """Return the numbers of the helpers that a program calls."""
    rows = ((insn.row, insn.imm) for insn in program.instructions)
    return {imm & 0xFFFFFFFF for row, imm in rows if row is not None and row.kind is Kind.CALL_HELPER}


def _in_the_way(start: Ready) -> tuple[str, ...]:
    """Return a line on what keeps the code from being run, where there is something."""
    try:
        start.refuse_missing()
    except EbpfError as error:
        return (f"not run as it is: {error}",)
    return ()
