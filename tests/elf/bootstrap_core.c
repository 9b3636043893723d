/* The programs of libbpf-bootstrap that read the kernel's structs, in that style: BPF_CORE_READ over several
 * pointers, BPF_PROG arguments, records of a ring buffer, stack traces, task iterators. Debian clang 19.1.7:
 *
 *     clang-19 -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v4 -c bootstrap_core.c -o bootstrap_core_clang19.o
 *     llvm-strip-19 --strip-debug bootstrap_core_clang19.o
 */

#include "bpf_support.h"

#define CORE __attribute__((preserve_access_index))
#define TASK_COMM_LEN 16
#define MAX_STACK_DEPTH 8
#define core_read(to, from) bpf_probe_read_kernel(to, sizeof(*(to)), __builtin_preserve_access_index(from))
#define CORE_READ(from, field)                                                    \
    ({ typeof(from) base = (from); typeof(base->field) read; core_read(&read, &base->field); read; })

static long (*const bpf_map_update_elem)(void *, const void *, const void *, u64) = (void *)2;
static long (*const bpf_map_delete_elem)(void *, const void *) = (void *)3;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static u64 (*const bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*const bpf_get_current_comm)(void *, u32) = (void *)16;
static long (*const bpf_skb_load_bytes)(const void *, u32, void *, u32) = (void *)26;
static u64 (*const bpf_get_current_task)(void) = (void *)35;
static long (*const bpf_get_stack)(void *, void *, u32, u64) = (void *)67;
static long (*const bpf_probe_read_user_str)(void *, u32, const void *) = (void *)114;
static long (*const bpf_probe_read_kernel)(void *, u32, const void *) = (void *)113;
static long (*const bpf_probe_read_kernel_str)(void *, u32, const void *) = (void *)115;
static long (*const bpf_seq_write)(void *, const void *, u32) = (void *)127;
static long (*const bpf_ringbuf_output)(void *, void *, u64, u64) = (void *)130;
static void *(*const bpf_ringbuf_reserve)(void *, u64, u64) = (void *)131;
static void (*const bpf_ringbuf_submit)(void *, u64) = (void *)132;
static void (*const bpf_ringbuf_discard)(void *, u64) = (void *)133;
static long (*const bpf_get_task_stack)(void *, void *, u32, u64) = (void *)141;
static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;

struct task_struct {
    int pid, tgid, exit_code;
    struct task_struct *real_parent;
    char comm[TASK_COMM_LEN];
} CORE;
struct filename { const char *name; } CORE;
struct cred;
struct seq_file;
struct bpf_iter_meta { struct seq_file *seq; u64 session_id, seq_num; } CORE;
struct bpf_iter__task { struct bpf_iter_meta *meta; struct task_struct *task; } CORE;
struct trace_event_raw_sched_process_exec {
    u64 common;
    u32 __data_loc_filename;
    int pid, old_pid;
} CORE;
struct pt_regs { u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss; } CORE;
struct __sk_buff { u32 len, pkt_type, mark, queue_mapping, protocol, vlan[4], ifindex[2], tc_index, cb[5], hash, classid, data, data_end; };

struct event {
    int pid, ppid, exit_code;
    u64 duration_ns;
    char comm[TASK_COMM_LEN], filename[32];
    _Bool exit_event;
};

struct stacktrace_event { u32 pid, cpu_id; char comm[TASK_COMM_LEN]; s32 kstack_sz; u64 kstack[MAX_STACK_DEPTH]; };
struct task_info { int pid, tid; char comm[TASK_COMM_LEN]; int stack_len; u64 stack[MAX_STACK_DEPTH]; };
struct so_event { u32 ports, pkt_type; u8 ip_proto; };

struct { __uint(type, HASH); __uint(max_entries, 8192); __type(key, int); __type(value, u64); } exec_start SEC(".maps");
struct { __uint(type, RINGBUF); __uint(max_entries, 256 * 1024); } rb SEC(".maps");
struct { __uint(type, ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, int); } my_pid_map SEC(".maps");
struct { __uint(type, ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, struct task_info); } scratch SEC(".maps");

const volatile u64 min_duration_ns = 0;
char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("tp/syscalls/sys_enter_write") int minimal_legacy(void *ctx)
{
    u32 index = 0;
    int pid = bpf_get_current_pid_tgid() >> 32, *my_pid = bpf_map_lookup_elem(&my_pid_map, &index);
    return my_pid && *my_pid == pid;
}

SEC("tp/sched/sched_process_exec") int handle_exec(struct trace_event_raw_sched_process_exec *ctx)
{
    int pid = bpf_get_current_pid_tgid() >> 32;
    u64 ts = bpf_ktime_get_ns();
    bpf_map_update_elem(&exec_start, &pid, &ts, 0);
    if (min_duration_ns)
        return 0;
    struct event *e = bpf_ringbuf_reserve(&rb, sizeof(*e), 0);
    if (!e)
        return 0;
    struct task_struct *task = (struct task_struct *)bpf_get_current_task();
    e->exit_event = 0;
    e->pid = pid;
    e->ppid = CORE_READ(CORE_READ(task, real_parent), tgid);
    bpf_get_current_comm(&e->comm, sizeof(e->comm));
    u32 offset = ctx->__data_loc_filename & 0xffff;
    bpf_probe_read_kernel_str(&e->filename, sizeof(e->filename), (void *)ctx + offset);
    bpf_ringbuf_submit(e, 0);
    return 0;
}

