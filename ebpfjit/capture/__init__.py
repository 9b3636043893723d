"""Captures as batches: packets of pcap and pcapng files, many at a time, in one buffer.

read(path) -> Batch(buffer, offsets, lengths, timestamps, ...) ... -> fn.map(batch) -> verdicts
Batch, verdicts -> Writer.write -> a capture
"""

from ebpfjit.capture.batch import Batch
from ebpfjit.capture.reader import read
from ebpfjit.capture.writer import Writer

__all__ = ["Batch", "Writer", "read"]
