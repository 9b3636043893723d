"""What programs that are attached to the kernel's functions, tracepoints and hooks are given."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ebpfjit import Program
from ebpfjit.assembler import assemble
from ebpfjit.difftest.verdicts.types import Writer
from ebpfjit.elf.btf import Btf, Kind


def _kernel() -> Btf:
    w = Writer()
    number = w.integer("int", 4, is_signed=True)
    long = w.integer("long", 8)
    file = w.struct("file", 16, ("position", long, 0), ("flags", number, 8))
    names = w.struct(
        "names", 4, ("length", number, 0), ("bytes", w.add("", Kind.ARRAY, 0, 0, number, number, 0), 4)
    )
    w.function("name_it", 0, w.add("", Kind.PTR, 0, names))
    pointer, void, text = (
        w.add("", Kind.PTR, 0, file),
        w.add("", Kind.PTR, 0, 0),
        w.add("", Kind.PTR, 0, long),
    )
    nested = w.add("", Kind.PTR, 0, pointer)
    w.function("read_it", number, number, pointer, text, nested)
    w.function("drop_it", 0, pointer)
    w.function("bpf_lsm_file_open", number, pointer)
    for name in ("kfree_skb", "read"):
        prototype = w.add(
            "", Kind.FUNC_PROTO, 5, 0, *(word for type_ in (void, *[pointer] * 4) for word in (0, type_))
        )
        w.add(f"btf_trace_{name}", Kind.TYPEDEF, 0, w.add("", Kind.PTR, 0, prototype))
    return Btf(w.to_bytes())


KERNEL = _kernel()


def verdict(section: str, text: str, type_: str = "tracing", kernel: Btf | None = KERNEL) -> str:
    code = assemble(text.replace("; ", "\n") + "\nr0 = 0\nexit")
    program = Program(code, name="traces", section=section, type=type_, kernel_types=kernel)
    return str(replace(program, license="GPL").verify(seconds=0))


@pytest.mark.parametrize(
    ("section", "text", "said"),
    [
        ("fentry/read_it", "r2 = *(u64 *)(r1 + 8); r3 = *(u64 *)(r2 + 0)", "accepted"),
        ("fentry/read_it", "r2 = *(u64 *)(r1 + 8); r3 = *(u64 *)(r2 + 16)", "access beyond struct file"),
        ("fentry/read_it", "r2 = *(u32 *)(r1 + 0)", "accepted"),
        ("fentry/read_it", "r2 = *(u64 *)(r1 + 0); r3 = *(u64 *)(r2 + 0)", "invalid mem access 'scalar'"),
        ("fentry/read_it", "r2 = *(u64 *)(r1 + 16); r3 = *(u64 *)(r2 + 0)", "invalid mem access 'scalar'"),
        ("fentry/read_it", "r2 = *(u64 *)(r1 + 24)", "is not a struct"),
        ("fentry/read_it", "r2 = *(u32 *)(r1 + 8)", "size 4 must be 8"),
        ("fentry/read_it", "r2 = *(u32 *)(r1 + 4)", "is not multiple of 8"),
        ("fentry/read_it", "r2 = *(u64 *)(r1 + 32)", "doesn't have 5-th argument"),
        ("fexit/read_it", "r2 = *(u64 *)(r1 + 32)", "accepted"),
        ("fexit/read_it", "r2 = *(u64 *)(r1 + 40)", "doesn't have 5-th argument"),
        ("fexit/drop_it", "r2 = *(u64 *)(r1 + 8)", "doesn't have 2-th argument"),
        ("tp_btf/read", "r2 = *(u64 *)(r1 + 24); r3 = *(u64 *)(r2 + 0)", "accepted"),
        ("tp_btf/kfree_skb", "r2 = *(u64 *)(r1 + 24); r3 = *(u64 *)(r2 + 0)", "it may be NULL"),
        ("fentry/name_it", "r2 = *(u64 *)(r1 + 0); r3 = *(u32 *)(r2 + 16)", "accepted"),
        (
            "fentry/name_it",
            "r2 = *(u64 *)(r1 + 0); r3 = *(u32 *)(r2 + 1)",
            "access beyond struct names",
        ),
        ("fentry/no_such", "r2 = *(u64 *)(r1 + 0)", "give load(btf=)"),
    ],
)
def test_arguments(section: str, text: str, said: str) -> None:
    assert said in verdict(section, text)


def test_arguments_of_hooks() -> None:
    read = "r2 = *(u64 *)(r1 + 0); r3 = *(u32 *)(r2 + 8)"
    assert "accepted" in verdict("lsm/file_open", read, "lsm")
    assert "undecided" in verdict("lsm/file_open", read, "lsm", None)
    result = (
        "r2 = *(u64 *)(r1 + 8); if r2 s< -4095 goto wrong; goto right; wrong:; r3 = *(u64 *)(r1 + 64); right:"
    )
    assert "accepted" in verdict("lsm/file_open", result, "lsm")


def test_operations_of_tcp_are_given_whole_sockets_and_may_return_nothing() -> None:
    w = Writer()
    number = w.integer("int", 4, is_signed=True)
    socket = w.struct("sock", 8, ("state", number, 0))
    w.struct("tcp_sock", 32, ("sock", socket, 0), ("window", number, 24))
    pointer, words = w.add("", Kind.PTR, 0, socket), (0, socket + 2)
    begin = w.add("", Kind.PTR, 0, w.add("", Kind.FUNC_PROTO, 1, 0, *words))
    ask = w.add("", Kind.PTR, 0, w.add("", Kind.FUNC_PROTO, 1, number, *words))
    assert pointer == words[1]
    w.struct("tcp_congestion_ops", 16, ("init", begin, 0), ("ssthresh", ask, 8))
    code = assemble("r1 = *(u64 *)(r1 + 0)\nr2 = *(u32 *)(r1 + 24)\nexit")
    verdicts = []
    for member in ("init", "ssthresh"):
        program = Program(
            code, section=f"struct_ops/{member}", type="struct_ops", kernel_types=Btf(w.to_bytes())
        )
        operation = replace(program, operation=("tcp_congestion_ops", member), license="GPL")
        verdicts.append(operation.verify(seconds=0))
    assert verdicts[0].is_accepted, verdicts[0]
    assert [error.message for error in verdicts[1].errors] == ["R0 !read_ok"]
