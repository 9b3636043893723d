"""Every helper of the table, with sizes, pointers and numbers that it has to refuse, or nearly.

    r6  the context      r7  data of the packet      r8  a map's value      r9  all that was seen, mixed

The table says how many arguments a helper has; what they are for is guessed, or known (`SHAPES`): a
helper that is added is tried without anybody thinking of it.
"""

from __future__ import annotations

import random
from functools import cache

from ebpfjit.difftest.case import UNTYPED, Case, Input
from ebpfjit.difftest.hostile.writer import Writer, border
from ebpfjit.difftest.packets import ARRAY, HASH
from ebpfjit.runtime.helpers import table
from ebpfjit.runtime.helpers.names import LOOKUP, NUMBERS

LIMIT = 600
TYPES = ("xdp", "xdp", "tc", "tc", "kprobe", "cgroup_skb", "syscall", UNTYPED)
STRUCTS = ("kprobe", "syscall", UNTYPED)
MAPS = 9

SHAPES = {
    "bpf_map_lookup_elem": "mp", "bpf_map_update_elem": "mppf", "bpf_map_delete_elem": "mp",
    "bpf_map_push_elem": "mpf", "bpf_map_pop_elem": "mp", "bpf_map_peek_elem": "mp",
    "bpf_probe_read": "psp", "bpf_probe_read_kernel": "psp", "bpf_probe_read_user": "psp",
    "bpf_probe_read_str": "psp", "bpf_probe_read_kernel_str": "psp", "bpf_probe_read_user_str": "psp",
    "bpf_probe_write_user": "pps", "bpf_copy_from_user": "psp", "bpf_trace_printk": "psnnn",
    "bpf_trace_vprintk": "psps", "bpf_snprintf": "pspps", "bpf_get_current_comm": "ps",
    "bpf_skb_load_bytes": "cnps", "bpf_skb_store_bytes": "cnpsf", "bpf_skb_load_bytes_relative": "cnpsn",
    "bpf_xdp_load_bytes": "cnps", "bpf_xdp_store_bytes": "cnps", "bpf_csum_diff": "pspsn",
    "bpf_skb_get_tunnel_key": "cpsf", "bpf_skb_set_tunnel_key": "cpsf", "bpf_skb_get_tunnel_opt": "cps",
    "bpf_skb_set_tunnel_opt": "cps", "bpf_perf_event_output": "cmfps", "bpf_skb_output": "cmfps",
    "bpf_xdp_output": "cmfps", "bpf_perf_event_read_value": "mfps", "bpf_get_stackid": "cmf",
    "bpf_get_stack": "cpsf", "bpf_get_task_stack": "npsf", "bpf_fib_lookup": "cpsf",
    "bpf_redirect_map": "mnf", "bpf_redirect_neigh": "npsf", "bpf_sk_lookup_tcp": "cpsnf",
    "bpf_sk_lookup_udp": "cpsnf", "bpf_skc_lookup_tcp": "cpsnf", "bpf_strtol": "psfp", "bpf_strtoul": "psfp",
    "bpf_strncmp": "psp", "bpf_get_ns_current_pid_tgid": "nnps", "bpf_ringbuf_output": "mpsf",
    "bpf_ringbuf_reserve": "msf", "bpf_ringbuf_query": "mf", "bpf_check_mtu": "cnpnf",
    "bpf_for_each_map_elem": "mxnf", "bpf_loop": "nxnf", "bpf_dynptr_from_mem": "psfp",
    "bpf_ringbuf_reserve_dynptr": "msfp", "bpf_dynptr_read": "pspnf", "bpf_dynptr_write": "pnpsf",
    "bpf_dynptr_data": "pns", "bpf_map_lookup_percpu_elem": "mpn",
    "bpf_spin_lock": "p", "bpf_timer_init": "pmf",
}  # fmt: skip
"""What arguments are: Context, Map, Pointer, Size, Flags, Number, function (x)."""

UNSTEADY = frozenset(
    NUMBERS[name]
    for name in (
        "bpf_ktime_get_ns", "bpf_get_prandom_u32", "bpf_jiffies64", "bpf_ktime_get_boot_ns",
        "bpf_ktime_get_coarse_ns", "bpf_ktime_get_tai_ns", "bpf_tail_call", "bpf_timer_start",
    )
)  # fmt: skip
"""Those whose answer is another each time, or that have a source of their own."""

POINTER_OFFSETS = (-8, -16, -16, -64, -64, -512, -4, -1, 0)
SIZES = (
    0, 1, 4, 4, 8, 8, 8, 16, 16, 24, 63, 64, 64, 65, 512, 513, 4096, 65536,
    0x7FFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF, 0xFFFFFFFF,
)  # fmt: skip


@cache
def numbers(type_: str) -> tuple[int, ...]:
    """Return the helpers that are tried in programs of a type: of those on packets only the type's."""
    others = ("bpf_skb_", "bpf_xdp_") if type_ in STRUCTS else ("bpf_skb_" if type_ == "xdp" else "bpf_xdp_",)
    return tuple(
        number
        for number, helper in table.helpers().items()
        if number not in UNSTEADY and not helper.name.startswith(others)
    )


