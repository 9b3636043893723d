"""Releases of Linux, as text that compares by number: Release("5.4") < Release("5.15")."""

from __future__ import annotations

import re

from ebpfjit.errors import EbpfError

_LAST_MINOR = {3: 19, 4: 20, 5: 19, 6: 18}
"""The last minor number of each major one that the tables know."""

_FORM = re.compile(r"v?(\d{1,3})\.(\d{1,3})(?:[.+~_-].*)?", re.ASCII | re.DOTALL)


class Release(str):
    """A release of Linux, "5.15": equal to that text, and compared with others by its two numbers.

    What follows them ("5.15.0-91-generic", "v6.1.9") is not part of it. Raises ValueError for another form.
    """

    __slots__ = ("numbers",)
    numbers: tuple[int, int]

    def __new__(cls, text: str) -> Release:
        """Read a release's text."""
        found = _FORM.fullmatch(text)
        if found is None:
            raise ValueError(f"a release of Linux reads as 5.15, not {text!r}")
        major, minor = int(found[1]), int(found[2])
        made = super().__new__(cls, f"{major}.{minor}")
        made.numbers = major, minor
        return made

    def __reduce__(self) -> tuple[type[Release], tuple[str]]:
        return Release, (str(self),)

    def __lt__(self, other: str) -> bool:
        return self.numbers < _release(other).numbers

    def __le__(self, other: str) -> bool:
        return self.numbers <= _release(other).numbers

    def __gt__(self, other: str) -> bool:
        return self.numbers > _release(other).numbers

    def __ge__(self, other: str) -> bool:
        return self.numbers >= _release(other).numbers


def _release(text: str) -> Release:
    return text if isinstance(text, Release) else Release(text)


OLDEST = Release("3.18")
"""The release that bpf(2) came with."""

FIRST, LAST = Release("4.19"), Release("6.18")
"""The releases that may be asked for; what is older is in the tables too, as the first one with a feature."""


def is_release(text: str) -> bool:
    """True for a text that a Release can have."""
    return _FORM.fullmatch(text) is not None


def known_release(text: str) -> Release:
    """Return a release that may be asked for. Raises EbpfError for any other text."""
    try:
        release = Release(text)
    except ValueError:
        release = None
    if release is None or not is_known(release):
        raise EbpfError(
            f"no release of Linux {text!r}: known are {FIRST} to 4.20, 5.0 to 5.19, 6.0 to {LAST}"
        )
    return release


def every_release() -> list[Release]:
    """Return the releases that may be asked for, the oldest first."""
    every = (Release(f"{major}.{minor}") for major, last in _LAST_MINOR.items() for minor in range(last + 1))
    return [release for release in every if is_known(release)]


def is_known(release: Release) -> bool:
    """True for a release that there was, and that the tables reach to."""
    major, minor = release.numbers
    return FIRST <= release <= LAST and minor <= _LAST_MINOR[major]
