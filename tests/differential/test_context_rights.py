"""What programs may do to their contexts: each type, hook, offset and size, as Linux's verifier has it.

A sample each time; EBPFJIT_WHOLE=1 (make nightly) is all of it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import cache

import pytest

from ebpfjit import EbpfError, MemoryFault, Program
from ebpfjit.assembler import assemble
from ebpfjit.difftest.children import run_forked
from ebpfjit.kernel import KernelUnavailable
from ebpfjit.kernel.program_types import PROGRAM_TYPES
from ebpfjit.kernel.syscalls import LoadAttributes, program_load
from ebpfjit.runtime.attach import SECTIONS, XDP_FRAGS, attachment
from ebpfjit.runtime.contexts import structs
from ebpfjit.runtime.contexts.fields import Struct
from ebpfjit.runtime.contexts.types import TYPES, effective_type
from tests.support.whole import WHOLE

ENGINES = ("jit", "interpreter")
SUFFIX = {1: "b", 2: "h", 4: "w", 8: "dw"}
LWT = ("lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local")

Place = tuple[int, int, bool]
"""Offset, size, and whether it stores."""


def hooks() -> list[tuple[str, str]]:
    """Program types whose contexts we have, with sections: one for each attach type."""
    found = {(name, number): section for name, section, number in reversed(SECTIONS)}
    named = [(name, section) for (name, _), section in found.items() if TYPES[name].layout is not None]
    pieces = (("xdp", "xdp.frags"), ("xdp", "xdp.frags/devmap"))
    return sorted([*named, *pieces, *((name, "") for name in ("socket_filter", "perf_event", *LWT))])


HOOKS = hooks()


def layout_of(name: str, section: str) -> Struct:
    layout = effective_type(name, section).layout
    assert layout is not None
    return layout


def access(offset: int, size: int, *, store: bool, returns: int = 1) -> bytes:
    line = f"stx{SUFFIX[size]} [r1+{offset}], r2" if store else f"ldx{SUFFIX[size]} r0, [r1+{offset}]"
    return assemble(f"mov r2, 0\n{line}\nmov r0, {returns}\nexit")


def places(layout: Struct) -> list[Place]:
    """All accesses from the struct's start to a little behind its end."""
    return [
        (offset, size, store)
        for store in (False, True)
        for offset in range(layout.size + 8)
        for size in SUFFIX
    ]


def sampled(name: str, section: str, *, most: int) -> Iterator[Place]:
    """Yield accesses: some that are allowed, some at fields that are not, some anywhere."""
    layout = layout_of(name, section)
    every = places(layout)
    if WHOLE:
        yield from every
        return
    rng = random.Random(f"{name} {section}")
    starts = {field.offset for field in layout.fields}
    allowed = [place for place in every if layout.allows(place[0], place[1], store=place[2])]
    refused = [place for place in every if place[0] in starts and place not in set(allowed)]
    for some in (allowed, refused, every):
        yield from rng.sample(some, min(most, len(some)))


def linux_loads(name: str, section: str, place: Place | None) -> bool:
    """True where Linux loads a program with this access (None: with none)."""
    returns = 0 if name == "flow_dissector" else 1
    if place is None:
        return loads(name, section, assemble(f"mov r0, {returns}\nexit"))
    return loads(name, section, access(place[0], place[1], store=place[2], returns=returns))


def loads(name: str, section: str, code: bytes) -> bool:
    """True where Linux loads a program; raises KernelUnavailable where it loads none."""
    known = PROGRAM_TYPES["action" if name == "sched_act" else name]
    attached = attachment(name, section)
    given = LoadAttributes(attached.type, attached.flags & XDP_FRAGS)
    try:
        os.close(program_load(code, known.number, given)[0])
    except KernelUnavailable:
        raise
    except EbpfError:
        return False
    return True


@cache
def answers() -> dict[tuple[str, str], dict[Place, bool] | None]:
    """Return what Linux says of the accesses of each hook, None for one that this kernel does not have."""

    def ask() -> object:
        try:
            return {
                hook: {place: linux_loads(*hook, place) for place in sampled(*hook, most=4)}
                if linux_loads(*hook, None)
                else None
                for hook in HOOKS
            }
        except KernelUnavailable as error:
            return str(error)

    ended = run_forked(ask, 300).value
    if not isinstance(ended, dict):
        pytest.skip(str(ended))
    return ended


@pytest.mark.parametrize(("name", "section"), HOOKS)
def test_rights_are_those_of_linux(name: str, section: str) -> None:
    said = answers()[name, section]
    if said is None:
        pytest.skip(f"this kernel loads no {name} program for {section!r}")
    layout = layout_of(name, section)
    ours = {place: layout.allows(place[0], place[1], store=place[2]) for place in said}
    assert ours == said


