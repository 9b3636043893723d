"""`ebpfjit filter`: the packets of a capture that an expression of tcpdump's matches."""

from __future__ import annotations

import os
from typing import Annotated

from ebpfjit.cli.options import Json
from ebpfjit.cli.output import fail, print_json
from ebpfjit.cli.parameters import Argument, Option, WrongUsage


def filter_(
    expression: Annotated[str, Argument(metavar="EXPRESSION", help="As tcpdump has: 'tcp port 80'.")],
    pcap: Annotated[str, Option(metavar="FILE", help="The capture; - is the standard input.")],
    write: Annotated[
        str | None,
        Option(
            metavar="FILE",
            help="Write the packets that match, as pcap or .pcapng; - is the output.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Count the packets of a capture that an expression matches, or write them."""
    from contextlib import ExitStack

    from ebpfjit import capture, filters
    from ebpfjit.errors import CaptureError
    from ebpfjit.interpreted import for_batches

    if write is not None and os.path.exists(write) and os.path.exists(pcap) and os.path.samefile(write, pcap):
        raise WrongUsage("--write and --pcap name the same file")
    filters.to_classic(expression)  # what is wrong with it is said whatever the capture is
    functions, packets, matched = {}, 0, 0
    error: CaptureError | None = None
    with ExitStack() as stack:
        writer: capture.Writer | None = None
        batches = capture.read(pcap)
        while True:
            try:
                batch = next(batches, None)
            except CaptureError as damaged:
                if not packets:
                    raise
                batch, error = None, damaged
            if batch is None:
                break
            link = batch.link_type
            if link not in functions:  # each packet is filtered as one of its own link type
                functions[link] = for_batches(filters.compile(expression, linktype=link, type=None))
            found = functions[link].map(batch)
            packets += len(batch)
            matching = len(batch) - found.count(0)
            matched += matching
            if write is not None and matching:
                writer = writer or stack.enter_context(capture.Writer(write, link_type=link))
                writer.write(batch, found)
        if write is not None and writer is None:
            stack.enter_context(capture.Writer(write, link_type=next(iter(functions), 1)))
    said = None if error is None else str(error).removeprefix(f"{pcap}: ")
    if as_json:
        print_json({"packets": packets, "matched": matched, "error": said})
    elif write != "-":
        where = f", written to {write}" if write is not None else ""
        print(f"{matched} of {packets} packets match{where}")
    if said is not None:
        fail(f"{pcap}: {said}")
