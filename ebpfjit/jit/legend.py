"""What names in machine code mean: registers, words of the run's block, labels. A listing's legend."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ebpfjit.jit.cpu import machine
from ebpfjit.translators.block import BLOCK_WORDS, Limit, limit_place

WORDS = {
    "argument_start": "where the memory starts that r1 points to",
    "packet_start": "where the packet starts",
    "packet_size": "bytes of the packet",
    "stack_start": "the lowest byte of the frames that are live",
    "stack_top": "where the program's stack ends",
    "stack_limit": "how far frames may go down",
    "budget": "instructions left in this slice, while r9 is used for something else",
    "later": "instructions that are left behind this slice",
    "loops": "what may_goto has left in this frame",
    "frames_left": "how many more frames there may be",
    "host_stack": "rsp to return to the host with",
    "fault_kind": "what went wrong: 0 for nothing",
    "packet_room": "bytes of the packet that may be written",
    "argument_size": "bytes behind r1",
    "argument_room": "bytes behind r1 that may be written",
    "regions": "the table of all other memory",
    "fault_place": "the address of the code that a helper is called from, or that faulted",
    "fault_address": "the address that an access was to",
    "return_place": "where on the stack the end of a slice finds its return address",
    "leave": "not 0 where a helper ends the function, or the program",
    "argument_1": "r1 at the start",
    "argument_2": "r2 at the start",
    "link_header": "where the packet's link header is",
    "network_header": "where the packet's network header is",
    "zero": "always 0",
}

CHECKS = (
    ("no check: frame", r"no check: frame", "it is inside of the function's frame, how far is known"),
    ("no check: argument", r"no check: argument", "every run has these bytes behind r1"),
    (
        "no check: length",
        r"no check: length",
        "a comparison with r2, the length of r1's memory, has put it inside",
    ),
    ("no check: map value", r"no check: map value", "it is inside of a map's value, or of a variable"),
    (
        "... at pc N covers it",
        r"no check: one at pc \d+ covers it",
        "what is checked there is of these bytes too",
    ),
    ("... before the loop", r"no check: made before the loop.*", "one check stands for all rounds"),
    (
        "checked, REGION first",
        r"checked, \w+ first.*",
        "elsewhere it is looked for too; nowhere: a MemoryFault",
    ),
    (
        "checked: ... of REGION",
        r"checked: .* of the \w+.*",
        "one comparison for all that is meant to be there",
    ),
    (
        "checked: may it be ...",
        r"checked: may it be written",
        "it is there; whether it may be stored to is asked",
    ),
)
"""How a note of an access is shown, which notes those are, what it means."""

LABELS = (
    ("entry", r"entry", "where a run enters: registers that are not given start as zero"),
    ("callback", r"callback", "where a helper calls a function of the program"),
    ("enter_N", r"enter_\d+", "gives the function at pc N a zeroed frame, and goes on in it"),
    ("function_N", r"function_\d+", "optimised code of the function at pc N"),
    ("b_N", r"b_\d+", "block number N of optimised code; the eBPF above it is where it starts"),
    ("pc_N", r"pc_\d+", "baseline code of the basic block at pc N"),
    ("leave_N", r"leave_\d+", "baseline code of pc N inside of a block, where side exits go on"),
    ("resume_N", r"resume_\d+", "where a run goes on that comes from other code, at pc N"),
    ("return_N", r"return_\d+", "where the function returns to that is called at pc N"),
    (".exitN", r"\.exit\d+", "a side exit: values go to their registers, the run goes on in baseline code"),
    (".edgeN", r"\.edge\d+", "values move to where the next block has them"),
    (".otherN", r"\.other\d+", "the address is not where it most likely is: it is looked for in all memory"),
    (".insideN", r"\.inside\d+", "the address was found to be in bounds"),
    (".searchN", r"\.search\d+", "what a helper is given is looked for in all memory"),
    (".againN, .paidN", r"\.(again|paid)\d+", "instructions are paid for: before, and once they are"),
    (".brokeN", r"\.broke_?\d+", "the slice's instructions are used up: signals are looked at, or the limit"),
    (".poorN", r"\.poor\d+", "too few instructions are left to pay ahead"),
    (".unalignedN", r"\.unaligned\d+", "an atomic operation's address is no multiple of its size"),
    (
        ".depth_N, ...",
        r"\.(depth|function|target|illegal|helper_missing|audit\w*)_\d+",
        "the run ends with a fault of pc N",
    ),
    (".packetN, .headerN", r"\.(inside_packet|outside_packet|header)\d+", "where a packet load reads"),
    (".zero_N, .poison_N", r"\.(zero|poison)_\d+", "the frame is filled"),
    (".slowN", r"\.slow\d+", "a map is left to the helper in Python"),
    (
        ".sharedN, .calledN",
        r"\.(shared|called)\d+",
        "a map that threads share: its routine is called under its lock",
    ),
    (".heldN, .waitsN", r"\.(held|waits)\d+", "the map's lock is ours; somebody else has it"),
    (".auditedN", r"\.audited\d+", "what analysis found of an access holds"),
    (".fromN", r"\.from\d+", "the search for a function by its address goes on"),
    (".foundN, .nothingN", r"\.(found|nothing)\d+", "a value or an address is there, or is not"),
    (".doneN", r"\.done\d+", "the ways of one instruction meet again"),
    (".dividedN, .zeroN, .minus_oneN", r"\.(divided|zero|minus_one)\d+", "a division's special cases"),
    (".leavingN", r"\.leaving(_function)?\d+", "a helper has ended the function, or the program"),
    ("slice", r"slice", "the end of a slice in baseline code: signals, other threads, the limit"),
    ("next_slice", r"next_slice", "the end of a slice in optimised code, all registers kept"),
    ("call_python", r"call_python", "calls a helper that is a Python function, which is in r11"),
    ("lock_map", r"lock_map", "waits for a map's lock"),
    ("call_by_address", r"call_by_address", "goes on in the function whose address is in r11"),
    (
        "is_load, is_store",
        r"is_(load|store)",
        "sets carry where r10 bytes at r11 are out of all memory there is",
    ),
    (
        "check_load, check_store",
        r"check_(load|store)",
        "a fault where r10 bytes at r11 are out of it",
    ),
    ("audit_load, audit_store", r"audit_(load|store)", "what analysis found of an access is looked at again"),
    ("find_load", r"find_load", "where the bytes are that a pointer of the kernel's leads to"),
    ("find_arena_N", r"find_arena_\d+", "where N bytes of the arena are"),
    ("fault_helper_missing", r"fault_helper_missing", "ends the run: no helper of this number is registered"),
    (
        "fault_KIND",
        r"fault_(?!helper_missing)\w+",
        "ends the run with that fault, of the code that called it",
    ),
    ("trace_point", r"trace_point", "registers are written down"),
)
"""How a kind of label is shown, which labels it is, what it means."""


Pairs = tuple[tuple[str, str], ...]
"""Names and what they mean, in the order in which they are shown."""


def registers() -> Pairs:
    """Return r0 to r10, and the machine register that is the home of each."""
    return tuple((f"r{number}", name) for number, name in enumerate(machine().homes))


def label_kind(label: str) -> tuple[str, str] | None:
    """Return how a label's kind is shown and what it means; None for one of an instruction's own."""
    for shown, pattern, meaning in LABELS:
        if re.fullmatch(pattern, label):
            return shown, meaning
    return None


def labels(there: Iterable[str]) -> Pairs:
    """Return the kinds of labels that are there, and what they mean."""
    stems = {re.sub(r"\d+$", "0", label) for label in there}
    kinds = {kind[0] for label in stems if (kind := label_kind(label)) is not None}
    return tuple((shown, meaning) for shown, _, meaning in LABELS if shown in kinds)


def checks(notes: Iterable[str]) -> Pairs:
    """Return the kinds of notes that are there, and what they mean."""
    there = set(notes)
    return tuple(
        (shown, meaning)
        for shown, pattern, meaning in CHECKS
        if any(re.fullmatch(pattern, note) for note in there)
    )


def words(texts: Iterable[str], limits: Sequence[Limit]) -> Pairs:
    """Return the words of the run's block that lines of code name, and what is in them."""
    block = machine().block
    word = rf"\[{block}(?:\+(0x[0-9a-f]+))?\]"
    places = {int(found[1] or "0", 16) for text in texts for found in re.finditer(word, text)}
    return tuple((f"[{block}+{place:#x}]", word_at(place, limits)) for place in sorted(places))


def word_at(place: int, limits: Sequence[Limit]) -> str:
    """Return what the word of the block at an offset is."""
    for index, (region, size, stores) in enumerate(limits):
        if limit_place(index) == place:
            unit = "1 byte has" if size == 1 else f"{size} bytes have"
            return f"how many places {unit} in the {region}{', where it may be written' * stores}"
    index = place // 8
    name = BLOCK_WORDS[index] if index < len(BLOCK_WORDS) else "?"
    return WORDS.get(name, name.replace("_", " "))
