"""`ebpfjit cost`: what a program costs on the packets of a capture, by function and line."""

from __future__ import annotations

from typing import Annotated

from ebpfjit.cli.options import (
    Btf,
    File,
    Json,
    Kconfig,
    MapContents,
    Maps,
    ProgramName,
    Variables,
    captured,
    in_hex,
    loading,
    one_of,
)
from ebpfjit.cli.output import naming, print_json, write_file
from ebpfjit.cli.parameters import Option
from ebpfjit.errors import InputError


def cost(
    file: File,
    program: ProgramName = None,
    pcap: Annotated[
        str | None, Option(metavar="FILE", help="The packets of a capture (pcap, pcapng).")
    ] = None,
    hex_: Annotated[
        list[str] | None, Option("--hex", metavar="HEX", help="A packet, in hex; may be repeated.")
    ] = None,
    lines: Annotated[int, Option(min=0, help="So many lines of source at most.")] = 15,
    flame: Annotated[
        str | None,
        Option(metavar="FILE", help="Write a flame graph: .svg, or stacks for other tools (.folded)."),
    ] = None,
    map_: MapContents = None,
    variables: Variables = None,
    btf: Btf = None,
    kconfig: Kconfig = None,
    maps: Maps = None,
    as_json: Json = False,
) -> None:
    """Show what a program costs: instructions, helper calls, operations on maps, time, stack.

    Instructions and calls are counted exactly, over all packets, in their order; nanoseconds are those of a
    packet in a batch, in the median of several rounds, and functions and lines have their share of it by
    instructions.
    """
    from ebpfjit.cost import flame_graph, folded, measure, text

    packets = [*in_hex(hex_ or ()), *(captured(pcap) if pcap is not None else ())]
    if not packets:
        raise InputError("there is no packet: --pcap FILE, or --hex, says which")
    found, obj = one_of(file, program, loading(btf, kconfig, maps))
    if map_ or variables:
        from ebpfjit.cli import state

        state.prepare(obj, file, map_ or (), variables or ())
    with naming(file):
        measured = measure(found, packets)
    if flame is not None:
        write_file(flame, folded(measured) if flame.endswith(".folded") else flame_graph(measured))
    if as_json:
        print_json(measured.to_json())
    else:
        print(text(measured, lines=lines), end="")
