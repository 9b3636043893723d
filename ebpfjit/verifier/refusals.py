"""What is wrong with a program: one error, where it is, how a run comes there, and what would help."""

from __future__ import annotations

from ebpfjit.record import dataclass

KINDS = {
    "memory": "an access outside of what a pointer points into",
    "null": "a pointer that may be NULL is followed",
    "type": "a value of one kind where another is wanted",
    "uninitialised": "a register or memory that nothing was written to",
    "termination": "a loop, or calls, without an end",
    "reference": "what was acquired is not given back, or is used afterwards",
    "lock": "a lock, or a stretch of code, that is not left as it was entered",
    "result": "a return value that this kind of program must not give",
    "call": "a function that is not there for this program, or with other arguments",
    "stack": "more stack than there is",
    "leak": "a pointer that leaves the program (unprivileged programs only)",
    "kernel": "something that the kernel which is asked about does not have",
    "structure": "instructions that no run may come to, or that none can execute",
}
"""The kinds of errors."""


DECLARE_GPL = 'declare a license that Linux takes for one: char LICENSE[] SEC("license") = "GPL"'
"""Advice where a license is too little."""


class Refused(Exception):  # noqa: N818 - it never leaves the walk
    """An instruction that must not be executed in the state that there is."""

    def __init__(self, kind: str, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.advice = advice


class Undecided(Exception):  # noqa: N818 - it never leaves the walk
    """A question that this verifier does not know the answer to.

    `goes_on` where only the result of the instruction is not known: what follows is looked at all the same.
    """

    def __init__(self, message: str, *, goes_on: bool = False) -> None:
        super().__init__(message)
        self.goes_on = goes_on


@dataclass(frozen=True, slots=True)
class Decision:
    """A branch on the way to an error: its slot, what was decided, and its line of source ("": none)."""

    pc: int
    text: str
    line: str = ""
