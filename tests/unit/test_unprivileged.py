"""What Linux asks of programs of users without capabilities alone: the same programs are fine with them."""

from __future__ import annotations

import pytest

from ebpfjit.difftest.verdicts.sample import Sample

_VALUE = """
    *(u64 *)(r10 - 8) = 1
    r2 = r10
    r2 += -8
    r1 = map[array]
    call 1
    if r0 == 0 goto out
"""
_OUT = """
out:
    r0 = 0
    exit
"""
REFUSED = {
    "a loop": ("socket_filter", "r0 = 0; again: r0 += 1; if r0 < 4 goto again; exit", "back-edge"),
    "a function": ("socket_filter", "r0 = 0; call f; exit; f: r0 = 0; exit", "CAP_BPF and CAP_SYS_ADMIN"),
    "a helper": ("socket_filter", "call 118; r0 = 0; exit", "cannot use helper bpf_jiffies64"),
    "a field": ("cgroup_skb", "r2 = *(u32 *)(r1 + 76); r0 = 1; exit", "invalid bpf_context access"),
    "out of the frame": ("socket_filter", "r2 = r10; r2 += 8; r0 = 0; exit", "goes out of range"),
    "out of a value": (
        "socket_filter",
        f"{_VALUE} r0 += 48; r0 += -8; r0 = *(u64 *)(r0 + 0); {_OUT}",
        "pointer arithmetic of map value goes out of range",
    ),
    "two distances": (
        "socket_filter",
        f"""r6 = *(u32 *)(r1 + 0); {_VALUE}
        r1 = 4; if r6 > 3 goto far; r1 = 8; far: r0 += r1; r0 = *(u8 *)(r0 + 0); {_OUT}""",
        "from different maps, paths or scalars",
    ),
    "a number and a pointer": (
        "socket_filter",
        f"""r6 = *(u32 *)(r1 + 0); {_VALUE}
        r1 = 4; if r6 > 3 goto both; r0 = 8; both: r0 += r1; {_OUT}""",
        "from different maps, paths or scalars",
    ),
    "a sum with the context": (
        "socket_filter", "r2 = 0; r1 += r2; r0 = 0; exit", "pointer with unsupported alu operation",
    ),
    "mixed signs": (
        "socket_filter",
        f"""{_VALUE} r1 = *(u64 *)(r0 + 0); if r1 s> 4 goto out; if r1 s< -4 goto out;
        r2 = r0; r2 += 8; r2 += r1;
        r0 = *(u8 *)(r0 + 0); {_OUT}""",
        "mixed signed bounds",
    ),
    "two pointers": ("socket_filter", "r2 = r10; if r2 == r1 goto out; out: r0 = 0; exit", "comparison"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_without_capabilities_only(name: str) -> None:
    type_, text, said = REFUSED[name]
    program = Sample.of_text(type_, text.replace("; ", "\n").replace(": ", ":\n")).program()
    verdict = program.verify(seconds=0, unprivileged=True)
    assert verdict.status == "refused"
    assert said in str(verdict)
    assert program.verify(seconds=0).status == "accepted"
