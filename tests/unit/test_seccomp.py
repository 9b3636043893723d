"""seccomp: profiles, dumps and bytes; every comparison; Linux's own answers in a child process."""

from __future__ import annotations

import copy
import ctypes
import errno
import itertools
import json
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ebpfjit import AssemblyError, InputError, LoadError, VerifierError, classic, seccomp
from ebpfjit.difftest.children import run_forked
from ebpfjit.seccomp.numbers import ARCHITECTURES, known_calls, system_calls

X86 = "x86_64"
PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_S390X"],
    "syscalls": [
        {"names": ["read", "write", "arm_fadvise64_64"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
        {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1,
         "args": [{"index": 0, "value": 5, "op": "SCMP_CMP_GT"}]},
        {"name": "clone", "action": "SCMP_ACT_LOG",
         "args": [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
    ],
}  # fmt: skip


def test_a_profile_decides_as_it_says() -> None:
    program = seccomp.load(PROFILE)
    for call, args, expected in [
        ("read", (), ("SCMP_ACT_ALLOW", 0)),
        ("mount", (), ("SCMP_ACT_ERRNO", 38)),
        ("personality", (8,), ("SCMP_ACT_ALLOW", 0)),
        ("personality", (9,), ("SCMP_ACT_ERRNO", 1)),
        ("personality", (5,), ("SCMP_ACT_ERRNO", 38)),
        ("clone", (17,), ("SCMP_ACT_LOG", 0)),
        ("clone", (0x10000000,), ("SCMP_ACT_ERRNO", 38)),
    ]:
        for engine in ("interpreter", "jit"):
            assert program.decide(nr=call, arch=X86, args=args, engine=engine) == expected, (call, args)
            assert program.run(nr=call, arch=X86, args=args, engine=engine) == expected[0]
    assert program.run(nr="read", arch="x86") == program.run(nr=3, arch="x86") == "SCMP_ACT_ALLOW"
    assert program.run(nr="read", arch="aarch64") == program.run(nr=0x40000000, arch=X86) == "SCMP_ACT_KILL"
    table = program.table(X86)
    assert [name for name, action in table.items() if action == "SCMP_ACT_ALLOW"] == ["read", "write"]
    assert len(table) == len(system_calls(X86)) > 300
    other = seccomp.load({**PROFILE, "syscalls": PROFILE["syscalls"][:1]})  # type: ignore[index]
    assert seccomp.compare(program, other, X86, (8,)) == {
        "clone": ("SCMP_ACT_LOG", "SCMP_ACT_ERRNO"), "personality": ("SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"),
    }  # fmt: skip
    assert len(repr(program)) < 100
    result = program.run(context={"nr": "personality", "arch": 0xC000003E, "args": (8,)})
    assert (result.action, result.return_value) == ("SCMP_ACT_ALLOW", 0x7FFF0000)
    assert result.context["args"] == (8, 0, 0, 0, 0, 0)
    assert result.context["nr"] == system_calls(X86)["personality"]
    assert program.run(seccomp.call_data(0, X86), engine="interpreter").action == "SCMP_ACT_ALLOW"
    for context, kind, says in [
        ({"number": 1}, InputError, "no field of struct seccomp_data 'number'; there are: 'nr', 'arch'"),
        ({"nr": "read", "arch": 5}, LoadError, "no architecture has the number 0x5"),
        ({"nr": 0, "arch": -1}, ValueError, "a number of 32 bits, not -1"),
    ]:
        with pytest.raises(kind, match=says):
            program.run(context=context)


MEANING: dict[str, Any] = {
    "SCMP_CMP_NE": lambda a, b: a != b, "SCMP_CMP_LT": lambda a, b: a < b, "SCMP_CMP_LE": lambda a, b: a <= b,
    "SCMP_CMP_EQ": lambda a, b: a == b, "SCMP_CMP_GE": lambda a, b: a >= b, "SCMP_CMP_GT": lambda a, b: a > b,
}  # fmt: skip
EDGES = [0, 1, 5, (1 << 32) - 1, 1 << 32, (1 << 32) + 5, (5 << 32) + 5, (1 << 64) - 1]


def test_comparisons_are_of_64_bits() -> None:
    for op, holds in MEANING.items():
        for value in EDGES:
            argument = {"index": 2, "value": value, "op": op}
            rule = {"names": ["dup3"], "action": "SCMP_ACT_ALLOW", "args": [argument]}
            function = seccomp.load(_only(rule)).compile()
            for given in EDGES:
                data = seccomp.call_data("dup3", X86, (7, 7, given))
                assert (function(data) == 0x7FFF0000) == holds(given, value), (op, given, value)
    masked = {"index": 1, "value": 0xF0_0000_00F0, "valueTwo": 0x10_0000_0020, "op": "SCMP_CMP_MASKED_EQ"}
    program = seccomp.load(_only({"names": ["dup3"], "action": "SCMP_ACT_ALLOW", "args": [masked]}))
    for given, action in [(0x1F_0000_002F, "ALLOW"), (0x20_0000_0020, "ERRNO"), (0x10_0000_0030, "ERRNO")]:
        assert program.run(nr="dup3", arch=X86, args=(0, given)) == f"SCMP_ACT_{action}"


def _only(rule: dict[str, Any]) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": [rule]}


def test_files_dumps_and_bytes(tmp_path: Path) -> None:
    text = "ld [0]\njeq #0, 0, 1\nret #0x7fff0000\nret #0x00050001"
    code = classic.assemble(text)
    (tmp_path / "profile.json").write_text(json.dumps(PROFILE))
    (tmp_path / "filter.bin").write_bytes(code)
    (tmp_path / "filter.txt").write_text(classic.disassemble(code, "dd"))
    files = (tmp_path / "filter.bin", str(tmp_path / "filter.txt"))
    for source in (text, code, classic.disassemble(code, "ddd"), *files):
        program = seccomp.load(source)
        assert [program.run(nr=nr) for nr in (0, 1)] == ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"]
        assert program.classic == code
    for profile in (json.dumps(PROFILE), tmp_path / "profile.json"):
        assert seccomp.load(profile).classic == seccomp.load(PROFILE).classic
    assert seccomp.load(text).run(seccomp.call_data(0)).return_value == 0x7FFF0000
    docker = {"defaultAction": "SCMP_ACT_KILL_PROCESS", "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}
    ]}  # fmt: skip
    assert seccomp.load(docker).run(nr="read", arch=X86) == "SCMP_ACT_KILL_PROCESS"


DOCKER: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_MIPS64", "subArchitectures": ["SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64N32"]},
        {"architecture": "SCMP_ARCH_PPC64LE", "subArchitectures": None},
        {"architecture": "SCMP_ARCH_S390X", "subArchitectures": ["SCMP_ARCH_S390"]},
        {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": None},
        {"architecture": "SCMP_ARCH_LOONGARCH64", "subArchitectures": None},
    ],
    "syscalls": [
        {"names": sorted(set(system_calls(X86)) | set(system_calls("x86")))[::2], "action": "SCMP_ACT_ALLOW"},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["set_tls", "cacheflush"], "action": "SCMP_ACT_ALLOW",
         "includes": {"arches": ["arm", "arm64"]}},
        {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
        {"names": ["clone", "clone3", "mount"], "action": "SCMP_ACT_ALLOW",
         "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 2114060288, "op": "SCMP_CMP_MASKED_EQ"}],
         "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390", "s390x"]}},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "comment": "the parameters of s390", "args": [
            {"index": 1, "value": 2114060288, "op": "SCMP_CMP_MASKED_EQ"}],
         "includes": {"arches": ["s390", "s390x"]}, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38,
         "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}},
        {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
    ],
}  # fmt: skip
"""Of the form that Docker's own has."""
SPAWN = 0x7E020000


