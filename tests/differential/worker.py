"""A child process that compares a range of seeds: machine code that crashes takes only this down.

    python -m tests.differential.worker FIRST LAST

Prints `at SEED` before each batch (so that a crash names its neighbourhood), each disagreement,
and at the end a line `kinds KIND=COUNT ...`.
"""

from __future__ import annotations

import sys
from collections import Counter

from .engines import compare
from .generate import case


def main(first: int, last: int) -> int:
    kinds: Counter[str] = Counter()
    found = 0
    for seed in range(first, last):
        print(f"at {seed}", file=sys.stderr, flush=True)
        kind, text = compare(case(seed))
        kinds[kind] += 1
        if text is not None:
            found += 1
            print(text, flush=True)
    print("kinds", *(f"{kind}={count}" for kind, count in sorted(kinds.items())), flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
