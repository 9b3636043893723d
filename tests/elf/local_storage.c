/* Values that belong to sockets, tasks, inodes and cgroups.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c local_storage.c -o local_storage.o
 *     llvm-strip --strip-debug local_storage.o
 */

#include "bpf_support.h"

#define NO_PREALLOC 1
#define CREATE 1

struct seen {
    u64 count;
    u32 first;
    u32 last;
};

#define STORAGE(name, kind)                                        \
    struct {                                                       \
        __uint(type, kind);                                        \
        __uint(map_flags, NO_PREALLOC);                            \
        __type(key, int);                                          \
        __type(value, struct seen);                                \
    } name SEC(".maps")

STORAGE(by_socket, 24);
STORAGE(by_inode, 28);
STORAGE(by_task, 29);
STORAGE(by_cgroup, 32);

struct bpf_spin_lock { u32 val; };
struct locked { struct bpf_spin_lock lock; u32 count; };
struct { __uint(type, 29); __uint(map_flags, NO_PREALLOC); __type(key, int); __type(value, struct locked); }
    under_lock SEC(".maps");

char _license[] SEC("license") = "GPL";

struct bpf_sock;
struct __sk_buff { u32 before[42]; struct bpf_sock *sk; };
struct inode { u64 i_ino; } __attribute__((preserve_access_index));
struct file { struct inode *f_inode; } __attribute__((preserve_access_index));
struct cgroup { int level; } __attribute__((preserve_access_index));
struct css_set { struct cgroup *dfl_cgrp; } __attribute__((preserve_access_index));
struct task_struct { int pid; int tgid; struct css_set *cgroups; } __attribute__((preserve_access_index));

static struct bpf_sock *(*const fullsock)(struct bpf_sock *) = (void *)95;
static void *(*const sk_get)(void *, struct bpf_sock *, void *, u64) = (void *)107;
static long (*const sk_delete)(void *, struct bpf_sock *) = (void *)108;
static void *(*const inode_get)(void *, struct inode *, void *, u64) = (void *)145;
static long (*const inode_delete)(void *, struct inode *) = (void *)146;
static void *(*const task_get)(void *, struct task_struct *, void *, u64) = (void *)156;
static long (*const task_delete)(void *, struct task_struct *) = (void *)157;
static struct task_struct *(*const current)(void) = (void *)158;
static void *(*const cgrp_get)(void *, struct cgroup *, void *, u64) = (void *)210;
static long (*const cgrp_delete)(void *, struct cgroup *) = (void *)211;
static void (*const lock)(void *) = (void *)93;
static void (*const unlock)(void *) = (void *)94;

static __attribute__((always_inline)) int counted(struct seen *seen)
{
    if (!seen)
        return -1;
    seen->last = seen->first + ++seen->count;
    return seen->last;
}

/* Found, made with a first value, made of zeros, deleted; told by the digits of a number. */
#define ALL(get, delete, map, owner)                               \
    struct seen start = {.count = 0, .first = 40, .last = 0};      \
    int result = 0;                                                \
    struct seen *seen = get(&map, owner, 0, 0);                    \
    result = seen ? 1 : 0;                                         \
    seen = get(&map, owner, &start, 2);                            \
    result = result * 10 + (seen ? 1 : 0);                         \
    result = result * 10 + (delete(&map, owner) == -2);            \
    seen = get(&map, owner, &start, CREATE);                       \
    if (!seen)                                                     \
        return -1;                                                 \
    seen->count++;                                                 \
    result = result * 100 + seen->first + seen->count;             \
    start.first = 7;                                               \
    seen = get(&map, owner, &start, CREATE);                       \
    if (!seen)                                                     \
        return -2;                                                 \
    result = result * 100 + seen->first + seen->count;             \
    result = result * 10 + (delete(&map, owner) == 0);             \
    seen = get(&map, owner, 0, CREATE);                            \
    if (!seen)                                                     \
        return -3;                                                 \
    result = result * 10 + seen->first + seen->count;              \
    return result * 10 + (delete(&map, owner) == 0);

SEC("tc") int socket_all(struct __sk_buff *skb)
{
    struct bpf_sock *sk = skb->sk;

    if (!sk || !(sk = fullsock(sk)))
        return -4;
    ALL(sk_get, sk_delete, by_socket, sk)
}

SEC("raw_tp") int task_all(void *context)
{
    struct task_struct *task = current();
    ALL(task_get, task_delete, by_task, task)
}

SEC("raw_tp") int cgroup_all(void *context)
{
    struct task_struct *task = current();
    ALL(cgrp_get, cgrp_delete, by_cgroup, task->cgroups->dfl_cgrp)
}

SEC("lsm/file_open") int inode_all(u64 *context)
{
    struct file *file = (void *)context[0];
    ALL(inode_get, inode_delete, by_inode, file->f_inode)
}

SEC("tc") int socket_counts(struct __sk_buff *skb)
{
    struct bpf_sock *sk = skb->sk;

    if (!sk || !(sk = fullsock(sk)))
        return -4;
    return counted(sk_get(&by_socket, sk, 0, CREATE));
}

SEC("raw_tp") int task_counts(void *context)
{
    return counted(task_get(&by_task, current(), 0, CREATE));
}

SEC("raw_tp") int cgroup_counts(void *context)
{
    struct task_struct *task = current();
    struct cgroup *cgroup = task->cgroups->dfl_cgrp;

    return cgroup->level < 0 ? -5 : counted(cgrp_get(&by_cgroup, cgroup, 0, CREATE));
}

SEC("lsm/file_open") int inode_counts(u64 *context)
{
    struct file *file = (void *)context[0];
    struct inode *inode = file->f_inode;

    return inode->i_ino == 99 ? -5 : counted(inode_get(&by_inode, inode, 0, CREATE));
}

SEC("sockops") int hook_counts(u64 *context)
{
    struct bpf_sock *sk = (void *)context[23];

    return sk ? counted(sk_get(&by_socket, sk, 0, CREATE)) : -4;
}

SEC("tc") int locks(void *context)
{
    struct locked *value = task_get(&under_lock, current(), 0, CREATE);
    int result;

    if (!value)
        return -1;
    lock(&value->lock);
    result = ++value->count;
    unlock(&value->lock);
    return result;
}