@pytest.mark.parametrize("name", sorted({name for name, _ in HOOKS}))
def test_engines_do_as_the_table_says(name: str) -> None:
    """Needs no kernel: the table is held against it by the test before."""
    data = bytes(64) if TYPES[name].has_packet else b""
    tables = {layout_of(*hook).rights.table: hook[1] for hook in HOOKS if hook[0] == name}
    for section in tables.values():
        layout = layout_of(name, section)
        for offset, size, store in sampled(name, section, most=2):
            program = Program(access(offset, size, store=store), type=name, section=section or None)
            for engine in ENGINES:
                if layout.allows(offset, size, store=store):
                    assert program.run(data, engine=engine).return_value == 1, (offset, size, store)
                    continue
                with pytest.raises(MemoryFault) as fault:
                    program.run(data, engine=engine)
                assert (fault.value.pc, fault.value.size) == (1, size)
                assert layout.name in str(fault.value)


def test_where_it_may_be_stored_it_may_be_loaded() -> None:
    """Analysis takes a store that was found good for a load of the same bytes."""
    for name, section in HOOKS:
        table = layout_of(name, section).rights.table
        assert all(bits >> 4 & ~bits == 0 for bits in table), (name, section)


def test_parts_of_fields_are_what_linux_loads() -> None:
    narrower = {"pkt_type", "protocol", "gso_segs", "gso_size"}  # in Linux than here: docs/differences.md
    layout = layout_of("tc", "tc")
    readable = [field for field in layout.fields if field.name not in narrower and field.name != "sk"]
    addresses = {layout.by_name[name].offset for name in ("data", "data_end", "data_meta")}
    some = [
        place
        for field in readable
        for place in places(layout)
        if field.offset <= place[0] < field.stop
        and place[0] not in addresses
        and not place[2]
        and layout.allows(place[0], place[1], store=False)
    ]
    context = {
        "mark": 0x11223344,
        "cb": [0x01020304 * number for number in range(1, 6)],
        "tstamp": 0x1020304050607,
    }
    for offset, size, _ in some if WHOLE else random.Random(1).sample(some, 25):
        program = Program(assemble(f"ldx{SUFFIX[size]} r0, [r1+{offset}]\nexit"), type="tc")
        ours = program.run(bytes(64), context=context).return_value
        try:
            assert ours == program.run(bytes(64), engine="kernel", context=context).return_value, (
                offset,
                size,
            )
        except KernelUnavailable as error:
            pytest.skip(str(error))


# --- packets: what differs by type, said by name ---

REFUSED = {
    # type, section                      access                 what the fault says
    ("socket_filter", ""):                  ("ldxw r0, [r1+76]",   "__sk_buff.data is not for"),
    ("cgroup_skb", ""):                     ("ldxw r0, [r1+72]",   "__sk_buff.tc_classid is not for"),
    ("tc", "tc"):                           ("ldxw r0, [r1+152]",  "__sk_buff.tstamp .* a load of 8 bytes"),
    ("sched_act", ""):                      ("ldxh r0, [r1+78]",   "__sk_buff.data .* a load of 4 bytes"),
    ("lwt_in", ""):                         ("ldxdw r0, [r1+152]", "__sk_buff.tstamp is not for"),
    ("lwt_xmit", ""):                       ("stxw [r1+12], r2",   "__sk_buff.queue_mapping is read-only"),
    ("sk_skb", "sk_skb"):                   ("stxw [r1+48], r2",   "__sk_buff.cb is read-only"),
    ("flow_dissector", ""):                 ("ldxw r0, [r1+0]",    "__sk_buff.len is not for"),
    ("xdp", "xdp"):                         ("ldxw r0, [r1+20]",   "xdp_md.egress_ifindex is not for"),
    ("xdp.frags", ""):                      ("stxw [r1+16], r2",   "xdp_md.rx_queue_index is read-only"),
    ("tc", ""):                             ("ldxb r0, [r1+182]",  "__sk_buff has no field at offset 182"),
    ("kprobe", "kprobe"):                   ("stxdw [r1+112], r2", "pt_regs.di is read-only"),
    ("cgroup_sock_addr", "cgroup/bind4"):   ("ldxw r0, [r1+8]",    "user_ip6 is not for"),
    ("cgroup_sock_addr", "cgroup/bind6"):   ("stxh [r1+24], r2",   "user_port .* a store of 4 bytes"),
    ("cgroup_sock", "cgroup/post_bind4"):   ("ldxw r0, [r1+0]",    "bound_dev_if is not for"),
}  # fmt: skip


