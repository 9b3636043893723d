/* What the kernel has: behind a context, tasks and slab caches one after the other; metadata of a packet.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c kernel_objects.c -o kernel_objects.o
 *     llvm-strip --strip-debug kernel_objects.o
 */

#include "bpf_support.h"

static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;

struct task_struct {
    int pid;
    int tgid;
} __attribute__((preserve_access_index));
struct sk_buff { u32 len; } __attribute__((preserve_access_index));
struct kmem_cache { u32 object_size; } __attribute__((preserve_access_index));
struct __sk_buff { u32 len; };
struct bpf_iter_task { u64 opaque[3]; } __attribute__((aligned(8)));
struct bpf_iter_kmem_cache { u64 opaque[1]; } __attribute__((aligned(8)));
struct bpf_dynptr { u64 opaque[2]; } __attribute__((aligned(8)));

extern void *bpf_cast_to_kern_ctx(void *context) __ksym;
extern int bpf_iter_task_new(struct bpf_iter_task *it, struct task_struct *task, u32 flags) __ksym;
extern struct task_struct *bpf_iter_task_next(struct bpf_iter_task *it) __ksym;
extern void bpf_iter_task_destroy(struct bpf_iter_task *it) __ksym;
extern int bpf_iter_kmem_cache_new(struct bpf_iter_kmem_cache *it) __ksym;
extern struct kmem_cache *bpf_iter_kmem_cache_next(struct bpf_iter_kmem_cache *it) __ksym;
extern void bpf_iter_kmem_cache_destroy(struct bpf_iter_kmem_cache *it) __ksym;
extern int bpf_dynptr_from_skb_meta(struct __sk_buff *skb, u64 flags, struct bpf_dynptr *dynptr) __ksym;
extern u32 bpf_dynptr_size(const struct bpf_dynptr *dynptr) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;

u32 flags;
int pids[16];
u32 seen_current, count;

SEC("tc") int length(struct __sk_buff *context)
{
    struct sk_buff *skb = bpf_cast_to_kern_ctx(context);

    return skb->len;
}

SEC("tc") int metadata(struct __sk_buff *context)
{
    struct bpf_dynptr dynptr;
    int result = bpf_dynptr_from_skb_meta(context, 0, &dynptr);

    return result ? result : bpf_dynptr_size(&dynptr);
}

SEC("tc") int metadata_flags(struct __sk_buff *context)
{
    struct bpf_dynptr dynptr;

    return bpf_dynptr_from_skb_meta(context, 1, &dynptr);
}

SEC("syscall") int tasks(void *context)
{
    struct task_struct *current = bpf_get_current_task_btf(), *task;
    struct bpf_iter_task it;
    int result;

    count = 0;
    bpf_rcu_read_lock();
    result = bpf_iter_task_new(&it, current, flags);
    while ((task = bpf_iter_task_next(&it))) {
        pids[count & 15] = task->pid;
        if (task->pid == current->pid)
            seen_current++;
        count++;
    }
    bpf_iter_task_destroy(&it);
    bpf_rcu_read_unlock();
    return result ? result : count;
}

SEC("syscall") int caches(void *context)
{
    struct bpf_iter_kmem_cache it;
    struct kmem_cache *cache;

    count = 0;
    bpf_iter_kmem_cache_new(&it);
    while ((cache = bpf_iter_kmem_cache_next(&it))) {
        pids[count & 15] = cache->object_size;
        count++;
    }
    bpf_iter_kmem_cache_destroy(&it);
    return count;
}

char _license[] SEC("license") = "GPL";
