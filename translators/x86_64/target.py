"""x86-64: registers, the block that machine code shares with its host, and the code around a program.

    entry                   the start state, then function 0; `host.run` and `gate` call it
    callback(block, f, a)   the same for a helper: function f of the running program, r1 to r5 from a
    enter_N                 gives function N a zeroed frame, then runs it

What checks and reports faults is shared by all programs (`checks.py`).

Guest registers stay in machine registers throughout; r1 to r5 sit where the System V ABI wants
arguments, so a helper call moves nothing. r9 counts instructions down, r10 is scratch, r12 points to
the block. r11 holds minus the start of the region that most checks compare with ("pinned"), or is
scratch too: what uses it puts it right again.
"""

from __future__ import annotations

from ebpfjit.translators import context, registry
from ebpfjit.translators.block import BLOCK_WORDS, POISON
from ebpfjit.translators.emitter import NO_PC, Emitter
from ebpfjit.translators.labels import enter_label, pc_label, resume_label
from ebpfjit.translators.machine import Registers

NAME = "x86_64"
translates = registry.for_target(NAME)

#    eBPF    64 bits 32      16      8
REGISTERS = (
    ("rax", "eax", "ax", "al"),  # r0: return value
    ("rdi", "edi", "di", "dil"),  # r1 to r5: arguments, as in the System V ABI
    ("rsi", "esi", "si", "sil"),
    ("rdx", "edx", "dx", "dl"),
    ("rcx", "ecx", "cx", "cl"),
    ("r8", "r8d", "r8w", "r8b"),
    ("rbx", "ebx", "bx", "bl"),  # r6 to r9: the host's callee-saved, so helpers keep them
    ("r13", "r13d", "r13w", "r13b"),
    ("r14", "r14d", "r14w", "r14b"),
    ("r15", "r15d", "r15w", "r15b"),
    ("rbp", "ebp", "bp", "bpl"),  # r10: frame pointer
)
SCRATCH = (("r10", "r10d", "r10w", "r10b"), ("r11", "r11d", "r11w", "r11b"))
HOST_SAVED = ("rbp", "rbx", "r12", "r13", "r14", "r15")
_COLUMN = {64: 0, 32: 1, 16: 2, 8: 3}
_BITS = dict.fromkeys(("rsp", "r9", "r12"), 64) | {
    name: bits for names in (*REGISTERS, *SCRATCH) for bits, name in zip(_COLUMN, names, strict=True)
}

BLOCK = {name: f"[r12+{8 * index:#x}]" for index, name in enumerate(BLOCK_WORDS)}
CLEARED = 128  # bytes of a frame that are zeroed in one round


INVERSE = {
    "je": "jne", "jne": "je", "ja": "jbe", "jbe": "ja", "jae": "jb", "jb": "jae",
    "jg": "jle", "jle": "jg", "jge": "jl", "jl": "jge",
}  # fmt: skip

FLAGS = dict.fromkeys(("ADD", "SUB"), frozenset({"JEQ", "JNE"})) | dict.fromkeys(
    ("AND", "OR", "XOR"), frozenset({"JEQ", "JNE", "JSLT", "JSGE", "JSGT", "JSLE"})
)
"""The comparisons with 0 that need none behind an operation, which has set the flags."""

POINTER = {1: "byte ptr", 2: "word ptr", 4: "dword ptr", 8: "qword ptr"}


VALUE_REGISTERS = (*REGISTERS, SCRATCH[1], SCRATCH[0])
"""What placed code names by number: the homes of r0 to r10, r11, and what moves may use in between, r10."""


VALUES = Registers(12, scratch=12, kept=0b111_1100_0000, extra=1 << 11, spare=11)
AUDITED_VALUES = Registers(11, scratch=12, kept=0b111_1100_0000, extra=0, spare=11)
"""The registers for values; audits need r11."""


def register(number: int, bits: int = 64) -> str:
    """Return the machine register of a number, at a width of 64, 32, 16 or 8: below 11 an eBPF register's."""
    return VALUE_REGISTERS[number][_COLUMN[bits]]