def test_rules_count_where_a_profile_says_so() -> None:
    profile = copy.deepcopy(DOCKER)
    special = {name for rule in profile["syscalls"][1:] for name in rule["names"]}
    every = profile["syscalls"][0]["names"] = [each for each in DOCKER["syscalls"][0]["names"]
                                               if each not in special]  # fmt: skip
    plain, admin = seccomp.load(profile), seccomp.load(profile, capabilities=["cap_sys_admin"])
    old = seccomp.load(profile, kernel="4.4.0-31-generic")
    assert len(plain.classic) // 8 < 3500  # where Linux takes 4096: each second call, the worst there is
    allow, refused = ("SCMP_ACT_ALLOW", 0), ("SCMP_ACT_ERRNO", 1)
    for program, call, arch, args, expected in [
        (plain, "clone", X86, (17,), allow), (plain, "clone", X86, (SPAWN,), refused),
        (admin, "clone", X86, (SPAWN,), allow), (plain, "clone3", X86, (), ("SCMP_ACT_ERRNO", 38)),
        (admin, "clone3", "x32", (), allow), (plain, "mount", X86, (), refused),
        (admin, "mount", X86, (), allow), (plain, "chroot", X86, (), allow),
        (admin, "chroot", X86, (), refused), (plain, "ptrace", X86, (), allow),
        (old, "ptrace", X86, (), refused), (plain, "arch_prctl", "x86", (), allow),
        (plain, "set_tls", "arm", (), allow), (plain, "clone", "s390x", (0, SPAWN), refused),
        (plain, "clone", "s390x", (SPAWN, 0), allow), (plain, "clone", "s390x", (0, SPAWN << 32), allow),
        (plain, "personality", "SCMP_ARCH_AARCH64", (8,), allow),
        (plain, "personality", "amd64", (9,), refused),
        (plain, "personality", "mips64n32", (8 + (1 << 32),), allow),
        (plain, -1, X86, (), refused), (plain, 0, "ppc", (), ("SCMP_ACT_KILL", 0)),
    ]:  # fmt: skip
        assert program.decide(nr=call, arch=arch, args=args) == expected, (call, arch, args)
    for arch, listed in {X86: True, "x32": True, "arm": True, "mips64n32": True, "ppc": False}.items():
        table = plain.table(arch)
        for name in every:
            if name in table:
                assert table[name] == ("SCMP_ACT_ALLOW" if listed else "SCMP_ACT_KILL"), (name, arch)


