"""Pieces of programs: helpers, what has to be given back, locks, functions, callbacks, loops."""

from __future__ import annotations

from ebpfjit.difftest.verdicts.pieces import piece
from ebpfjit.difftest.verdicts.writer import DATA, FIELDS, LETTERS, PACKETS, VALUES, Writer

_SKB = ("tc", "socket_filter", "cgroup_skb", "sk_skb", "lwt_xmit")
_LOCKING = ("xdp", "tc", "cgroup_skb", "sk_skb", "lwt_xmit", "sk_lookup", "cgroup_sockopt", "sock_ops")
"""Types whose programs may use maps with locks and timers."""


# -- helpers with memory and a size ------------------------------------------------------------------


@piece(_SKB, 4)
def bytes_loaded(w: Writer) -> None:
    """bpf_skb_load_bytes to some memory, with a size that is constant or not."""
    room = w.pick((8, 16, 32, 64))
    where = w.pick(("stack", "stack", "map"))
    if where == "stack":
        w.say(f"r7 = r10; r7 += {-room}")
    else:
        memory = w.memory("r7", ("map", "direct"))
        room = memory.size
    if w.chance(0.4):
        w.say(f"r8 = {w.pick((room, 1, w.near(room), 0))}")
    else:
        w.bounded("r8", room - 1, spare="r5")
        if not w.oops():
            w.say("r8 += 1")
    w.say(
        f"r1 = r6; r2 = {w.pick((0, 14))}; r3 = r7; r4 = r8; call {w.pick((26, 26, 26, 68 if w.type != 'socket_filter' else 26))}"
    )
    if w.chance(0.4) and where == "stack":
        w.say(f"if r0 != 0 goto {w.skip}; r0 = *(u8 *)(r7 + {w.near(0)})")


