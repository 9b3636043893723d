"""The stages of compiling: all of them, and keystone once at most."""

from __future__ import annotations

import itertools

import pytest

from ebpfjit import VerifierError
from ebpfjit.assembler import assemble
from ebpfjit.jit.stages import STAGES
from ebpfjit.jit.timing import time_stages
from ebpfjit.memo import forget

CODE = assemble("mov r0, 0x7e57ab1e\nldxb r3, [r10-0x5e]\nadd r0, r3\nexit")


def test_every_stage_is_timed() -> None:
    ticks = itertools.count()
    timing = time_stages(CODE, clock=lambda: float(next(ticks)))
    assert list(timing.seconds) == list(STAGES)
    told = dict.fromkeys(STAGES, 1.0) | {"translate": 2.0}  # values in registers, then text
    assert timing.seconds == told
    assert timing.total == len(STAGES) + 1
    assert timing.instructions == 4
    assert timing.microseconds("layout") == 250_000
    assert timing.microseconds() == (len(STAGES) + 1) * 250_000


def test_keystone_is_called_for_what_is_new() -> None:
    time_stages(CODE)
    forget()
    assert time_stages(CODE).keystone_calls == 1
    assert time_stages(CODE).keystone_calls == 0
    assert time_stages(CODE, checked=False).keystone_calls <= 1


def test_what_is_refused_is_refused_here_too() -> None:
    with pytest.raises(VerifierError):
        time_stages(CODE[:-8])
