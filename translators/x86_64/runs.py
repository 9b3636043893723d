"""What every run needs that Python enters natively: its place on the thread's stack, its block filled.

    r12    block    limits    the program's stack    fixed mbuff    what the gate keeps    rsp on entry
           [r12+word]        low          high                      [rbp-place]            rbp

rbx is the state of the program: what is particular to it. `gate` and `batches` are made of this.
"""

from __future__ import annotations

from ebpfjit.translators.block import BLOCK_WORDS, STATE_WORDS
from ebpfjit.translators.emitter import NO_PC, Emitter
from ebpfjit.translators.host import Layout
from ebpfjit.translators.x86_64.host import ARGUMENTS_OFFSET, call, enter_program
from ebpfjit.translators.x86_64.lanes import lane_word
from ebpfjit.translators.x86_64.target import BLOCK, HOST_SAVED

STATE = {name: f"[rbx+{8 * index:#x}]" for index, name in enumerate(STATE_WORDS)}

# What the gate keeps of a call, below rbp (rsp after the host's registers were saved).
COUNT = "[rbp-8]"  # number of arguments, for who is called in place of the gate
TYPE, VALUE, TRACEBACK = "[rbp-0x10]", "[rbp-0x18]", "[rbp-0x20]"  # an error that is set aside
FIRST, SECOND = "[rbp-0x30]", "[rbp-0x28]"  # arguments for Python, behind a free word
TAKEN = "[rbp-0x40]"  # a bit for each Py_buffer that is to be released, and for each bytearray
VIEWS = (0x90, 0xE0)  # Py_buffers
HELD = (0xE8, 0xF0)  # where bytearrays count their exports
HELD_BITS = (4, 8)  # in TAKEN
KEPT_SIZE = 0xF0
VIEW_START, VIEW_OBJECT, VIEW_SIZE, VIEW_READONLY, VIEW_FORMAT = 0, 8, 0x10, 0x20, 0x28

PAGE = 0x1000


def block_word(name: str) -> str:
    """Return the operand of a word of the block."""
    return f"qword ptr {BLOCK[name]}"


def state_word(name: str) -> str:
    """Return the operand of a word of the program's state."""
    return f"qword ptr {STATE[name]}"


def view(index: int, part: int) -> str:
    """Return the operand of a part of a Py_buffer."""
    return f"[rbp-{VIEWS[index] - part:#x}]"


def make_frame(cx: Emitter, name: str) -> None:
    """Take the run's place on the stack, page by page: no guard page is ever jumped over.

    rbp is then the top, r12 the block. Keeps rdx, rsi.
    """
    big, again, framed = f".{name}_big", f".{name}_page", f".{name}_framed"
    cx.emit("mov rbp, rsp")
    cx.emit(f"mov rax, {state_word('frame')}")
    cx.emit(f"cmp rax, {PAGE:#x}")
    cx.jump("ja", big)
    cx.label(framed)
    cx.emit("sub rsp, rax")
    cx.emit("test qword ptr [rsp], rsp")
    cx.emit("mov r12, rsp")
    cx.emit(f"mov {block_word('frame_top')}, rbp")
    cx.emit(f"mov {block_word('state')}, rbx")
    cx.emit(f"mov qword ptr {TAKEN}, 0")
    with cx.out_of_line(big):
        cx.label(again)
        cx.emit(f"sub rsp, {PAGE:#x}")
        cx.emit("test qword ptr [rsp], rsp")
        cx.emit(f"sub rax, {PAGE:#x}")
        cx.emit(f"cmp rax, {PAGE:#x}")
        cx.jump("ja", again)
        cx.jump("jmp", framed)


def take_bytes(cx: Emitter, layout: Layout, other: str) -> None:
    """Take the `bytes` in rdi; what is something else goes to `other`."""
    cx.emit("mov rax, qword ptr [rip+$symbol]", symbol="PyBytes_Type")
    cx.emit("cmp qword ptr [rdi+8], rax")
    cx.jump("jne", other)
    cx.emit("lea r14, [rdi+$offset]", offset=layout.bytes_data)
    cx.emit("mov r15, qword ptr [rdi+$offset]", offset=layout.size)
    cx.emit("xor ecx, ecx")


