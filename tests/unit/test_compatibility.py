"""Which kernels have what programs use: the tables, what is found in programs, what the report says of it."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from ebpfjit import EbpfError, Program, load
from ebpfjit.compatibility import Compatibility, Release, find_kernel
from ebpfjit.compatibility.lookup import Caller, helper, helpers_of, kfunc, map_flags, read, releases
from ebpfjit.compatibility.release import FIRST, LAST, is_known
from ebpfjit.compatibility.tables import helpers, kernel, kfuncs
from ebpfjit.elf import read_btf
from ebpfjit.elf.sections import TYPE_OF_SECTION
from ebpfjit.isa.table import OPERATIONS
from ebpfjit.kernel.program_types import PROGRAM_TYPES
from ebpfjit.runtime.contexts.types import TYPES
from ebpfjit.runtime.helpers.names import NAMES
from ebpfjit.runtime.kfuncs.table import kfuncs as registered
from ebpfjit.runtime.maps.definition import MapFlag, MapType
from tests.support.elf_files import BtfMaker

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "packets"
OBJECTS = ROOT / "tests" / "elf"


def of_text(text: str, type: str | None = "xdp") -> Compatibility:
    return Program.from_assembly(text, type=type).compatibility()


def features(report: Compatibility) -> dict[str, str | None]:
    return {need.feature: need.release for need in report}


YOUNGER = {"bpf_obj_new", "bpf_obj_drop", "bpf_percpu_obj_new", "bpf_percpu_obj_drop", "bpf_refcount_acquire"}
"""Kernel functions that only a kernel behind the last one of the tables has by these names."""

# -- The tables --------------------------------------------------------------------------------------


def test_the_tables_have_what_the_rest_of_the_library_has() -> None:
    assert {f"bpf_{name}" for name in releases(helpers.HELPERS)} == set(NAMES.values())
    assert releases(kernel.MAP_TYPES).keys() == {each.name.lower() for each in MapType}
    bits = {name: 1 << bit for bit, name in enumerate(releases(kernel.MAP_FLAGS))}
    assert {flag.name: flag.value for flag in MapFlag}.items() <= bits.items()
    types = releases(kernel.PROGRAM_TYPES).keys()
    assert types == set(TYPE_OF_SECTION.values())
    assert types - PROGRAM_TYPES.keys() == {"sched_act"}, "there under the name of its section"
    assert helpers.TYPES.keys() - types <= releases(kernel.OPERATIONS).keys()
    assert types - helpers.TYPES.keys() == {"ext", "struct_ops"}, "what they may call others decide"
    assert set(registered()) - releases(kfuncs.KFUNCS).keys() == YOUNGER


def test_what_tables_name_is_in_them() -> None:
    known = releases(helpers.HELPERS)
    for text in (*helpers.GROUPS.values(), *(own for _, own in helpers.TYPES.values()), helpers.SLEEPERS):
        assert read(text).keys() <= known.keys()
    for type_ in helpers.TYPES:
        own = helpers_of(type_)
        assert all(own[name] >= known[name] for name in own), f"{type_}: none is older than the helper"
        restricted = {name for of, names, _ in helpers.ATTACHED if of == type_ for name in names.split()}
        assert restricted <= own.keys()
    first, last = releases(kfuncs.KFUNCS), releases(kfuncs.UNTIL)
    assert all(first[name] <= last[name] for name in last)
    assert kfuncs.ATTACHED.keys() <= first.keys()
    for names, _ in kfuncs.SETS:
        assert all(any(fnmatchcase(known, one) for known in first) for one in names.split())
    for names, _, _ in kernel.INSTRUCTIONS:
        assert all(any(fnmatchcase(known, one) for known in OPERATIONS) for one in names.split())
    assert kernel.NEVER.keys() <= OPERATIONS.keys()


def test_every_release_of_the_tables_is_one() -> None:
    texts = [getattr(module, name) for module in (helpers, kernel, kfuncs) for name in dir(module)]
    found = set(re.findall(r"\b([3-9]\.\d+)\b", repr(texts)))
    assert len(found) > 40
    assert [text for text in found if not (Release(text) < FIRST or is_known(Release(text)))] == []
    assert list(releases(kernel.MARKS).values()) == sorted(
        releases(kernel.MARKS).values(), key=lambda r: r.numbers
    )


def test_releases_compare_by_number() -> None:
    assert Release("v5.4.0-91-generic") == "5.4" < Release("5.15") <= "5.15" < Release("6.1")
    assert max(map(Release, ("5.9", "5.10"))) == "5.10"
    assert pickle.loads(pickle.dumps(Release("6.1"))).numbers == (6, 1)
    for text in ("", "5", "five", "5.x", "-1.2", "5.4000"):
        with pytest.raises(ValueError, match="release of Linux"):
            Release(text)


# -- What is found ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "program", "minimum", "needs"),
    [
        ("event_logger", "log_connections", "5.8", {"bpf_ringbuf_reserve": "5.8", "map type ringbuf": "5.8"}),
        ("lpm_router", "route", "5.1", {"map type lpm_trie": "4.11", "BPF_F_NO_PREALLOC": "4.6"}),
        ("configurable", "configurable", "5.2", {"global variable": "5.2", "atomic add": "3.18"}),
        ("socket_statistics", "count", "5.1", {"packet load (LD_ABS, LD_IND)": "3.18"}),
        ("ipip", "decapsulate", "5.1", {"bpf_xdp_adjust_head": "4.10", "program type xdp": "4.8"}),
    ],
)
def test_examples(name: str, program: str, minimum: str, needs: dict[str, str]) -> None:
    report = load(EXAMPLES / f"{name}.o").compatibility()[program]
    assert report.minimum == minimum
    assert needs.items() <= features(report).items()


def test_a_need_has_slot_and_line() -> None:
    report = load(EXAMPLES / "event_logger.o").compatibility()["log_connections"]
    need = report.needs[0]
    assert (need.kind, need.feature, need.release, need.pc) == ("helper", "bpf_ringbuf_reserve", "5.8", 25)
    assert need.line is not None
    assert (need.line.line, "bpf_ringbuf_reserve(&events" in need.line.text) == (34, True)
    assert str(need).startswith("bpf_ringbuf_reserve, since 5.8: pc 25 (./event_logger.c:34: ")


@pytest.mark.parametrize(
    ("text", "type", "needs"),
    [
        ("call 181\nexit", "xdp", {"bpf_loop": "5.17"}),
        ("call 6\nexit", "cgroup_device", {"bpf_trace_printk": "4.15"}),
        ("call 5\nexit", "cgroup_device", {"bpf_ktime_get_ns": "5.8"}),
        ("call 14\nexit", "xdp", {"bpf_get_current_pid_tgid": "6.10"}),
        ("call 14\nexit", "kprobe", {"bpf_get_current_pid_tgid": "4.2"}),
        ("call 44\nexit", "tc", {"bpf_xdp_adjust_head": None}),
        ("call 999\nexit", "tc", {"helper 999": None}),
        ("call 5\nexit", None, {"bpf_ktime_get_ns": "4.1", "a program without a type": None}),
        ("lock *(u64 *)(r10 - 8) += r1\nexit", "xdp", {"atomic add": "3.18"}),
        ("r0 = cmpxchg_64(r10 - 8, r0, r1)\nexit", "xdp", {"atomic operation": "5.12"}),
        ("r0 s/= r1\nexit", "xdp", {"signed division": "6.6"}),
        ("r0 = (s8)r1\nexit", "xdp", {"sign-extending move": "6.6"}),
        ("r0 = load_acquire((u64 *)(r10 - 8))\nexit", "xdp", {"load-acquire": "6.15"}),
        ("may_goto +0\nexit", "xdp", {"may_goto": "6.9"}),
        ("gotol +0\nexit", "xdp", {"long jump (gotol)": "6.6"}),
        ("if w1 == 0 goto +0\nexit", "xdp", {"32-bit jump (JMP32)": "5.1"}),
        ("if r1 < 1 goto +0\nexit", "xdp", {"jump if less": "4.14"}),
        ("call f\nexit\nf: exit", "xdp", {"call of a function": "4.16"}),
        ("r0 = *(u8 *)skb[0]\nexit", "socket_filter", {"packet load (LD_ABS, LD_IND)": "3.18"}),
        ("r0 = *(u8 *)skb[0]\nexit", "xdp", {"packet load (LD_ABS, LD_IND)": None}),
        ("callx r1\nexit", "xdp", {"indirect call (callx)": None}),
        ("top: r0 += 1\nif r0 < 9 goto top\nexit", "xdp", {"a loop": "5.3"}),
        (4096 * "r0 = 0\n" + "exit", "xdp", {"more than 4096 slots (4097)": "5.2"}),
    ],
)
def test_instructions_and_calls(text: str, type: str | None, needs: dict[str, str | None]) -> None:
    assert needs.items() <= features(of_text(text, type)).items()


FIELDS = {
    "r0 = *(u32 *)(r1 + 20)": "5.8",  # egress_ifindex
    "r6 = r1; r1 = r6; r0 = *(u32 *)(r1 + 20)": "5.8",
    "r1 += 16; r0 = *(u32 *)(r1 + 4); r0 = *(u32 *)(r1 + 20)": "5.8",
    "*(u64 *)(r10 - 8) = r1; r1 = 0; r2 = *(u64 *)(r10 - 8); r0 = *(u32 *)(r2 + 20)": "5.8",
    "r2 = 0; call f; exit; f: r0 = *(u32 *)(r1 + 20)": "5.8",
    "r0 = *(u32 *)(r1 + 16)": None,  # rx_queue_index
    "r2 = *(u32 *)(r1 + 0); r0 = *(u32 *)(r2 + 20)": None,  # of the packet
    "*(u64 *)(r10 - 8) = r1; *(u8 *)(r10 - 4) = 1; r2 = *(u64 *)(r10 - 8); r0 = *(u32 *)(r2 + 20)": None,
    "r6 = r1; call 7; r0 = *(u32 *)(r1 + 20)": None,
}


@pytest.mark.parametrize("text", FIELDS)
def test_fields_of_the_context(text: str) -> None:
    report = of_text(text.replace("; ", "\n") + "\nexit")
    assert features(report).get("xdp_md.egress_ifindex") == FIELDS[text]


def test_fields_of_younger_kernels_are_fields() -> None:
    known = {type_.layout.name: type_.layout.by_name for type_ in TYPES.values() if type_.layout is not None}
    for name, text in kernel.CONTEXT_FIELDS.items():
        assert releases(text).keys() <= known[name].keys()


def test_a_jump_back_that_closes_no_loop_is_none() -> None:
    assert "a loop" not in features(of_text("goto over\nback: exit\nover: r0 = 0\ngoto back"))


@pytest.mark.parametrize(
    ("section", "type", "name", "since"),
    [
        ("cgroup/connect4", "cgroup_sock_addr", "bpf_bind", "4.17"),
        ("cgroup/recvmsg4", "cgroup_sock_addr", "bpf_bind", None),
        ("cgroup/bind4", "cgroup_sock_addr", "bpf_setsockopt", "5.12"),
        ("fentry/vfs_truncate", "tracing", "bpf_d_path", "5.10"),
        ("fentry/vfs_read", "tracing", "bpf_d_path", None),
        ("iter/task", "tracing", "bpf_seq_printf", "5.8"),
        ("lsm_cgroup/socket_bind", "lsm", "bpf_set_retval", "6.1"),
        ("lsm/socket_bind", "lsm", "bpf_set_retval", None),
        ("xdp", "xdp", "bpf_copy_from_user", None),
    ],
)
def test_sections_decide_too(section: str, type: str, name: str, since: str | None) -> None:
    assert helper(name, Caller(type, section)).since == since


@pytest.mark.parametrize(
    ("name", "minimum", "feature", "is_needed"),
    [
        ("by_value", "4.1", "bpf_ktime_get_boot_ns", False),
        ("by_type", "4.1", "bpf_ktime_get_boot_ns", False),
        ("by_version", "5.2", "bpf_get_attach_cookie", False),
        ("by_another_version", "5.15", "bpf_get_attach_cookie", True),  # it asks for 5.10
        ("by_cookie", "5.2", "bpf_get_attach_cookie", False),
        ("forgets", "5.8", "bpf_ktime_get_boot_ns", True),  # at its second call
        ("behind", "5.15", "bpf_get_func_ip", True),  # it asks for another one
    ],
)
def test_a_program_that_asks_first_needs_nothing(
    name: str, minimum: str, feature: str, is_needed: bool
) -> None:
    report = load(OBJECTS / "asks_first.o").compatibility()[name]
    (need,) = (need for need in report if need.feature == feature)
    assert (report.minimum, need.is_needed) == (minimum, is_needed)
    assert (need.pc, need.count) == (8, 2) if name == "forgets" else need.count == 1
    assert report.runs_on(minimum if minimum >= "4.19" else "4.19")


def test_fields_of_the_kernel_in_maps_and_among_variables() -> None:
    found = features(load(OBJECTS / "objects.o").compatibility()["shared"])
    assert found["bpf_spin_lock among variables"] == "6.2"
    assert found["bpf_list_head among variables"] == "6.2"
    assert (
        features(load(OBJECTS / "kptr_variables.o").compatibility().whole)["kptr among variables"] == "5.19"
    )
    timed = features(load(OBJECTS / "timers.o").compatibility().whole)
    assert timed["bpf_timer in a map's values"] == "5.15"


def test_what_core_does_not_find() -> None:
    target = read_btf(OBJECTS / "core_target.o")
    report = load(OBJECTS / "missing_field.o", btf=target).compatibility()
    assert {name: each.summary for name, each in report.items()} == {
        "guarded": "Linux 4.1 or later",
        **dict.fromkeys(("field", "nested", "value"), "not the Linux whose types were given"),
    }
    (need,) = report["nested"].obstacles
    assert str(need).startswith(
        "struct task, field parts[1].gone, it is not among the types of the target: pc 0"
    )


def test_kernel_functions_come_and_go() -> None:
    assert kfunc("bpf_cpumask_create", Caller("tracing")).since == "6.3"
    assert kfunc("bpf_cpumask_create", Caller("tracepoint")).since == "6.12"
    assert kfunc("bpf_cpumask_any", Caller("tracing")).until == "6.4"
    assert kfunc("bpf_xdp_metadata_rx_hash", Caller("tc")).reason == (
        "programs of type tc may not call it, those of xdp may"
    )
    assert not kfunc("bpf_no_such_thing", Caller("tc")).is_known


def test_flags_of_maps_have_names() -> None:
    assert map_flags(1 << 10 | 1)[1][0] == "BPF_F_MMAPABLE"
    ((name, answer),) = map_flags(1 << 31)
    assert (name, answer.is_known) == ("map flag 0x80000000", False)


# -- What is said of it ---------------------------------------------------------------------------------


def test_the_minimum_is_none_where_it_is_not_known_or_there_is_none() -> None:
    nowhere = of_text("call 44\ncall 181\nexit", "tc")
    assert (nowhere.minimum, nowhere.at_least, nowhere.summary) == (None, "5.17", "no Linux")
    assert [need.feature for need in nowhere.obstacles] == ["bpf_xdp_adjust_head"]
    unknown = of_text("call 181\nexit", None)
    assert (unknown.minimum, unknown.at_least) == (None, "5.17")
    assert unknown.summary == "not known, at least Linux 5.17"
    assert "nothing says its type" in str(unknown)


def test_what_a_release_lacks() -> None:
    obj = load(EXAMPLES / "event_logger.o")
    report = obj.compatibility()
    lacking = ["bpf_ringbuf_reserve", "bpf_ringbuf_submit", "map type ringbuf"]
    assert [need.feature for need in report["log_connections"].missing("5.7")] == lacking
    assert {name: len(needs) for name, needs in report.missing("5.7").items()} == {"log_connections": 3}
    assert not report["log_connections"].runs_on("5.7")
    assert report["log_connections"].runs_on("5.8")
    assert report.missing("6.18") == {}
    assert report.minimum == "5.8"


@pytest.mark.parametrize("text", ["", "5", "5.21", "2.6", "4.18", "7.0", "6.19", "five", "5.15 ", "no\nne"])
def test_a_release_that_there_is_not_is_an_error(text: str) -> None:
    report = of_text("exit")
    with pytest.raises(EbpfError, match=f"known are {FIRST} to 4.20, 5.0 to 5.19, 6.0 to {LAST}"):
        report.missing(text)


def test_a_file_that_is_called_as_a_release_needs_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "5.15").write_bytes(kernel_types("6.1"))
    monkeypatch.chdir(tmp_path)
    assert find_kernel("5.15").release == "5.15"
    assert find_kernel("./5.15").release == "6.1"


@pytest.mark.parametrize("kernel", [None, 5, 5.15, (5, 15)])
def test_a_release_is_text(kernel: object) -> None:
    with pytest.raises(TypeError, match='"running", or a file with its types'):
        find_kernel(kernel)  # type: ignore[arg-type]


def test_types_of_another_kind_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(EbpfError, match="not the types of a kernel"):
        find_kernel(str(EXAMPLES / "event_logger.o"))
    (tmp_path / "not-btf").write_bytes(b"\x9f\xebnothing")
    with pytest.raises(EbpfError):
        find_kernel(str(tmp_path / "not-btf"))
    with pytest.raises(FileNotFoundError):
        find_kernel(str(tmp_path / "missing"))


def kernel_types(last: str, *functions: str) -> bytes:
    """Return types as a kernel of a release has them, with a few functions."""
    maker = BtfMaker()
    marks = [name for name, since in releases(kernel.MARKS).items() if since <= last]
    names = (*marks, "BPF_PROG_TYPE_TRACING", "BPF_TRACE_FENTRY")
    maker.enum("bpf_func_id", *((name, number) for number, name in enumerate(names)))
    for name in functions:
        maker.add(12, name, maker.add(13))
    return bytes(maker)


def test_the_types_of_a_kernel_tell_more(tmp_path: Path) -> None:
    path = tmp_path / "btf"
    path.write_bytes(kernel_types("5.15", "vfs_read"))
    target = find_kernel(path)
    assert target.release == "5.15"
    assert target.name == f"{path} (Linux 5.15)"
    read_, write_ = (
        Program(EXIT, section=f"fentry/{name}", type="tracing").compatibility()
        for name in ("vfs_read", "vfs_write")
    )
    assert read_.runs_on(target)
    assert [need.feature for need in write_.missing(target)] == ["vfs_write to attach to"]
    assert write_.runs_on("5.15"), "a release alone tells nothing of what there is to attach to"


EXIT = bytes.fromhex("9500000000000000")


def test_reports_are_plain_values_and_travel() -> None:
    report = load(EXAMPLES / "event_logger.o").compatibility()
    plain = json.loads(json.dumps(report.json()))
    assert plain["minimum"] == "5.8"
    first = plain["programs"]["log_connections"]["needs"][0]
    assert (first["feature"], first["release"], first["pc"], first["line"]["line"]) == (
        "bpf_ringbuf_reserve", "5.8", 25, 34,
    )  # fmt: skip
    assert pickle.loads(pickle.dumps(report)).json() == report.json()
    assert len(repr(report)) < 240
    with pytest.raises(KeyError, match="no program 'log_conections'"):
        report["log_conections"]


def test_damaged_types_are_left_out() -> None:
    """An object whose types name what is not there has a report all the same."""
    data = (OBJECTS / "global_functions.o").read_bytes()
    obj = load(data)
    program = next(
        each for each in obj.programs.values() if each.types is not None and each.types.functions[1:]
    )
    assert program.types is not None
    functions = tuple((start, 1 << 20) for start, _ in program.types.functions)
    odd = replace(program, types=replace(program.types, functions=functions))
    assert any("global function" in need.feature for need in program.compatibility())
    assert not any("global function" in need.feature for need in odd.compatibility())


SOME = [Release(text) for text in ("4.19", "5.1", "5.2", "5.7", "5.8", "5.15", "5.17", "6.2", "6.9", "6.18")]
SOME_KERNELS = [find_kernel(release) for release in SOME]


def test_all_objects_have_a_report() -> None:
    """Whatever an object lacks, its report is made: what is not whole in it stands there."""
    refused = {"big_endian", "stripped", "x86_64"}
    for path in sorted(OBJECTS.glob("*.o")):
        if path.stem in refused:
            continue
        report = load(path).compatibility()
        assert json.dumps(report.json())
        for name, program in report.items():
            if program.minimum is not None:
                enough = [release >= program.minimum for release in SOME]
                assert [program.runs_on(kernel) for kernel in SOME_KERNELS] == enough, (path, name)
            assert (program.minimum is None) == bool(program.obstacles) or not program.needs, (path, name)
