"""What machine code and its host share, in 8-byte words: a run's block, states, lanes, batches; faults."""

from __future__ import annotations

NO_PC = -1
"""In the place of a pc: what belongs to no instruction."""

# The block: 8-byte words at these indices, then one word for each limit that the program uses beyond those
# that have a place here. What most programs use comes first, where a displacement of one byte reaches it.
LIMITS_IN_BLOCK = 7

MOST_LIMITS = 128
BLOCK_WORDS = (
    "argument_start",  # the region that r1 points to
    "packet_start",
    "packet_size",
    "stack_start",  # lowest live byte of the guest's stack
    "stack_top",
    "stack_limit",
    "budget",  # instructions left in this slice, while r9 does not hold it
    "later",  # instructions that are left behind this slice
    *(f"limit_{index}" for index in range(LIMITS_IN_BLOCK)),
    "loops",  # what may_goto has left in this frame
    "frames_left",
    "host_stack",  # rsp to return with: what it points to is the address that function 0 returns to
    "fault_kind",  # index into FAULTS, 0 for none
    "packet_room",  # the bytes of it that may be written: all or none
    "argument_size",
    "argument_room",
    "regions",  # points to where the table of all other regions starts and stops, two words
    "fault_place",  # an address inside the code of the faulting pc, or of a helper's call
    "fault_address",
    "return_place",  # where on the stack the address is that the end of a slice returns to
    "leave",  # what exits with the result of the helper that is called: LEAVE_..., or 0
    "argument_1",  # r1 and r2 at the start, where the host says
    "argument_2",
    "link_header",  # address of the packet's link header, 0 for none; packet loads count from it
    "network_header",
    "thread",  # CPython's thread state while the run is without Python's lock, else 0
    "thread_id",
    "newer",  # the list of runs that may call Python: the block that was linked after this one
    "older",
    "attached",  # not 0: Python keeps a record of the run, which goes with it
    "state",  # what the run is of: see `gate`
    "frame_top",  # rsp of the gate
    "batch",
    "fault_stack",  # where the stack's live part started at the fault
    "stop_cell",  # address of the count of how often such runs were stopped, or 0; where there is no state
    "stops",  # what it was when the run began
    "foreign",  # the table of the kernel's memory (`ebpfjit/runtime/foreign.py`), 0 for none
    "zero",  # nothing writes it
    "tail_calls",  # how often the run went on in another program without Python
    "origin",  # the state of the program that did so first
    "given",  # instructions that were left when the last one did
    "turned",  # when the run last looked for signals (ns), 0 before its first slice has ended
    *(f"reason_{number}" for number in range(19)),  # at which pc r0 to r10, and words of the frame, were set
)

BLOCK_SIZE = 8 * len(BLOCK_WORDS)
LEAVE_FUNCTION, LEAVE_PROGRAM = 1, 2
TABLE = {"first": 0, "behind": 8, "next": 0x10}  # a table of regions: its rows, and the next table or 0
REGION_SIZE = 32  # a row of it: start, stop, writable, rights (address; 0: any)
FOREIGN_SIZE = 24  # a row of the table of the kernel's memory: start, stop, where its bytes are


def block_size(limits: int) -> int:
    """Return how many bytes the block of a program with so many limits takes."""
    return BLOCK_SIZE + 8 * max(limits - LIMITS_IN_BLOCK, 0)


def limit_place(index: int) -> int:
    """Return the offset of a limit's word from the block's start."""
    if index < LIMITS_IN_BLOCK:
        return 8 * (BLOCK_WORDS.index("limit_0") + index)
    return BLOCK_SIZE + 8 * (index - LIMITS_IN_BLOCK)


FAULTS = (
    "none",
    "memory",
    "alignment",
    "illegal",
    "target",
    "function",
    "budget",
    "depth",
    "helper_missing",
    "raised",  # the host has an exception pending: that one and those behind it end a batch
    "audit",  # of audit builds (`ebpfjit/jit/audit.py`): an access that was taken to need no check
    "audit_map",  # a call was taken to be given another map
    "audit_depth",  # local calls were taken to find a frame
)

POISON = 0xEB
"""What audit builds fill frames with that are not zeroed."""

Limit = tuple[str, int, bool]
"""A word that the host fills: (region, span, stores) -> how many places the span has in it.

That is size - span + 1, or 0 where it does not fit or may not be stored to.
"""

# The state of a program, 8-byte words that Python writes.
STATE_WORDS = (
    "entry",  # the program's address
    "first",  # instructions in the first slice
    "later",  # instructions behind it
    "frame",  # bytes of the thread's stack that a run takes
    "low",  # where the program's stack is, counted from the block
    "high",
    "regions",  # regions besides the arguments: as the block's word
    "limits_start",  # how to fill the limits: (offset of a size, span - 1, offset of the limit) each
    "limits_stop",
    "cells_start",  # what each run writes first: (address, word) each
    "cells_stop",
    "special",  # not 0 where one of the next two is, or the program loads from the packet
    "linked",  # the program calls Python: its runs are in the list of those
    "unlocked",  # the program runs without Python's lock
    "irregular",  # Python functions: called in place of the gate,
    "on_fault",  # on_fault(block, error): raises what the fault is, adds the pc to a pending error,
    "on_finish",  # on_finish(block): drops what Python keeps of the run
    "mbuff_size",  # of a fixed mbuff, and where it ends and takes the packet's addresses
    "mbuff_end",
    "data_offset",
    "data_end_offset",
    "lane",  # where programs with a context have their packet (`lanes`), 0 for others
    "other",  # the state, of the same code, that a call goes to where the lane is in use; 0: Python
    "on_hot",  # on_hot() is called once `heat` is used up; 0 where the program is as it stays
    "on_slice",  # on_slice(block) is called where that is so at the end of a slice: where to go on, or 0
    "stop_cell",  # address of the count of how often its calls were stopped
    "tails",  # the table of what tail calls lead to (`tails`), 0 where Python makes them
    "heat",  # what calls may still cost until then: instructions, CALL_COST each, time in Python as below
)

