"""What programs in the kernel tell user space: records of ring buffers and of perf buffers.

    ringbuf   page 0: consumer position    page 1: producer position    from page 2: the ring, twice
    perf      page 0: head and tail        from page 1: the ring

Layouts: kernel/bpf/ringbuf.c; include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import platform
import struct
from collections.abc import Iterable, Iterator

from ebpfjit.kernel.syscalls import KernelUnavailable, errno_name

PAGE = mmap.PAGESIZE

RING_BUSY, RING_DISCARD, _RING_HEADER = 1 << 31, 1 << 30, 8

_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_PERF_TYPE_SOFTWARE, _PERF_COUNT_SW_BPF_OUTPUT, _PERF_SAMPLE_RAW = 1, 10, 1 << 10
_PERF_RECORD_SAMPLE, _PERF_FLAG_FD_CLOEXEC, _PERF_EVENT_IOC_ENABLE = 9, 8, 0x2400
_PERF_ATTRIBUTE = struct.Struct("=IIQQQQQII")  # type to wakeup_events
_PERF_ATTRIBUTE_SIZE = 128
_HEAD_AT = 1024
_PERF_PAGES = 64


def ring_records(fd: int, size: int) -> list[bytes]:
    """Return the records of a ring buffer of `size` bytes that nobody has read, in order."""
    with mmap.mmap(fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ) as consumer_page:
        consumer = int.from_bytes(consumer_page[:8], "little")
    with mmap.mmap(fd, PAGE + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=PAGE) as memory:
        producer = int.from_bytes(memory[:8], "little")
        return list(_walk(memory, consumer, producer, size))


def _walk(memory: mmap.mmap, consumer: int, producer: int, size: int) -> Iterator[bytes]:
    while consumer < producer:
        start = PAGE + consumer % size
        length = int.from_bytes(memory[start : start + 4], "little")
        if length & RING_BUSY:
            return
        taken = length & ~RING_DISCARD
        if not length & RING_DISCARD:
            yield memory[start + _RING_HEADER : start + _RING_HEADER + taken]
        consumer += -(-(taken + _RING_HEADER) // 8) * 8


def submit_samples(fd: int, samples: Iterable[tuple[bytes, int]]) -> None:
    """Put samples into a user ring buffer that nobody has used yet: (bytes, bits of the header).

    The bits say that a sample is still written (RING_BUSY), or dropped (RING_DISCARD).
    """
    records = [(struct.pack("=II", len(data) | bits, 0) + data) for data, bits in samples]
    ring = b"".join(record.ljust(-(-len(record) // 8) * 8, b"\0") for record in records)
    if not ring:
        return
    with mmap.mmap(fd, PAGE + -(-len(ring) // PAGE) * PAGE, mmap.MAP_SHARED, offset=PAGE) as memory:
        memory[PAGE : PAGE + len(ring)] = ring
        memory[:8] = len(ring).to_bytes(8, "little")


def drained(fd: int) -> int:
    """Return how many bytes of a user ring buffer programs have drained."""
    with mmap.mmap(fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ) as consumer_page:
        return int.from_bytes(consumer_page[:8], "little")


class PerfBuffer:
    """A perf buffer of one processor, for a program's events. Raises KernelUnavailable."""

    def __init__(self, cpu: int) -> None:
        head = _PERF_ATTRIBUTE.pack(
            _PERF_TYPE_SOFTWARE, _PERF_ATTRIBUTE_SIZE, _PERF_COUNT_SW_BPF_OUTPUT,
            1, _PERF_SAMPLE_RAW, 0, 0, 1, 0,
        )  # fmt: skip
        attribute = ctypes.create_string_buffer(head.ljust(_PERF_ATTRIBUTE_SIZE, b"\0"), _PERF_ATTRIBUTE_SIZE)
        function = ctypes.CDLL(None, use_errno=True).syscall
        function.restype = ctypes.c_long
        number = _PERF_EVENT_OPEN.get(platform.machine(), -1)
        arguments = [ctypes.c_long(value) for value in (-1, cpu, -1, _PERF_FLAG_FD_CLOEXEC)]
        self.fd = int(function(ctypes.c_long(number), ctypes.byref(attribute), *arguments))
        if self.fd < 0:
            reason = errno_name(ctypes.get_errno())
            raise KernelUnavailable(f"perf_event_open(2) on processor {cpu} is not to be had ({reason})")
        self.memory = mmap.mmap(self.fd, (1 + _PERF_PAGES) * PAGE)
        fcntl.ioctl(self.fd, _PERF_EVENT_IOC_ENABLE, 0)

    def records(self) -> list[bytes]:
        """Return the events so far, each followed by up to 7 bytes of padding: perf keeps no exact size."""
        head, tail = struct.unpack_from("=QQ", self.memory, _HEAD_AT)
        ring = self.memory[PAGE:]
        records = []
        while tail < head:
            start = tail % len(ring)
            kind, _, size = struct.unpack_from("=IHH", ring[start : start + 8])
            record = (ring[start:] + ring[:start])[:size]
            if kind == _PERF_RECORD_SAMPLE:
                length = struct.unpack_from("=I", record, 8)[0]
                records.append(record[12 : 12 + length])
            tail += size
        return records

    def close(self) -> None:
        """Close the buffer."""
        self.memory.close()
        os.close(self.fd)
