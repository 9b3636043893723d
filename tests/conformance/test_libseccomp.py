"""Filters of system calls, beside libseccomp's: its library (where it is installed) writes the same profiles.

What it writes is read as any filter, so each case goes from a profile to an action two ways: through what is
made of the profile here, and through libseccomp. Both decide alike, and so does what rules say.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ebpfjit import classic, seccomp
from ebpfjit.seccomp.numbers import ARCHITECTURES, system_calls

LIBRARY = ctypes.util.find_library("seccomp")
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no libseccomp here")
MASK = (1 << 64) - 1
EDGES = (0, 1, 2, 5, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, (1 << 32) + 5, 1 << 63, MASK)
HOLDS: dict[str, Callable[[int, int, int], bool]] = {
    "SCMP_CMP_NE": lambda given, a, b: given != a,
    "SCMP_CMP_LT": lambda given, a, b: given < a,
    "SCMP_CMP_LE": lambda given, a, b: given <= a,
    "SCMP_CMP_EQ": lambda given, a, b: given == a,
    "SCMP_CMP_GE": lambda given, a, b: given >= a,
    "SCMP_CMP_GT": lambda given, a, b: given > a,
    "SCMP_CMP_MASKED_EQ": lambda given, a, b: given & a == b,
}
NUMBERS = {name: number for number, name in enumerate(HOLDS, 1)}
"""enum scmp_compare."""
ACTIONS = {
    "SCMP_ACT_KILL": 0, "SCMP_ACT_TRAP": 0x00030000, "SCMP_ACT_ERRNO": 0x00050001, "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}  # fmt: skip
CALLS = ("read", "openat", "personality", "clone", "prctl", "ioctl")


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


@contextmanager
def library(default: int) -> Iterator[tuple[Any, Any]]:
    """Give libseccomp, and a filter of it."""
    here = ctypes.CDLL(LIBRARY)
    here.seccomp_init.restype, here.seccomp_arch_native.restype = ctypes.c_void_p, ctypes.c_uint32
    made = ctypes.c_void_p(here.seccomp_init(ctypes.c_uint32(default)))
    try:
        yield here, made
    finally:
        here.seccomp_release(made)


def as_libseccomp(profile: dict[str, Any], arch: str) -> bytes:
    """Return the filter that libseccomp makes of a profile."""
    with library(ACTIONS[profile["defaultAction"]]) as (here, made):
        native = here.seccomp_arch_native()
        if native != ARCHITECTURES[arch]:
            if here.seccomp_arch_add(made, ctypes.c_uint32(ARCHITECTURES[arch])):
                pytest.skip(f"this libseccomp does not know {arch}")
            assert here.seccomp_arch_remove(made, ctypes.c_uint32(native)) == 0
        for rule in profile["syscalls"]:
            arguments = (Comparison * 6)()
            for place, each in enumerate(rule["args"]):
                fields = each["index"], NUMBERS[each["op"]], each["value"], each.get("valueTwo", 0)
                arguments[place] = Comparison(*fields)
            number = here.seccomp_syscall_resolve_name(rule["names"][0].encode())
            status = here.seccomp_rule_add_array(
                made, ctypes.c_uint32(ACTIONS[rule["action"]]), number, len(rule["args"]), arguments
            )
            assert status == 0, (rule, os.strerror(-status))
        file = os.memfd_create("filter")
        try:
            assert here.seccomp_export_bpf(made, file) == 0
            return os.pread(file, 1 << 20, 0)
        finally:
            os.close(file)


def profile_of(chosen: random.Random, arch: str) -> dict[str, Any]:
    """Return a profile: of each call the rules have one action, so that their order is nothing.

    libseccomp 2.5 makes a tree of a call's rules that is wrong where several of them order the same argument.
    """
    default, *actions = chosen.sample([*ACTIONS], 3)
    rules: dict[str, Any] = {}
    for call in chosen.sample(CALLS, 4):
        action = chosen.choice(actions)
        count = chosen.randrange(1, 4)
        known = [*HOLDS] if count == 1 else ["SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"]
        for _ in range(count):
            arguments = []
            for index in sorted(chosen.sample(range(6), chosen.choice([0, 1, 1, 2, 3]))):
                op, value = chosen.choice(known), chosen.choice(EDGES)
                arguments.append({"index": index, "op": op, "value": value})
                if op == "SCMP_CMP_MASKED_EQ":
                    arguments[-1]["valueTwo"] = value & chosen.choice(EDGES)
            rule = {"names": [call], "action": action, "args": arguments}
            rules.setdefault(repr(rule), rule)  # the same rule twice is an error there
    architectures = [f"SCMP_ARCH_{arch.upper()}"]
    return {"defaultAction": default, "architectures": architectures, "syscalls": [*rules.values()]}


def said(profile: dict[str, Any], call: str, args: tuple[int, ...]) -> str:
    """Return what a profile's rules say of a call."""
    for rule in profile["syscalls"]:
        if rule["names"] == [call] and all(
            HOLDS[each["op"]](args[each["index"]], each["value"], each.get("valueTwo", 0))
            for each in rule["args"]
        ):
            return str(rule["action"])
    return str(profile["defaultAction"])