def test_the_narrower_rule_of_a_call_decides() -> None:
    """In whatever order they are, as libseccomp has it."""
    conditions = {
        1: (2, "GT", 128), 2: (2, "GT", 256), 3: (2, "GE", 512), 4: (2, "LE", 64), 5: (2, "LT", 32),
        6: (2, "EQ", 7), 7: (2, "NE", 40), 8: (0, "EQ", 1), 9: (5, "MASKED_EQ", 1),
    }  # fmt: skip
    decided = {
        (1, 2, 3): {129: 1, 256: 1, 257: 2, 511: 2, 512: 3, 9999: 3, 128: 38},
        (4, 5, 6, 1): {7: 6, 8: 5, 31: 5, 32: 4, 64: 4, 65: 38, 129: 1},
        (7, 1, 6): {7: 7, 40: 38, 129: 7},
        (8, 4): {0: 4, 64: 4, 65: 8},
        (9, 4, 1): {0: 9, 300: 9},
    }
    for errors, expected in decided.items():
        for order in itertools.permutations(errors):
            rules = [
                {
                    "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": error,
                    "args": [{"index": index, "op": f"SCMP_CMP_{op}", "value": value}],
                }
                for error in order for index, op, value in [conditions[error]]
            ]  # fmt: skip
            profile = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": rules}
            program = seccomp.load({**profile, "architectures": ["x86_64"]})
            found = {
                size: program.decide(nr="read", arch="x86_64", args=(1, 0, size))[1] for size in expected
            }
            assert found == expected, order


