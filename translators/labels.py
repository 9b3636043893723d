"""Names in the text: labels, and the symbols of slots that hold the host's addresses."""

from __future__ import annotations


def block_label(number: int) -> str:
    """Return the label of a block of Code."""
    return f"b_{number}"


def leave_label(pc: int) -> str:
    """Return the label in baseline code where side exits to the instruction at slot `pc` go on."""
    return f"leave_{pc}"


def function_label(pc: int) -> str:
    """Return the label of the optimised code of the function at slot `pc`."""
    return f"function_{pc}"


def pc_label(pc: int) -> str:
    """Return the label of the instruction at slot `pc`."""
    return f"pc_{pc}"


def resume_label(pc: int) -> str:
    """Return the label where a run goes on that comes from other code, at slot `pc`."""
    return f"resume_{pc}"


def return_label(pc: int) -> str:
    """Return the label of where the function returns to that is called at `pc`, in baseline code."""
    return f"return_{pc}"


def enter_label(pc: int) -> str:
    """Return the label where the function at slot `pc` is entered."""
    return f"enter_{pc}"


COUNTS = "counts"
"""The slot that holds where a u64 is for each slot of the program: how often its call went to Python."""

COUNTERS = "counters"
"""The slot that holds where two u64 are for each slot of the program: of its segment, and its branch."""

SLICE_ENDS = "slice ends"
"""In the place of a side exit: there is none, what ends slices raises what is to be raised."""

LOCK_MAP, TAKE_MAP = "lock_map", "take_map"
PACKETS = (
    "xdp_adjust_head",
    "xdp_adjust_tail",
    "xdp_adjust_meta",
    "xdp_load_bytes",
    "xdp_store_bytes",
    "xdp_get_buff_len",
    "skb_load_bytes",
    "skb_pull_data",
    "tail_call",
    "ringbuf_output",
    "ringbuf_reserve",
    "ringbuf_submit",
    "ringbuf_discard",
    "perf_event_output",
)
"""Helpers that have a routine (`packets`, `tails`, `events`), by Linux's name without bpf_."""


def host_symbol(routine: str) -> str:
    """Return the name of the slot that holds a routine's address."""
    return f"host_{routine}"


MAP_ROUTINES = "map_"
"""What the names of slots begin with that hold addresses of routines of maps."""


def map_symbol(routine: str) -> str:
    """Return the name of the slot that holds the address of a map's routine."""
    return MAP_ROUTINES + routine
