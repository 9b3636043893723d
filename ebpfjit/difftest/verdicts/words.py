"""Why Linux refuses a program: the words of its verifier (kernel/bpf/verifier.c), by class.

The log's last lines say it; the first row that fits one of them, from the last one up, is the reason.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

MEMORY, NULL, TYPE, UNINITIALISED, TERMINATION = "memory", "null", "type", "uninitialised", "termination"
REFERENCE, LOCK, RETURN, PERMISSION = "reference", "lock", "return value", "permission"
HELPER, STRUCTURAL, STACK, OTHER = "helper", "structural", "stack", "other"

CLASSES = (
    MEMORY, NULL, TYPE, UNINITIALISED, TERMINATION, REFERENCE, LOCK, RETURN, PERMISSION, HELPER, STRUCTURAL,
    STACK, OTHER,
)  # fmt: skip
JUDGED = (MEMORY, NULL, TYPE, TERMINATION)
"""The classes that a verdict is held to."""


@dataclass(frozen=True, slots=True)
class Reason:
    """A class of CLASSES ("unknown": Linux gave no answer), and the words that say it."""

    name: str
    words: str


#  class          words
_ROWS: tuple[tuple[str, str], ...] = (
    (STRUCTURAL,    r"unreachable insn|jump out of range|not an exit or jmp|unknown opcode|uses reserved field"),
    (STRUCTURAL,    r"invalid BPF_|div by zero|invalid shift|frame pointer is read only|R\d+ is invalid"),
    (STRUCTURAL,    r"no program starts at|unrecognized bpf_ld_imm64|pseudo btf_id|call to invalid dest"),
    (STRUCTURAL,    r"recursive call|missing btf|func_info|is not a valid|invalid (insn|call|destination|ldimm64)"),
    (STRUCTURAL,    r"tail_calls are not allowed|only main|R6 != pointer to skb|func#\d+ @|zero-length|callback fn"),
    (TERMINATION,   r"infinite loop detected|program is too large|jumps is too complex|too complex"),
    (STACK,         r"combined stack size|call stack of \d+ frames|frames is too deep|stack size .* too large"),
    (REFERENCE,     r"reference leak|Unreleased reference|has not been acquired|must be referenced"),
    (REFERENCE,     r"arg 1 is an unacquired reference|release .* expects|cannot be released|acquired pointer"),
    (LOCK,          r"holding a lock|bpf_(spin|res_spin)_(un)?lock|lock-ed region|is not holding|'struct bpf_\w+' that is at"),
    (LOCK,          r"has no valid bpf_|bpf_(spin_lock|timer|wq|kptr) cannot be accessed|timer pointer in"),
    (RETURN,        r"At (program exit|callback return|async callback return|subprogram exit)"),
    (TYPE,          r"(write into|read from|read into) map forbidden|string is not zero-terminated|not a scalar value"),
    (NULL,          r"or_null|or_null|possibly NULL|NULL pointer|null-check it first"),
    (TYPE,          r"invalid mem access '|pointer arithmetic|pointer (\+|-|subtraction)|subtract|bitwise operator|prohibited"),
    (TYPE,          r"type=\S+ expected=|is not a known constant|BPF_ATOMIC (stores|loads)|cannot write into|leaks addr"),
    (TYPE,          r"expects|Caller passes invalid args|cannot pass map_type|pointer comparison|stores? into|must point"),
    (TYPE,          r"expected (prog array|pointer|scalar|a pointer)|only read from|partial copy|corrupt spilled"),
    (TYPE,          r"doesn't match|must have zero offset|cannot return stack pointer|Invalid format string|same insn cannot be used with different pointers|not a pointer|tries to|modified ctx"),
    (UNINITIALISED, r"!read_ok|invalid read from stack|invalid (indirect )?read from stack|uninitialized|not initialized"),
    (MEMORY,        r"offset is outside of the packet|invalid access to|value is outside of the allowed memory"),
    (MEMORY,        r"unbounded m(emory access|in value)|makes .* pointer be out of bounds|math between .* is not allowed"),
    (MEMORY,        r"misaligned .*access|invalid (zero-sized|unbounded|variable-offset|size of|write to|\w+ access)"),
    (MEMORY,        r"min value is|max value is|variable ctx access|variable \w+ access|negative offset|pointer offset"),
    (MEMORY,        r"off=-?\d+ size=|size=-?\d+ off=|out of bounds|outside of"),
    (HELPER,        r"cannot use helper|invalid func|unknown func|helper access to the packet|cannot call|not supported"),
    (PERMISSION,    r"permission|GPL|license|not allowed|Spectre|speculat|tail_call abuse"),
)  # fmt: skip
"""Classes and words; the first that fits is it."""

_TABLE = tuple((name, re.compile(words)) for name, words in _ROWS)

_NOISE = re.compile(
    r"^(processed \d|verification time|stack depth|mark_precise|from \d+ to|\d+: |;|R\d+=|\s*$"
    r"|max_states|func#|Live regs|parent |last_idx|regs=|peak_states|total_states|Func#|Validating|caller:|callee:"
    r"|returning from|to caller|frame\d|arg#\d reference type\('UNKNOWN|cur state|old state|insns? )"
)
"""Lines of a log that tell what was looked at, not why it is refused."""

_NO_WORDS = {errno.E2BIG: TERMINATION, errno.EPERM: PERMISSION, errno.EFAULT: OTHER, errno.ENOMEM: OTHER}
"""What a refusal without words is, by errno."""

_LINES = 6
"""So many of the last lines that say something are looked at."""


def reason_of(log: str, number: int) -> Reason:
    """Return why Linux refused a program, by its verifier's log and the errno of bpf(2)."""
    lines = log.splitlines()
    said = [line for line in lines if not _NOISE.match(line)]
    glued = [found[0] for line in lines[: -_LINES - 1 : -1] if (found := _GLUED.search(line))]
    for line in (*glued, *said[: -_LINES - 1 : -1]):
        for name, words in _TABLE:
            if words.search(line):
                return Reason(name, line)
    return Reason(_NO_WORDS.get(number, OTHER), said[-1] if said else f"errno {number}")


_GLUED = re.compile("infinite loop detected at insn \\d+")
"""Words that may stand behind an instruction, on its line."""

_STEP = re.compile(r"^(\d+): \([0-9a-f]{2}\)")


def pc_of(log: str) -> int | None:
    """Return the slot of the last instruction that a log looks at, None where it tells of none."""
    steps = (_STEP.match(line) for line in reversed(log.splitlines()))
    return next((int(step[1]) for step in steps if step), None)