def test_calls_that_are_behind_another_one() -> None:
    """A rule of socket is one of socketcall(1, ...) too, as container runtimes have it."""
    local = {"index": 0, "op": "SCMP_CMP_EQ", "value": 1}
    rules = [
        {"names": ["socket"], "args": [local, {"index": 2, "op": "SCMP_CMP_NE", "value": 7}]},
        {"names": ["accept", "semop", "shmctl"]},
    ]
    allowed = {"socketcall": {1, 5}, "ipc": {1, 24}}
    architectures = ["x86", "mipsel", "ppc64le", "s390x", "x86_64", "aarch64"]
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures,
        "syscalls": [{**rule, "action": "SCMP_ACT_ALLOW"} for rule in rules],
    }  # fmt: skip
    program = seccomp.load(profile)
    for arch in architectures:
        calls = system_calls(arch)
        assert ("ipc" in calls) == (arch not in ("x86_64", "aarch64"))
        for name, numbers in allowed.items():
            found = {
                number for number in range(26)
                if name in calls and program.run(nr=name, arch=arch, args=(number,)) == "SCMP_ACT_ALLOW"
            }  # fmt: skip
            assert found == (numbers if name in calls else set()), (arch, name)
            # the condition of the first argument is not one of socketcall's, the others are
            if name == "socketcall" in calls:
                assert program.run(nr=name, arch=arch, args=(1, 0, 7)) == "SCMP_ACT_ERRNO"
        assert program.run(nr="socket", arch=arch, args=(1,)) == "SCMP_ACT_ALLOW"
        assert program.run(nr="socket", arch=arch, args=(2,)) == "SCMP_ACT_ERRNO"
    profile["syscalls"] = [{"names": ["socket"], "action": "SCMP_ACT_ALLOW"}]
    whole = seccomp.load(profile)
    assert whole.run(nr="socketcall", arch="x86", args=(1,)) == "SCMP_ACT_ALLOW"
    assert whole.run(nr="socketcall", arch="x86", args=(2,)) == "SCMP_ACT_ERRNO"
    profile["syscalls"] = [*profile["syscalls"], {"names": ["socketcall"], "action": "SCMP_ACT_ALLOW"}]
    assert seccomp.load(profile).run(nr="socketcall", arch="x86", args=(2,)) == "SCMP_ACT_ALLOW"


def test_tables_of_system_calls() -> None:
    assert system_calls("aarch64")["mseal"] == 462
    assert system_calls("mips64")["read"] == 5000
    for arch in ARCHITECTURES:
        assert len(system_calls(arch)) > 300
        assert set(system_calls(arch)) <= known_calls()
        if arch != "x32":
            assert seccomp.call_data("getpid", arch)[4:8] == ARCHITECTURES[arch].to_bytes(4, "little")


