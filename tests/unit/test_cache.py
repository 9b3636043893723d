"""Machine code in files: what is used, and what never is."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from ebpfjit import (
    BudgetExhausted,
    EbpfVmFixedMbuff,
    EbpfVmRaw,
    JitFunction,
    LoadError,
    MemoryFault,
    Program,
    VerifierError,
)
from ebpfjit.analysis.accesses import Promises
from ebpfjit.analysis.verified import prepare
from ebpfjit.assembler import assemble
from ebpfjit.jit import assembler, cache, cpu, translation
from ebpfjit.jit.recipe import Listing, Recipe
from ebpfjit.options import Options
from ebpfjit.runtime.rights import Rights
from ebpfjit.sealed import inside
from tests.support.whole import WHOLE

SUM = "mov r0, 5\nadd r0, r2\nmov r3, 9\nlsh r3, r2\nadd r0, r3\nexit"
TWICE = "mov r1, 21\ncall 5\nexit"


def program(text: str = SUM) -> Program:
    return Program.from_bytes(assemble(text))


def doubled(r1: int, *others: int) -> int:
    return 2 * r1


def tripled(r1: int, *others: int) -> int:
    return 3 * r1


@pytest.fixture
def translations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many instructions each program had that was translated."""
    seen: list[int] = []
    listing_of = translation.listing_of

    def counted(recipe: Recipe) -> Listing:
        seen.append(len(recipe.verified.program))
        return listing_of(recipe)

    monkeypatch.setattr(translation, "listing_of", counted)
    return seen


# -- saved by hand ------------------------------------------------------------------------------


def test_a_saved_function_is_loaded_without_being_compiled(tmp_path: Path, translations: list[int]) -> None:
    function = program().compile(optimize=True)  # what changes tiers is made final first
    function.save(tmp_path / "sum")
    assert len(translations) == 1
    loaded = JitFunction.load(tmp_path / "sum")
    assert [loaded(bytes(size)) for size in range(5)] == [function(bytes(size)) for size in range(5)]
    assert len(translations) == 1
    assert loaded.listing() == function.listing()