class _Helpers(Writer):
    """Writes one program; `much` is how many bytes its packet or its context has, 0 for few."""

    def __init__(self, rng: random.Random, type_: str) -> None:
        super().__init__(rng)
        self.type = type_
        self.much = 0 if type_ == "xdp" or self.chance(0.8) else rng.choice((1500, 9000, 9000, 60000))

    def pointer(self, register: str) -> None:
        """An address of the program's, straddling an end, of another's, or none."""
        rng = self.rng
        if self.much and self.chance(0.6):
            self.emit(f"mov {register}, r7", f"add {register}, {rng.choice((0, 0, 14, 64))}")
            return
        match rng.randrange(16):
            case 0 | 1 | 2 | 3 | 4 | 5 | 6:
                self.emit(f"mov {register}, r10", f"add {register}, {rng.choice(POINTER_OFFSETS)}")
            case 7 | 8 | 9:
                self.emit(
                    f"mov {register}, r8",
                    f"add {register}, {rng.choice((0, 0, 0, 4, 8, 16, 20, 72, 92, -4))}",
                )
            case 10 | 11:
                self.emit(f"mov {register}, r7", f"add {register}, {rng.choice((0, 0, 14, 60, 63, 64, -1))}")
            case 12:
                self.emit(f"mov {register}, r6", f"add {register}, {rng.choice((0, 0, 4, 48, -8))}")
            case 13:
                self.emit(f"lddw {register}, map[idx:{rng.randrange(MAPS)}]")
            case 14:
                self.emit(f"mov {register}, {rng.choice((0, 0, 1, 4096, -1, -8, -16))}")
            case _:
                self.emit(f"lddw {register}, {border(rng):#x}")

    def argument(self, register: str, what: str) -> None:
        """Give a register an argument: what it should be, mostly."""
        rng = self.rng
        if what == "?" or self.chance(0.08):
            what = rng.choice("cmppsssfn")
        match what:
            case "c":
                self.emit(f"mov {register}, r6")
            case "m":
                self.emit(f"lddw {register}, map[idx:{rng.randrange(MAPS)}]")
            case "p":
                self.pointer(register)
            case "s" if self.chance(0.85):
                size = rng.choice((self.much - 64, 5000, 8000) if self.much and self.chance(0.7) else SIZES)
                self.emit(f"lddw {register}, {size:#x}" if size > 0x7FFFFFFF else f"mov {register}, {size}")
            case "f" if self.chance(0.85):
                self.emit(f"mov {register}, {rng.choice((0, 0, 0, 0, 0, 1, 2, 3, 4, 8))}")
            case "x":
                self.emit(f"lddw {register}, callback")
            case "n" if self.chance(0.85):
                self.emit(f"mov {register}, {rng.choice((0, 0, 1, 2, 8, 14, 64, 255, 4096, -1))}")
            case _:
                self.constant(register, border(rng))

    def call(self) -> None:
        """A call of a helper; of its answer goes on what is an error, or small."""
        tried = numbers(self.type if self.chance(0.97) else "")
        if self.chance(0.4):  # where a size says how far a pointer goes
            tried = tuple(one for one in tried if "s" in SHAPES.get(table.helpers()[one].name, ""))
        number = self.rng.choice(tried)
        helper = table.helpers()[number]
        shape = SHAPES.get(helper.name, "?" * helper.arguments)
        if self.chance(0.15):
            shape = "?" * helper.arguments
        for register, what in zip(("r1", "r2", "r3", "r4", "r5"), shape, strict=False):
            self.argument(register, what)
        small = self.label()
        self.emit(f"call {number}", "mov r1, r0", "add r1, 4096", f"jle r1, 8192, {small}", "mov r0, 1")
        self.emit(f"{small}:", "add r9, r0", "mul r9, 31")

    def start(self) -> None:
        """A frame with something in it, a value's address, the packet's."""
        rng = self.rng
        self.emit("mov r6, r1", "mov r7, r1", "mov r9, 0", "mov r8, r10", "add r8, -64")
        if self.type in ("xdp", "tc"):
            self.emit(f"ldxw r7, [r1+{0 if self.type == 'xdp' else 76}]")
        text = rng.choice((b"%s %d%%\n\0", b"42\0\0\0\0\0\0", rng.randbytes(8), b"%pI4 %8x", b"\0" * 8))
        self.emit(f"lddw r0, {int.from_bytes(text[:8].ljust(8, bytes(1)), 'little'):#x}")
        self.emit(
            "stxdw [r10-64], r0",
            "stxdw [r10-16], r0",
            "stdw [r10-8], 0",
            f"stxdw [r10-512], r{rng.choice((7, 8))}",
        )
        found = self.label()
        self.emit(
            f"lddw r1, map[idx:{rng.choice((ARRAY, ARRAY, HASH))}]",
            "mov r2, r10",
            "add r2, -8",
            f"call {LOOKUP}",
        )
        self.emit(f"jeq r0, 0, {found}", "mov r8, r0", f"{found}:")


def case(rng: random.Random) -> Case:
    """A program that calls a few helpers, on the hostile maps."""
    type_ = rng.choice(TYPES)
    writer = _Helpers(rng, type_)
    writer.start()
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        writer.call()
    writer.emit(
        "ldxdw r1, [r10-64]", "add r9, r1", "ldxdw r1, [r10-8]", "add r9, r1"
    ) if rng.random() < 0.3 else None
    writer.emit("mov r0, r9", "exit", "callback:", "mov r0, 1", "exit")
    packet = rng.randbytes(12) + b"\x08\x00\x45" + rng.randbytes(writer.much or 49)
    return Case(writer.code(), (Input(packet, LIMIT),), type=type_, maps="hostile")
