"""The same bytecode through LLVM, unchecked: what a compiler with every pass there is makes of it.

The only module that needs llvmlite, of the extra `ebpfjit[bench]`; nothing else of the library imports it.
Programs of one type of memory only: no helpers, maps or atomics, as the kernels are.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ebpfjit.analysis.verified import Verified, prepare
from ebpfjit.bench.measure import BenchError
from ebpfjit.isa.spec import FRAME_POINTER, REGISTER_COUNT, Kind
from ebpfjit.program import Instruction, Program

if TYPE_CHECKING:
    from ebpfjit.bench.contest import Workspace

CALLER_SAVED = range(1, 6)
WORD = 64

SIMPLE = {
    "ADD": "add", "SUB": "sub", "MUL": "mul", "OR": "or_", "AND": "and_", "XOR": "xor",
}  # fmt: skip
SHIFTS = {"LSH": "shl", "RSH": "lshr", "ARSH": "ashr"}
DIVISIONS = {"DIV": "udiv", "MOD": "urem", "SDIV": "sdiv", "SMOD": "srem"}
CONDITIONS = {
    "JEQ": ("unsigned", "=="), "JNE": ("unsigned", "!="),
    "JGT": ("unsigned", ">"), "JGE": ("unsigned", ">="), "JLT": ("unsigned", "<"), "JLE": ("unsigned", "<="),
    "JSGT": ("signed", ">"), "JSGE": ("signed", ">="), "JSLT": ("signed", "<"), "JSLE": ("signed", "<="),
}  # fmt: skip


@cache
def is_here() -> bool:
    """Tell whether llvmlite can be imported."""
    return importlib.util.find_spec("llvmlite") is not None


def left_out() -> list[str]:
    """Return the remark of a table without LLVM's column."""
    return [] if is_here() else ["Without LLVM on the same bytecode: pip install 'ebpfjit[bench]'."]


def compile_program(program: Program, lead: int) -> Callable[[Workspace], int]:
    """Return a program as LLVM compiles it for this processor, behind so many bytes.

    Raises BenchError where it has instructions that are not translated here.
    """
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    binding.initialize_native_asmparser()
    module = binding.parse_assembly(_Module(prepare(program)).text(lead))
    module.verify()
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=2, jit=True
    )
    options = binding.create_pipeline_tuning_options(speed_level=2)
    builder = binding.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    engine = binding.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    shape = ctypes.PYFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong)
    function = shape(engine.get_function_address("kernel"))
    # The engine owns the code: it lives as long as what calls it.
    return lambda space, engine=engine: function(space.address, space.size)  # type: ignore[misc]


class _Module:
    """A program's functions, one of LLVM's for each."""

    def __init__(self, verified: Verified) -> None:
        from llvmlite import binding, ir

        self.verified = verified
        self.module = ir.Module()
        self.module.triple = binding.get_process_triple()
        i64 = ir.IntType(WORD)
        shape = ir.FunctionType(i64, [i64] * len(CALLER_SAVED))
        starts = sorted(verified.program.functions)
        self.functions = {pc: ir.Function(self.module, shape, f"function_{pc}") for pc in starts}
        for function in self.functions.values():
            function.linkage = "internal"
        for start, end in pairwise([*starts, len(verified.program)]):
            _Function(self, start, end).translate()
        kernel = ir.Function(self.module, ir.FunctionType(i64, [i64, i64]), "kernel")
        builder = ir.IRBuilder(kernel.append_basic_block())
        nothing = ir.Constant(i64, 0)
        builder.ret(builder.call(self.functions[0], [*kernel.args, nothing, nothing, nothing]))

    def text(self, lead: int) -> str:
        """Return the module in LLVM's assembly language, its code behind so many bytes."""
        return f'{self.module}\nmodule asm ".text\\0A.p2align 6\\0A.skip {lead}"\n'


