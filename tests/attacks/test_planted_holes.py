"""Holes that one program on several engines does not show, planted again: the attacks on them see them.

Those that it does show are in `ebpfjit.difftest.holes`.
"""

from __future__ import annotations

from ebpfjit.difftest.children import run_forked
from ebpfjit.runtime.maps import hash as hashing
from tests.attacks.children import fresh_process
from tests.attacks.test_time import FAMILIES, spread

MADE_TWICE = """
import sys
import ebpfjit.once as once

class Cached(once.once):
    # As functools.cache: what two threads make at once is made twice, and the first is dropped.
    def _first(self, *key):
        made = self._make(*key)
        self._made[key] = made
        return made

once.once = Cached
from tests.attacks.first_uses import main
main(int(sys.argv[1]))
"""
PROCESSES = 12


def test_what_is_made_twice_is_seen() -> None:
    def is_seen(seed: int) -> bool:
        try:
            return fresh_process(MADE_TWICE, str(seed), seconds=60) != ""
        except AssertionError:
            return True

    assert any(is_seen(seed) for seed in range(PROCESSES))


NOBODY_LOOKS = """
from ebpfjit.runtime import c_stack
c_stack.look = lambda here=None: None  # before machine code has its address
from tests.attacks.test_c_stack import KIB, LARGE, reenter
print(reenter(LARGE, "g", 256 * KIB).signal)
"""


def test_a_stack_that_nobody_looks_at_is_seen() -> None:
    assert fresh_process(NOBODY_LOOKS) == "SIGSEGV"


def test_a_hash_without_secrets_is_seen() -> None:
    def job() -> int:
        hashing._draw = bytes  # of zeros
        return max(spread(keys) for keys in FAMILIES.values())

    assert run_forked(job, 60).value > 20
