"""Errors of the optimizer's own: bugs. The program stays in baseline code, and its user is told once."""

from __future__ import annotations

import warnings

from ebpfjit.errors import EbpfWarning
from ebpfjit.memo import Memo
from ebpfjit.optimizer.remarks import PassFailed
from ebpfjit.program import Program

_told: Memo[bytes, bool] = Memo()
"""The programs whose users know."""


def reason_of(error: Exception) -> str:
    """Return why a program is not optimised, by the error that kept it from being so."""
    if isinstance(error, PassFailed):
        return str(error)
    return f"an error while it was optimised: {type(error).__name__}: {error}"


def warn(program: Program, reason: str) -> None:
    """Warn of a program that stays in baseline code, an EbpfWarning, unless that was done before."""
    if program.code in _told.trim(0):
        return
    name = f"program {program.name!r}" if program.name else "a program"
    warnings.warn(f"{name} stays in baseline code, by a bug of ebpfjit: {reason}", EbpfWarning, stacklevel=2)
    _told[program.code] = True  # not where the warning is an error, which is to be seen each time
