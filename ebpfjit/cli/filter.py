"""`ebpfjit filter`: the packets of a capture that an expression of tcpdump's matches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ebpfjit.cli.files import check_output
from ebpfjit.cli.options import Json
from ebpfjit.cli.output import clearing_up, fail, naming, print_json
from ebpfjit.cli.parameters import Argument, Option

if TYPE_CHECKING:
    from ebpfjit.classic.translate import Lengths

NO_NETMASK = "0.0.0.0"
"""A capture's network is not known: `ip broadcast` is about all ones and zeros, as for tcpdump -r."""


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

    from ebpfjit import capture, classic, filters
    from ebpfjit.classic.table import Form
    from ebpfjit.errors import CaptureError
    from ebpfjit.interpreted import for_batches

    check_output("write", write, pcap)
    code = filters.to_classic(
        expression, netmask=NO_NETMASK
    )  # what is wrong with it is said whatever the capture is
    asks_length = any(each.row is not None and each.row.form is Form.LENGTH for each in classic.decode(code))
    functions, packets, matched = {}, 0, 0
    error: CaptureError | None = None
    with ExitStack() as stack:
        stack.enter_context(clearing_up())
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
            link, is_cut = batch.link_type, batch.wire_lengths.cast("B") != batch.lengths.cast("B")
            lengths: Lengths = "wire" if asks_length and is_cut else "captured"
            way = link, lengths
            if way not in functions:  # each packet is filtered as one of its own link type
                with naming(f"{pcap}: packet {packets + 1}"):
                    program = filters.compile(
                        expression, linktype=link, type=None, netmask=NO_NETMASK, lengths=lengths
                    )
                functions[way] = for_batches(program)
            found = functions[way].map(batch.with_wire_lengths() if lengths == "wire" else batch)
            packets += len(batch)
            matching = len(batch) - found.count(0)
            matched += matching
            if write is not None and matching:
                writer = writer or stack.enter_context(capture.Writer(write, link_type=link))
                writer.write(batch, found)
        if write is not None and writer is None:
            stack.enter_context(capture.Writer(write, link_type=next((link for link, _ in functions), 1)))
    said = None if error is None else str(error).removeprefix(f"{pcap}: ")
    if as_json:
        print_json({"packets": packets, "matched": matched, "error": said})
    elif write != "-":
        where = f", written to {write}" if write is not None else ""
        print(f"{matched} of {packets} packets match{where}")
    if said is not None:
        fail(f"{pcap}: {said}")
