"""Maps and programs inside the kernel: Python objects that own a file descriptor.

Each closes its descriptor in `close()`, at the end of a `with` block, or when Python drops it.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from ebpfjit.errors import EbpfError
from ebpfjit.kernel import syscalls
from ebpfjit.kernel.syscalls import LoadAttributes
from ebpfjit.record import dataclass

PACKET_ROOM = 1 << 16
"""Bytes a program may make its packet longer before BPF_PROG_TEST_RUN runs out of room."""


class _Owner:
    """Something with a file descriptor of its own."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def fd(self) -> int:
        """The file descriptor. Raises EbpfError once closed."""
        if self._fd < 0:
            raise EbpfError(f"this {type(self).__name__} is closed")
        return self._fd

    def close(self) -> None:
        """Close the descriptor; closing twice does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()


class KernelMap(_Owner):
    """A map in the kernel; keys and values are bytes of the sizes given.

    `key_size` and `value_size` are in bytes, `max_entries` is how many there may be. `map_type` is an `enum
    bpf_map_type`, an array where nothing else is said; `flags` are BPF_F_*, `extra` is map_extra.
    `inner_map_fd` is the descriptor of a map like those that a map of maps holds. `name` has at most 15
    bytes. `types` are the descriptor of a BTF and the ids of key and value in it. Raises KernelUnavailable or
    EbpfError where the kernel refuses.
    """

    def __init__(
        self,
        value_size: int,
        *,
        max_entries: int = 1,
        key_size: int = 4,
        map_type: int = syscalls.MAP_TYPE_ARRAY,
        flags: int = 0,
        inner_map_fd: int = 0,
        extra: int = 0,
        name: str = "",
        types: tuple[int, int, int] = (0, 0, 0),
    ) -> None:
        super().__init__(
            syscalls.map_create(
                map_type,
                key_size,
                value_size,
                max_entries,
                flags,
                inner_map_fd,
                extra,
                name=name,
                types=types,
            )
        )
        self.value_size = value_size
        self.key_size = key_size
        self.max_entries = max_entries

    def lookup(self, key: bytes = bytes(4)) -> bytes | None:
        """Return the value under `key`, None where there is none. Raises EbpfError on a wrong size."""
        self._check("key", key, self.key_size)
        return syscalls.map_lookup(self.fd, key, self.value_size)

    def update(self, value: bytes, key: bytes = bytes(4)) -> None:
        """Store `value` under `key`. Raises EbpfError on a wrong size or a refusal."""
        self._check("key", key, self.key_size)
        self._check("value", value, self.value_size)
        syscalls.map_update(self.fd, key, value)

    @staticmethod
    def _check(what: str, given: bytes, size: int) -> None:
        if len(given) != size:
            raise EbpfError(f"the map's {what} has {size} bytes, not {len(given)}")


@dataclass(frozen=True, slots=True)
class RunOutput:
    """What BPF_PROG_TEST_RUN gives back.

    `return_value` is a u32; `data` the packet and `context` the context after the run;
    `nanoseconds` the mean time of one run as the kernel measured it.
    """

    return_value: int
    data: bytes
    context: bytes
    nanoseconds: int


class KernelBtf(_Owner):
    """Types that the kernel has taken. Raises EbpfError where it does not take them."""

    def __init__(self, data: bytes) -> None:
        fd = syscalls.btf_load(data)
        if fd < 0:
            raise EbpfError(f"the kernel refused BTF of {len(data)} bytes ({syscalls.errno_name(-fd)})")
        super().__init__(fd)


class Link(_Owner):
    """A tracing program, attached as long as this is open. Raises ExecutionError."""

    def __init__(self, program: LoadedProgram) -> None:
        super().__init__(syscalls.raw_tracepoint_open(program.fd))


class LoadedProgram(_Owner):
    """A program that the kernel's verifier accepted.

    `code` is what the kernel gets, map descriptors filled in; `program_type` an `enum bpf_prog_type`;
    `attributes` are what else the kernel is told; `first_slot` counts the slots before the caller's own
    program, for error messages. `log` is the verifier's (`log_level` 1 or 2), "" at level 0. Raises
    KernelVerifierError, KernelUnavailable.
    """

    def __init__(
        self,
        code: bytes,
        program_type: int,
        attributes: LoadAttributes | None = None,
        *,
        log_level: int = 0,
        first_slot: int = 0,
    ) -> None:
        fd, self.log = syscalls.program_load(
            code, program_type, attributes, log_level=log_level, first_slot=first_slot
        )
        super().__init__(fd)

    def run(
        self, data: bytes | None = None, context: bytes = b"", *, repeat: int = 0, room: int | None = None
    ) -> RunOutput:
        """Run once, or `repeat` times; `data` is the packet, None for a type that has none.

        `room` is how many bytes of context may come back, None: as many as usual.
        Raises InputError where the kernel does not run it.
        """
        output_size = 0 if data is None else len(data) + PACKET_ROOM
        return RunOutput(*syscalls.program_run(self.fd, data or b"", output_size, context, repeat, room))
