"""What the tables say of one thing: since when there is a helper for a program, a map type, a kfunc."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache

from ebpfjit.compatibility.release import LAST, OLDEST, Release
from ebpfjit.compatibility.tables import helpers, kernel, kfuncs
from ebpfjit.named import few
from ebpfjit.record import record

ANY = "any"
BPF = "bpf_"


@record
class Caller:
    """A program as far as it decides what it may call.

    `type` is the kernel's program type, None where nothing tells; `section` what its section says, without
    what makes it sleep ("fentry/vfs_read"), "" where that is none of libbpf's; `operation` the struct of
    operations that it is for, "" for other programs.
    """

    type: str | None
    section: str = ""
    operation: str = ""
    sleeps: bool = False

    @property
    def target(self) -> str:
        """What the section says behind its first slash."""
        return self.section.partition("/")[2]

    def is_in(self, section: str) -> bool:
        """True where its section is that one, or one below it."""
        return self.section == section or self.section.startswith(f"{section}/")


@record
class Answer:
    """Since when there is something; None where no release has it (`reason`), or where that is not known.

    `until` is the last release that has it, None where the last one known still does.
    """

    since: Release | None
    reason: str = ""
    is_known: bool = True
    until: Release | None = None

    def and_since(self, *others: Release | None) -> Answer:
        """Return the answer where other things are needed besides."""
        if self.since is None:
            return self
        return Answer(latest((self.since, *others)), self.reason, self.is_known, self.until)


def unknown(reason: str) -> Answer:
    """Return the answer where nothing is known."""
    return Answer(None, reason, is_known=False)


def read(text: str) -> dict[str, Release | None]:
    """Return the names of a table, with the release that they stand behind; None before the first one."""
    found: dict[str, Release | None] = {}
    release = None
    for word in text.split():
        if word.endswith(":"):
            release = Release(word[:-1])
        else:
            found[word] = release
    return found


@cache
def releases(text: str) -> Mapping[str, Release]:
    """Return the names of a table in which all stand behind a release."""
    return {name: release for name, release in read(text).items() if release is not None}


def latest(found: Iterable[Release | None]) -> Release | None:
    """Return the latest of releases, None where there is none."""
    return max((each for each in found if each is not None), key=lambda each: each.numbers, default=None)


def in_table(text: str, name: str) -> Answer:
    """Return since when there is what a table names."""
    since = releases(text).get(name)
    return unknown(f"{name} is not in the tables, which end with {LAST}") if since is None else Answer(since)


def _attached(sections: str, caller: Caller) -> Answer:
    """Return since when programs of a caller's section may do what only programs of some sections may."""
    if not caller.section:
        return unknown("only programs of some sections may, and this one's section is none of libbpf's")
    for section, since in read(sections).items():
        if caller.is_in(section):
            return Answer(since or OLDEST)
    return Answer(None, f"only programs of {_shown(sections)} may")


def _not_for(type_: str, others: Iterable[str]) -> str:
    return f"programs of type {type_} may not call it, those of {few(others)} may"


def _shown(sections: str) -> str:
    return ", ".join(f'SEC("{section}")' for section in read(sections))


# Helpers


@cache
def helpers_of(type_: str) -> Mapping[str, Release]:
    """Return the helpers, without bpf_, that programs of a type may call, and since when.

    `type_` is a program type, or a struct of operations. There are none for one that the tables do not have.
    """
    if type_ not in helpers.TYPES:
        return {}
    first = releases(helpers.HELPERS)
    started = releases(kernel.PROGRAM_TYPES).get(type_) or releases(kernel.OPERATIONS)[type_]
    groups, own = helpers.TYPES[type_]
    found: dict[str, Release] = {}
    for text in (*(helpers.GROUPS[group] for group in groups.split()), own):
        for name, release in read(text).items():
            since = latest((first[name], started)) if release is None else latest((release, started))
            assert since is not None
            found[name] = since
    return found


def helper(name: str, caller: Caller) -> Answer:
    """Return since when a program may call a helper, "bpf_loop"."""
    short = name.removeprefix(BPF)
    first = releases(helpers.HELPERS).get(short)
    if first is None:
        return unknown(f"{name} is no helper of the tables, which end with {LAST}")
    if caller.type is None:
        return Answer(first)
    answer = _helper_of_type(short, first, caller)
    if answer.since is not None and short in helpers.SLEEPERS.split() and not caller.sleeps:
        return Answer(None, "only programs that may sleep may call it")
    return answer


