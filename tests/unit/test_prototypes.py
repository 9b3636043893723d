"""What the table of helpers' prototypes says, and that the rest of the library says the same."""

from __future__ import annotations

from ebpfjit.runtime.helpers.names import NAMES
from ebpfjit.runtime.helpers.table import helpers
from ebpfjit.verifier.prototypes import Argument, prototype, prototypes

OTHER_ARGUMENTS = {
    "bpf_trace_printk",  # what is printed: Linux looks at the text alone
    "bpf_get_branch_snapshot",  # flags that Linux's prototype has forgotten
    "bpf_skb_ancestor_cgroup_id",  # there is one cgroup, whatever the level
    "bpf_sk_ancestor_cgroup_id",
    "bpf_get_cgroup_classid",  # most types of programs give it nothing
}


def test_every_helper_has_a_row_and_rows_are_in_order() -> None:
    assert {number: row.name for number, row in prototypes().items()} == dict(NAMES)
    assert all(row.number == number for number, row in prototypes().items())


def test_rows_are_read() -> None:
    row = prototype("bpf_skb_load_bytes")
    assert row is prototype(26, "xdp")
    assert row is not None
    memory = Argument("ptr_to_mem", uninit=True, write=True)
    offset, size = Argument("anything", number="u32"), Argument("const_size", number="u32")
    assert row.arguments == (Argument("ptr_to_ctx"), offset, memory, size)
    assert (row.returns, row.returns_null, row.moves_packet, row.at_most) == ("integer", False, False, None)
    row = prototype("bpf_get_stack")
    assert row is not None
    assert row.at_most == 2
    assert row.gpl
    row = prototype("bpf_strtol")
    assert row is not None
    assert row.arguments[3] == Argument("ptr_to_mem", uninit=True, write=True, aligned=True, size=8)
    assert prototype(0) is prototype(212) is prototype("bpf_no_such_helper") is None


def test_types_of_programs_have_prototypes_of_their_own() -> None:
    kinds = {type_: prototype("bpf_sk_assign", type_) for type_ in ("tc", "sk_lookup")}
    assert [row and row.arguments[1] for row in kinds.values()] == [
        Argument("ptr_to_btf_id_sock_common"),
        Argument("ptr_to_socket", maybe_null=True),
    ]


def test_the_runtime_takes_as_many_arguments_for_the_same_licenses() -> None:
    rows = prototypes()
    others = {ours.name for ours in helpers().values() if ours.arguments != len(rows[ours.number].arguments)}
    assert others == OTHER_ARGUMENTS
    assert [ours.name for ours in helpers().values() if ours.gpl != rows[ours.number].gpl] == []


def test_what_moves_packets_ends_rights_to_them() -> None:
    moves = {row.number for row in prototypes().values() if row.moves_packet} & helpers().keys()
    assert len(moves) > 15
    assert [number for number in moves if not helpers()[number].ends_rights] == []
