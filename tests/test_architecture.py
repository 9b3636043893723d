"""docs/architecture.md names every module, and no module that is not there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text()


def test_every_module_is_named_and_every_name_is_a_module() -> None:
    files = [path for folder in ("ebpfjit", "translators") for path in (ROOT / folder).rglob("*.py")]
    modules = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if not path.name.startswith("__") and "ebpfjit/translators/" not in path.as_posix()
    }
    named = set(re.findall(r"`([a-z_0-9/]+\.py)`", TEXT))
    assert modules - named == set(), "add these to docs/architecture.md"
    assert {name for name in named if "/" in name and not (ROOT / name).exists()} == set()
