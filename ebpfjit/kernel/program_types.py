"""The kernel's program types, and which test run each has.

Numbers: enum bpf_prog_type in include/uapi/linux/bpf.h. Test runs: `test_run` of each struct
bpf_prog_ops of Linux 6.18; net/bpf/test_run.c.
"""

from __future__ import annotations

from enum import Enum

from ebpfjit.record import dataclass
from ebpfjit.runtime.attach import SLEEPABLE, XDP_FRAGS


class TestRun(Enum):
    """What BPF_PROG_TEST_RUN runs a program on."""

    __test__ = False  # no class of tests, whatever pytest makes of its name

    PACKET = "a packet, with a struct xdp_md or __sk_buff beside it"
    CONTEXT = "the bytes of its context"
    WRITTEN = "the bytes of its context, which come back"
    FLOW = "a packet; struct bpf_flow_keys comes back"
    NETFILTER = "a packet, and the hook that it is at"
    OPERATION = "arguments, of an operation of struct bpf_dummy_ops"
    TRACING = "the kernel's own functions for that, which it is attached to"
    NONE = "nothing: there is no test run"


@dataclass(frozen=True, slots=True)
class ProgramType:
    """How the kernel loads and runs programs of one type (include/uapi/linux/bpf.h).

    `number` is its enum bpf_prog_type, `test_run` what a test run of it takes, `flags` are those of its
    BPF_PROG_LOAD. `packet` says whether it runs on a packet. `network_layer` is true where the kernel's test
    run takes an Ethernet header off before the program sees the packet.
    """

    number: int
    test_run: TestRun = TestRun.NONE
    flags: int = 0
    network_layer: bool = False

    @property
    def packet(self) -> bool:
        """True where it runs on a packet."""
        return self.test_run is TestRun.PACKET


PROGRAM_TYPES: dict[str, ProgramType] = {
    "socket_filter":           ProgramType(1, TestRun.PACKET, network_layer=True),
    "kprobe":                  ProgramType(2),
    "tc":                      ProgramType(3, TestRun.PACKET),
    "classifier":              ProgramType(3, TestRun.PACKET),
    "action":                  ProgramType(4, TestRun.PACKET),
    "tracepoint":              ProgramType(5),
    "xdp":                     ProgramType(6, TestRun.PACKET),
    "xdp.frags":               ProgramType(6, TestRun.PACKET, flags=XDP_FRAGS),
    "perf_event":              ProgramType(7),
    "cgroup_skb":              ProgramType(8, TestRun.PACKET, network_layer=True),
    "cgroup_sock":             ProgramType(9),
    "lwt_in":                  ProgramType(10, TestRun.PACKET, network_layer=True),
    "lwt_out":                 ProgramType(11, TestRun.PACKET, network_layer=True),
    "lwt_xmit":                ProgramType(12, TestRun.PACKET, network_layer=True),
    "sock_ops":                ProgramType(13),
    "sk_skb":                  ProgramType(14),
    "cgroup_device":           ProgramType(15),
    "sk_msg":                  ProgramType(16),
    "raw_tracepoint":          ProgramType(17, TestRun.CONTEXT),
    "cgroup_sock_addr":        ProgramType(18),
    "lwt_seg6local":           ProgramType(19),
    "lirc_mode2":              ProgramType(20),
    "sk_reuseport":            ProgramType(21),
    "flow_dissector":          ProgramType(22, TestRun.FLOW),
    "cgroup_sysctl":           ProgramType(23),
    "raw_tracepoint_writable": ProgramType(24),
    "cgroup_sockopt":          ProgramType(25),
    "tracing":                 ProgramType(26, TestRun.TRACING),
    "struct_ops":              ProgramType(27, TestRun.OPERATION),
    "ext":                     ProgramType(28),
    "lsm":                     ProgramType(29),
    "sk_lookup":               ProgramType(30, TestRun.WRITTEN),
    "syscall":                 ProgramType(31, TestRun.CONTEXT, flags=SLEEPABLE),
    "netfilter":               ProgramType(32, TestRun.NETFILTER),
}  # fmt: skip
"""Program types by the name that `Program.type` has."""
