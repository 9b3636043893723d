"""Hooks of Linux's security modules: which a program may be attached to, and what it may return there.

    lsm/file_open        an error, or 0
    lsm/file_release     anything: the hook returns nothing
    lsm/getprocattr      refused

Facts: include/linux/lsm_hook_defs.h, kernel/bpf/bpf_lsm.c (bpf_lsm_verify_prog,
bpf_lsm_get_retval_range) of Linux 6.18.
"""

from __future__ import annotations

from collections.abc import Iterator

from ebpfjit.program import Program
from ebpfjit.runtime.attach import attachment
from ebpfjit.runtime.helpers.licenses import is_compatible
from ebpfjit.verifier.structure import Error

BPF_LSM_MAC, BPF_LSM_CGROUP = 27, 43
_MAX_ERRNO = 4095

_DISABLED = frozenset({
    "vm_enough_memory", "inode_need_killpriv", "inode_getsecurity", "inode_listsecurity",
    "inode_copy_up_xattr", "getselfattr", "getprocattr", "setprocattr", "key_getsecurity",
    "audit_rule_match", "xfrm_decode_session", "ismaclabel",
})  # fmt: skip
"""Hooks whose results are no errors, or which fill in what they are given."""

UNTRUSTED = frozenset({
    "bpf_map_free", "bpf_prog_free", "file_alloc_security", "file_free_security", "sk_alloc_security",
    "sk_free_security", "task_free",
})  # fmt: skip
"""Hooks whose objects are not whole yet, or not any more."""

_BOOL = frozenset({"audit_rule_known", "inode_xattr_skipcap"})

_VOID = frozenset({
    "audit_rule_free", "backing_file_free", "bdev_free_security", "bpf_map_free", "bpf_prog_free",
    "bpf_token_free", "bprm_committed_creds", "bprm_committing_creds", "cred_free", "cred_getlsmprop",
    "cred_getsecid", "cred_transfer", "current_getlsmprop_subj", "current_getsecid_subj", "d_instantiate",
    "file_free_security", "file_release", "file_set_fowner", "inet_conn_established", "inet_csk_clone",
    "initramfs_populated", "inode_free_security", "inode_free_security_rcu", "inode_getlsmprop",
    "inode_getsecid", "inode_invalidate_secctx", "inode_post_create_tmpfile", "inode_post_remove_acl",
    "inode_post_removexattr", "inode_post_set_acl", "inode_post_setattr", "inode_post_setxattr",
    "ipc_getlsmprop", "ipc_getsecid", "key_post_create_or_update", "msg_msg_free_security",
    "msg_queue_free_security", "path_post_mknod", "release_secctx", "req_classify_flow", "sb_delete",
    "sb_free_mnt_opts", "sb_free_security", "sctp_sk_clone", "secmark_refcount_dec", "secmark_refcount_inc",
    "sem_free_security", "shm_free_security", "sk_clone_security", "sk_free_security", "sk_getsecid",
    "sock_graft", "task_free", "task_getlsmprop_obj", "task_getsecid_obj", "task_to_inode",
    "xfrm_policy_free_security", "xfrm_state_free_security",
})  # fmt: skip


def errors(program: Program) -> Iterator[Error]:
    """Return why no program may be attached to the hook that a program's section names."""
    hook = hook_of(program)
    if not hook:
        return
    if not is_compatible(program.license):
        yield 0, "call", "LSM programs must have a GPL compatible license", 'declare char LICENSE[] = "GPL"'
    if hook in _DISABLED:
        yield 0, "call", f"attach_btf_id points to disabled hook bpf_lsm_{hook}", "none may be attached"


def hook_of(program: Program) -> str:
    """Return the hook that a program of type "lsm" is attached to, "" where none is said."""
    if program.type != "lsm":
        return ""
    return attachment(program.type, program.section).target


def gives_nothing(hook: str, attach: int | None) -> bool:
    """True where nobody asks for the result of a program at a hook."""
    return attach != BPF_LSM_CGROUP and hook in _VOID


def result_range(hook: str, attach: int | None) -> tuple[int, int] | None:
    """Return the least and the greatest result, as s32, of programs of an attach type; None for any."""
    if attach == BPF_LSM_CGROUP:
        return (1, 1) if hook in _VOID else (0, 1)
    if hook in _VOID:
        return None
    return (0, 1) if hook in _BOOL else (-_MAX_ERRNO, 0)
