"""The table of helpers' prototypes, held against the kernel at hand: arguments wrong in each way, one by one.

Each row is asked for in one type of programs; with EBPFJIT_WHOLE=1 (make nightly) in all that may call the
helper.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from ebpfjit.difftest.children import run_forked
from ebpfjit.kernel import unavailable_reason
from ebpfjit.runtime.helpers.maps import TAKES
from ebpfjit.runtime.helpers.names import NAMES
from ebpfjit.runtime.maps.definition import MapType
from ebpfjit.verifier.contexts import PacketUse, packet_use
from ebpfjit.verifier.prototypes import REGISTERS, Argument, Prototype, prototype
from ebpfjit.verifier.usable_maps import map_refusal
from tests.support import linux_calls as linux
from tests.support.linux_calls import Answer, Call, CannotMake, Where
from tests.support.whole import WHOLE

pytestmark = pytest.mark.skipif(unavailable_reason() is not None, reason=str(unavailable_reason()))

VALUES: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "null": ("scalar", lambda register: linux.constant(register, 0)),
    "one": ("scalar", lambda register: linux.constant(register, 1)),
    "frame": ("fp", lambda register: linux.frame(register, linux.FRAME)),
    "context": ("ctx", lambda register: linux.move(register, 6)),
    "map": ("map_ptr", lambda register: linux.wide(register, 1, linux.map_of(linux.MapType.ARRAY).fd)),
    "value": ("map_value", lambda register: linux.wide(register, 2, linux.value_map().fd)),
    "constant value": ("map_value", lambda register: linux.wide(register, 2, linux.text_map().fd)),
    "packet": ("pkt", lambda register: linux.move(register, 8)),
}
"""What an argument is made: what Linux calls such a register, and the instructions for one."""


OTHER_RULES = {
    ("bpf_timer_init", 1, "map"),  # another map than the timer's
    ("bpf_snprintf", 4, "one"),  # arguments of 8 bytes each
}
"""What Linux refuses that no table says."""

OTHER_LICENSES = {("bpf_get_func_ip", "kprobe.multi/x")}
"""Of a type's hooks, those for which Linux has another prototype."""


def expected(where: Where, row: Prototype, index: int, name: str) -> bool:
    """True where Linux should take the value as argument number `index`."""
    wanted, holds = row.arguments[index], VALUES[name][0]
    if (row.name, index, name) in OTHER_RULES:
        return False
    if wanted.kind == "anything":
        return row.name != "bpf_get_local_storage" or name == "null"
    if name == "null" and wanted.maybe_null:
        return True
    if holds not in REGISTERS[wanted.kind]:
        return False
    match wanted.kind:
        case "const_size":
            return name != "null"
        case "ptr_to_const_str":
            return name == "constant value"
        case "ptr_to_spin_lock" | "ptr_to_timer" | "kptr_xchg_dest":
            return False  # there is none in the values
        case "ptr_to_dynptr":
            return wanted.uninit
    if holds == "pkt":
        use = packet_use(where.type)
        taken = use is PacketUse.ALWAYS or (use is PacketUse.WHERE_ALLOWED and row.packet_access)
        return taken and not wanted.aligned  # packets start at 2 behind a multiple of 4
    return not (name == "constant value" and wanted.write)


def questions(where: Where, row: Prototype) -> Iterator[tuple[int, str]]:
    """Yield numbers of arguments and names of values."""
    for index in range(len(row.arguments)):
        for name in VALUES:
            if name != "packet" or where.has_packet:
                yield index, name


