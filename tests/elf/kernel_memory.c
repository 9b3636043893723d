/* Programs that follow pointers of the kernel: with probe helpers, and directly.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c kernel_memory.c -o kernel_memory.o
 *     llvm-strip --strip-debug kernel_memory.o
 */

#include "bpf_support.h"


static long (*const probe_read_kernel)(void *, u32, const void *) = (void *)113;
static long (*const probe_read_user)(void *, u32, const void *) = (void *)112;
static long (*const probe_read_user_str)(void *, u32, const void *) = (void *)114;
static long (*const probe_read_kernel_str)(void *, u32, const void *) = (void *)115;
static u64 (*const current_task)(void) = (void *)35;
static struct task_struct *(*const current_task_btf)(void) = (void *)158;

struct task_struct {
    int pid;
    int tgid;
    struct task_struct *group_leader;
    int prio;
    char comm[16];
    struct task_struct *real_parent;
} __attribute__((preserve_access_index));

struct net_device {
    char name[16];
    int ifindex;
} __attribute__((preserve_access_index));

struct sk_buff {
    u32 len;
    unsigned short protocol;
    struct net_device *dev;
    unsigned char *data;
} __attribute__((preserve_access_index));

char text[16];
u64 value;

SEC("tracepoint/syscalls/sys_enter_openat") int opened(u64 *context)
{
    return probe_read_user_str(text, sizeof(text), (void *)context[3]);
}

SEC("kprobe/anything") int probed(u64 *context)
{
    int pid = 0;
    struct task_struct *task = (void *)current_task();

    probe_read_kernel_str(text, sizeof(text), &task->comm);
    if (probe_read_kernel(&pid, sizeof(pid), &task->pid))
        return -1;
    return pid;
}

SEC("fentry/wake_up_new_task") int follows(u64 *context)
{
    struct task_struct *task = (void *)context[0];

    value = task->real_parent->real_parent->pid;
    text[0] = task->comm[0];
    return task->real_parent->pid * 100 + task->prio;
}

static __attribute__((noinline)) int length_of(struct sk_buff *packet)
{
    return packet->len + packet->dev->ifindex;
}

SEC("fentry/netif_receive_skb") int packets(u64 *context)
{
    struct sk_buff *packet = (void *)context[0];

    probe_read_kernel(&value, 4, packet->data);
    return length_of(packet);
}

SEC("kprobe/current") int current(u64 *context)
{
    struct task_struct *task = current_task_btf();

    return task->pid + task->group_leader->tgid;
}

SEC("raw_tracepoint/sched_switch") int number(u64 *context)
{
    return *(int *)context[0];
}

char _license[] __attribute__((section("license"), used)) = "GPL";
