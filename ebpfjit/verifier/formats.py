"""Format strings that Linux takes (bpf_bprintf_prepare), and how many arguments they have."""

from __future__ import annotations

import re
import string

_END = rb"(?=$|[\s" + re.escape(string.punctuation.encode()) + rb"])"
_CONVERSION = re.compile(
    rb"%(?P<percent>%)|%[0+\- ]*(?:[1-9][0-9]*)?"
    rb"(?:p" + _END + rb"|p[ku]s" + _END + rb"|p[KxsSB]|p[iI][46]|s" + _END + rb"|c|l{0,2}[diuxX])"
)
_CHARACTERS = frozenset(string.printable.encode())


def arguments_of(text: bytes) -> int | None:
    """Return how many arguments a format takes; None where Linux does not take it."""
    if not _CHARACTERS.issuperset(text):
        return None
    count = at = 0
    while (at := text.find(b"%", at)) >= 0:
        found = _CONVERSION.match(text, at)
        if found is None:
            return None
        count += found["percent"] is None
        at = found.end()
    return count