def fill_region(cx: Emitter, region: str) -> None:
    """Fill in a region of the block: r14, r15 and rcx are its start, size and writable size."""
    cx.emit(f"mov {block_word(region + '_start')}, r14")
    cx.emit(f"mov {block_word(region + '_size')}, r15")
    cx.emit(f"mov {block_word(region + '_room')}, rcx")


def fill_context(cx: Emitter) -> None:
    """Fill in where the struct is, after `place`; r14 is then the struct, which r1 points to.

    It has rights, so that what asks for an access to it looks into the table.
    """
    cx.emit("mov r14, rax")
    cx.emit(f"mov {block_word('argument_start')}, rax")
    cx.emit(f"mov {block_word('argument_size')}, 0")
    cx.emit(f"mov {block_word('argument_room')}, 0")


def prepare(cx: Emitter) -> None:
    """Fill what a run and all runs of a batch have in common."""
    for word, offset in (("stack_limit", "low"), ("stack_top", "high")):
        cx.emit(f"mov rax, {state_word(offset)}")
        cx.emit("add rax, r12")
        cx.emit(f"mov {block_word(word)}, rax")
    cx.emit(f"mov rax, {state_word('regions')}")
    cx.emit(f"mov {block_word('regions')}, rax")
    cx.emit(f"mov {block_word('thread')}, 0")
    cx.emit(f"mov {block_word('turned')}, 0")
    cx.emit(f"mov rax, {state_word('stop_cell')}")
    cx.emit("mov rax, qword ptr [rax]")
    cx.emit(f"mov {block_word('stops')}, rax")


def prepare_special(cx: Emitter) -> None:
    """Fill what only matters where Python is called, or for a fault."""
    for word in ("leave", "attached", "link_header", "network_header", "batch", "tail_calls"):
        cx.emit(f"mov {block_word(word)}, 0")


def fill_headers(cx: Emitter) -> None:
    """Fill in what legacy loads count from, in a lane."""
    cx.emit(f"mov rdx, {state_word('lane')}")
    for word in ("link_header", "network_header"):
        cx.emit(f"mov rax, {lane_word(word)}")
        cx.emit(f"mov {block_word(word)}, rax")


def fill_limits(cx: Emitter, name: str) -> None:
    """How many places each span has in its region: size - (span - 1), 0 where that is negative."""
    again, done = f".{name}_limit", f".{name}_limits"
    cx.emit(f"mov rsi, {state_word('limits_start')}")
    cx.emit(f"mov rdi, {state_word('limits_stop')}")
    cx.emit("cmp rsi, rdi")
    cx.jump("je", done)
    cx.emit("xor ecx, ecx")
    cx.label(again)
    cx.emit("mov rax, qword ptr [rsi]")
    cx.emit("mov rax, qword ptr [r12+rax]")
    cx.emit("sub rax, qword ptr [rsi+8]")
    cx.emit("cmovb rax, rcx")
    cx.emit("mov rdx, qword ptr [rsi+0x10]")
    cx.emit("mov qword ptr [r12+rdx], rax")
    cx.emit("add rsi, 0x18")
    cx.emit("cmp rsi, rdi")
    cx.jump("jne", again)
    cx.label(done)


def start(cx: Emitter, layout: Layout, *, lane: bool = False) -> None:
    """Reset what a run uses up, and run the program on r14 (start) and r15 (size).

    In a lane r14 is the context and r2 is 0; of the result 32 bits count.
    """
    write_cells(cx)
    cx.emit(f"mov rax, {block_word('stack_top')}")
    cx.emit(f"mov {block_word('stack_start')}, rax")
    cx.emit(f"mov {block_word('frames_left')}, {layout.max_frames - 1:#x}")
    cx.emit(f"mov {block_word('fault_kind')}, 0")
    cx.emit(f"mov rax, {state_word('later')}")
    cx.emit(f"mov {block_word('later')}, rax")
    cx.emit(f"mov r9, {state_word('first')}")
    cx.emit("mov rdi, r14")
    if lane:
        cx.emit("xor esi, esi")
    else:
        cx.emit("test r15, r15")
        cx.emit("cmove rdi, r15")
        cx.emit("mov rsi, r15")
    enter_program(cx, state_word("entry"))
    if lane:
        cx.emit("mov eax, eax")