class Context(context.Context):
    """What a translator is given: the instruction's operands by name, and the means to emit.

    `dst` and `src` are the operands at the row's width; `operand` is src or the hole for imm, to
    be filled with `imm`.
    """

    target = NAME
    inverse = INVERSE
    flags = FLAGS
    frame_top = "rbp"

    @property
    def dst(self) -> str:
        """The destination at the row's width."""
        return register(self.insn.dst_reg, self.width.bits)

    @property
    def dst64(self) -> str:
        """The whole destination."""
        return register(self.insn.dst_reg)

    @property
    def src(self) -> str:
        """The source at the row's width."""
        return register(self.insn.src_reg, self.width.bits)

    @property
    def src64(self) -> str:
        """The whole source."""
        return register(self.insn.src_reg)

    @property
    def operand(self) -> str:
        """The second operand: the source, or `$imm`."""
        return self.src if self.is_x else "$imm"

    def emit_constant(
        self, template: str, imm: int | None, imm_sizes: tuple[int, ...] = (8, 32), offset: int | None = None
    ) -> None:
        """Emit an instruction whose immediate the program chose; None where it has a register.

        Hardened, the number is put together in r10 from two that nobody can foresee:
        mov r10, imm ^ key;  xor r10, key;  add rdi, r10
        """
        if imm is None or not self.settings.harden:
            self.emit(template, imm=imm, imm_sizes=imm_sizes, offset=offset)
            return
        key = _unforeseeable(31) | 1
        self.emit("mov r10, $imm", imm=imm ^ key, imm_sizes=(32,))
        self.emit("xor r10, $imm", imm=key, imm_sizes=(32,))
        if not template.startswith("mov r10"):
            scratch = SCRATCH[0][_COLUMN[operand_bits(template)]]
            self.emit(template.replace("$imm", scratch), offset=offset)


def _unforeseeable(bits: int) -> int:
    """Return a random number; what makes them is only loaded for hardened code."""
    import secrets

    return secrets.randbits(bits)


def address_operand(base: str, offset: int) -> tuple[str, int | None]:
    """Return the text of base + offset, and the number for its `$offset` hole."""
    return (f"[{base}+$offset]", offset) if offset else (f"[{base}]", None)


def operand_bits(template: str) -> int:
    """Return the width of a template's first operand, as its text tells."""
    first = template.split(maxsplit=1)[1].split(",")[0]
    for size, pointer in POINTER.items():
        if first.startswith(pointer):
            return 8 * size
    return _BITS[first]


def load_constant(cx: Context, register_number: int, value: int) -> None:
    """Put a 64-bit constant (u64) into an eBPF register, by the shortest form."""
    if cx.settings.harden:
        key = _unforeseeable(64) | 1
        cx.emit(f"movabs {register(register_number)}, $imm", imm=value ^ key, imm_sizes=(64,))
        cx.emit("movabs r10, $imm", imm=key, imm_sizes=(64,))
        cx.emit(f"xor {register(register_number)}, r10")
        return
    name64, name32 = register(register_number), register(register_number, 32)
    signed = value - (1 << 64) if value >> 63 else value
    if value == 0:
        cx.emit(f"xor {name32}, {name32}")
    elif value >> 32 == 0:
        cx.emit(f"mov {name32}, $imm", imm=value, imm_sizes=(32,))
    elif -(1 << 31) <= signed < 0:
        cx.emit(f"mov {name64}, $imm", imm=signed, imm_sizes=(32,))
    else:
        cx.emit(f"movabs {name64}, $imm", imm=value, imm_sizes=(64,))


def pin(cx: Context) -> None:
    """Put minus the start of the pinned region, if one is, into r11 again; leaves other registers alone."""
    region = cx.pinned
    if region is not None:
        cx.repeat(region, lambda: emit_pin(cx, region))


def emit_pin(cx: Emitter, region: str) -> None:
    """Put minus the start of a region into r11."""
    cx.emit("xor r11d, r11d")
    cx.emit(f"sub r11, qword ptr {BLOCK[region + '_start']}")


