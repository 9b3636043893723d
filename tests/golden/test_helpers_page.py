"""docs/helpers.md lists the helpers that are registered; `make bless` writes it anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ebpfjit.runtime.helpers.names import NAMES
from ebpfjit.runtime.helpers.table import Helper, helpers

PAGE = Path(__file__).parents[2] / "docs" / "helpers.md"

START = """\
# Helpers

What programs may call, by Linux's numbers, and where a helper here differs from Linux. Error numbers
and formats are held against a kernel in `tests/unit/test_helpers_*.py`. This page is written by
`make bless`, from the registry.

Whatever a helper asks of the outside comes from an `Environment`, which a test can set:

    Environment(clock=..., random=..., cpu=0, cpus=1)    the clock in ns, a random u32, processors
    Environment(task=Task(pid=..., comm=...))            the process; by default the one that runs
    Environment(stack=(...))                             the call stack that bpf_get_stack gives
    Environment(sockets=(Socket("tcp", ("10.0.0.1", 80)),))      what bpf_sk_lookup_tcp finds

Memory that a helper is given must be the program's: if not, it is a MemoryFault at the call. What is
no map of the program, or a map of a type that Linux's verifier refuses there, is an ExecutionError
that names it. A helper that is not there is a HelperNotFound.

| Number | Helper | What it does | What differs |
| --- | --- | --- | --- |
"""


def sentence(helper: Helper) -> str:
    """The first paragraph of the docstring, as one line."""
    text = " ".join((helper.function.__doc__ or "").split("\n\n")[0].split())
    return text.replace("|", "\\|")


def page() -> str:
    rows = [
        f"| {number} | `{helper.name}` | {sentence(helper)} | {helper.differs} |\n"
        for number, helper in helpers().items()
    ]
    absent = [f"`{name}` ({number})" for number, name in NAMES.items() if number not in helpers()]
    return START + "".join(rows) + "\n## Not there\n\n" + ", ".join(absent) + ".\n"


def test_the_page_is_current(golden: Callable[[Path, str], None]) -> None:
    golden(PAGE, page())
