"""What operations of Linux's structs (struct_ops) may do: which of them there are programs for, which may
sleep, which fields they write to, which helpers they have.

    SEC("struct_ops") int init(struct sock *sk)    of tcp_congestion_ops: writes tcp_sock.snd_cwnd, ...

Linux 6.18: bpf_tcp_ca.c, bpf_dummy_struct_ops.c, ext.c, hid_bpf_struct_ops.c.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ebpfjit.elf.operations import member_of, structs_of
from ebpfjit.program import Program
from ebpfjit.record import dataclass
from ebpfjit.runtime.helpers.licenses import is_compatible
from ebpfjit.verifier.structure import Error

WHOLE = "*"
"""Stands for all members of a struct."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What Linux says of the operations of one struct.

    `lacking` are members that no program can be, `sleepable` those that may sleep, of which None says that
    all do. `written` are the members that operations write to, by struct: "icsk_ack.pending" is one of one;
    WHOLE stands for all. `nullable` are arguments that may be NULL, by member. `inside` are those of which
    a part may be written to, too. `helpers` are those that no other struct's operations have, `withheld`
    those of them that some operations do not have.
    """

    lacking: frozenset[str] = frozenset()
    sleepable: frozenset[str] | None = None
    written: Mapping[str, tuple[str, ...]] | None = None
    inside: frozenset[str] = frozenset()
    nullable: Mapping[str, frozenset[int]] | None = None
    helpers: frozenset[str] = frozenset()
    withheld: Mapping[str, frozenset[str]] | None = None


_OPTIONS = frozenset({"bpf_setsockopt", "bpf_getsockopt"})

RULES: Mapping[str, Rules] = {
    "tcp_congestion_ops": Rules(
        lacking=frozenset({"get_info"}),
        written={
            "sock": ("sk_pacing_rate", "sk_pacing_status"),
            "inet_connection_sock": ("icsk_ca_priv", "icsk_ack.pending"),
            "tcp_sock": (
                "snd_cwnd", "snd_cwnd_cnt", "snd_cwnd_stamp", "snd_ssthresh", "ecn_flags", "app_limited",
            ),
        },
        inside=frozenset({"icsk_ca_priv"}),
        helpers=_OPTIONS | {
            "bpf_tcp_send_ack", "bpf_sk_storage_get", "bpf_sk_storage_delete", "bpf_ktime_get_coarse_ns",
        },
        withheld={"release": _OPTIONS},
    ),
    "bpf_dummy_ops": Rules(
        sleepable=frozenset({"test_sleepable"}),
        written={"bpf_dummy_ops_state": (WHOLE,)},
        nullable={"test_1": frozenset({0})},
    ),
    "sched_ext_ops": Rules(
        sleepable=frozenset({
            "init_task", "init", "exit", "cpu_online", "cpu_offline", "cgroup_init", "cgroup_exit",
            "cgroup_prep_move",
        }),
        written={"task_struct": ("scx.slice", "scx.dsq_vtime", "scx.disallow")},
        nullable={"dispatch": frozenset({1}), "yield": frozenset({1})},
    ),
    "hid_bpf_ops": Rules(sleepable=frozenset({"hid_rdesc_fixup", "hid_hw_request", "hid_hw_output_report"})),
}  # fmt: skip
"""What is known of operations, by their struct."""

_HELPERS = frozenset().union(*(rules.helpers for rules in RULES.values()))


def rules_of(program: Program) -> tuple[str, Rules] | None:
    """Return the struct of which a program is an operation, and its rules; None: nothing is known of it."""
    structs = structs_of(program) if program.type == "struct_ops" else []
    return (structs[0], RULES[structs[0]]) if len(structs) == 1 and structs[0] in RULES else None


_CONNECTIONS = Rules(written={"nf_conn": ("mark",)})
"""What programs of packets write to (nf_conntrack_btf_struct_access)."""


def written_by(program: Program) -> Rules | None:
    """Return the rules that say what of the kernel's structs a program writes to; None: nobody knows."""
    if program.type == "struct_ops":
        found = rules_of(program)
        return None if found is None else found[1]
    return _CONNECTIONS if program.type in ("xdp", "tc") else Rules()


def nullable(struct: str, member: str) -> frozenset[int]:
    """Return the numbers of the arguments of an operation that may be NULL."""
    rules = RULES.get(struct, Rules())
    return (rules.nullable or {}).get(member, frozenset())


def errors(program: Program, *, is_sleepable: bool) -> Iterator[Error]:
    """Return why Linux has no program for the operation that this one is (check_struct_ops_btf_id)."""
    if program.type != "struct_ops":
        return
    if not is_compatible(program.license):
        yield 0, "structure", "struct ops programs must have a GPL compatible license", ""
    struct, rules = rules_of(program) or ("", Rules())
    member = member_of(program)
    is_awake = is_sleepable and rules.sleepable is not None and member not in rules.sleepable
    if is_awake or member in rules.lacking:
        said = f"attach to unsupported member {member} of struct {struct}"
        yield 0, "structure", said, "it must not sleep" if is_awake else ""


def has_helper(program: Program, name: str) -> bool:
    """True where the operation has a helper, as far as its struct decides that."""
    found = rules_of(program)
    if found is None or name not in _HELPERS:
        return True
    withheld = (found[1].withheld or {}).get(member_of(program), frozenset())
    return name in found[1].helpers and name not in withheld