def both(source: str, name: str, section: str = "", data: bytes = bytes(64)) -> object:
    """Run a program on both engines and in optimised machine code; return what they agree on."""
    program = Program(assemble(source), type=name, section=section or None)
    seen: list[object] = []
    for run in (
        lambda: program.run(data, engine="interpreter").return_value,
        lambda: program.run(data, engine="jit").return_value,
        lambda: program.compile(optimize=True)(data),
        lambda: program.compile(optimize=False)(data),
        lambda: program.compile(audit=True)(data),
    ):
        try:
            seen.append(run())
        except MemoryFault as fault:
            seen.append(
                (fault.pc, fault.size, fault.access, str(fault).partition(": ")[2].partition(": ")[2])
            )
    assert all(each == seen[0] for each in seen), seen
    return seen[0]


@pytest.mark.parametrize(("name", "section"), REFUSED)
def test_what_is_refused_is_named(name: str, section: str) -> None:
    line, said = REFUSED[name, section]
    program = Program(assemble(f"mov r2, 0\n{line}\nmov r0, 1\nexit"), type=name, section=section or None)
    for engine in ENGINES:
        with pytest.raises(MemoryFault, match=said) as fault:
            program.run(bytes(64) if TYPES[name].has_packet else b"", engine=engine)
        assert fault.value.pc == 1


def test_who_is_attached_to_a_devmap_sees_where_packets_go() -> None:
    for name, section in (("xdp", "xdp/devmap"), ("xdp", "xdp.frags/devmap"), ("xdp", ""), ("xdp", "mine")):
        assert both("ldxw r0, [r1+20]\nexit", name, section) == 0


# --- a context that is not in r1 any more ---