@piece(("xdp",), 3)
def bytes_of_xdp(w: Writer) -> None:
    """bpf_xdp_load_bytes and bpf_xdp_store_bytes."""
    room = w.pick((8, 16, 32))
    if w.chance(0.6):
        for index in range(room // 8):
            if not w.oops():
                w.say(f"*(u64 *)(r10 {-room + 8 * index}) = 0")
    w.say(f"r3 = r10; r3 += {-room}")
    if w.chance(0.5):
        w.say(f"r4 = {w.near(room)}")
    else:
        w.bounded("r4", room - 1)
        w.say("r4 += 1" if not w.oops() else "")
    w.say(f"r1 = r6; r2 = {w.pick((0, 14))}; call {w.pick((189, 190))}")


@piece(("xdp", "tc"), 2)
def checksums(w: Writer) -> None:
    """bpf_csum_diff of memory that may be null where its size is zero."""
    if w.chance(0.5):
        w.on_stack("r7")
    else:
        w.packet("r7", 20)
    size = w.pick((4, 8, 20, 7))
    first = w.pick((f"r1 = 0; r2 = {0 if not w.oops() else 4}", f"r1 = r7; r2 = {w.pick((4, 8))}"))
    w.say(f"{first}; r3 = r7; r4 = {w.near(size)}; r5 = {w.pick((0, -1))}; call 28")


@piece(weight=3)
def events(w: Writer) -> None:
    """bpf_perf_event_output and bpf_ringbuf_output."""
    memory = w.memory(
        "r7",
        ("stack", "map", "direct", *(("packet",) if w.type in ("xdp", "tc", "lwt_xmit", "sk_skb") else ())),
    )
    if w.chance(0.5):
        w.say(f"r8 = {w.near(memory.size)}")
    else:
        w.bounded("r8", memory.size)
    if w.chance(0.5):
        flags = w.pick(("r3 = 0", "r3 = 4294967295 ll"))
        w.say(
            f"r1 = r6; r2 = map[{w.pick(('perf', 'perf', 'perf', 'array' if w.oops() else 'perf'))}]; {flags}; r4 = r7; r5 = r8; call 25"
        )
    else:
        w.say(f"r1 = map[{'ring' if not w.oops() else 'hash'}]; r2 = r7; r3 = r8; r4 = 0; call 130")


@piece(("tc",), 2)
def bytes_stored(w: Writer) -> None:
    """bpf_skb_store_bytes and checksums."""
    w.on_stack("r7")
    form = w.rng.randrange(3)
    if form == 0:
        w.say(f"r1 = r6; r2 = 0; r3 = r7; r4 = {w.near(8)}; r5 = 0; call 9")
    elif form == 1:
        w.say("r1 = r6; r2 = 24; r3 = 0; r4 = 5; r5 = 2; call 10")
    else:
        w.say("r1 = r6; r2 = 50; r3 = 0; r4 = 5; r5 = 18; call 11")
    if w.chance(0.3):
        w.say("r0 = r1" if w.oops() else "r1 = r0")


@piece(weight=3)
def simple_calls(w: Writer) -> None:
    """Helpers of numbers, known to the type or not; registers that are lost."""
    helper = w.pick((5, 7, 8, 125, 160, 42, 80, 14, 15, 16, 35, 27, 4, 113, 46, 6000, 22, 124))
    if not w.oops():
        helper = w.pick((5, 7, 8, 125))
    w.say(f"r1 = 1; r2 = 2; call {helper}")
    w.say(w.pick(("r7 = r0", "r7 = r0", "r7 = r1" if w.oops() else "r7 = r0", "r1 = 3; r0 = r1")))
    if w.chance(0.3):
        w.say("r7 &= 63; r8 = map[single][0]+0; r8 += r7; r0 = *(u8 *)(r8 + 0)")


@piece()
def texts(w: Writer) -> None:
    """bpf_strtol, bpf_strncmp, bpf_snprintf, bpf_trace_printk."""
    form = w.rng.randrange(4)
    if form == 0:
        w.on_stack("r7")
        w.say(
            f"r1 = r7; r2 = {w.near(8)}; r3 = {w.pick((0, 10))}; r4 = r10; r4 += {w.pick((-8, -16))}; call {w.pick((105, 106))}; r0 = *(u64 *)(r10 - 16)"
            if w.oops()
            else "*(u64 *)(r10 - 8) = 0; r1 = r7; r2 = 8; r3 = 0; r4 = r10; r4 += -8; call 105; r0 = *(u64 *)(r10 - 8)"
        )
    elif form == 1:
        w.memory("r7", ("stack", "map"))
        w.say(
            f"r1 = r7; r2 = {w.near(1)}; r3 = map[{'constants' if not w.oops() else 'single'}][0]+24; call 182"
        )
    elif form == 2:
        w.say(
            f"*(u64 *)(r10 - 8) = 1; r1 = r10; r1 += -64; r2 = {w.near(56)}; r3 = map[constants][0]+24; r4 = r10; r4 += -8; r5 = {w.pick((0, 8))}; call 165"
        )
    else:
        w.say(f"*(u64 *)(r10 - 8) = 0; r1 = r10; r1 += -8; r2 = {w.near(8)}; r3 = 1; call 6")


@piece(("xdp", "tc"), 2)
def redirects(w: Writer) -> None:
    """bpf_redirect, bpf_redirect_map, bpf_fib_lookup."""
    form = w.rng.randrange(3)
    if form == 0:
        w.say("r1 = 1; r2 = 0; call 23")
    elif form == 1:
        name = w.pick(("devices", "cpus", "xsks", "array" if w.oops() else "devices"))
        w.say(f"r1 = map[{name}]; r2 = 0; r3 = 0; call 51")
    else:
        for index in range(8):
            if not w.oops():
                w.say(f"*(u64 *)(r10 {-64 + 8 * index}) = 0")
        w.say(f"r1 = r6; r2 = r10; r2 += -64; r3 = {w.near(64)}; r4 = 0; call 69")


@piece(weight=2)
def tail_calls(w: Writer) -> None:
    """Tail calls, with an index that is known or not."""
    index = w.pick(("r3 = 1", "r3 = 100", f"r3 = *(u32 *)(r6 + {w.pick(FIELDS[w.type])})"))
    name = "programs" if not w.oops() else w.pick(("array", "hash"))
    w.say(f"r1 = r6; r2 = map[{name}]; {index}; call 12")
    w.say(w.pick(("r0 = 0", "r0 = r0" if w.oops() else "r0 = 1")))


# -- what has to be given back -----------------------------------------------------------------------


@piece(weight=3)
def records(w: Writer) -> None:
    """Records of a ring buffer: reserved, written, submitted or discarded, on all ways or not."""
    size = w.pick((8, 16, 32))
    on = w.label()
    w.say(
        f"r1 = map[ring]; r2 = {size if not w.oops() else 'r7'}; r3 = 0; call 131".replace(
            "r2 = r7", f"r2 = *(u32 *)(r6 + {FIELDS[w.type][0]})"
        )
    )
    w.say(f"r7 = r0; if r0 == 0 goto {w.skip}" if not w.oops() else "r7 = r0")
    w.say(f"*(u64 *)(r7 + {w.near(size - 8)}) = 1")
    form = w.rng.randrange(5)
    if form == 0:
        w.say(f"r1 = *(u32 *)(r6 + {FIELDS[w.type][0]}); if r1 > 5 goto {on}")
        w.say("" if w.oops() else f"r1 = r7; r2 = 0; call 133; goto {w.skip}")
        w.say(f"{on}: r1 = r7; r2 = 0; call 132")
    elif form == 1:
        w.say(f"*(u64 *)(r10 - 8) = r7; r1 = *(u64 *)(r10 - 8); r2 = {w.pick((0, 1, 2))}; call 132")
    elif form == 2:
        w.say(f"r1 = r7; {f'r1 += {w.pick((0, 8))};' if w.oops() else ''} r2 = 0; call 132")
    else:
        w.say("" if w.oops() else "r1 = r7; r2 = 0; call 133")
    if w.oops():
        w.say(w.pick(("r0 = *(u64 *)(r7 + 0)", "r1 = r7; r2 = 0; call 133", "r0 = *(u64 *)(r10 - 8)")))


@piece(("xdp", "tc", "cgroup_skb"), 3)
def sockets(w: Writer) -> None:
    """Sockets looked up, tested, read, released."""
    helper = w.pick((84, 85, 99))
    for index in range(2):
        if not w.oops():
            w.say(f"*(u64 *)(r10 {-16 + 8 * index}) = 0")
    w.say(
        f"r1 = r6; r2 = r10; r2 += -16; r3 = {w.pick((12, 12, w.near(12)))}; r4 = -1; r5 = 0; call {helper}; r7 = r0"
    )
    w.null_test("r7")
    for _ in range(w.rng.randrange(3)):
        w.say(
            w.pick(
                (
                    f"r0 = *(u32 *)(r7 + {w.pick((4, 8, 12, 16, 24, 44))})",
                    f"r0 = *(u{w.pick((8, 16, 32, 64))} *)(r7 + {w.pick((4, 24, 26, 40, 48, 72, 76, 80))})"
                    if w.oops()
                    else "r0 = *(u32 *)(r7 + 24)",
                    "*(u32 *)(r7 + 16) = 1" if w.oops() else f"r0 = *(u32 *)(r7 + {w.pick((4, 8, 12))})",
                    f"r1 = r7; call 96; if r0 == 0 goto L_rel; r1 = *(u32 *)(r0 + {w.pick((0, 4, 8))}); L_rel: r0 = 0".replace(
                        "L_rel", w.label()
                    ),
                )
            )
        )
    if not w.oops():
        w.say(f"r1 = r7; {'r1 = r0;' if w.oops() else ''} call 86")
    if w.oops():
        w.say(w.pick(("r0 = *(u32 *)(r7 + 4)", "r1 = r7; call 86")))


@piece(("tc", "cgroup_skb"), 2)
def own_socket(w: Writer) -> None:
    """The socket that the context has."""
    w.say("r7 = *(u64 *)(r6 + 168)")
    if not w.oops():
        w.say(f"if r7 == 0 goto {w.skip}")
    form = w.rng.randrange(3)
    if form == 0:
        w.say(f"r0 = *(u32 *)(r7 + {w.pick((4, 8, 12, 0, 80))})")
    elif form == 1:
        w.say("r1 = r7; call 95; r7 = r0")
        w.null_test("r0")
        w.say(f"r0 = *(u32 *)(r7 + {w.pick((4, 8, 12, 0, 16))})")
    else:
        w.say("r1 = r7; call 96; r8 = r0")
        w.null_test("r0")
        w.say(f"r0 = *(u32 *)(r8 + {w.near(0)})")


@piece(weight=3)
def locks(w: Writer) -> None:
    """Spin locks: taken and given back, on all ways or not, with calls or exits between."""
    if w.type not in _LOCKING and not w.oops():
        return
    name = w.pick(("locked", "locked_hash"))
    w.key(name, 4)
    w.say(f"r1 = map[{name}]; call 1")
    w.null_test("r0")
    w.say(f"r7 = r0; r1 = r7; {f'r1 += {w.pick((4, 8))};' if w.oops() else ''} call 93")
    w.say(w.pick(("r0 = *(u64 *)(r7 + 8); r0 += 1; *(u64 *)(r7 + 8) = r0", "*(u32 *)(r7 + 4) = 1", "r8 = 1")))
    if w.oops():
        w.say(
            w.pick(
                (
                    "call 5",
                    f"r1 = *(u32 *)(r7 + 4); if r1 > 3 goto {w.skip}",
                    "*(u32 *)(r7 + 0) = 1",
                    "r1 = r7; call 93",
                    "r0 = 0; exit",
                    "r0 = *(u32 *)(r7 + 0)",
                )
            )
        )
    if not w.oops():
        w.say("r1 = r7; call 94")
    if w.chance(0.3):
        w.say(f"r0 = *(u32 *)(r7 + {w.near(4)})")


@piece(weight=1)
def timers(w: Writer) -> None:
    """A timer, set up with a callback."""
    if w.type not in _LOCKING and not w.oops():
        return
    callback = w.function(
        "f_timer", f"r0 = *(u64 *)(r3 + {w.near(16)}); r0 = {w.pick((0, 0, 0, 1 if w.oops() else 0))}; exit"
    )
    w.say("*(u32 *)(r10 - 4) = 1; r2 = r10; r2 += -4; r1 = map[timed]; call 1")
    w.null_test("r0")
    other = "timed" if not w.oops() else "array"
    w.say(
        f"r7 = r0; r1 = r7; r2 = map[{other}]; r3 = 1; call 169; r1 = r7; r2 = subprog[{callback}]; call 170; r1 = r7; r2 = 1000; r3 = 0; call 171"
    )


# -- functions ---------------------------------------------------------------------------------------


@piece(PACKETS, 3)
def functions_of_packets(w: Writer) -> None:
    """A packet's pointers given to a function, which tests them, or gets them tested."""
    data, end, _ = DATA[w.type]
    size = w.pick((4, 14, 20))
    if w.chance(0.5):
        called = w.function(
            "f_in",
            f"r3 = r1; r3 += {w.near(size)}; r0 = 0; if r3 > r2 goto +1; r0 = *(u8 *)(r1 + {size - 1}); exit",
        )
        w.say(f"r1 = *(u32 *)(r6 + {data}); r2 = *(u32 *)(r6 + {end}); call {called}")
    else:
        w.packet("r7", size)
        called = w.function("f_on", f"r0 = *(u8 *)(r1 + {w.near(size - 1)}); exit")
        w.say(f"r1 = r7; call {called}")
    w.say(w.pick(("r7 = r0", "r1 = r0", "r7 = r1" if w.oops() else "r7 = r0; r7 += 1")))


@piece(weight=4)
def functions(w: Writer) -> None:
    """Static functions that get numbers, memory, the frame of who calls."""
    form = w.rng.randrange(6)
    if form == 0:
        called = w.function("f_sum", f"r0 = r1; r0 += r2; {'r0 = r3;' if w.oops() else ''} exit")
        w.say(f"r1 = 1; r2 = *(u32 *)(r6 + {w.pick(FIELDS[w.type])}); call {called}; r7 = r0")
    elif form == 1:
        memory = w.memory("r7")
        size = w.pick([size for size in (1, 2, 4, 8) if size <= memory.size])
        letter = LETTERS[size]
        what = w.pick(
            ([f"r0 = *({letter} *)(r1 + 0)"] if memory.readable else [])
            + ([f"*({letter} *)(r1 + 0) = 1; r0 = 0"] if memory.writable else [])
        )
        w.say(f"r1 = r7; call {w.function('f_mem', f'{what}; exit')}; {memory.finish}")
    elif form == 2:
        called = w.function(
            "f_frame",
            f"*(u64 *)(r1 + {w.near(0)}) = 7; r0 = 0; exit"
            if w.chance(0.6)
            else "*(u64 *)(r10 - 8) = r1; r2 = *(u64 *)(r10 - 8); r0 = *(u64 *)(r2 + 0); exit",
        )
        w.say("*(u64 *)(r10 - 16) = 1" if not w.oops() else "")
        w.say(f"r1 = r10; r1 += -16; call {called}; r0 = *(u64 *)(r10 - 16)")
    elif form == 3:
        called = w.function("f_bound", f"r0 = r1; {'r0 &= 31;' if not w.oops() else ''} exit")
        w.number("r1")
        w.say(f"call {called}; r7 = map[single][0]+0; r7 += r0; r0 = *(u8 *)(r7 + {w.near(32)})")
    elif form == 4:
        inner = w.function(
            "f_deep",
            f"*(u64 *)(r10 - {w.pick((8, 64, 256))}) = 1; r0 = *(u64 *)(r10 - 8); r0 = 1; exit"
            if w.oops()
            else f"*(u64 *)(r10 - {w.pick((8, 64, 200))}) = 1; r0 = 1; exit",
        )
        outer = w.function(
            "f_mid",
            f"*(u64 *)(r10 - {w.pick((8, 128, 256 if w.oops() else 16))}) = 1; call {inner}; r0 += 1; exit",
        )
        w.say(f"r7 = 3; call {outer}; r0 += r7; {'r0 = r6' if w.oops() else ''}")
    else:
        called = w.function(
            "f_keep",
            w.pick(
                (
                    "r6 = 1; r0 = r6; exit",
                    "r0 = r6; exit" if w.oops() else "r0 = 2; exit",
                    "if r1 > 5 goto +2; r0 = 1; exit; r0 = 2; exit",
                )
            ),
        )
        w.say(f"r7 = 4; r1 = 9; call {called}; r7 += r0; r0 = *(u32 *)(r6 + {FIELDS[w.type][0]})")
        if w.oops():
            w.say(f"r1 = 5; call {called}; r0 = r1")


@piece(weight=2)
def global_functions(w: Writer) -> None:
    """Functions that are judged by their types alone."""
    form = w.rng.randrange(4)
    if form == 0:
        w.function(
            "g_number",
            w.pick(
                (
                    "r0 = r1; exit",
                    "r1 &= 31; r2 = map[single][0]+0; r2 += r1; r0 = *(u8 *)(r2 + 0); r0 = 0; exit",
                    "r0 = 5; exit",
                )
            ),
        )
        w.say(f"r1 = {w.pick((5, 5, 'r10' if w.oops() else 7))}; call g_number; r0 &= 1")
    elif form == 1:
        w.function(
            "g_word",
            f"r0 = 0; {'if r1 == 0 goto +1;' if not w.oops() else ''} r0 = *(u32 *)(r1 + {w.near(0)}); exit",
        )
        w.say("*(u64 *)(r10 - 8) = 3" if not w.oops() else "")
        w.say(f"r1 = r10; r1 += -8; {'r1 = 0;' if w.chance(0.2) else ''} call g_word")
    elif form == 2:
        w.function(
            "g_pair",
            f"r0 = 0; if r1 == 0 goto +2; r2 = *(u64 *)(r1 + {w.near(8)}); *(u64 *)(r1 + 0) = 1; exit",
        )
        memory = w.memory("r7", ("map", "stack"))
        w.say(f"r1 = r7; call g_pair; {memory.finish}")
    else:
        name = "g_xdp" if w.type == "xdp" else "g_skb"
        if w.oops():
            name = w.pick(("g_xdp", "g_skb"))
        offset = w.pick(FIELDS[w.type])
        w.function(name, f"r0 = *(u32 *)(r1 + {offset}); exit")
        w.say(f"r1 = r6; call {name}; r0 &= 1")


@piece(weight=3)
def callbacks(w: Writer) -> None:
    """bpf_loop and bpf_for_each_map_elem."""
    ret = w.pick(
        (
            "r0 = 0",
            "r0 = 0",
            "r0 = 1",
            "r0 = 2" if w.oops() else "r0 = 0",
            "r0 = r1" if w.oops() else "r0 = 1",
        )
    )
    if w.chance(0.6):
        body = w.pick(
            (
                f"{ret}; exit",
                f"r3 = *(u64 *)(r2 + {w.near(0)}); r3 += 1; *(u64 *)(r2 + 0) = r3; {ret}; exit",
                f"r1 &= 31; r3 = map[single][0]+0; r3 += r1; *(u8 *)(r3 + 0) = 1; {ret}; exit"
                if not w.oops()
                else f"r3 = map[single][0]+0; r3 += r1; *(u8 *)(r3 + 0) = 1; {ret}; exit",
            )
        )
        called = w.function("f_loop", body)
        w.say("*(u64 *)(r10 - 8) = 0" if not w.oops() else "")
        w.say(
            f"r1 = {w.pick((1, 10, 1000))}; r2 = subprog[{called}]; r3 = r10; r3 += -8; r4 = {0 if not w.oops() else 1}; call 181; r0 = *(u64 *)(r10 - 8)"
        )
    else:
        name, size, _ = w.pick(
            (
                ("array", 48, 4),
                ("hash", 16, 8),
                ("percpu_array", 24, 4),
                ("lru", 32, 4),
                ("trie", 8, 8) if w.oops() else ("array", 48, 4),
            )
        )
        called = w.function(
            "f_each",
            w.pick(
                (
                    f"r0 = *(u32 *)(r3 + {w.near(size - 8)}); {ret}; exit",
                    f"r0 = *(u32 *)(r2 + 0); {ret}; exit",
                    f"*(u64 *)(r4 + 0) = 1; {ret}; exit",
                    "*(u32 *)(r2 + 0) = 1; r0 = 0; exit"
                    if w.oops()
                    else f"*(u32 *)(r3 + 4) = 1; {ret}; exit",
                )
            ),
        )
        w.say("*(u64 *)(r10 - 8) = 0")
        w.say(f"r1 = map[{name}]; r2 = subprog[{called}]; r3 = r10; r3 += -8; r4 = 0; call 164")


# -- loops -------------------------------------------------------------------------------------------


@piece(weight=5)
def loops(w: Writer) -> None:
    """Loops with a counter: up, down, by more than one, to a limit that is known or not."""
    again, done = w.label(), w.label()
    count = w.pick((3, 8, 10, 60))
    step = w.pick((1, 1, 2, 4))
    form = w.rng.randrange(7)
    if form == 0:
        w.say(
            f"r7 = 0; {again}: r7 += {step}; if r7 {w.pick(('<', '!=', '<=', 's<')) if count % step == 0 or w.oops() else '<'} {count} goto {again}"
        )
    elif form == 1:
        w.say(
            f"r7 = {count}; {again}: r7 += {-step if count % step == 0 or w.oops() else -1}; if r7 {w.pick(('!=', '>', 's>'))} 0 goto {again}"
        )
    elif form == 2:
        w.bounded("r8", count)
        w.say(f"r7 = 0; {again}: if r7 >= r8 goto {done}; r7 += 1; goto {again}; {done}: r0 = r7")
    elif form == 3:
        w.number("r8")
        limit = "" if w.oops() else f"if r7 >= {count} goto {done};"
        w.say(f"r7 = 0; {again}: {limit} if r7 == r8 goto {done}; r7 += 1; goto {again}; {done}: r0 = r7")
    elif form == 4:
        inner = w.label()
        w.say(
            f"r7 = 0; {again}: r8 = 0; {inner}: r8 += 1; if r8 < 5 goto {inner}; r7 += 1; if r7 < 6 goto {again}"
        )
    elif form == 5:
        w.say(
            f"r7 = 0; r8 = map[single][0]+0; {again}: r9 = r8; r9 += r7; *(u8 *)(r9 + 0) = 1; r7 += {step}; if r7 < {w.near(64) if step == 1 else 60} goto {again}"
        )
    elif w.oops():
        w.say(
            w.pick(
                (
                    f"r7 = 0; {again}: r7 += 1; goto {again}",
                    f"{again}: if r6 != 0 goto {again}",
                    f"r7 = 1; {again}: r7 <<= 1; if r7 != 3 goto {again}",
                    f"{again}: call 7; if r0 > 5 goto {again}",
                    f"r7 = 5; {again}: r7 ^= 1; if r7 != 0 goto {again}",
                )
            )
        )
    else:
        w.say(
            f"{again}: call 7; r7 = r0; {'may_goto ' + done + '; ' if w.chance(0.8) else ''}if r7 > 5 goto {again}; {done}: r0 = 0"
        )


@piece(weight=2)
def may_gotos(w: Writer) -> None:
    """Loops that may_goto ends."""
    again, done = w.label(), w.label()
    w.say(f"r7 = 0; r8 = map[single][0]+0; {again}: may_goto {done}")
    if w.chance(0.5):
        w.say(f"r7 += 1; goto {again}; {done}: r0 = 0")
    else:
        bound = f"if r7 >= {w.near(64)} goto {done};" if not w.oops() else ""
        w.say(f"{bound} r9 = r8; r9 += r7; r0 = *(u8 *)(r9 + 0); r7 += 1; goto {again}; {done}: r0 = 0")


@piece(weight=2)
def loops_of_numbers(w: Writer) -> None:
    """Sums over a stack of words, which grows from what was there before."""
    words = w.pick((2, 4, 6))
    for index in range(words):
        if not w.oops():
            w.say(f"*(u64 *)(r10 {-8 * (index + 1)}) = {index}")
    again = w.label()
    w.say(
        f"r7 = 0; r8 = r10; r8 += {-8 * words}; r9 = 0; {again}: r1 = *(u64 *)(r8 + 0); r9 += r1; r8 += 8; r7 += 1; if r7 < {w.near(words)} goto {again}; r0 = r9"
    )


# -- oddities ----------------------------------------------------------------------------------------


@piece(weight=3)
def odd(w: Writer) -> None:
    """What is refused, or taken, for other reasons."""
    if w.oops():
        w.say(w.pick((
            "r10 = 5", "r10 += 8", "r0 = r9; r9 = r4", "r0 = *(u64 *)(r10 + 0)", "r1 = 5; r1 /= 0", "w1 = 1; w1 %= 0", "r1 = 1; r1 <<= 64", "w1 = 1; w1 >>= 32",
            "goto +1000", "if r6 == 1 goto -1000", "r0 = 0; exit; r0 = 1", "r5 = r0", "r1 = 0; r0 = *(u64 *)(r1 + 0)", "r1 = 4096; r0 = *(u64 *)(r1 + 0)",
            "r1 = 5 ll; *(u8 *)(r1 + 0) = 1", "callx r1", "call 0", "r1 = r10; r1 += -8; exit", ".8byte 0xff", "goto -1", "r1 = btf[id:1][fd:0]", "call kfunc 1",
        )))  # fmt: skip
    else:
        on = w.label()
        w.say(w.pick((
            f"r1 = 5; if r1 == 5 goto {on}; r0 = *(u64 *)(r1 + 0); {on}: r0 = 0", f"r1 = 9; if w1 s> 3 goto {on}; r10 = 1; {on}: r0 = 0",
            f"r1 = *(u32 *)(r6 + {FIELDS[w.type][0]}); r1 &= 3; if r1 > 3 goto +1; goto {on}; r0 = *(u64 *)(r1 + 0); {on}: r0 = 0",
            "r1 = 0; r1 -= 1; r1 >>= 63; r2 = map[small][0]+0" if w.oops() else "r1 = 1", "r0 = 0; r1 = 7; r1 s/= -1", f"goto {on}; {on}: r1 = 2", "r1 = 2; r1 %= r1",
            "r1 = 4294967296 ll; w1 = w1; r2 = map[single][0]+0; r2 += r1; r0 = *(u8 *)(r2 + 63)",
        )))  # fmt: skip


@piece(weight=1)
def early_exit(w: Writer) -> None:
    """An exit in the middle, with a result of any kind."""
    on = w.label()
    w.say(f"r1 = *(u32 *)(r6 + {FIELDS[w.type][0]}); if r1 > 2 goto {on}")
    w.say(
        w.pick(
            (
                "r0 = 1; exit",
                "r0 = 0; exit",
                "r0 = r1; r0 &= 1; exit",
                "r0 = r6; exit" if w.oops() else "r0 = 1; exit",
                "exit" if w.oops() else "r0 = 0; exit",
                "r0 = 7; exit" if w.oops() else "r0 = 1; exit",
            )
        )
    )
    w.say(f"{on}: r0 = 0")


__all__ = ["VALUES"]
