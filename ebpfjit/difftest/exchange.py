"""Something else in the place of what our modules name, for the rest of the process."""

from __future__ import annotations

import sys


def exchange(old: object, new: object) -> None:
    """Replace a function or class by another in every module of ours that names it."""
    for name, module in list(sys.modules.items()):
        if name.startswith("ebpfjit."):
            for key, value in list(vars(module).items()):
                if value is old:
                    setattr(module, key, new)
