"""What a program is loaded for: its expected attach type and its flags, from its section and its type.

    section "cgroup/connect6"  ->  Attachment(11)         what bpf(2) is told, and what programs of
    section "fentry.s/vfs_read" -> Attachment(24, ...)     one prog_array must have in common

Names: `section_defs` in libbpf.c. Numbers: enum bpf_attach_type in include/uapi/linux/bpf.h.
"""

from __future__ import annotations

from ebpfjit.record import dataclass

SLEEPABLE, XDP_FRAGS = 1 << 4, 1 << 5
"""BPF_F_SLEEPABLE and BPF_F_XDP_HAS_FRAGS."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a program is loaded for: enum bpf_attach_type, BPF_F_* of BPF_PROG_LOAD, and a name.

    `target` is what the section says behind the first slash: the function of an fentry program. `is_said` is
    false where the section is none of libbpf's, so that `type` is only what the program's type has else.
    """

    type: int = 0
    flags: int = 0
    target: str = ""
    is_said: bool = True


#  program type          section            attach type, without sleepable and frags variants
SECTIONS = (
    ("xdp",              "xdp",                    37),
    ("xdp",              "xdp/devmap",             33),
    ("xdp",              "xdp/cpumap",             35),
    ("tc",               "tc",                      0),
    ("tc",               "classifier",              0),
    ("sched_act",        "action",                  0),
    ("tc",               "tcx/ingress",            46),
    ("tc",               "tcx/egress",             47),
    ("tc",               "tc/ingress",             46),
    ("tc",               "tc/egress",              47),
    ("tc",               "netkit/primary",         54),
    ("tc",               "netkit/peer",            55),
    ("cgroup_skb",       "cgroup/skb",              0),
    ("cgroup_skb",       "cgroup_skb/ingress",      0),
    ("cgroup_skb",       "cgroup_skb/egress",       1),
    ("cgroup_sock",      "cgroup/sock_create",      2),
    ("cgroup_sock",      "cgroup/sock_release",    34),
    ("cgroup_sock",      "cgroup/sock",             2),
    ("cgroup_sock",      "cgroup/post_bind4",      12),
    ("cgroup_sock",      "cgroup/post_bind6",      13),
    ("cgroup_sock_addr", "cgroup/connect4",        10),
    ("cgroup_sock_addr", "cgroup/connect6",        11),
    ("cgroup_sock_addr", "cgroup/connect_unix",    49),
    ("cgroup_sock_addr", "cgroup/bind4",            8),
    ("cgroup_sock_addr", "cgroup/bind6",            9),
    ("cgroup_sock_addr", "cgroup/sendmsg4",        14),
    ("cgroup_sock_addr", "cgroup/sendmsg6",        15),
    ("cgroup_sock_addr", "cgroup/sendmsg_unix",    50),
    ("cgroup_sock_addr", "cgroup/recvmsg4",        19),
    ("cgroup_sock_addr", "cgroup/recvmsg6",        20),
    ("cgroup_sock_addr", "cgroup/recvmsg_unix",    51),
    ("cgroup_sock_addr", "cgroup/getpeername4",    29),
    ("cgroup_sock_addr", "cgroup/getpeername6",    30),
    ("cgroup_sock_addr", "cgroup/getpeername_unix", 52),
    ("cgroup_sock_addr", "cgroup/getsockname4",    31),
    ("cgroup_sock_addr", "cgroup/getsockname6",    32),
    ("cgroup_sock_addr", "cgroup/getsockname_unix", 53),
    ("cgroup_sockopt",   "cgroup/getsockopt",      21),
    ("cgroup_sockopt",   "cgroup/setsockopt",      22),
    ("cgroup_sysctl",    "cgroup/sysctl",          18),
    ("cgroup_device",    "cgroup/dev",              6),
    ("sock_ops",         "sockops",                 3),
    ("sk_skb",           "sk_skb",                  0),
    ("sk_skb",           "sk_skb/stream_parser",    4),
    ("sk_skb",           "sk_skb/stream_verdict",   5),
    ("sk_skb",           "sk_skb/verdict",         38),
    ("sk_msg",           "sk_msg",                  7),
    ("sk_lookup",        "sk_lookup",              36),
    ("sk_reuseport",     "sk_reuseport",           39),
    ("sk_reuseport",     "sk_reuseport/migrate",   40),
    ("flow_dissector",   "flow_dissector",         17),
    ("netfilter",        "netfilter",              45),
    ("lirc_mode2",       "lirc_mode2",             16),
    ("kprobe",           "kprobe",                  0),
    ("kprobe",           "kretprobe",               0),
    ("kprobe",           "uprobe",                  0),
    ("kprobe",           "uretprobe",               0),
    ("kprobe",           "kprobe.multi",           42),
    ("kprobe",           "kretprobe.multi",        42),
    ("kprobe",           "kprobe.session",         56),
    ("kprobe",           "uprobe.multi",           48),
    ("kprobe",           "uretprobe.multi",        48),
    ("kprobe",           "uprobe.session",         57),
    ("tracing",          "fentry",                 24),
    ("tracing",          "fexit",                  25),
    ("tracing",          "fmod_ret",               26),
    ("tracing",          "tp_btf",                 23),
    ("tracing",          "iter",                   28),
    ("lsm",              "lsm",                    27),
    ("lsm",              "lsm_cgroup",             43),
)  # fmt: skip

_DEFAULTS: dict[str, int] = {}
for _type, _, _number in SECTIONS:
    _DEFAULTS.setdefault(_type, _number)

_OTHER_NAMES = {"xdp.frags": "xdp"}
_ALWAYS_SLEEPABLE = frozenset({"syscall"})


def attachment(type_: str | None, section: str | None) -> Attachment:
    """Return what a program of a type is loaded for.

    A section of another type than the program's says nothing, for the user knew better; then it is what the
    plainest section of that type says.
    """
    name, frags = (section or "").removeprefix("?"), type_ == "xdp.frags"
    type_ = _OTHER_NAMES.get(type_ or "", type_)
    head, _, target = name.partition("/")
    sleepable = type_ in _ALWAYS_SLEEPABLE or head.endswith(".s")
    if type_ == "xdp" and head == "xdp.frags":
        head, frags = "xdp", True
    head = head.removesuffix(".s")
    plain = f"{head}/{target}" if target else head
    found = [
        (prefix, number)
        for kind, prefix, number in SECTIONS
        if kind == type_ and (plain == prefix or plain.startswith(f"{prefix}/"))
    ]
    flags = (SLEEPABLE if sleepable else 0) | (XDP_FRAGS if frags else 0)
    if found:
        return Attachment(max(found)[1], flags, target)
    return Attachment(_DEFAULTS.get(type_ or "", 0), flags, target, is_said=type_ not in _DEFAULTS)