def emit_entry(cx: Context) -> None:
    """Emit `entry`: the start state and function 0, for a host whose rsp is a multiple of 16 there.

    The host has put r1, r2, r9 and r12 where they belong and finds r0 and r9 there in the end;
    nothing but r12 and rsp is kept.
    """
    cx.begin(NO_PC)
    cx.label("entry")

    def reset() -> None:
        cx.emit(f"mov qword ptr {BLOCK['host_stack']}, rsp")
        for number in (0, *range(3, 10)):
            name = register(number, 32)
            cx.emit(f"xor {name}, {name}")

    cx.repeat("entry", reset)
    cx.jump("jmp", enter_label(0))


def _set_return(cx: Context) -> None:
    """Note where a fault returns to: behind the call that comes next, as the program's end does."""
    cx.emit("lea r10, [rsp-8]")
    cx.emit(f"mov qword ptr {BLOCK['host_stack']}, r10")


def emit_callback(cx: Context) -> None:
    """Emit `callback(block, function, arguments) -> r0`: what a helper calls, inside of a run.

    `function` is an address as LDDW gives it, `arguments` points to r1 to r5. The caller has seen
    to it that there is such a function and that its frame fits.
    """
    kept = ("stack_start", "loops", "frames_left", "host_stack")  # a fault leaves them anyhow
    cx.used.add("call_by_address")
    cx.begin(NO_PC)
    cx.label("callback")
    for name in HOST_SAVED:
        cx.emit(f"push {name}")
    cx.emit("mov r12, rdi")
    cx.emit("mov r11, rsi")
    cx.emit("mov r10, rdx")
    for word in kept:
        cx.emit(f"push qword ptr {BLOCK[word]}")
    # Eleven words with the return address, as many as entry has, modulo 2.
    cx.emit(f"dec qword ptr {BLOCK['frames_left']}")
    cx.emit(f"mov r9, qword ptr {BLOCK['budget']}")
    for number in range(1, 6):
        cx.emit(f"mov {register(number)}, qword ptr [r10+{8 * (number - 1):#x}]")
    for number in (0, *range(6, 10)):
        name = register(number, 32)
        cx.emit(f"xor {name}, {name}")
    _set_return(cx)
    cx.jump("call", "call_by_address")
    cx.emit(f"mov qword ptr {BLOCK['budget']}, r9")
    for word in reversed(kept):
        cx.emit(f"pop qword ptr {BLOCK[word]}")
    for name in reversed(HOST_SAVED):
        cx.emit(f"pop {name}")
    cx.emit("ret")


def emit_function_entry(cx: Context, pc: int) -> None:
    """Emit `enter_N`: a zeroed frame below the live ones, r10 on top of it."""
    size = cx.frame_sizes[pc]
    cx.begin(NO_PC)
    cx.label(enter_label(pc))

    def find() -> None:
        cx.emit(f"mov rbp, qword ptr {BLOCK['stack_start']}")
        cx.emit("lea r11, [rbp+$offset]", offset=-size)
        if cx.plan.counts_frames:
            cx.emit(f"cmp r11, qword ptr {BLOCK['stack_limit']}")

    cx.repeat(("frame", size, cx.plan.counts_frames), find)
    if cx.plan.counts_frames:
        # A jump, not a call: the address on the stack is that of the local call that came here.
        fault = f"fault_{cx.plan.depth_fault}"
        cx.used.add(fault)
        cx.jump("jb", fault)
    cx.emit(f"mov qword ptr {BLOCK['stack_start']}, r11")
    if cx.has_may_goto:
        cx.emit(f"mov qword ptr {BLOCK['loops']}, $imm", imm=cx.settings.max_loops, imm_sizes=(32,))
    if size and pc in cx.plan.zeroed:
        _clear(cx, f".zero_{pc}", size)
    elif size and cx.plan.is_audited:
        _emit_poison(cx, pc)
    pin(cx)
    cx.jump("jmp", cx.functions(pc))


