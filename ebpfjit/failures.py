"""Errors of the library's own in a part that users can go without: the optimizer, the verifier.

EBPFJIT_FAILURES=raise      the error is raised: so in the tests, and in the fuzzer
"""

from __future__ import annotations

import os


def are_raised() -> bool:
    """True where such errors are not to be overcome."""
    return os.environ.get("EBPFJIT_FAILURES") == "raise"
