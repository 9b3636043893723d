"""Helpers of sk_msg programs: which bytes of a message they see, and what is in it.

A message is in one piece here, so that a program sees all of it after bpf_msg_push_data and bpf_msg_pop_data.
"""

from __future__ import annotations

import errno

from ebpfjit.bits import W32
from ebpfjit.errors import ExecutionError
from ebpfjit.runtime.contexts.message import MessageContext
from ebpfjit.runtime.helpers.table import helper
from ebpfjit.runtime.world import World

_IN_ONE_PIECE = "messages are in one piece, all of which is seen afterwards"


def _message(world: World, address: int, name: str) -> MessageContext:
    """Return the run's sk_msg_md, which `address` must be. Raises ExecutionError."""
    context = world.context
    if not isinstance(context, MessageContext):
        raise ExecutionError(f"{name} needs a struct sk_msg_md as context; the program's type has none")
    if address != context.start:
        raise ExecutionError(f"{name}: r1 is {address:#x}, and the context is at {context.start:#x}")
    return context


@helper("bpf_msg_apply_bytes", differs="is told in Result.context, and asks for nothing")
def msg_apply_bytes(world: World, context: int, size: int) -> int:
    """Say for how many bytes the verdict is; return 0."""
    _message(world, context, "bpf_msg_apply_bytes").told["apply_bytes"] = W32.wrap(size)
    return 0


@helper("bpf_msg_cork_bytes", differs="is told in Result.context, and waits for nothing")
def msg_cork_bytes(world: World, context: int, size: int) -> int:
    """Say how many bytes are to come before the program is asked again; return 0."""
    _message(world, context, "bpf_msg_cork_bytes").told["cork_bytes"] = W32.wrap(size)
    return 0


@helper("bpf_msg_pull_data", ends_rights=True)
def msg_pull_data(world: World, context: int, start: int, end: int, flags: int) -> int:
    """Let the program see the bytes from `start` to `end` of the message; 0 or -EINVAL."""
    message = _message(world, context, "bpf_msg_pull_data")
    start, end = W32.wrap(start), W32.wrap(end)
    if flags or end <= start or end > message.size:
        return -errno.EINVAL
    message.see(start, end)
    return 0


@helper("bpf_msg_push_data", ends_rights=True, differs=_IN_ONE_PIECE)
def msg_push_data(world: World, context: int, start: int, size: int, flags: int) -> int:
    """Put zeros into the message at `start`; 0 or a negative error number."""
    message = _message(world, context, "bpf_msg_push_data")
    start, size = W32.wrap(start), W32.wrap(size)
    if flags:
        return -errno.EINVAL
    if not size:
        return 0
    if start > message.size:
        return -errno.EINVAL
    return 0 if message.splice(start, 0, size) else -errno.ENOMEM


@helper("bpf_msg_pop_data", ends_rights=True, differs=_IN_ONE_PIECE)
def msg_pop_data(world: World, context: int, start: int, size: int, flags: int) -> int:
    """Take bytes out of the message; 0 or -EINVAL where they are not in it."""
    message = _message(world, context, "bpf_msg_pop_data")
    start, size = W32.wrap(start), W32.wrap(size)
    if flags:
        return -errno.EINVAL
    if not size:
        return 0
    if start >= message.size or start + size > message.size:
        return -errno.EINVAL
    message.splice(start, size, 0)
    return 0