def _clear(cx: Context, again: str, size: int) -> None:
    """Emit: zero the `size` bytes (a multiple of 16, not 0) from r11 up to rbp; clobbers r11."""

    def stores(count: int) -> None:
        cx.emit("movups xmmword ptr [r11], xmm0")
        for offset in range(0x10, count, 0x10):
            cx.emit(f"movups xmmword ptr [r11+{offset:#x}], xmm0")

    def first() -> None:
        cx.emit("xorps xmm0, xmm0")
        if size % CLEARED:
            stores(size % CLEARED)
            cx.emit(f"add r11, {size % CLEARED:#x}")

    def rest() -> None:
        stores(CLEARED)
        cx.emit(f"sub r11, -{CLEARED:#x}")  # shorter than to add it
        cx.emit("cmp r11, rbp")

    cx.repeat(("clear first", size % CLEARED), first)
    if size >= CLEARED:
        cx.label(again)
        cx.repeat("clear", rest)
        cx.jump("jb", again)


def _emit_poison(cx: Context, pc: int) -> None:
    """Fill the frame from r11 to rbp with what no program should come to see; r10 and r11 are lost."""
    poison = f".poison_{pc}"
    cx.emit("movabs r10, $imm", imm=int.from_bytes(bytes([POISON]) * 8, "little"), imm_sizes=(64,))
    cx.label(poison)
    cx.emit("mov qword ptr [r11], r10")
    cx.emit("add r11, 8")
    cx.emit("cmp r11, rbp")
    cx.jump("jb", poison)


def emit_resume(cx: Context, pc: int, label: str = "") -> None:
    """Emit `resume_N`: go on at the basic block at `pc`, or at a label of it where there is another."""
    cx.begin(pc)
    cx.label(resume_label(pc))
    pin(cx)
    cx.jump("jmp", label or pc_label(pc))


def emit_shared(cx: Context) -> None:
    """Emit the routines of its own that the program turned out to use."""
    if cx.plan.is_called_back:
        emit_callback(cx)
    if "call_by_address" in cx.used:
        _emit_call_by_address(cx)


def _emit_call_by_address(cx: Context) -> None:
    """Emit a routine that goes on at the entry of the function whose address is in r11.

    A search by halving; what is no function is a fault of the caller's pc.
    """
    cx.begin(NO_PC)
    cx.label("call_by_address")
    cx.used.add("fault_function")
    cx.emit("movabs r10, $imm", imm=-cx.settings.code_address & (1 << 64) - 1, imm_sizes=(64,))
    cx.emit("add r10, r11")

    def search(starts: list[int]) -> None:
        if len(starts) == 1:
            cx.emit("cmp r10, $imm", imm=starts[0], imm_sizes=(32,))
            cx.jump("je", enter_label(starts[0]))
            cx.jump("jmp", "fault_function")
            return
        middle = len(starts) // 2
        upper = cx.new_label("from")
        cx.emit("cmp r10, $imm", imm=starts[middle], imm_sizes=(32,))
        cx.jump("jae", upper)
        search(starts[:middle])
        cx.label(upper)
        search(starts[middle:])

    search(sorted(cx.program.functions))


def drop(cx: Context) -> None:
    """Give back the machine's stack that values are on: a function ends, or goes on in baseline code."""
    if cx.spilled:
        cx.emit("add rsp, $imm", imm=cx.spilled)


def pay(cx: Context, instructions: int) -> None:
    """Emit the payment for basic blocks, or give back (negative) what was paid for others."""
    if instructions:
        cx.emit("sub r9, $imm", imm=instructions)


def emit_charge(cx: Context, instructions: int) -> None:
    """Emit the payment at the start of a tested basic block of `instructions`, at the current pc.

    sub r9, n;  jl broke        broke:  add r9, n;  call slice;  jmp (here, again)
    """
    pc = cx.insn.pc
    cx.used.add("slice")
    broke = f".broke_{pc}"
    pay(cx, instructions)
    cx.jump("jl", broke)
    with cx.out_of_line(broke):
        cx.emit("add r9, $imm", imm=instructions)
        cx.jump("call", "slice")
        pin(cx)
        cx.jump("jmp", pc_label(pc))
