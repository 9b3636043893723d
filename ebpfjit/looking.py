"""A program's listing, compiled for it: what `Program.listing` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ebpfjit.errors import EbpfError
from ebpfjit.once import load_package
from ebpfjit.options import Options
from ebpfjit.program import Program
from ebpfjit.ready import Brought, Ready, environment_of, numbered, ready_with
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.execution import HelperFunction
from ebpfjit.runtime.kfuncs.given import Given

if TYPE_CHECKING:
    from ebpfjit.listing.listing import Listing


def listing(
    program: Program,
    *,
    optimize: bool = True,
    checked: bool = True,
    harden: bool = False,
    audit: bool = False,
    environment: Environment | None = None,
    helpers: Mapping[int | str, HelperFunction] | None = None,
    kfuncs: Given | None = None,
) -> Listing:
    """Return the listing of the code that `Program.run` runs; without code, of the program alone.

    The options are those of `ebpfjit.compiling.compile`.
    """
    options = Options(checked=checked, harden=harden, optimize=optimize, audit=audit)
    brought = Brought(numbered(helpers), kfuncs or {})
    load_package("ebpfjit.jit")
    load_package("ebpfjit.listing")
    from ebpfjit.listing.listing import Listing
    from ebpfjit.listing.machine import render
    from ebpfjit.listing.program import uncompiled

    try:
        start = ready_with(program, brought)
        compiled = start.compiled_anew(environment or environment_of(program), options)
    except EbpfError as error:
        return Listing(uncompiled(program, str(error)))
    return render(compiled, _in_the_way(start))


def _in_the_way(start: Ready) -> tuple[str, ...]:
    """Return a line on what keeps the code from being run, where there is something."""
    try:
        start.refuse_missing()
    except EbpfError as error:
        return (f"not run as it is: {error}",)
    return ()
