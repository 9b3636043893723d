"""The four machines: a program, its helpers and its memory, run by either engine.

EbpfVmMbuff         (mem, mbuff)   r1 = &mbuff            r2 = len(mbuff)
EbpfVmFixedMbuff    (mem)          r1 = &internal mbuff, which holds &mem and &mem + len
EbpfVmRaw           (mem)          r1 = &mem              r2 = len(mem)
EbpfVmNoData        ()             r1 = 0                 r2 = 0
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ebpfjit.once import load_package
from ebpfjit.options import Options
from ebpfjit.runtime.environment import Environment
from ebpfjit.runtime.execution import Execution
from ebpfjit.runtime.memory import Region

if TYPE_CHECKING:
    from ebpfjit.arguments import Helpers, Kfuncs
    from ebpfjit.jit.gate import Mbuff
    from ebpfjit.literals import AnyBuffer


from ebpfjit.machine import Bytecode, Machine

_U32 = 1 << 32


class EbpfVmMbuff(Machine):
    """A machine whose program gets a metadata buffer that holds the packet's addresses.

    The user writes those addresses (`address_of`) into it. Keyword arguments, which `Machine` explains:
    `limit` (or `instruction_limit`), `helpers`, `kfuncs`, `environment`, `repeat`, `checked` (without checks
    a wrong program can crash the process), `harden`, `cache`, `release_gil`, `optimize`, `audit`.
    """

    _shape = ("mbuff", ("mem", "mbuff"))

    def _arguments(self, mem: AnyBuffer, mbuff: AnyBuffer) -> Execution:
        packet, metadata = Region.of_buffer("mem", mem), Region.of_buffer("mbuff", mbuff)
        return self._execution(metadata, [packet, metadata], packet)

    def execute_program(self, mem: AnyBuffer, mbuff: AnyBuffer) -> int:
        """Interpret the program and return r0, unsigned."""
        return self._interpret(self._arguments, mem, mbuff)

    def execute_program_jit(self, mem: AnyBuffer, mbuff: AnyBuffer) -> int:
        """Run the machine code; results and exceptions are those of `execute_program`."""
        return self._run_compiled(self._arguments, mem, mbuff)

    _execute = execute_program_jit


def _offsets(data_offset: int, data_end_offset: int) -> tuple[int, int]:
    """Return the offsets into a metadata buffer, checked."""
    for offset in (data_offset, data_end_offset):
        if not isinstance(offset, int):
            raise TypeError(f"an offset into the metadata buffer is an int, not {type(offset).__name__}")
        if not 0 <= offset < _U32:
            raise ValueError(f"an offset into the metadata buffer is from 0 to {_U32 - 1}, not {offset}")
    if abs(data_offset - data_end_offset) < 8:
        raise ValueError(f"the addresses at {data_offset} and {data_end_offset} overlap (8 bytes each)")
    return data_offset, data_end_offset


class EbpfVmFixedMbuff(Machine):
    """A machine that makes the metadata buffer itself.

    The address of the packet is stored at `data_offset`, the address behind it at `data_end_offset`, 8 bytes
    each; the rest of the buffer is zero at the start of each run. Keyword arguments, which `Machine`
    explains: `limit` (or `instruction_limit`), `helpers`, `kfuncs`, `environment`, `repeat`, `checked`
    (without checks a wrong program can crash the process), `harden`, `cache`, `release_gil`, `optimize`,
    `audit`.
    """

    _shape = ("fixed", ("mem", "mbuff"))

    def __init__(
        self,
        prog: Bytecode | None,
        data_offset: int,
        data_end_offset: int,
        *,
        instruction_limit: int | None = None,
        limit: int | None = None,
        helpers: Helpers | None = None,
        kfuncs: Kfuncs | None = None,
        environment: Environment | None = None,
        context: Mapping[str, Any] | None = None,
        repeat: int = 1,
        checked: bool = True,
        harden: bool = False,
        cache: str | os.PathLike[str] | None = None,
        release_gil: bool = False,
        optimize: bool | None = None,
        audit: bool = False,
    ) -> None:
        self._offsets = _offsets(data_offset, data_end_offset)
        self._take(limit, instruction_limit, helpers, kfuncs, environment, context, repeat)
        self._begin(prog, Options(checked, harden, release_gil, optimize, audit), cache)

    def _settings(self) -> dict[str, Any]:
        offsets: dict[str, Any] = {"data_offset": self.data_offset, "data_end_offset": self.data_end_offset}
        return {**super()._settings(), **offsets}

    def set_program(  # type: ignore[override] # the offsets are the program's, too
        self, prog: Bytecode, data_offset: int, data_end_offset: int
    ) -> None:
        """Load a program and the offsets that it expects. Raises VerifierError where it is refused."""
        offsets = _offsets(data_offset, data_end_offset)
        self._load(prog)
        self._offsets = offsets

    @property
    def data_offset(self) -> int:
        """Where the address of the packet is stored; for another one a program is compiled anew."""
        return self._offsets[0]

    @data_offset.setter
    def data_offset(self, offset: int) -> None:
        self._move(offset, self.data_end_offset)

    @property
    def data_end_offset(self) -> int:
        """Where the address behind the packet is stored; see `data_offset`."""
        return self._offsets[1]

    @data_end_offset.setter
    def data_end_offset(self, offset: int) -> None:
        self._move(self.data_offset, offset)

    def _move(self, data_offset: int, data_end_offset: int) -> None:
        self._offsets = _offsets(data_offset, data_end_offset)
        self._forget_code()  # it was promised an mbuff of the size that the old ones make

    def _arguments(self, mem: AnyBuffer) -> Execution:
        packet = Region.of_buffer("mem", mem)
        start = packet.start if packet.size else 0
        mbuff = bytearray(self._argument_size())
        for offset, address in ((self.data_offset, start), (self.data_end_offset, start + packet.size)):
            mbuff[offset : offset + 8] = address.to_bytes(8, "little")
        metadata = Region.of_buffer("mbuff", mbuff)
        return self._execution(metadata, [packet, metadata], packet)

    def _argument_size(self) -> int:
        return max(self.data_offset, self.data_end_offset) + 8

    def _mbuff(self) -> Mbuff:
        load_package("ebpfjit.jit")
        from ebpfjit.jit.gate import Mbuff

        return Mbuff(self._argument_size(), self.data_offset, self.data_end_offset)

    def execute_program(self, mem: AnyBuffer) -> int:
        """Interpret the program and return r0, unsigned."""
        return self._interpret(self._arguments, mem)

    def execute_program_jit(self, mem: AnyBuffer) -> int:
        """Run the machine code; results and exceptions are those of `execute_program`."""
        return self._run_compiled(self._arguments, mem)

    _execute = execute_program_jit


class EbpfVmRaw(Machine):
    """A machine whose program works on the packet directly, as in uBPF.

    Keyword arguments, which `Machine` explains: `limit` (or `instruction_limit`), `helpers`, `kfuncs`,
    `environment`, `repeat`, `checked` (without checks a wrong program can crash the process), `harden`,
    `cache`, `release_gil`, `optimize`, `audit`.
    """

    _shape = ("mem", ("mem",))
    _ARGUMENT_IS_PACKET = True

    def _arguments(self, mem: AnyBuffer) -> Execution:
        packet = Region.of_buffer("mem", mem)
        return self._execution(packet, [packet], packet)

    def execute_program(self, mem: AnyBuffer) -> int:
        """Interpret the program and return r0, unsigned."""
        return self._interpret(self._arguments, mem)

    def execute_program_jit(self, mem: AnyBuffer) -> int:
        """Run the machine code; results and exceptions are those of `execute_program`."""
        return self._run_compiled(self._arguments, mem)

    _execute = execute_program_jit


class EbpfVmNoData(Machine):
    """A machine whose program takes no data.

    Keyword arguments, which `Machine` explains: `limit` (or `instruction_limit`), `helpers`, `kfuncs`,
    `environment`, `repeat`, `checked` (without checks a wrong program can crash the process), `harden`,
    `cache`, `release_gil`, `optimize`, `audit`.
    """

    _shape = ("none", ())

    def _nothing(self) -> Execution:
        return self._execution(None, [], None)

    def execute_program(self) -> int:
        """Interpret the program and return r0, unsigned."""
        return self._interpret(self._nothing)

    def execute_program_jit(self) -> int:
        """Run the machine code; results and exceptions are those of `execute_program`."""
        return self._run_compiled(self._nothing)

    _execute = execute_program_jit
