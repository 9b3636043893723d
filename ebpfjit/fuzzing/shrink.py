"""A packet, or a sequence of them, made small: what is not needed goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from ebpfjit.fuzzing.samples import Sample

MOST_TRIES = 4000
UNITS = (8, 4, 1)
"""What lengths in headers count: of IPv6's extensions, of IPv4's and TCP's options, bytes."""
T = TypeVar("T")


def shrunk(
    packet: bytes, is_still: Callable[[bytes], bool], least: int = 0, tries: int = MOST_TRIES
) -> bytes:
    """Return a small packet of which `is_still` holds as of the one given: without bytes, and with zeros."""

    def works(data: bytes) -> bool:
        nonlocal tries
        tries -= 1
        return tries >= 0 and is_still(data)

    before = None
    while packet != before:  # a length that became zero lets more bytes go
        before = packet
        packet = _with_zeros(_without_bytes(packet, works, least), works)
        packet = next(filter(works, _with_lower_lengths(packet, least)), packet)
    return packet


def _without_bytes(packet: bytes, works: Callable[[bytes], bool], least: int) -> bytes:
    """Return a packet without stretches that are not needed: large ones first, the last ones first."""
    size = 1 << max(len(packet) - 1, 1).bit_length() - 1
    while size:
        at = len(packet)
        while at > 0:
            start = max(at - size, 0)
            smaller = packet[:start] + packet[at:]
            if len(smaller) >= least and works(smaller):
                packet = smaller
            at = start
        size //= 2
    return packet


def _with_zeros(packet: bytes, works: Callable[[bytes], bool]) -> bytes:
    """Return a packet with zeros where nothing else is needed."""
    size = 8
    while size:
        for start in range(0, len(packet), size):
            zeros = packet[:start] + bytes(len(packet[start : start + size])) + packet[start + size :]
            if zeros != packet and works(zeros):
                packet = zeros
        size //= 2
    return packet


def _with_lower_lengths(packet: bytes, least: int) -> Iterator[bytes]:
    """Yield packets in which a number is less, and as much of the zeros behind it is gone as it may count."""
    for at, number in enumerate(packet):
        start, size = _longest_zeros(packet, at + 1)
        for low in range(number & 0xF0 if number >= 0x10 else 0, number):  # IPv4 has a version in front of it
            for unit in UNITS:
                gone = unit * (number - low)
                if gone <= min(size, len(packet) - least):
                    yield packet[:at] + bytes([low]) + packet[at + 1 : start] + packet[start + gone :]


def _longest_zeros(packet: bytes, start: int) -> tuple[int, int]:
    """Return where the most zeros follow each other from a place on, and how many."""
    best = at = start
    most = 0
    while at < len(packet):
        stop = at
        while stop < len(packet) and not packet[stop]:
            stop += 1
        if stop - at > most:
            best, most = at, stop - at
        at = stop + 1
    return best, most


def without_fields(sample: Sample, is_still: Callable[[Sample], bool]) -> Sample:
    """Return a sample without fields of its context that are not needed."""
    for each in sample.fields:
        fewer = Sample(sample.data, tuple(field for field in sample.fields if field != each))
        if is_still(fewer):
            sample = fewer
    return sample


def shrunk_sequence(packets: list[Sample], is_still: Callable[[list[Sample]], bool]) -> list[Sample]:
    """Return fewer packets of which `is_still` holds as of those given; the last one stays."""
    *first, last = packets
    return [*shrunk_list(first, lambda fewer: is_still([*fewer, last])), last]


def shrunk_list(items: list[T], is_still: Callable[[list[T]], bool]) -> list[T]:
    """Return fewer items of which `is_still` holds as of those given: many go at once, then single ones."""
    size = 1 << max(len(items) - 1, 0).bit_length()
    tries = 0
    while size and tries < MOST_TRIES:
        at = len(items)
        while at > 0 and tries < MOST_TRIES:
            start = max(at - size, 0)
            fewer = items[:start] + items[at:]
            tries += 1
            if is_still(fewer):
                items = fewer
            at = start
        size //= 2
    return items
