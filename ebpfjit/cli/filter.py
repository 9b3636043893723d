"""`ebpfjit filter`: the packets of a capture that an expression of tcpdump's matches."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from ebpfjit.cli.options import Json
from ebpfjit.cli.output import fail, print_json


def filter_(
    expression: Annotated[str, typer.Argument(metavar="EXPRESSION", help="As tcpdump has: 'tcp port 80'.")],
    pcap: Annotated[str, typer.Option(metavar="FILE", help="The capture; - is the standard input.")],
    write: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the packets that match, as pcap; - is the standard output."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Count the packets of a capture that an expression matches, or write them."""
    from contextlib import ExitStack

    from ebpfjit import capture, filters
    from ebpfjit.errors import CaptureError

    if write is not None and os.path.exists(write) and os.path.exists(pcap) and os.path.samefile(write, pcap):
        raise typer.BadParameter("--write and --pcap name the same file")
    filters.to_classic(expression)  # what is wrong with it is said whatever the capture is
    functions, packets, matched, error = {}, 0, 0, None
    with ExitStack() as stack:
        writer: capture.Writer | None = None
        try:
            for batch in capture.read(pcap):
                link = batch.link_type
                if link not in functions:
                    program = filters.compile(expression, linktype=link, type=None)
                    functions[link] = program.compile()
                found = functions[link].map(batch)
                packets += len(batch)
                matched += len(batch) - found.count(0)
                if write is not None:
                    writer = writer or stack.enter_context(capture.Writer(write, link_type=link))
                    writer.write(batch if link == writer.link_type else batch.frames(), found)
        except CaptureError as damaged:
            if not packets:
                raise
            error = str(damaged).removeprefix(f"{pcap}: ")
        if write is not None and writer is None:
            stack.enter_context(capture.Writer(write))
    if as_json:
        print_json({"packets": packets, "matched": matched, "error": error})
    elif write != "-":
        where = f", written to {write}" if write is not None else ""
        print(f"{matched} of {packets} packets match{where}")
    if error is not None:
        fail(f"{pcap}: {error}")
