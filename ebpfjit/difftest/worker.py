"""A child process that checks programs by number; machine code that goes wrong takes only this down.

    python -m ebpfjit.difftest.worker FD NOTE

The parent sends an `Assignment` and then, one after the other, `Batch`es to run and `Finding`s to
shrink; None ends it. Before each program its number and corpus text go to the file NOTE, which the
parent maps too.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection

from ebpfjit.difftest import guards
from ebpfjit.difftest.batch import Assignment, Batch, Note, run_batch
from ebpfjit.difftest.children import die_with_parent
from ebpfjit.difftest.finding import shrunk

MOST_ADDRESSES = 2 << 30
"""Bytes of address space: a program for which there is no more memory is a finding (MemoryError)."""


def serve(connection: Connection, path: str) -> None:
    """Do what the parent sends until it sends None."""
    assignment: Assignment = connection.recv()
    if assignment.planted:
        from ebpfjit.difftest.planted import plant

        plant(assignment.planted)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))
    guards.install()
    note = Note(path)
    connection.send(None)  # ready
    while (task := connection.recv()) is not None:
        if isinstance(task, Batch):
            connection.send(run_batch(assignment, task, note))
        else:
            connection.send(shrunk(task, assignment.engines))


def main(arguments: Sequence[str]) -> int:
    """Serve on the descriptor that is named, noting programs in the file that is named."""
    die_with_parent()
    try:
        serve(Connection(int(arguments[0])), arguments[1])
    except (EOFError, BrokenPipeError):
        return 1  # the parent is gone
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)