CALL_COST = 64  # what a call counts for besides its instructions
NANOSECOND_COST = 3  # what a nanosecond counts for that helpers in Python take: so many instructions
LANE_WORDS = (
    "busy",  # not 0 where a run is using it
    "fill",  # address of the routine for the kind of context
    "struct",  # what r1 points to: a row of the table of regions, as it has rights
    "template",  # what the struct starts as: `template_size` bytes, a multiple of 16
    "template_size",
    "packet",  # where packets are copied to, and how large they may be
    "room",
    "hidden",  # bytes in front of a packet that its program does not see
    "writable",  # all ones where the program may write the packet, 0 where it may not
    "shown",  # all ones where the struct has the packet's addresses, else 0
    "link_header",  # what legacy loads count from
    "network_header",
    "size",  # of the packet as it was put there, what its program does not see included
    "moved",  # not 0 where the run has moved its packet without Python (`packets`)
    "is_struct",  # not 0 where the caller's bytes are the struct: `room` at most,
    "least",  # and so many at least;
    "measured",  # all ones where the block says how many, 0 where the struct is a row of the table of regions
    "links",  # pointers of the struct: (offset, what it becomes) each; a struct that has its own is another's
    "links_stop",
    "copies",  # 4 bytes of it that stand elsewhere too: (offset, address) each
    "copies_stop",
)

# A batch: 8-byte words that Python writes; `index` and `turn` are counted in place.
BATCH_WORDS = (
    "index",  # the packet that is next, or that stopped the batch
    "count",
    "results",  # address of as many u64
    "turn",  # instructions until the end of a slice, over all packets
    "source",  # address of the routine that finds a packet
    "unlocked",  # run without Python's lock
    "fills",  # not 0: a fault's result is `fill`
    "fill",
    "base",  # the buffer that packets are in
    "size",
    "writable",  # all ones or 0
    "stride",
    "offsets",  # arrays of integers, of these kinds; without lengths a packet goes up to the next
    "offset_kind",
    "lengths",
    "length_kind",
    "stops",  # how often the program's calls had been stopped when the batch began
    "items",  # address of as many Python objects
    "after",  # address of memory for the packets that runs leave, `after_room` bytes, `after_used` of them
    "after_room",
    "after_used",
    "after_offsets",  # addresses of u64 for each packet, 0 where nobody asks: where it is there, and how long
    "after_lengths",
    "has_ends",  # not 0: the context says where the packet starts and ends, else the block
    "hidden",  # bytes in front of a packet that its program does not see, which are its own
    "reasons",  # address of u64 for each packet: the slot that set r0; 0 where nobody asks
    "left_start",  # the packet that found no room
    "left_size",
    "sent",  # address of memory for what runs send, `sent_room` bytes, `sent_used` of them; 0: Python's
    "sent_room",
    "sent_used",
    "channels",  # the table of maps that runs send to: CHANNEL_WORDS each
    "channels_stop",
    "reserved",  # address of the record of a ring that the run has reserved, 0 for none
    "reserved_size",
    "reserved_channel",
    "reserved_place",  # the address behind the call that did so, in the code of which state
    "reserved_state",
)

CHANNEL_WORDS = (
    "map",  # its address, which programs have
    "kind",  # RING_CHANNEL, PERF_CHANNEL
    "memory",  # of a ring; of perf events the processor on which programs run
    "mask",  # of a ring: its size less 1
    "ends",  # where the ring has its producer and consumer; where it is counted how often listeners changed
    "last",  # the producer when a run of the batch moved it last; that count when the batch began
    "index",  # the packet whose run did so
    "owed",  # by how much, in that run
)
RING_CHANNEL, PERF_CHANNEL = range(2)
RING_HEADER = 8  # bytes in front of a record of a ring
ENTRY_SIZE = 32
"""What stands in front of the bytes that a run sent: the packet, the channel, the size, where in the ring."""
DISCARDED = 1 << 32
"""In the size of a record that was reserved and then dropped: there are no bytes."""

KINDS = ("64", "i32", "u32")  # the integers that offsets and lengths may be, by their number
USUAL_PAIRS = {
    "pairs_64": ("64", "64"),
    "pairs_64_u32": ("64", "u32"),
    "ends_64": ("64", ""),
    "ends_i32": ("i32", ""),
}
"""Kinds of offsets and lengths (none: a packet goes up to the next) that have routines of their own: those of
captures, of numpy and the array module, of Arrow's columns."""

FINISHED, RAISED, OUT_OF_BOUNDS, NO_ROOM = range(4)
"""What `batch` returns; NO_ROOM: the packet has run, and what it left found no room."""

EMPTY = 1
"""The entry of an index that holds no program."""

TABLE_ROW = 24