class _Function:
    """One function: each register in a place of the stack, which LLVM makes values of."""

    def __init__(self, module: _Module, start: int, end: int) -> None:
        from llvmlite import ir

        self.ir, self.module, self.start, self.end = ir, module, start, end
        self.function = module.functions[start]
        self.i64 = ir.IntType(WORD)
        entry = self.function.append_basic_block("entry")
        self.blocks = {
            pc: self.function.append_basic_block(f"pc_{pc}")
            for pc in module.verified.blocks
            if start <= pc < end
        }
        self.builder = ir.IRBuilder(entry)
        self.registers = [self.builder.alloca(self.i64, name=f"r{x}") for x in range(REGISTER_COUNT)]

    def number(self, value: int, bits: int = WORD) -> Any:
        """Return a constant of so many bits."""
        return self.ir.Constant(self.ir.IntType(bits), value % (1 << bits))

    def translate(self) -> None:
        """Write the function's blocks."""
        size = max(self.module.verified.frame_sizes[self.start], 8)
        frame = self.builder.alloca(self.ir.IntType(8), size=size)
        frame.align = 16
        top = self.builder.add(self.builder.ptrtoint(frame, self.i64), self.number(size))
        self.builder.store(top, self.registers[FRAME_POINTER])
        for register, argument in zip(CALLER_SAVED, self.function.args, strict=True):
            self.builder.store(argument, self.registers[register])
        self.builder.branch(self.blocks[self.start])
        for instruction in self.module.verified.program.instructions:
            if not self.start <= instruction.pc < self.end:
                continue
            if instruction.pc in self.blocks:
                if not self.builder.block.is_terminated:
                    self.builder.branch(self.blocks[instruction.pc])
                self.builder.position_at_end(self.blocks[instruction.pc])
            self.instruction(instruction)

    def register(self, number: int, bits: int = WORD) -> Any:
        """Return the low bits of a register."""
        value = self.builder.load(self.registers[number])
        return value if bits == WORD else self.builder.trunc(value, self.ir.IntType(bits))

    def write(self, number: int, value: Any, *, signed: bool = False) -> None:
        """Write a register, extended to its 64 bits."""
        if value.type.width < WORD:
            value = (self.builder.sext if signed else self.builder.zext)(value, self.i64)
        self.builder.store(value, self.registers[number])

    def source(self, instruction: Instruction, bits: int) -> Any:
        """Return the second operand: a register, or the immediate."""
        assert instruction.row is not None
        if instruction.row.uses_src:
            return self.register(instruction.src_reg, bits)
        return self.number(instruction.imm, bits)

    def address(self, register: int, offset: int, bits: int) -> Any:
        """Return a pointer to so many bits."""
        whole = self.builder.add(self.register(register), self.number(offset))
        return self.builder.inttoptr(whole, self.ir.IntType(bits).as_pointer())

    def instruction(self, instruction: Instruction) -> None:
        """Write one instruction. Raises BenchError for a kind that kernels do not have."""
        row = instruction.row
        write = _KINDS.get(row.kind) if row is not None else None
        if write is None:
            raise BenchError(
                f"LLVM is not given {row.name if row else 'unknown instructions'}: kernels have none"
            )
        write(self, instruction)

    def binary(self, instruction: Instruction) -> None:
        """Arithmetic; shifts by their low bits, division by zero as eBPF has it."""
        row, builder = instruction.row, self.builder
        assert row is not None
        bits = row.width.bits
        a, b = self.register(instruction.dst_reg, bits), self.source(instruction, bits)
        if row.meaning in SIMPLE:
            value = getattr(builder, SIMPLE[row.meaning])(a, b)
        elif row.meaning in SHIFTS:
            value = getattr(builder, SHIFTS[row.meaning])(a, builder.and_(b, self.number(bits - 1, bits)))
        else:
            value = self.divided(row.meaning, a, b, bits)
        self.write(instruction.dst_reg, value)

    def divided(self, meaning: str, a: Any, b: Any, bits: int) -> Any:
        """Return a quotient or remainder: by zero 0 or `a`, of the least number by -1 that number or 0."""
        builder, zero, one = self.builder, self.number(0, bits), self.number(1, bits)
        by_zero = builder.icmp_unsigned("==", b, zero)
        is_odd = by_zero
        if meaning in ("SDIV", "SMOD"):
            by_minus_one = builder.icmp_unsigned("==", b, self.number(-1, bits))
            is_odd = builder.or_(by_zero, by_minus_one)
        value = getattr(builder, DIVISIONS[meaning])(a, builder.select(is_odd, one, b))
        remains = meaning in ("MOD", "SMOD")
        if meaning in ("SDIV", "SMOD"):
            value = builder.select(by_minus_one, zero if remains else builder.neg(a), value)
        return builder.select(by_zero, a if remains else zero, value)

    def move(self, instruction: Instruction) -> None:
        """A copy, or one that extends a sign."""
        row = instruction.row
        assert row is not None
        bits = row.width.bits
        value = self.source(instruction, bits)
        if row.meaning != "MOV":
            narrow = self.ir.IntType(int(row.meaning.removeprefix("MOVSX")))
            value = self.builder.sext(self.builder.trunc(value, narrow), self.ir.IntType(bits))
        self.write(instruction.dst_reg, value)

    def unary(self, instruction: Instruction) -> None:
        """Negation, and changes of byte order."""
        row, builder = instruction.row, self.builder
        assert row is not None
        if row.meaning == "NEG":
            self.write(instruction.dst_reg, builder.neg(self.register(instruction.dst_reg, row.width.bits)))
            return
        bits = int(row.meaning.strip("LEBSWAP"))
        value = self.register(instruction.dst_reg, bits)
        self.write(instruction.dst_reg, value if row.meaning.startswith("LE") else builder.bswap(value))

    def load_imm64(self, instruction: Instruction) -> None:
        """A constant."""
        self.write(instruction.dst_reg, self.number(instruction.imm64))

    def load(self, instruction: Instruction) -> None:
        """A load, from any alignment."""
        row = instruction.row
        assert row is not None
        place = self.address(instruction.src_reg, instruction.offset, 8 * row.size)
        self.write(instruction.dst_reg, self.builder.load(place, align=1), signed=row.signed)

    def store(self, instruction: Instruction) -> None:
        """A store, to any alignment."""
        row = instruction.row
        assert row is not None
        place = self.address(instruction.dst_reg, instruction.offset, 8 * row.size)
        self.builder.store(self.source(instruction, 8 * row.size), place, align=1)

    def jump(self, instruction: Instruction) -> None:
        """A jump."""
        self.builder.branch(self.blocks[_target(instruction)])

    def branch(self, instruction: Instruction) -> None:
        """A conditional jump."""
        row = instruction.row
        assert row is not None
        a, b = self.register(instruction.dst_reg, row.width.bits), self.source(instruction, row.width.bits)
        if row.meaning == "JSET":
            zero = self.number(0, row.width.bits)
            holds = self.builder.icmp_unsigned("!=", self.builder.and_(a, b), zero)
        else:
            kind, sign = CONDITIONS[row.meaning]
            holds = getattr(self.builder, f"icmp_{kind}")(sign, a, b)
        self.builder.cbranch(holds, self.blocks[_target(instruction)], self.blocks[instruction.pc + 1])

    def call(self, instruction: Instruction) -> None:
        """A call of a function of the program."""
        arguments = [self.register(register) for register in CALLER_SAVED]
        self.write(0, self.builder.call(self.module.functions[_target(instruction)], arguments))

    def leave(self, instruction: Instruction) -> None:
        """The end of the function."""
        self.builder.ret(self.register(0))


def _target(instruction: Instruction) -> int:
    assert instruction.target is not None  # jumps and calls have one
    return instruction.target


_KINDS: dict[Kind, Callable[[_Function, Instruction], None]] = {
    Kind.BINARY: _Function.binary,
    Kind.MOVE: _Function.move,
    Kind.UNARY: _Function.unary,
    Kind.LOAD_IMM64: _Function.load_imm64,
    Kind.LOAD: _Function.load,
    Kind.STORE: _Function.store,
    Kind.JUMP: _Function.jump,
    Kind.BRANCH: _Function.branch,
    Kind.CALL_LOCAL: _Function.call,
    Kind.EXIT: _Function.leave,
}
