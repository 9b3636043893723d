"""What is wrong with a line that has no form: where it stops making sense, and what is expected there."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache

from ebpfjit.assembler.lexer import (
    HELPER,
    INTEGER,
    LABEL,
    MAX_WORD,
    REGISTER32,
    REGISTER64,
    REGISTERS,
    SIGNED,
    is_label,
    is_register_like,
)
from ebpfjit.assembler.syntax import DATA_WORDS, all_forms, classes

_END = ""
_LONGEST_LIST = 8

#  class       what it is called
_NAMES = {
    REGISTER64: "a 64-bit register (r0..r10)",
    REGISTER32: "a 32-bit register (w0..w10)",
    INTEGER: "an integer",
    SIGNED: "a signed integer (+1, -8)",
    LABEL: "a label",
    HELPER: "name#number",
}


class Branch(dict[str, "Branch"]):
    """All forms that share their first tokens; the key _END stands for a complete one."""


@cache
def _tree() -> Branch:
    root = Branch()
    for key in all_forms():
        branch = root
        for class_ in (*key.split(), _END):
            branch = branch.setdefault(class_, Branch())
    return root


def explain(tokens: list[str]) -> tuple[int, str]:
    """Return the index of the first token that fits no form, and the reason; all tokens may fit.

    `tokens` is one statement, at least one token, that no form matches.
    """
    branch = _tree()
    for index, token in enumerate(tokens):
        class_ = classes()[token] if token in classes() else classes()[token.lower()]
        following = branch.get(class_)
        if following is None and index == len(tokens) - 1 and is_label(token) and token not in REGISTERS:
            following = branch.get(LABEL)
        if following is None:
            return index, _first(token) if index == 0 else _unexpected(token, branch)
        branch = following
    return len(tokens), f"expected {_expected(branch)}: the line ends here"


def _first(token: str) -> str:
    if is_register_like(token):
        return _bad_register(token)
    if not is_label(token) or token[0].isdigit():
        return f"expected a mnemonic, a register or a label, found {_shown(token)}"
    known = (word for word in (*_tree(), *DATA_WORDS) if len(word) > 1)
    close = get_close_matches(token.lower(), known, 1) if len(token) <= MAX_WORD else []
    hint = f": did you mean {close[0]!r}?" if close else ""
    if token.startswith("."):
        advice = "an object file has sections and data: compile to one (clang -c), and load that"
        return f"directive {_shown(token)} is not taken{hint or f'; {advice}'}"
    return f"unknown mnemonic {_shown(token)}{hint}"


def _unexpected(token: str, branch: Branch) -> str:
    if is_register_like(token) and token not in classes():
        return _bad_register(token)
    if token[0].isdigit() and classes()[token] not in (INTEGER, LABEL):
        return f"{_shown(token)} is no number: write decimal or 0x and hexadecimal digits"
    if set(branch) == {_END}:
        return f"unexpected {_shown(token)}: the instruction is complete before it"
    known = (word for word in branch if len(word) > 1)
    close = get_close_matches(token.lower(), known, 1) if len(token) <= MAX_WORD else []
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"expected {_expected(branch)}, found {_shown(token)}{hint}"


def _bad_register(token: str) -> str:
    return f"{_shown(token)} is no register: there are r0..r10, and w0..w10 for their low 32 bits"


def _expected(branch: Branch) -> str:
    """Name what may come next: operands first, then literals."""
    following = set(branch)
    if INTEGER in following:
        following.discard(SIGNED)
    names = [name for class_, name in _NAMES.items() if class_ in following]
    names += sorted(repr(literal) for literal in following - _NAMES.keys() - {_END})
    if _END in following:
        names.append("the end of the line")
    if len(names) > _LONGEST_LIST:
        return ", ".join([*names[: _LONGEST_LIST - 1], "..."])
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _shown(token: str) -> str:
    return repr(token if len(token) <= 40 else token[:37] + "...")
