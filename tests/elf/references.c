/* References to tasks and cgroups, and the kernel's own context: structs as Linux has them, in part.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c references.c -o references.o
 *     llvm-strip --strip-debug references.o
 */
#include "bpf_support.h"

#define PARTLY __attribute__((preserve_access_index))
#define __kptr __attribute__((btf_type_tag("kptr")))

struct task_struct { int pid; int tgid; char comm[16]; } PARTLY;
struct kernfs_node { u64 id; } PARTLY;
struct cgroup { int level; struct kernfs_node *kn; struct cgroup *ancestors[2]; } PARTLY;
struct sk_buff { u32 len; } PARTLY;
struct __sk_buff { u32 len; };

extern struct task_struct *bpf_task_acquire(struct task_struct *task) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;
extern struct task_struct *bpf_task_from_pid(int pid) __ksym;
extern struct cgroup *bpf_cgroup_from_id(u64 id) __ksym;
extern struct cgroup *bpf_cgroup_ancestor(struct cgroup *cgroup, int level) __ksym;
extern void bpf_cgroup_release(struct cgroup *cgroup) __ksym;
extern void *bpf_cast_to_kern_ctx(void *context) __ksym;

static void *(*const bpf_kptr_xchg)(void *place, void *pointer) = (void *)194;

typedef struct task_struct kept_task; /* clang 14 loses a tag of a struct, not of a typedef */
struct slot { kept_task __kptr *task; };
struct { __uint(type, ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, struct slot); } slots SEC(".maps");

SEC("fentry/number_of_task") int number_of_task(u64 *arguments)
{
    struct task_struct *task = bpf_task_from_pid(arguments[0]);
    int pid;

    if (!task)
        return 0;
    pid = task->pid;
    bpf_task_release(task);
    return pid;
}

SEC("fentry/kept") int kept(u64 *arguments)
{
    struct task_struct *task = bpf_task_acquire((void *)arguments[0]), *old;
    u32 key = 0;
    struct slot *slot = bpf_map_lookup_elem(&slots, &key);

    if (!slot || !task)
        return 1;
    old = bpf_kptr_xchg(&slot->task, task);
    if (old)
        bpf_task_release(old);
    return 0;
}

SEC("fentry/taken_out") int taken_out(u64 *arguments)
{
    u32 key = 0;
    struct slot *slot = bpf_map_lookup_elem(&slots, &key);
    struct task_struct *task;
    int pid;

    if (!slot)
        return 1;
    task = bpf_kptr_xchg(&slot->task, 0);
    if (!task)
        return 0;
    pid = task->pid;
    bpf_task_release(task);
    return pid;
}

SEC("fentry/forgotten") int forgotten(u64 *arguments)
{
    struct task_struct *task = bpf_task_acquire((void *)arguments[0]);

    return task->tgid;
}

SEC("fentry/level_of") int level_of(u64 *arguments)
{
    struct cgroup *cgroup = bpf_cgroup_from_id(arguments[0]);
    int level;

    if (!cgroup)
        return -1;
    level = cgroup->level;
    bpf_cgroup_release(cgroup);
    return level;
}

SEC("fentry/above") int above(u64 *arguments)
{
    struct cgroup *cgroup = bpf_cgroup_ancestor((void *)arguments[0], arguments[1]);
    int id;

    if (!cgroup)
        return 0;
    id = cgroup->kn->id;
    bpf_cgroup_release(cgroup);
    return id;
}

SEC("tc") int length(struct __sk_buff *context)
{
    struct sk_buff *skb = bpf_cast_to_kern_ctx(context);

    return skb->len;
}

char LICENSE[] SEC("license") = "GPL";

SEC("fentry/taken_and_kept") int taken_and_kept(u64 *arguments)
{
    u32 key = 0;
    struct slot *slot = bpf_map_lookup_elem(&slots, &key);

    return slot && bpf_kptr_xchg(&slot->task, 0);
}

SEC("fentry/released_twice") int released_twice(u64 *arguments)
{
    struct task_struct *task = bpf_task_acquire((void *)arguments[0]);

    if (!task)
        return 1;
    bpf_task_release(task);
    bpf_task_release(task);
    return 0;
}

SEC("fentry/not_taken") int not_taken(u64 *arguments)
{
    bpf_task_release((void *)arguments[0]);
    return 0;
}
