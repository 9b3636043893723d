"""Errors of the library's own: in parts that users can go without (optimizer, verifier), in commands.

EBPFJIT_FAILURES=raise      the error is raised: so in the tests, and in the fuzzer
"""

from __future__ import annotations

import os

RAISED = "EBPFJIT_FAILURES=raise"
"""How a user asks for the whole of such an error."""


def are_raised() -> bool:
    """True where such errors are not to be overcome."""
    return os.environ.get("EBPFJIT_FAILURES") == "raise"