def differences(where: Where, row: Prototype) -> Iterator[str]:
    """Yield what Linux says otherwise of a helper's arguments, and of what it gives."""
    if _uses_refused_map(where, row):
        return
    asking, place = Call(where, row), f"{row.name} in {where.type} {where.section}"
    for index, name in questions(where, row):
        holds, make = VALUES[name]
        try:
            answer = asking.ask(index, make(index + 1), 0 if name == "null" else linux.SIZE)
        except CannotMake:
            continue
        wrong = _wrong(row.arguments[index], holds, answer)
        if answer.taken != expected(where, row, index, name) or wrong:
            yield f"{place}: argument {index + 1} as {name}: {wrong or answer.complaint or 'taken'}"
    try:
        answer = asking.ask_right()
    except CannotMake:
        return
    if row.name != "bpf_spin_unlock":  # the lock would have to be held
        yield from (f"{place}: {said}" for said in _wrong_result(row, answer, has_packet=asking.packet))
    is_refused = linux.is_for_the_gpl(where, row.number)
    if is_refused != row.gpl and (row.name, where.section) not in OTHER_LICENSES:
        yield f"{place}: for the GPL alone: {is_refused}"


def _uses_refused_map(where: Where, row: Prototype) -> bool:
    timers = ("bpf_timer",) if any(each.kind == "ptr_to_timer" for each in row.arguments) else ()
    kinds = TAKES.get(row.name, {MapType.ARRAY} if timers else ())
    return any(map_refusal(where.type, kind, timers, sleepable=where.is_sleepable) for kind in kinds)


def _wrong(wanted: Argument, holds: str, answer: Answer) -> str:
    """Return what Linux expects in a register, where the table has other words."""
    found = re.fullmatch(r"R\d type=(\w+) expected=(.*)", answer.complaint)
    if not found or found[1] != holds:
        return ""
    return "" if tuple(found[2].split(", ")) == REGISTERS.get(wanted.kind) else answer.complaint


_RESULTS = {
    "integer": "scalar",
    "void": "",
    "ptr_to_map_value": "map_value",
    "ptr_to_socket": "sock",
    "ptr_to_tcp_sock": "tcp_sock",
    "ptr_to_sock_common": "sock_common",
    "ptr_to_ringbuf_mem": "ringbuf_mem",
    "ptr_to_dynptr_mem": "mem",
}


def _wrong_result(row: Prototype, answer: Answer, *, has_packet: bool) -> Iterator[str]:
    """Yield where the result, or what is known of the packet behind the call, is not as the row says."""
    name, null = _RESULTS.get(row.returns, ""), "_or_null" if row.returns_null else ""
    wanted = name + null
    if row.returns == "ptr_to_btf_id":
        wanted = ("trusted_" if row.returns_trusted else "") + f"ptr{null}_{row.returns_btf}"
    found = re.match(r"\w*", answer.result)
    if found is None or found[0] != wanted:
        yield f"gives {answer.result or answer.complaint}, and not {wanted}"
    acquires = row.acquires or any(each.dynptr == "ringbuf" and each.uninit for each in row.arguments)
    if acquires != ("refs=" in answer.result):
        yield f"acquires: {answer.result}"
    moved = answer.complaint == "R8 invalid mem access 'scalar'"
    if moved != (row.moves_packet and has_packet):
        yield f"behind it: {answer.complaint}"


def asked() -> Iterator[tuple[Where, Prototype]]:
    """Yield the helpers, and the programs that they are asked for in."""
    for number in NAMES:
        seen: set[int] = set()
        for where in linux.WHERES:
            row = prototype(number, where.type)
            if row is not None and (WHOLE or id(row) not in seen) and linux.is_there(where, number):
                seen.add(id(row))
                yield where, row
                if not WHOLE and not _has_others(number):
                    break


def _has_others(number: int) -> bool:
    """True where types of programs have rows of their own."""
    return any(prototype(number, where.type) is not prototype(number) for where in linux.WHERES)


def test_linux_takes_what_the_rows_say() -> None:
    def ask() -> tuple[list[str], int]:
        pairs = list(asked())
        return [said for where, row in pairs for said in differences(where, row)], len(pairs)

    ended = run_forked(ask, 120)  # a kernel that ends a process for what it is asked ends the child
    assert ended.value is not None, ended
    found, count = ended.value
    assert found == []
    assert count > 150