BEHIND = ("socket", "bind", "accept", "accept4", "recv", "semop", "semtimedop", "msgget", "shmctl")


@pytest.mark.parametrize("arch", ["x86", "mipsel", "ppc64le", "x86_64"])
def test_calls_behind_another_one(arch: str) -> None:
    calls, seen = system_calls(arch), set()
    for seed in range(6):
        chosen = random.Random(f"{arch} {seed}")
        rules = []
        for call in chosen.sample(BEHIND, 5):
            places = sorted(chosen.sample(range(3), chosen.choice([0, 0, 1, 2])))
            values = [{"index": each, "op": "SCMP_CMP_EQ", "value": chosen.choice((1, 5))} for each in places]
            rules.append({"names": [call], "action": "SCMP_ACT_ALLOW", "args": values})
        names = [f"SCMP_ARCH_{arch.upper()}"]
        profile = {"defaultAction": "SCMP_ACT_TRAP", "architectures": names, "syscalls": rules}
        code = as_libseccomp(profile, arch)
        if (0x20, 0, 0, 0) not in {(each.code, each.jt, each.jf, each.k) for each in classic.decode(code)}:
            continue  # libseccomp 2.5.4 leaves out now and then to load the number
        ours, theirs = seccomp.load(profile).compile(), seccomp.load(code).compile()
        for call in {"ipc", "socketcall", *BEHIND} & {*calls}:
            for args in itertools.product(range(25), (1, 5), (1, 5)):
                data = seccomp.call_data(call, arch, args)
                assert ours(data) == theirs(data), (profile, call, args)
                seen.add((call, ours(data)))
    for call in {"ipc", "socketcall"} & {*calls}:
        assert {action for name, action in seen if name == call} == {0x7FFF0000, 0x00030000}


@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64"])
def test_libseccomp_decides_the_same(arch: str) -> None:
    seen = set()
    for seed in range(12):
        chosen = random.Random(f"{arch} {seed}")
        profile = profile_of(chosen, arch)
        ours, theirs = seccomp.load(profile), seccomp.load(as_libseccomp(profile, arch))
        functions = [made.compile(optimize=optimize) for made in (ours, theirs) for optimize in (True, False)]
        for call in (*CALLS, "getpid", "mount"):
            for _ in range(30):
                args = tuple(chosen.choice(EDGES) for _ in range(6))
                data = seccomp.call_data(call, arch, args)
                expected = said(profile, call, args)
                found = {function(data) for function in functions}
                assert found == {ACTIONS[expected]}, (profile, call, args)
                seen.add(expected)
        number = system_calls(arch)["read"]
        expected = said(profile, "read", args)
        for made in (ours, theirs):
            assert made.run(nr=number, arch="s390x") == "SCMP_ACT_KILL"
            assert made.run(nr="read", arch=arch, engine="interpreter", args=args) == expected
    assert seen == {*ACTIONS}