def _helper_of_type(name: str, first: Release, caller: Caller) -> Answer:
    type_ = caller.type or ""
    if type_ == "ext" or (type_ == "struct_ops" and caller.operation not in helpers.TYPES):
        whose = "the program that it replaces" if type_ == "ext" else "its struct of operations"
        base = read(helpers.GROUPS["base"])
        return Answer(base[name] or first) if name in base else unknown(f"what {whose} may call decides")
    since = helpers_of(caller.operation if type_ == "struct_ops" else type_).get(name)
    if since is None:
        others = [each for each in helpers.TYPES if name in helpers_of(each)]
        return Answer(None, _not_for(type_, others))
    if (
        name == "d_path"
        and caller.section.startswith("f")
        and caller.target not in helpers.PATH_HOOKS.split()
    ):
        return Answer(None, f"it is not for programs at {caller.target or 'a function that nothing names'}")
    for of_type, names, sections in helpers.ATTACHED:
        if of_type == type_ and name in names.split():
            return _attached(sections, caller).and_since(since)
    return Answer(since)


# Kernel functions


def kfunc(name: str, caller: Caller) -> Answer:
    """Return since when a program may call a kernel function."""
    first = releases(kfuncs.KFUNCS).get(name)
    if first is None:
        return unknown(f"{name} is not among the kernel functions of the tables, which end with {LAST}")
    until = releases(kfuncs.UNTIL).get(name)
    if caller.type is None:
        return Answer(first, until=until)
    types = next(
        types for names, types in kfuncs.SETS if any(fnmatchcase(name, one) for one in names.split())
    )
    allowed = read(types)
    if caller.type == "ext" and ANY not in allowed:
        return unknown("what the program that it replaces may call decides")
    if ANY not in allowed and caller.type not in allowed:
        return Answer(None, _not_for(caller.type, allowed))
    answer = Answer(first, until=until).and_since(allowed.get(caller.type))
    if name in kfuncs.ATTACHED:
        return _attached(kfuncs.ATTACHED[name], caller).and_since(answer.since)
    return answer


# Programs


def program_type(name: str) -> Answer:
    """Return since when there are programs of a type."""
    return in_table(kernel.PROGRAM_TYPES, name)


def attach_type(caller: Caller) -> tuple[str, str, Answer] | None:
    """Return the section that a program is attached by, its name in enum bpf_attach_type, and since when.

    None where its section asks for nothing besides its type.
    """
    found = [row for row in kernel.ATTACH_TYPES if caller.is_in(row[0])]
    if not found:
        return None
    section, since, name = max(found, key=lambda row: len(row[0]))
    return section, name, Answer(Release(since))


def sleeping(caller: Caller) -> Answer:
    """Return since when a program of a section may sleep."""
    head = caller.section.partition("/")[0]
    for name in (head, caller.type or ""):
        if name in kernel.SLEEPABLE:
            return Answer(Release(kernel.SLEEPABLE[name]))
    return Answer(None, f'programs of SEC("{head}") may not sleep')


# Instructions


@cache
def instruction(operation: str) -> tuple[str, Answer] | None:
    """Return what an operation of the table is called, and since when; None for what is oldest."""
    if operation in kernel.NEVER:
        return kernel.NEVER[operation], Answer(None, f"no release up to {LAST} runs it")
    for names, since, called in kernel.INSTRUCTIONS:
        if any(fnmatchcase(operation, one) for one in names.split()):
            return called, Answer(Release(since))
    return None


# Maps


def map_type(name: str) -> Answer:
    """Return since when there is a type of map."""
    return in_table(kernel.MAP_TYPES, name)


def map_flags(flags: int) -> list[tuple[str, Answer]]:
    """Return the flags of a map by name, and since when there is each."""
    names = list(releases(kernel.MAP_FLAGS))
    found = [
        (f"BPF_F_{name}", in_table(kernel.MAP_FLAGS, name))
        for bit, name in enumerate(names)
        if flags >> bit & 1
    ]
    rest = flags >> len(names) << len(names)
    if rest:
        found.append((f"map flag {rest:#x}", unknown("no flag of the tables has these bits")))
    return found
