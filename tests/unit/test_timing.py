"""The stages of compiling: all of them, and keystone once at most."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ebpfjit import Program, VerifierError
from ebpfjit.assembler import assemble
from ebpfjit.jit import translation
from ebpfjit.jit.stages import STAGES
from ebpfjit.jit.timing import time_stages
from ebpfjit.memo import forget
from ebpfjit.translators.emitter import Text

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


@pytest.mark.parametrize("text", ["mov r0, 1\nexit", "call 5\nexit"])
def test_a_program_is_decoded_once(text: str) -> None:
    """What `Program` has read is what engines have; it is not read again for the user's object."""
    program = Program.from_assembly(text)
    program.compile(optimize=True)
    assert not {"_decoded", "instructions"} & program.__dict__.keys()
    assert "instructions" in program.own().__dict__


def test_text_that_nobody_keeps_is_gone_before_the_collector_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it goes through all of it, which took a twentieth of the time that compiling takes."""
    left = []

    @contextmanager
    def looking() -> Iterator[None]:
        yield
        texts = [each for each in gc.get_objects() if isinstance(each, Text)]
        left.append(sum(2000 in text.owners for text in texts))  # routines have pcs of their own

    monkeypatch.setattr(translation, "collector_paused", looking)
    Program(assemble("mov r0, 0\n" + "add r0, 7\n" * 2000 + "exit")).compile(optimize=False)
    assert left == [0]