def test_loading_needs_neither_keystone_nor_the_program(tmp_path: Path) -> None:
    program("ldxb r0, [r1+2]\ncall local f\nexit\nf: add r0, 1\nexit").compile().save(tmp_path / "load")
    code = (
        "import sys; sys.modules['keystone'] = None\n"
        "from ebpfjit import JitFunction, MemoryFault\n"
        f"f = JitFunction.load({str(tmp_path / 'load')!r})\n"
        "print(f(b'abc'))\n"
        "try: f(b'ab')\n"
        "except MemoryFault as error: print(error.pc, error.size)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert child.stdout.split("\n")[:2] == ["100", "0 1"], child.stderr


def test_a_loaded_function_faults_where_it_should(tmp_path: Path) -> None:
    program("mov r0, 0\nldxdw r0, [r1+8]\nexit").compile().save(tmp_path / "fault")
    loaded = JitFunction.load(tmp_path / "fault")
    with pytest.raises(MemoryFault) as caught:
        loaded(bytes(15))
    assert (caught.value.pc, caught.value.size) == (1, 8)
    assert loaded(bytes(8) + b"\x07" + bytes(7)) == 7


def test_helpers_are_those_that_are_given_when_it_is_loaded(tmp_path: Path) -> None:
    program(TWICE).compile(helpers={5: doubled}).save(tmp_path / "twice")
    assert JitFunction.load(tmp_path / "twice", helpers={5: doubled})() == 42
    assert JitFunction.load(tmp_path / "twice", helpers={5: tripled})() == 63
    for helpers in ({}, {6: doubled}, {5: doubled, 6: doubled}):
        with pytest.raises(LoadError, match="helpers"):
            JitFunction.load(tmp_path / "twice", helpers=helpers)


def test_settings_travel_and_the_limit_is_given_anew(tmp_path: Path) -> None:
    unchecked = program("ldxb r0, [r1]\nexit").compile(checked=False)
    unchecked.save(tmp_path / "unchecked")
    assert "not checked" in JitFunction.load(tmp_path / "unchecked").listing()
    plain = program("mov r0, r1\nldxb r0, [r0]\nldxb r0, [r1]\nexit").compile(optimize=False)
    plain.save(tmp_path / "plain")
    assert "covers" not in JitFunction.load(tmp_path / "plain").listing()
    program("mov r0, 1\nagain: add r0, 1\njne r0, 0, again\nexit").compile().save(tmp_path / "loop")
    with pytest.raises(BudgetExhausted):
        JitFunction.load(tmp_path / "loop", limit=1000)()


def test_a_program_with_a_type_is_saved_with_it(tmp_path: Path) -> None:
    typed = Program(assemble("mov r0, 2\nexit"), type="xdp")
    typed.compile().save(tmp_path / "xdp")
    assert JitFunction.load(tmp_path / "xdp")(bytes(64)) == 2


@pytest.mark.parametrize("cut", [0, 7, 8, 39, 40, 43, 44, 100, -1, -8])
def test_a_truncated_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut"
    program().compile().save(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(LoadError, match=str(path)):
        JitFunction.load(path)


def test_no_bit_of_a_file_may_be_wrong(tmp_path: Path) -> None:
    path = tmp_path / "bit"
    program().compile().save(path)
    content = path.read_bytes()
    for place in (*range(0, 512, 7), *range(512, len(content), 7 if WHOLE else 97)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(LoadError):
            JitFunction.load(path)


@pytest.mark.parametrize("content", [b"", b"eBPFjit", b"\x7fELF" + bytes(100), b"eBPFjit\x01" + bytes(99)])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "foreign").write_bytes(content)
    with pytest.raises(LoadError, match="no saved image"):
        JitFunction.load(tmp_path / "foreign")


def _with_checksum(body: bytes) -> bytes:
    return cache.MAGIC + hashlib.blake2b(body, digest_size=32).digest() + body


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body[:4] + b"[" + body[5:],
        lambda body: b"\xff\xff\xff\x7f" + body[4:],
        lambda body: body + b"more",
        lambda body: body.replace(b'"key"', b'"kex"', 1),
        lambda body: body.replace(b'"sizes": [', b'"sizes": [9', 1),
        lambda body: body[:4],
    ],
)
def test_a_file_that_is_wrong_though_its_checksum_is_right(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "wrong"
    program().compile().save(path)
    path.write_bytes(_with_checksum(change(path.read_bytes()[40:])))
    with pytest.raises(LoadError):
        JitFunction.load(path)


def test_a_file_does_not_choose_for_who_loads_it(tmp_path: Path) -> None:
    path = tmp_path / "more"
    program().compile().save(path)
    body = path.read_bytes()[40:]
    stop = 4 + int.from_bytes(body[:4], "little")
    header = json.loads(body[4:stop])
    header["key"] |= {"release_gil": True, "harden": "yes", "audit": True, "cache": 1}
    text = json.dumps(header).encode()
    path.write_bytes(_with_checksum(len(text).to_bytes(4, "little") + text + body[stop:]))
    options = inside(JitFunction.load(path)).plain.compiled.recipe.options
    assert options.chosen == Options().chosen


def test_a_file_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "open"
    program().compile().save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    for mode in (0o660, 0o602):
        path.chmod(mode)
        with pytest.raises(LoadError, match="others may write"):
            JitFunction.load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    program().compile().save(path)
    os.chown(path, 12345, 12345)
    with pytest.raises(LoadError, match="user 12345"):
        JitFunction.load(path)


def test_links_and_devices_are_not_followed(tmp_path: Path) -> None:
    program().compile().save(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, said in (
        ("link", "symbolic link; name the file"),
        ("pipe", "no regular file"),
        (".", "no regular file"),
        ("missing", "No such file"),
    ):
        with pytest.raises(LoadError, match=said):
            JitFunction.load(tmp_path / name)


def test_what_is_not_read_is_closed_again(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch(mode=0o600)
    os.mkfifo(tmp_path / "pipe", 0o600)
    before = os.listdir("/proc/self/fd")
    for name in ("folder", "empty", "pipe"):
        for _ in range(10):
            with pytest.raises(LoadError):
                JitFunction.load(tmp_path / name)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_what_cannot_be_saved_says_why(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="random"):
        program().compile(harden=True).save(tmp_path / "hard")
    referring = Program(assemble("lddw r1, 7\nmov r0, 0\nexit"), references={0: 0x1234})
    with pytest.raises(LoadError, match="addresses"):
        referring.compile().save(tmp_path / "map")
    assert list(tmp_path.iterdir()) == []


# -- kept in a folder ---------------------------------------------------------------------------


def test_a_folder_keeps_machine_code(tmp_path: Path, translations: list[int]) -> None:
    folder = tmp_path / "new" / "folder"
    first = program().compile(cache=folder)
    (kept,) = folder.glob(IMAGES)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert kept.stat().st_mode & 0o777 == 0o600
    second = program().compile(cache=folder)
    assert first(b"abc") == second(b"abc")
    assert len(translations) == 1


def test_no_folder_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program().compile()
    EbpfVmRaw(assemble(SUM)).jit_compile()
    assert list(tmp_path.iterdir()) == []


def test_machines_keep_machine_code_too(tmp_path: Path, translations: list[int]) -> None:
    text = assemble("ldxdw r0, [r1+8]\nldxdw r2, [r1]\nsub r0, r2\nexit")
    for size in (3, 4):
        vm = EbpfVmFixedMbuff(text, 0, 8, cache=tmp_path)
        vm.jit_compile()
        assert vm.execute_program_jit(bytes(size)) == size
    assert len(translations) == 1
    other = EbpfVmFixedMbuff(text, 8, 16, cache=tmp_path)  # promises more bytes behind r1
    other.jit_compile()
    assert len(translations) == 2


DIFFERENT: dict[str, Callable[[Path], object]] = {
    "program": lambda folder: program("mov r0, 1\nexit").compile(cache=folder),
    "checked": lambda folder: program().compile(cache=folder, checked=False),
    "helpers": lambda folder: program().compile(cache=folder, helpers={5: doubled}),
    "machine": lambda folder: EbpfVmRaw(program(), cache=folder).jit_compile(),
    "symbols": lambda folder: Program(program().code, symbols={2: "f"}).compile(cache=folder),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_differs_is_compiled_for_itself(tmp_path: Path, translations: list[int], what: str) -> None:
    program().compile(cache=tmp_path)
    for _ in range(2):
        DIFFERENT[what](tmp_path)
    assert len(translations) == 2
    assert len(list(tmp_path.glob(IMAGES))) == 2


def _fields(value: Any) -> Iterator[tuple[Any, str]]:
    """Yield the fields of a recipe and of the records in it: whose, and its name."""
    for each in fields(value):
        part = getattr(value, each.name)
        if is_dataclass(part) and not isinstance(part, Rights):
            yield from _fields(part)
        else:
            yield value, each.name


OTHER: dict[type, Any] = {
    bool: lambda value: not value,
    int: lambda value: value + 1,
    str: lambda value: value + "x",
    dict: lambda value: {**value, 7: 8},
    MappingProxyType: lambda value: {**value, 7: 8},
    frozenset: lambda value: value | {7},
    Rights: lambda value: Rights("other", b"\xff" * 8, ()),
    type(None): lambda value: frozenset({7}),
}
"""Another value than a field has, by its type."""


def test_every_field_that_code_depends_on_is_in_the_key() -> None:
    promises = Promises(argument_rights=Rights("struct", bytes(8), ()))
    options = Options(promises=promises, features=frozenset())
    recipe = Recipe(prepare(Program(assemble(SUM), type="xdp")), options)
    key, found, apart = cache.key_of(recipe), [], set()
    for record, name in _fields(recipe):
        if (full := f"{type(record).__name__}.{name}") in cache.APART:
            apart.add(full)
            continue
        value = getattr(record, name)
        object.__setattr__(record, name, OTHER[type(value)](value))
        vars(recipe).pop("settings", None)  # which was made of what was there
        assert cache.key_of(recipe) != key, full
        object.__setattr__(record, name, value)
        found.append(name)
    assert apart == cache.APART.keys()
    assert len(found) == len({*found}), "of two fields of one name only one is in the key"
    assert json.loads(json.dumps(key)) == key


def test_the_stamp_is_of_all_that_code_is_made_by() -> None:
    """Of every module that is read to compile programs of several types; of routines that are no Python."""
    code = (
        "import sys; from ebpfjit import Program\n"
        "for type_ in (None, 'xdp', 'tc', 'kprobe'):\n"
        "    Program(bytes.fromhex('b700000002000000 9500000000000000'), type=type_).compile(optimize=True)\n"
        "print(*{m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'ebpfjit'}, sep='\\n')"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    stamped = {*cache.sources()}
    assert {*child.stdout.split()} <= stamped
    ends = ("contexts/skb.py", "maps/hash.py", "helpers/names.py", "hash_lookup.bin", "x86_64/checks.py")
    assert all(any(name.endswith(end) for name in stamped) for end in ends)


def test_the_stamp_is_of_what_files_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installers set the dates of files as they like: all the same, for one."""
    made = cache.build.__wrapped__  # type: ignore[attr-defined] # a process makes it once
    file = tmp_path / "module.py"
    monkeypatch.setattr(cache, "sources", lambda: [str(file)])
    stamps = []
    for content, date in ((b"one", 5), (b"two", 5), (b"one", 6)):
        file.write_bytes(content)
        os.utime(file, (date, date))
        stamps.append(made())
    assert stamps[0] == stamps[2] != stamps[1]


def test_a_folder_knows_the_stamp_until_a_source_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where whoever changed it set its date back, and not while its date is of right now."""
    source, folder, made, now = tmp_path / "module.py", tmp_path / "cache", [], [2**62]
    folder.mkdir(mode=0o700)
    source.write_bytes(b"one")
    os.utime(source, (5, 5))
    monkeypatch.setattr(cache, "sources", lambda: [str(source)])
    monkeypatch.setattr("time.time_ns", lambda: now[0])
    monkeypatch.setattr(cache, "build", lambda: made.append(source.read_bytes()) or f"{len(made)}")

    def told() -> str:
        here = cache.Folder(folder)
        build = here.build
        here._note()
        return build

    assert [told(), told()] == ["1", "1"]
    before = source.stat()
    while source.stat().st_ctime_ns == before.st_ctime_ns:  # the file system's clock has ticks
        source.write_bytes(b"two")
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [told(), told()] == ["2", "2"]
    now[0] = source.stat().st_ctime_ns + 1
    assert [told(), told()] == ["3", "4"]
    now[0] = 2**62
    (folder / cache.NOTE).chmod(0o666)
    assert told() == "5"
    for damaged in (b"", b"[]", b"{}", b"[1, 2]", b"[" * 500, b"\xff"):
        (folder / cache.NOTE).write_bytes(damaged)
        assert told() == f"{len(made)}"
    assert len(made) == 11


IMAGES = "*" + cache.SUFFIX

FOREIGN: dict[str, tuple[object, str, object]] = {
    "features": (cpu, "features", lambda: frozenset({"other"})),
    "build": (cache, "build", lambda: "another version"),  # what a folder's note says is of the sources
    "python": (sys, "version", "2.99"),
    "host": (cache, "layout_of_host", lambda: [8]),
    "machine": (cpu, "target", lambda: "pdp11"),
}


@pytest.mark.parametrize("part", FOREIGN)
def test_code_of_another_version_or_machine_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, translations: list[int], part: str
) -> None:
    """Neither under the name it would have there, nor where somebody renamed it."""
    program().compile(cache=tmp_path / "here").save(tmp_path / "saved")
    (ours,) = (tmp_path / "here").glob(IMAGES)
    owner, name, value = FOREIGN[part]
    monkeypatch.setattr(owner, name, value)
    with pytest.raises(LoadError, match=part):
        JitFunction.load(tmp_path / "saved")
    assert len(translations) == 1
    theirs = cache.Folder(tmp_path / "there")
    program().compile(cache=theirs.path)
    assert len(translations) == 2
    (file,) = (tmp_path / "there").glob(IMAGES)
    assert file.name != ours.name
    ours.rename(file)
    program().compile(cache=theirs.path)
    assert len(translations) == 3


@pytest.mark.parametrize("damage", [b"", b"not an image", None])
def test_damaged_entries_are_compiled_anew_and_replaced(
    tmp_path: Path, translations: list[int], damage: bytes | None
) -> None:
    program().compile(cache=tmp_path)
    (entry,) = tmp_path.glob(IMAGES)
    content = entry.read_bytes()
    entry.write_bytes(content[:-9] + b"\xcc" + content[-8:] if damage is None else damage)
    assert program().compile(cache=tmp_path)(b"") == 14
    assert len(translations) == 2
    program().compile(cache=tmp_path)
    assert len(translations) == 2


def test_an_entry_that_others_may_write_to_is_not_run(tmp_path: Path, translations: list[int]) -> None:
    program().compile(cache=tmp_path)
    (entry,) = tmp_path.glob(IMAGES)
    entry.chmod(0o666)
    program().compile(cache=tmp_path)
    assert len(translations) == 2


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(LoadError, match="others may write"):
        program().compile(cache=tmp_path)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(LoadError, match="cache folder"):
            program().compile(cache=path)


def test_a_program_that_is_refused_is_never_kept(tmp_path: Path) -> None:
    unsound = Program(bytes.fromhex("b700000005000000"))  # control falls off the end
    for _ in range(2):
        with pytest.raises(VerifierError):
            unsound.compile(cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_with_its_own_verifier_does_not_lend_to_others(tmp_path: Path) -> None:
    code = bytes.fromhex("b700000005000000")
    vm = EbpfVmRaw(cache=tmp_path)
    vm.set_verifier(lambda prog: None)
    vm.set_program(code)
    vm.jit_compile()
    with pytest.raises(VerifierError):
        Program(code).compile(cache=tmp_path)


def test_hardened_programs_and_maps_are_not_kept(tmp_path: Path) -> None:
    program().compile(cache=tmp_path, harden=True)
    Program(assemble("lddw r1, 7\nmov r0, 0\nexit"), references={0: 0x1234}).compile(cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_not_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    assert program().compile(cache=tmp_path)(b"") == 14
    assert list(tmp_path.iterdir()) == []


def test_a_hit_calls_no_keystone(tmp_path: Path) -> None:
    code = program("mov r0, 0x1234567\nxor r0, 0x7654321\nexit")
    code.compile(cache=tmp_path)
    before = assembler.calls
    assert code.compile(cache=tmp_path)() == 0x1234567 ^ 0x7654321
    assert assembler.calls == before
