/* Iterators over cgroups, over the tasks of one, and over the memory areas of a task.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c cgroups.c -o cgroups.o
 *     llvm-strip --strip-debug cgroups.o
 */

#include "bpf_support.h"

static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;

struct kernfs_node { u64 id; } __attribute__((preserve_access_index));
struct cgroup;
struct cgroup_subsys_state {
    struct cgroup *cgroup;
    struct cgroup_subsys_state *parent;
} __attribute__((preserve_access_index));
struct cgroup {
    struct cgroup_subsys_state self;
    struct kernfs_node *kn;
    int level;
    struct cgroup *ancestors[4];
} __attribute__((preserve_access_index));
struct css_set { struct cgroup *dfl_cgrp; } __attribute__((preserve_access_index));
struct task_struct { int pid, tgid; struct css_set *cgroups; } __attribute__((preserve_access_index));
struct vm_area_struct { unsigned long vm_start, vm_end; } __attribute__((preserve_access_index));
struct dma_buf { unsigned long size; } __attribute__((preserve_access_index));
struct bpf_iter_dmabuf { u64 opaque[1]; } __attribute__((aligned(8)));
struct bpf_iter_css { u64 opaque[3]; } __attribute__((aligned(8)));
struct bpf_iter_css_task { u64 opaque[1]; } __attribute__((aligned(8)));
struct bpf_iter_task_vma { u64 opaque[1]; } __attribute__((aligned(8)));
struct bpf_iter_meta;
struct bpf_iter__task { struct bpf_iter_meta *meta; struct task_struct *task; };

extern struct cgroup *bpf_cgroup_from_id(u64 id) __ksym;
extern void bpf_cgroup_release(struct cgroup *cgroup) __ksym;
extern int bpf_iter_css_new(struct bpf_iter_css *it, struct cgroup_subsys_state *start, u32 flags) __ksym;
extern struct cgroup_subsys_state *bpf_iter_css_next(struct bpf_iter_css *it) __ksym;
extern void bpf_iter_css_destroy(struct bpf_iter_css *it) __ksym;
extern int bpf_iter_css_task_new(struct bpf_iter_css_task *it, struct cgroup_subsys_state *css, u32 flags) __ksym;
extern struct task_struct *bpf_iter_css_task_next(struct bpf_iter_css_task *it) __ksym;
extern void bpf_iter_css_task_destroy(struct bpf_iter_css_task *it) __ksym;
extern int bpf_iter_task_vma_new(struct bpf_iter_task_vma *it, struct task_struct *task, u64 address) __ksym;
extern struct vm_area_struct *bpf_iter_task_vma_next(struct bpf_iter_task_vma *it) __ksym;
extern void bpf_iter_task_vma_destroy(struct bpf_iter_task_vma *it) __ksym;
extern int bpf_iter_dmabuf_new(struct bpf_iter_dmabuf *it) __ksym;
extern struct dma_buf *bpf_iter_dmabuf_next(struct bpf_iter_dmabuf *it) __ksym;
extern void bpf_iter_dmabuf_destroy(struct bpf_iter_dmabuf *it) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;

u64 start, found[16];
u32 flags, count, inside;

SEC("syscall") int groups(void *context)
{
    struct cgroup_subsys_state *css;
    struct bpf_iter_css it;
    struct cgroup *cgroup;
    int result;

    count = 0;
    cgroup = bpf_cgroup_from_id(start);
    if (!cgroup)
        return -2;
    bpf_rcu_read_lock();
    result = bpf_iter_css_new(&it, &cgroup->self, flags);
    while ((css = bpf_iter_css_next(&it))) {
        found[count & 15] = css->cgroup->kn->id;
        count++;
    }
    bpf_iter_css_destroy(&it);
    bpf_rcu_read_unlock();
    bpf_cgroup_release(cgroup);
    return result;
}

SEC("iter.s/task") int tasks_of(struct bpf_iter__task *context)
{
    struct bpf_iter_css_task it;
    struct cgroup *cgroup;
    struct task_struct *task;
    int result;

    count = inside = 0;
    cgroup = bpf_cgroup_from_id(start);
    if (!cgroup)
        return 0;
    result = bpf_iter_css_task_new(&it, &cgroup->self, flags);
    while ((task = bpf_iter_css_task_next(&it))) {
        found[count & 15] = task->pid;
        inside += task->cgroups->dfl_cgrp == cgroup;
        count++;
    }
    bpf_iter_css_task_destroy(&it);
    bpf_cgroup_release(cgroup);
    if (result)
        count = result;
    return 0;
}

SEC("syscall") int areas(void *context)
{
    struct bpf_iter_task_vma it;
    struct vm_area_struct *area;
    int result;

    count = 0;
    bpf_rcu_read_lock();
    result = bpf_iter_task_vma_new(&it, bpf_get_current_task_btf(), start);
    while ((area = bpf_iter_task_vma_next(&it))) {
        found[count & 15] = area->vm_start;
        count++;
    }
    bpf_iter_task_vma_destroy(&it);
    bpf_rcu_read_unlock();
    return result;
}

SEC("syscall") int buffers(void *context)
{
    struct bpf_iter_dmabuf it;
    struct dma_buf *buffer;
    int result;

    count = 0;
    result = bpf_iter_dmabuf_new(&it);
    while ((buffer = bpf_iter_dmabuf_next(&it))) {
        found[count & 15] = buffer->size;
        count++;
    }
    bpf_iter_dmabuf_destroy(&it);
    return result;
}

char _license[] SEC("license") = "GPL";