def test_rules_without_arguments_are_for_all_of_a_call() -> None:
    """As libseccomp has it; one that says the default says nothing, and a jump may be a long one."""
    with_arguments = {"names": ["dup3"], "action": "SCMP_ACT_LOG",
                      "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}  # fmt: skip
    without = {"names": ["dup3"], "action": "SCMP_ACT_ALLOW"}
    same = {"names": ["dup3"], "action": "SCMP_ACT_ERRNO"}
    many = [{**with_arguments, "names": [name]} for name in sorted(system_calls(X86))[::3] if name != "dup3"]
    for rules, expected in [
        ([with_arguments, without], "SCMP_ACT_ALLOW"), ([with_arguments, same], "SCMP_ACT_LOG"),
        ([same, with_arguments, *many], "SCMP_ACT_LOG"),
    ]:  # fmt: skip
        program = seccomp.load({**_only({}), "syscalls": rules})
        assert program.run(nr="dup3", arch=X86, args=(1,)) == expected
    for number, name in enumerate(sorted(system_calls(X86))[::3]):
        assert program.run(nr=name, arch=X86, args=(1,)) == "SCMP_ACT_LOG", (number, name)
        assert program.run(nr=name, arch=X86, args=(2,)) == "SCMP_ACT_ERRNO", (number, name)


WRONG: list[tuple[Any, type[Exception], str]] = [
    ("{'defaultAction': 1}", AssemblyError, "an instruction is { code, jt, jf, k }"),
    ('{"defaultAction": ', LoadError, "a seccomp profile is JSON: "),
    ({"syscalls": []}, LoadError, "a JSON object with a defaultAction"),
    ({"defaultAction": "ALLOW"}, LoadError, "defaultAction: no action 'ALLOW'; there are SCMP_ACT"),
    (_only({"names": ["raed"], "action": "SCMP_ACT_ALLOW"}), LoadError, r"\[0\]: no system call 'raed'"),
    (_only({"action": "SCMP_ACT_ALLOW"}), LoadError, r"syscalls\[0\]: there are no names"),
    (_only({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}),
     LoadError, "an index from 0 to 5, not 6"),
    (_only({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "=="}]}),
     LoadError, "no comparison '=='; there are SCMP_CMP_NE"),
    (_only({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": "E5"}), LoadError, "no error number"),
    (_only({"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["vax"]}}),
     LoadError, "no architecture 'vax'"),
    (_only({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 70000}),
     LoadError, r"syscalls\[0\]: action: 70000 is no error number"),
    (_only({"names": ["read"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["vax"]}}),
     LoadError, r"syscalls\[0\]: excludes: no architecture 'vax'"),
    (_only({"names": ["read"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "new"}}),
     LoadError, r"syscalls\[0\]: excludes: 'new' is no release of Linux: 5.15"),
    ({"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_VAX"]}, LoadError, "SCMP_ARCH_VAX"),
    ("ldh [0]\nret a", VerifierError, r"seccomp has no ldh \[k\]"),
    ("ld [2]\nret a", VerifierError, "a word at 0x2, and struct seccomp_data has 64 bytes"),
    ("ld [64]\nret a", VerifierError, "a word at 0x40"),
    ("nowhere/profile.json", FileNotFoundError, "nowhere/profile.json"),
    (5, TypeError, "a filter is a path, text, bytes or a mapping"),
]  # fmt: skip


def test_what_is_wrong_is_said() -> None:
    for source, kind, says in WRONG:
        with pytest.raises(kind, match=says):
            seccomp.load(source)
    for capabilities in ("CAP_KILL", [5], b"x"):
        with pytest.raises(TypeError, match="capabilities are names in a list"):
            seccomp.load({"defaultAction": "SCMP_ACT_LOG"}, capabilities=capabilities)  # type: ignore[arg-type]
    program = seccomp.load("ret #0x7fff0000")
    for options, kind, says in [
        ({"nr": "nothing", "arch": X86}, LoadError, "no system call 'nothing' on x86_64"),
        ({"nr": 0, "arch": "vax"}, LoadError, "no architecture 'vax'; there are x86_64, x86"),
        ({"nr": 0, "args": range(7)}, ValueError, "up to six arguments"),
    ]:
        with pytest.raises(kind, match=says):
            program.run(**options)


WHOLE: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64"],
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1,
         "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_EQ"}],
         "includes": {"caps": ["CAP_KILL"], "arches": ["amd64"], "minKernel": "4.8"}},
        {"name": "open", "action": "SCMP_ACT_ERRNO", "errnoRet": "EPERM"},
    ],
}  # fmt: skip
ODD = (None, True, -1, 1.5, float("nan"), "", "x", [], {}, [[]], [{}], [None], [1], 1 << 70, {"a": 1})


def _places(value: Any, *here: Any) -> Iterator[tuple[Any, ...]]:
    yield here
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _places(value[key], *here, key)


def test_a_profile_with_anything_anywhere_is_read_or_refused() -> None:
    read = refused = 0
    for *way, last in filter(None, _places(WHOLE)):
        for odd in ODD:
            profile = copy.deepcopy(WHOLE)
            inside: Any = profile
            for key in way:
                inside = inside[key]
            inside[last] = odd
            for source in (profile, json.dumps(profile)):
                try:
                    seccomp.load(source)
                    read += 1
                except LoadError:
                    refused += 1
    assert refused > read > 50


