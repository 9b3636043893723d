"""Helpers of sock_ops programs: options of TCP headers (net/core/filter.c, bpf_sock_ops_*_hdr_opt)."""

from __future__ import annotations

import errno

from ebpfjit.bits import W32
from ebpfjit.errors import ExecutionError
from ebpfjit.runtime import memory
from ebpfjit.runtime.contexts.sock_ops import HEADER_LENGTH, TCP_HEADER_SIZE, WRITE_HEADER, SockOpsContext
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

END, PADDING = 0, 1
"""TCPOPT_EOL and TCPOPT_NOP, of one byte each."""
EXPERIMENTAL = (253, 254)
"""Kinds that a magic number of 2 or 4 bytes tells apart (RFC 6994)."""
FROM_SYN = 1
"""BPF_LOAD_HDR_OPT_TCP_SYN."""


def sock_ops_of(world: World, address: int, name: str) -> SockOpsContext:
    """Return the run's bpf_sock_ops, which `address` must be. Raises ExecutionError."""
    context = world.context
    if not isinstance(context, SockOpsContext):
        raise ExecutionError(f"{name} is for sock_ops programs (sections 'sockops')")
    if address != context.start:
        raise ExecutionError(f"{name}: r1 is {address:#x}, and the context is at {context.start:#x}")
    return context


class _Broken(Exception):  # noqa: N818 - carries a helper's result
    """Options that are no options from some place on."""


def _find(options: bytes, kind: int, magic: bytes) -> tuple[bytes | None, bool]:
    """Return an option (None: it is not there), and whether the options end before their bytes do."""
    at = 0
    while at < len(options):
        if options[at] == END:
            return None, True
        if options[at] == PADDING:
            at += 1
            continue
        size = options[at + 1] if at + 1 < len(options) else 0
        if not 2 <= size <= len(options) - at:
            raise _Broken
        if options[at] == kind:
            if len(magic) > size - 2:
                return None, False
            if options[at + 2 : at + 2 + len(magic)] == magic:
                return options[at : at + size], False
        at += size
    return None, False


def _options(context: SockOpsContext) -> bytes:
    return context.bytes_at(0, context.size)[TCP_HEADER_SIZE:]


@helper("bpf_load_hdr_opt", differs="of the header that context={'skb_data': ...} gives, or 'syn'")
def load_hdr_opt(world: World, context: int, option: int, size: int, flags: int) -> int:
    """Find an option of the kind, and magic number, at `option`, and copy it there; its size or -errno."""
    made, size = sock_ops_of(world, context, "bpf_load_hdr_opt"), W32.wrap(size)
    memory.check(option, size, "store")
    if not made.is_locked:
        return -errno.EOPNOTSUPP
    if size < 2 or flags & ~FROM_SYN:
        return -errno.EINVAL
    wanted = memory.read(option, min(size, 6))
    kind, length = wanted[:2]
    allowed = (4, 6) if kind in EXPERIMENTAL else (0,)
    if length > size or kind in (END, PADDING) or length not in allowed:
        return -errno.EINVAL
    if flags & FROM_SYN:
        if made.syn is None:
            return -errno.ENOENT
        options = made.syn[2][TCP_HEADER_SIZE:]
    elif made.payload is None or made.op == HEADER_LENGTH:
        return -errno.EPERM
    else:
        options = _options(made)
    try:
        found, _ = _find(options, kind, wanted[2:length])
    except _Broken:
        return -errno.EFAULT
    if found is None:
        return -errno.ENOMSG
    memory.write(option, found[:size])
    return len(found) if len(found) <= size else -errno.ENOSPC


@helper("bpf_store_hdr_opt", ends_rights=True, differs="of the header that context={'skb_data': ...} gives")
def store_hdr_opt(world: World, context: int, option: int, size: int, flags: int) -> int:
    """Put an option behind the header that is being written; 0 or a negative error number."""
    made, size = sock_ops_of(world, context, "bpf_store_hdr_opt"), W32.wrap(size)
    memory.check(option, size, "load")
    if made.op != WRITE_HEADER:
        return -errno.EPERM
    if made.payload is None:
        raise ExecutionError(
            "bpf_store_hdr_opt: nobody says which header is being written; "
            "give context={'op': 15, 'skb_data': bytes of a TCP header}"
        )
    if size < 2 or flags:
        return -errno.EINVAL
    kind, length = memory.read(option, 2)
    if length > size or kind in (END, PADDING):
        return -errno.EINVAL
    if length > made.remaining:
        return -errno.ENOSPC
    if kind in EXPERIMENTAL and length < 4:
        return -errno.EINVAL
    content = memory.read(option, length)
    try:
        found, ended = _find(_options(made), kind, content[2:4] if kind in EXPERIMENTAL else b"")
    except _Broken:
        return -errno.EFAULT
    if found is not None:
        return -errno.EEXIST
    if ended:
        return -errno.ENOSPC
    made.append(content)
    return 0


@helper("bpf_reserve_hdr_opt", differs="counts from context={'remaining_opt_len': ...}, 40 bytes by default")
def reserve_hdr_opt(world: World, context: int, size: int, flags: int) -> int:
    """Keep room in the header for options that will be stored; 0 or a negative error number."""
    made, size = sock_ops_of(world, context, "bpf_reserve_hdr_opt"), W32.wrap(size)
    if made.op != HEADER_LENGTH:
        return -errno.EPERM
    if flags or size < 2:
        return -errno.EINVAL
    if size > made.remaining:
        return -errno.ENOSPC
    made.remaining -= size
    return 0