SEC("tp/sched/sched_process_exit") int handle_exit(void *ctx)
{
    u64 id = bpf_get_current_pid_tgid();
    int pid = id >> 32, tid = (u32)id;
    if (pid != tid)
        return 0;
    u64 *start_ts = bpf_map_lookup_elem(&exec_start, &pid), duration_ns = 0;
    if (start_ts)
        duration_ns = bpf_ktime_get_ns() - *start_ts;
    else if (min_duration_ns)
        return 0;
    bpf_map_delete_elem(&exec_start, &pid);
    if (min_duration_ns && duration_ns < min_duration_ns)
        return 0;
    struct event *e = bpf_ringbuf_reserve(&rb, sizeof(*e), 0);
    if (!e)
        return 0;
    struct task_struct *task = (struct task_struct *)bpf_get_current_task();
    e->exit_event = 1;
    e->duration_ns = duration_ns;
    e->pid = pid;
    e->ppid = CORE_READ(CORE_READ(task, real_parent), tgid);
    e->exit_code = (CORE_READ(task, exit_code) >> 8) & 0xff;
    bpf_get_current_comm(&e->comm, sizeof(e->comm));
    bpf_ringbuf_submit(e, 0);
    return 0;
}

SEC("kprobe/do_unlinkat") int do_unlinkat(struct pt_regs *ctx)
{
    struct filename *name = (struct filename *)ctx->si;
    char text[8];
    return bpf_probe_read_kernel_str(text, sizeof(text), CORE_READ(name, name)) == 5 ? text[4] + text[0] : -1;
}

SEC("kretprobe/do_unlinkat") int do_unlinkat_exit(struct pt_regs *ctx) { return (long)ctx->ax < 0; }

SEC("ksyscall/kill") int entry_probe(struct pt_regs *ctx)
{
    struct pt_regs *inner = (struct pt_regs *)ctx->di;
    return CORE_READ(inner, di) * 100 + CORE_READ(inner, si);
}

SEC("fentry/do_unlinkat") int do_unlinkat_entry(u64 *ctx)
{
    struct filename *name = (void *)ctx[1];
    char text[8];
    return bpf_probe_read_kernel_str(text, sizeof(text), name->name);
}

SEC("fexit/do_unlinkat") int do_unlinkat_done(u64 *ctx)
{
    struct task_struct *task = bpf_get_current_task_btf();
    return (long)ctx[2] < 0 ? task->real_parent->tgid : task->tgid;
}

SEC("lsm/bpf") int lsm_bpf(u64 *ctx)
{
    int cmd = ctx[0], denied = -1, ret = ctx[3];
    return ret ? ret : cmd == 5 ? denied : 0;
}

SEC("perf_event") int profile(void *ctx)
{
    struct stacktrace_event *event = bpf_ringbuf_reserve(&rb, sizeof(*event), 0);
    if (!event)
        return 1;
    event->pid = bpf_get_current_pid_tgid() >> 32;
    event->cpu_id = bpf_get_smp_processor_id();
    if (bpf_get_current_comm(event->comm, sizeof(event->comm)))
        event->comm[0] = 0;
    event->kstack_sz = bpf_get_stack(ctx, event->kstack, sizeof(event->kstack), 0);
    bpf_ringbuf_submit(event, 0);
    return 0;
}

SEC("iter/task") int get_tasks(struct bpf_iter__task *ctx)
{
    struct seq_file *seq = ctx->meta->seq;
    struct task_struct *task = ctx->task;
    u32 zero = 0;
    struct task_info *t = bpf_map_lookup_elem(&scratch, &zero);
    if (!task || !t)
        return 0;
    t->pid = task->tgid;
    t->tid = task->pid;
    bpf_probe_read_kernel_str(t->comm, TASK_COMM_LEN, task->comm);
    t->stack_len = bpf_get_task_stack(task, t->stack, sizeof(t->stack), 0);
    bpf_seq_write(seq, t, sizeof(struct task_info));
    return 0;
}

SEC("raw_tp/sched_switch") int switched(u64 *ctx)
{
    struct task_struct *previous = (void *)ctx[1], *next = (void *)ctx[2];
    return CORE_READ(previous, pid) * 100 + CORE_READ(next, pid);
}

SEC("tc") int tc_ingress(struct __sk_buff *ctx)
{
    u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    if (ctx->protocol != 8 || data + 14 + 20 > end)
        return 0;
    return data[14 + 8];
}

SEC("socket") int socket_handler(struct __sk_buff *skb)
{
    u16 proto;
    u8 hdr_len;
    bpf_skb_load_bytes(skb, 12, &proto, 2);
    if (proto != 8)
        return 0;
    struct so_event *e = bpf_ringbuf_reserve(&rb, sizeof(*e), 0);
    if (!e)
        return 0;
    bpf_skb_load_bytes(skb, 14 + 9, &e->ip_proto, 1);
    bpf_skb_load_bytes(skb, 14, &hdr_len, 1);
    hdr_len = (hdr_len & 0xf) * 4;
    bpf_skb_load_bytes(skb, 14 + hdr_len, &e->ports, 4);
    e->pkt_type = skb->pkt_type;
    bpf_ringbuf_submit(e, 0);
    return skb->len;
}
