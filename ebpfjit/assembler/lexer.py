"""Lines of assembly text become tokens, and tokens the classes that the table of forms is written in.

A class is the token itself where the text is fixed (`add64`, `goto`, `+=`, `[`), or one letter:

    r  64-bit register    w  32-bit register    i  integer      s  integer with a sign
    L  word (a label)     h  name#number        ?  nothing that any form can hold
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ebpfjit.errors import AssemblyError
from ebpfjit.isa.spec import REGISTER_COUNT

REGISTER64, REGISTER32, INTEGER, SIGNED, LABEL, HELPER, UNKNOWN = "r", "w", "i", "s", "L", "h", "?"

MAX_SHOWN = 4096
"""Characters of a line that an error shows."""
MAX_WORD = 64
"""Characters of a word that others are held against, to say which was meant."""

_DIGITS = r"(?:0[xX][0-9A-Fa-f]+|[0-9]+)(?![\w.$])"
_TOKEN = re.compile(
    rf"""
      (?<=call[ ])[A-Za-z_]\w*\#[0-9]+    # bpftool's call bpf_map_lookup_elem#1
    | (?:\#|;|//).*                       # a comment
    | (?:[+-][ \t]*)?{_DIGITS}            # an integer, its sign included
    | [0-9]\w*                            # a reference to a numbered label (1f, 2b), or a slip
    | s(?:>>=|/=|%=|>=|<=|>|<)            # a signed operator
    | %?[A-Za-z_.$][\w.$]*                # a word or a register
    | <<=|>>=|[-+*/|&^%]=|[=!<>]=         # any other operator
    | \S
    """,
    re.VERBOSE | re.ASCII,
)
_LABEL = re.compile(r"\s*([A-Za-z_.$][\w.$]*|[0-9]+)\s*:", re.ASCII)
_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|(?:#|;|//)[^\n]*|/\*.*?\*/|/\*', re.DOTALL)
_IS_INTEGER = re.compile(rf"(?:[+-][ \t]*)?{_DIGITS}\Z", re.ASCII)
_IS_NUMBERED = re.compile(r"[0-9]+[fb]\Z", re.ASCII)
_IS_HELPER = re.compile(r"[A-Za-z_]\w*#[0-9]+\Z", re.ASCII)
_IS_WORD = re.compile(r"[A-Za-z_.$][\w.$]*\Z", re.ASCII)
_LIKE_REGISTER = re.compile(r"%?[rRwW][0-9]+\Z", re.ASCII)

REGISTERS: dict[str, tuple[str, int]] = {
    f"{percent}{letter}{number}": (letter.lower(), number)
    for percent in ("", "%")
    for letter in "rRwW"
    for number in range(REGISTER_COUNT)
}
"""Each spelling of a register: its class and its number."""


class Classes(dict[str, str]):
    """The class of every token; what is not in the dictionary is told by its first characters."""

    def __init__(self, literals: Iterable[str]) -> None:
        super().__init__((literal, literal) for literal in literals)
        self.update((name, class_) for name, (class_, _) in REGISTERS.items())

    def __missing__(self, token: str) -> str:
        if _IS_INTEGER.match(token):
            return SIGNED if token[0] in "+-" else INTEGER
        if _LIKE_REGISTER.match(token):
            return UNKNOWN
        if _IS_WORD.match(token) or _IS_NUMBERED.match(token):
            return LABEL
        return HELPER if _IS_HELPER.match(token) else UNKNOWN


def is_register_like(token: str) -> bool:
    """Whether `token` is written as a register, of any number."""
    return _LIKE_REGISTER.match(token) is not None


def is_label(token: str) -> bool:
    """Whether `token` can refer to a label: a word, or a numbered label and its direction."""
    return (_IS_WORD.match(token) or _IS_NUMBERED.match(token)) is not None


def split_lines(text: str) -> list[str]:
    """Return the lines of `text`, with each /* block comment */ replaced by spaces of its length.

    Raises AssemblyError where a block comment does not end.
    """
    if "/*" in text:
        text = _COMMENT.sub(lambda found: _blank(found, text), text)
    return text.split("\n")


def _blank(found: re.Match[str], text: str) -> str:
    comment = found[0]
    if not comment.startswith("/*"):
        return comment
    if comment == "/*":
        before = text[: found.start()]
        line = before.count("\n") + 1
        column = found.start() - before.rfind("\n")
        raise error("this comment does not end: */ is missing", line, column, text.split("\n")[line - 1])
    return re.sub(r"[^\n]", " ", comment)


def take_label(line: str, start: int) -> re.Match[str] | None:
    """Match `name:` at `start`; group 1 is the name."""
    return _LABEL.match(line, start)


def tokenize(line: str, start: int = 0) -> list[str]:
    """Return the tokens of `line` from column `start` (from 0), without the comment."""
    tokens: list[str] = _TOKEN.findall(line, start)
    if tokens and tokens[-1].startswith(("#", ";", "//")):
        tokens.pop()
    return tokens


def column_of(line: str, start: int, index: int) -> int:
    """Return the column, from 1, of token `index`, or the one after the last token."""
    end = start
    for number, found in enumerate(_TOKEN.finditer(line, start)):
        if found[0].startswith(("#", ";", "//")):
            break
        if number == index:
            return found.start() + 1
        end = found.end()
    return end + 1


def error(reason: str, line: int, column: int, source_line: str) -> AssemblyError:
    """Make an AssemblyError; tabs become spaces, so that the caret stands below the column.

    Of a line that nobody could read, the text does without.
    """
    if len(source_line) > MAX_SHOWN:
        source_line = ""
    return AssemblyError(reason, line, column, source_line.rstrip("\r").replace("\t", " "))
