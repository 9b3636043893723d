"""Random programs for verdicts: some pieces one after the other, or one of them changed in one place.

Half of them are written as they should be (`wrong` is small); of the others something is left out, off by
one, swapped.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from ebpfjit.difftest.verdicts import calls, mutate, ways
from ebpfjit.difftest.verdicts.pieces import PIECES
from ebpfjit.difftest.verdicts.sample import Sample
from ebpfjit.difftest.verdicts.writer import FIRST, TYPES, Writer

assert calls  # its pieces are in PIECES now
assert ways

SECTIONS = {
    "xdp": "xdp",
    "tc": "tc",
    "socket_filter": "socket",
    "cgroup_skb": "cgroup_skb/ingress",
    "sk_skb": "sk_skb/stream_verdict",
    "lwt_xmit": "lwt_xmit",
    "kprobe": "kprobe/vfs_read",
    "tracepoint": "tracepoint/syscalls/sys_enter_read",
    "raw_tracepoint": "raw_tracepoint/sched_switch",
    "perf_event": "perf_event",
    "cgroup_sock_addr": "cgroup/connect4",
    "cgroup_device": "cgroup/dev",
    "cgroup_sysctl": "cgroup/sysctl",
    "cgroup_sockopt": "cgroup/getsockopt",
    "sock_ops": "sockops",
    "sk_lookup": "sk_lookup",
    "sk_msg": "sk_msg",
    "sk_reuseport": "sk_reuseport",
}
"""What programs are attached to, by type: fields and results depend on it."""

FIRST_SHARE = 0.6
"""The share of programs of the types that come first; the others are of all types."""
MOST_PIECES = 4
WRONG = (0.0, 0.0, 0.0, 0.04, 0.15)
"""How often each choice is wrong, of one program or another."""
_ANY_RESULT = ("xdp", "tc", "socket_filter")
MUTATED = 0.3
"""The share of programs that are changed in one place or two."""


UNPRIVILEGED = ("socket_filter", "cgroup_skb")
"""The types that users without capabilities may load, where they may load any."""


def text(rng: random.Random, types: Sequence[str] = ()) -> tuple[str, str]:
    """Return a type and the text of a random program of it; `types`: of one of these."""
    type_ = rng.choice(types or (FIRST if rng.random() < FIRST_SHARE else TYPES))
    w = Writer(rng, type_, rng.choice(WRONG))
    w.say("r6 = r1")
    known = [(function, weight) for function, types, weight in PIECES.values() if type_ in types]
    pieces, weights = zip(*known, strict=True)
    for write in rng.choices(pieces, weights, k=rng.randint(1, MOST_PIECES)):
        w.skip = w.label() if rng.random() < 0.6 else "out"
        write(w)
        if w.skip != "out":
            w.say(f"{w.skip}:")
    result = rng.choice((0, 1, 2) if type_ in _ANY_RESULT and rng.random() < 0.9 else (0, 1))
    w.say(f"out: r0 = {result}; exit")
    return type_, "\n".join([*w.lines, *w.functions, ""])


def sample(seed: int, types: Sequence[str] = ()) -> Sample:
    """Return the random program of a seed, of one of these types where some are given."""
    rng = random.Random(seed)
    type_, code = text(rng, types)
    made = Sample.of_text(type_, code, SECTIONS[type_])
    return mutate.changed(rng, made) if rng.random() < MUTATED else made


def samples(seed: int, count: int) -> Iterator[Sample]:
    """Yield random programs, each of a seed of its own: `seed`, and those behind it."""
    for number in range(seed, seed + count):
        yield sample(number)