def write_cells(cx: Emitter) -> None:
    """Write what every run writes first: which processor's values maps show."""
    cells, again, written = cx.new_label("cells"), cx.new_label("cell"), cx.new_label("written")
    cx.emit(f"mov rcx, {state_word('cells_start')}")
    cx.emit(f"cmp rcx, {state_word('cells_stop')}")
    cx.jump("jne", cells)
    cx.label(written)
    with cx.out_of_line(cells):
        cx.label(again)
        cx.emit("mov rax, qword ptr [rcx]")
        cx.emit("mov rdx, qword ptr [rcx+8]")
        cx.emit("mov qword ptr [rax], rdx")
        cx.emit("add rcx, 0x10")
        cx.emit(f"cmp rcx, {state_word('cells_stop')}")
        cx.jump("jne", again)
        cx.jump("jmp", written)


def leave(cx: Emitter) -> None:
    """Give the stack and the host's registers back."""
    cx.emit("mov rsp, rbp")
    for saved in reversed(HOST_SAVED):
        cx.emit(f"pop {saved}")


def release_views(cx: Emitter) -> None:
    """Give back what was taken: bytearrays count one export less, Py_buffers are released."""
    for bit, held in zip(HELD_BITS, HELD, strict=True):
        kept = cx.new_label("not_held")
        cx.emit(f"test qword ptr {TAKEN}, {bit}")
        cx.jump("je", kept)
        cx.emit(f"mov rdx, qword ptr [rbp-{held:#x}]")
        cx.emit("dec qword ptr [rdx]")
        cx.label(kept)
    for index in range(len(VIEWS)):
        kept = cx.new_label("not_taken")
        cx.emit(f"test qword ptr {TAKEN}, {1 << index}")
        cx.jump("je", kept)
        cx.emit(f"lea rdi, {view(index, 0)}")
        call(cx, "PyBuffer_Release")
        cx.label(kept)


def neighbour(register: str, word: str) -> str:
    """Return a word of another block in the list of runs."""
    return f"qword ptr [{register}+{8 * BLOCK_WORDS.index(word):#x}]"


def link_where_asked(cx: Emitter, refused: str) -> None:
    """Put the run into the list of runs, where the program calls Python; a jump where it is refused."""
    unlinked = cx.new_label("unlinked")
    cx.emit(f"cmp {state_word('linked')}, 0")
    cx.jump("je", unlinked)
    cx.jump("call", "link")
    cx.emit("test eax, eax")
    cx.jump("jne", refused)
    cx.label(unlinked)


def unlink_where_asked(cx: Emitter) -> None:
    """Take it out again."""
    unlinked = cx.new_label("unlinked")
    cx.emit(f"cmp {state_word('linked')}, 0")
    cx.jump("je", unlinked)
    cx.jump("call", "unlink")
    cx.label(unlinked)


def _emit_look_at_stack(cx: Emitter) -> None:
    """Emit a call of look_at_stack(block); where it raises eax is not 0, and equal is set."""
    cx.emit("mov rdi, r12")
    call(cx, "PyLong_FromUnsignedLongLong")
    cx.emit(f"mov qword ptr {FIRST}, rax")
    cx.emit("test rax, rax")
    cx.jump("je", ".look_raised")
    cx.emit("mov rdi, qword ptr [rip+$symbol]", symbol="look_at_stack")
    cx.emit(f"lea rsi, {FIRST}")
    cx.emit("movabs rdx, $imm", imm=ARGUMENTS_OFFSET | 1, imm_sizes=(64,))
    cx.emit("xor ecx, ecx")
    call(cx, "PyObject_Vectorcall")
    cx.emit(f"mov rdi, qword ptr {FIRST}")
    cx.emit(f"mov qword ptr {FIRST}, rax")
    call(cx, "Py_DecRef")
    cx.emit(f"mov rdi, qword ptr {FIRST}")
    call(cx, "Py_DecRef")  # nothing where it raised
    cx.label(".look_raised")
    cx.emit("mov eax, 1")
    cx.emit(f"cmp qword ptr {FIRST}, 0")