WAYS = {  # where r7 comes from; r1 is the context
    "a copy":       "mov r7, r1",
    "the frame":    "stxdw [r10-8], r1\nldxdw r7, [r10-8]",
    "a sum":        "mov r7, r1\nadd r7, 8\nadd r7, -8",
    "an unknown":   "ldxw r3, [r1+0]\nand r3, 0\nmov r7, r1\nadd r7, r3",
    "a packet":     "ldxw r3, [r1+76]\nmov r7, r3\nsub r7, r1\nmov r8, r3\nsub r8, r7\nmov r7, r8",
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_rights_hold_wherever_the_address_comes_from(way: str) -> None:
    start = WAYS[way]
    assert both(f"{start}\nldxw r0, [r7+8]\nexit", "tc") == 0
    assert both(f"{start}\nldxh r0, [r7+10]\nexit", "tc") == 0
    assert both(f"{start}\nmov r0, 0\nstxw [r7+8], r0\nexit", "tc") == 0
    for line in ("ldxh r0, [r7+78]", "ldxw r0, [r7+152]", "ldxdw r0, [r7+8]", "ldxw r0, [r7+10]"):
        fault = both(f"{start}\n{line}\nexit", "tc")
        assert isinstance(fault, tuple), line
        assert fault[2] == "load", line
    fault = both(f"{start}\nmov r0, 0\nstxh [r7+8], r0\nexit", "tc")
    assert isinstance(fault, tuple)
    assert (fault[1], fault[2]) == (2, "store")


@pytest.mark.parametrize("way", ["the frame", "a packet"])
@pytest.mark.parametrize("gap", ["", "jeq r0, 77, +1\nmov r5, 1\n"])
def test_no_access_stands_for_another(way: str, gap: str) -> None:
    """What the first load has shown of four bytes says nothing of two of them, in its block and behind it."""
    for first, second in (
        ("ldxw r0, [r7+76]", "ldxh r0, [r7+76]"),   # data: four bytes only
        ("ldxdw r0, [r7+152]", "ldxw r0, [r7+152]"),
        ("ldxdw r0, [r7+48]", "stxdw [r7+180], r0"),
        ("mov r5, 0\nstxw [r7+8], r5", "stxh [r7+8], r5"),
        ("ldxw r0, [r7+4]", "stxw [r7+4], r0"),     # pkt_type: loads only
    ):  # fmt: skip
        source = f"{WAYS[way]}\nmov r0, 0\n{first}\n{gap}{second}\nexit"
        fault = both(source, "tc")
        assert isinstance(fault, tuple), source
        assert fault[0] == len(assemble(source)) // 8 - 2


def test_paths_that_looked_at_other_sizes_meet() -> None:
    """Eight bytes of the control block on one way, four on the other: nobody knows of the other's."""
    both_ways = (
        "stxdw [r10-8], r1\nldxdw r7, [r10-8]\nldxw r2, [r1+0]\njeq r2, {number}, +2\n{a}\nja +1\n{b}\n"
    )
    for number in (64, 65):
        start = both_ways.format(number=number, a="ldxw r0, [r7+76]", b="ldxw r0, [r7+80]")
        assert isinstance(both(f"{start}ldxh r0, [r7+76]\nexit", "tc"), tuple)
        start = both_ways.format(number=number, a="ldxdw r0, [r7+48]", b="ldxw r0, [r7+48]")
        assert both(f"{start}ldxw r0, [r7+48]\nexit", "tc") == 0


def test_a_context_and_something_else_in_one_register() -> None:
    """The rights of a struct are not those of what a register holds on the other way."""
    source = (
        "ldxw r2, [r1+0]\nmov r7, r1\njeq r2, {number}, +2\nmov r7, r10\nadd r7, -200\n"
        "ldxw r0, [r7+76]\nldxh r0, [r7+78]\nmov r0, 5\nexit"
    )
    assert both(source.format(number=1), "tc") == 5
    fault = both(source.format(number=64), "tc")
    assert isinstance(fault, tuple)
    assert (fault[0], fault[1]) == (6, 2)


def test_rounds_at_once_stand_for_no_other_size() -> None:
    """Eight single bytes of a field that may be loaded as eight."""
    source = (
        "ldxw r2, [r1+76]\nmov r5, 0\nl: ldxdw r4, [r2]\nadd r0, r4\nldxb r4, [r1+168]\n"
        "add r2, 8\nadd r1, 1\nadd r5, 1\njlt r5, 12, l\nexit"
    )
    fault = both(source, "tc", data=bytes(130))
    assert isinstance(fault, tuple)
    assert fault[:2] == (4, 1)


def test_functions_get_contexts() -> None:
    call = "call local f\nexit\nf: {line}\nexit"
    assert both(call.format(line="ldxw r0, [r1+8]"), "tc") == 0
    assert isinstance(both(call.format(line="ldxw r0, [r1+152]"), "tc"), tuple)


# --- structs behind pointers ---

BEHIND = {
    # type, section                          the pointer's offset, the struct
    ("cgroup_sock_addr", "cgroup/connect4"): (64, structs.SOCK),
    ("sk_lookup", "sk_lookup"):              (0, structs.SOCK),
    ("flow_dissector", "flow_dissector"):    (144, structs.FLOW_KEYS),
}  # fmt: skip


def through(pointer: int, place: Place, returns: int) -> bytes:
    offset, size, store = place
    line = f"stx{SUFFIX[size]} [r2+{offset}], r3" if store else f"ldx{SUFFIX[size]} r0, [r2+{offset}]"
    return assemble(f"mov r3, 0\nldxdw r2, [r1+{pointer}]\njeq r2, 0, +1\n{line}\nmov r0, {returns}\nexit")


def allows(struct: Struct, place: Place) -> bool:
    """What we say; flow keys have no rights: any access inside is good."""
    if struct is structs.FLOW_KEYS:
        return place[0] + place[1] <= struct.size
    return struct.allows(place[0], place[1], store=place[2])


@pytest.mark.parametrize(("name", "section"), BEHIND)
def test_structs_behind_pointers_are_those_of_linux(name: str, section: str) -> None:
    pointer, struct = BEHIND[name, section]
    some = places(struct) if WHOLE else random.Random(name).sample(places(struct), 60)
    returns = 0 if name == "flow_dissector" else 1

    def ask() -> object:
        try:
            return [loads(name, section, through(pointer, place, returns)) for place in some]
        except KernelUnavailable as error:
            return str(error)

    said = run_forked(ask, 100).value
    if not isinstance(said, list):
        pytest.skip(str(said))
    assert [allows(struct, place) for place in some] == said


@pytest.mark.parametrize(("name", "section"), BEHIND)
def test_structs_behind_pointers_have_rights(name: str, section: str) -> None:
    pointer, struct = BEHIND[name, section]
    sock = {"sk": {}} if name == "sk_lookup" else {}
    data = bytes(64) if TYPES[name].has_packet else b""
    for place in random.Random(section).sample(places(struct), 12):
        program = Program(through(pointer, place, 1), type=name, section=section)
        for engine in ENGINES:
            if allows(struct, place):
                assert program.run(data, engine=engine, context=sock).return_value == 1
                continue
            with pytest.raises(MemoryFault) as fault:
                program.run(data, engine=engine, context=sock)
            assert fault.value.pc == 3


@pytest.mark.parametrize("engine", ENGINES)
def test_sockets_of_packets_are_read_as_linux_lets_them(engine: str) -> None:
    for line, said in (
        ("ldxdw r0, [r2+0]", "bpf_sock.bound_dev_if .* a load of 4 bytes"),
        ("ldxh r0, [r2+46]", "bpf_sock.src_port"),
        ("stxw [r2+4], r0", "bpf_sock.family is read-only"),
    ):
        code = assemble(f"mov r0, 0\nldxdw r2, [r1+168]\n{line}\nexit")
        with pytest.raises(MemoryFault, match=said):
            Program(code, type="tc").run(bytes(64), engine=engine)
