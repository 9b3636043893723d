"""Options and fixtures that all tests share."""

from __future__ import annotations

import fcntl
import gc
import os
import re
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.rights import watch_helpers

# What tests call is the code that stays; how programs get there is for tests/unit/test_tiers.py.
os.environ.setdefault("EBPFJIT_TIERS", "off")

# Tests start many processes: modules are compiled by the first, whatever the shell says.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Errors inside of the optimizer are raised, where users get a warning and baseline code.
os.environ.setdefault("EBPFJIT_FAILURES", "raise")

# The same examples each time: a run of the tests says something of a change, `ebpfjit fuzz` looks further.
settings.register_profile("same", derandomize=True, database=None, deadline=None)
settings.load_profile("same")

watch_helpers()

# A shell that starts the tests in the background lets SIGINT be ignored, in all that they start, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


LARGE = ("test_columns.py", "test_dask.py", "test_docs.py", "test_prove.py", "test_stencils.py")
"""Files whose tests take a lot of memory for good. They are last: a fork costs what its process holds."""


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """Workers of a parallel run collect the same files: one compiles each, the others read what it wrote."""
    if not isinstance(collector, pytest.Module):
        return (yield)
    with open(collector.path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Workers of a parallel run collect each by itself: a name that holds an address would end it.
    if addressed := [item.nodeid for item in items if re.search(r" at 0x[0-9a-f]+>", item.nodeid)]:
        raise pytest.UsageError(f"this name holds an address, another in each process: {addressed[0]}")
    items.sort(key=lambda item: item.path.name in LARGE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bless", action="store_true", help="rewrite golden files with what is produced now")


@pytest.fixture(autouse=True, scope="module")
def _what_stays_is_not_looked_at_again() -> None:
    """Tests that look for cycles look through what they made, not through all that is known of programs."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def golden(request: pytest.FixtureRequest):
    """Compare text with a golden file; with --bless, write it."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--bless"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{path.name} is missing: run with --bless and read what it wrote"
        assert text == path.read_text(), f"{path.name} differs: read it, then run with --bless"

    return compare