def emit_link(cx: Emitter) -> None:
    """Emit `link` and `unlink`: put the block at the head of the list, take it out.

    Where the thread is in the middle of another run, `look_at_stack(block)` may refuse one more: then eax is
    not 0, an error is pending, and the block is not in the list.
    """
    cx.begin(NO_PC)
    cx.label("link")
    cx.emit("sub rsp, 8")
    call(cx, "PyThread_get_thread_ident")
    cx.emit(f"mov {block_word('thread_id')}, rax")
    cx.emit("mov rcx, qword ptr [rip+$symbol]", symbol="running")
    cx.emit("mov rcx, qword ptr [rcx]")
    cx.label(".link_look")
    cx.emit("test rcx, rcx")
    cx.jump("je", ".link_go")
    cx.emit(f"cmp {neighbour('rcx', 'thread_id')}, rax")
    cx.jump("je", ".link_nested")
    cx.emit(f"mov rcx, {neighbour('rcx', 'older')}")
    cx.jump("jmp", ".link_look")
    cx.label(".link_nested")
    _emit_look_at_stack(cx)
    cx.jump("je", ".link_out")
    cx.label(".link_go")
    cx.emit("mov rax, qword ptr [rip+$symbol]", symbol="running")
    cx.emit("mov rcx, qword ptr [rax]")
    cx.emit(f"mov {block_word('older')}, rcx")
    cx.emit(f"mov {block_word('newer')}, 0")
    cx.emit("test rcx, rcx")
    cx.jump("je", ".link_first")
    cx.emit(f"mov {neighbour('rcx', 'newer')}, r12")
    cx.label(".link_first")
    cx.emit("mov qword ptr [rax], r12")
    cx.emit("xor eax, eax")
    cx.label(".link_out")
    cx.emit("add rsp, 8")
    cx.emit("ret")
    cx.label("unlink")
    cx.emit(f"mov rcx, {block_word('older')}")
    cx.emit(f"mov rdx, {block_word('newer')}")
    cx.emit("test rdx, rdx")
    cx.jump("je", ".unlink_head")
    cx.emit(f"mov {neighbour('rdx', 'older')}, rcx")
    cx.jump("jmp", ".unlink_older")
    cx.label(".unlink_head")
    cx.emit("mov rax, qword ptr [rip+$symbol]", symbol="running")
    cx.emit("mov qword ptr [rax], rcx")
    cx.label(".unlink_older")
    cx.emit("test rcx, rcx")
    cx.jump("je", ".unlink_last")
    cx.emit(f"mov {neighbour('rcx', 'newer')}, rdx")
    cx.label(".unlink_last")
    cx.emit("ret")
    cx.label("find_run")
    cx.emit("mov rax, qword ptr [rip+$symbol]", symbol="running")
    cx.emit("mov rax, qword ptr [rax]")
    cx.emit("test rdi, rdi")
    cx.jump("je", ".find_next")
    cx.emit(f"mov rax, {neighbour('rdi', 'older')}")
    cx.label(".find_next")
    cx.emit("test rax, rax")
    cx.jump("je", ".find_out")
    cx.emit(f"cmp {neighbour('rax', 'thread_id')}, rsi")
    cx.jump("je", ".find_out")
    cx.emit(f"mov rax, {neighbour('rax', 'older')}")
    cx.jump("jmp", ".find_next")
    cx.label(".find_out")
    cx.emit("ret")