def test_files_and_calls_that_are_nothing(tmp_path: Path) -> None:
    names = '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": '
    (tmp_path / "a.json").write_bytes(b"\xff{}")
    for source, kind, says in [
        (names + "[" * 100_000, LoadError, "a seccomp profile is JSON: .*recursion"),
        (names + "9" * 5000 + "}", LoadError, "a seccomp profile is JSON: Exceeds the limit"),
        (tmp_path / "a.json", LoadError, r"a\.json: no UTF-8: byte 0"),
        (WHOLE | {"syscalls": [WHOLE["syscalls"][0]] * 2000}, VerifierError, "4096"),
    ]:
        with pytest.raises(kind, match=says):
            seccomp.load(source)  # type: ignore[arg-type]  # a mapping that mypy knows less of
    program = seccomp.load("\ufeff" + json.dumps(WHOLE))
    assert program.run(nr="read", args=(1,), arch=X86) == "SCMP_ACT_ALLOW"
    for options, wrong in [
        ({"nr": 0, "ip": -1}, ValueError), ({"nr": 0, "ip": 1 << 64}, ValueError), ({"nr": 1.5}, TypeError),
        ({"nr": 0, "args": (1.0,)}, TypeError), ({"nr": b"read"}, TypeError),
        ({"nr": 0, "arch": 1.5}, LoadError), ({"nr": 1 << 32}, ValueError),
        ({"nr": -(1 << 31) - 1}, ValueError),
    ]:  # fmt: skip
        with pytest.raises(wrong):
            program.run(**options)  # type: ignore[arg-type]  # what users may get wrong
    with pytest.raises(TypeError, match="filters are compared that `load` gives, not of type dict"):
        seccomp.compare(program, WHOLE)  # type: ignore[arg-type]  # on purpose


def _in_linux(code: bytes, calls: list[tuple[int, int]]) -> list[int]:
    """Return the error numbers that calls of the form (number, first argument) get under a filter, 0 for
    none.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_ = ctypes.create_string_buffer(struct.pack("H6xQ", len(code) // 8, ctypes.addressof(buffer)))
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    if libc.prctl(22, 2, ctypes.addressof(filter_), 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        raise OSError(ctypes.get_errno(), "no filter")
    found = []
    for number, argument in calls:
        ctypes.set_errno(0)
        result = libc.syscall(ctypes.c_long(number), ctypes.c_ulong(argument), 0, 0, 0, 0)
        found.append(ctypes.get_errno() if result == -1 else 0)
    return found


@pytest.mark.skipif(os.uname().machine != X86, reason="system calls of x86_64 are made")
def test_linux_decides_the_same() -> None:
    """Filters on getppid, sched_yield and umask, whose effect on a child is none."""
    names = ("getppid", "sched_yield", "umask")
    for seed in range(12):
        chosen = random.Random(seed)
        rules = []
        for name, value in itertools.product(names, chosen.sample(EDGES, 2)):
            ops = chosen.choice(list(MEANING))
            rules.append({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": chosen.choice([5, 7, 11]),
                          "args": [{"index": 0, "value": value, "op": ops}]})  # fmt: skip
        program = seccomp.load({**_only({}), "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
        calls = [(system_calls(X86)[name], value) for name in names for value in EDGES]
        ended = run_forked(lambda code=program.classic, calls=calls: _in_linux(code, calls), 20)  # type: ignore[misc]
        if ended.value is None:
            pytest.skip(f"no seccomp filter can be set here: {ended}")
        said = [program.decide(nr=nr, arch=X86, args=(value,)) for nr, value in calls]
        assert ended.value == [data if action == "SCMP_ACT_ERRNO" else 0 for action, data in said], seed
    assert errno.EIO == 5
