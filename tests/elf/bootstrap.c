/* A program of each kind that people start with: the shapes of libbpf-bootstrap, in one object.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c bootstrap.c -o bootstrap.o
 *     llvm-strip --strip-debug bootstrap.o
 */

#include "bpf_support.h"

#define CORE __attribute__((preserve_access_index))
#define __hidden __attribute__((visibility("hidden")))
#define core_read(to, from) bpf_probe_read_kernel(to, sizeof(*(to)), __builtin_preserve_access_index(from))

enum { LRU_HASH = 9, STACK_TRACE = 7 };

static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static long (*const bpf_map_update_elem)(void *, const void *, const void *, u64) = (void *)2;
static long (*const bpf_map_delete_elem)(void *, const void *) = (void *)3;
static long (*const bpf_trace_printk)(const char *, u32, ...) = (void *)6;
static u64 (*const bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*const bpf_get_current_comm)(void *, u32) = (void *)16;
static long (*const bpf_skb_load_bytes)(const void *, u32, void *, u32) = (void *)26;
static u64 (*const bpf_get_current_task)(void) = (void *)35;
static long (*const bpf_probe_read_kernel)(void *, u32, const void *) = (void *)113;
static long (*const bpf_probe_read_kernel_str)(void *, u32, const void *) = (void *)115;
static long (*const bpf_probe_read_user_str)(void *, u32, const void *) = (void *)114;
static long (*const bpf_seq_printf)(void *, const char *, u32, const void *, u32) = (void *)126;
static void *(*const bpf_ringbuf_reserve)(void *, u64, u64) = (void *)131;
static void (*const bpf_ringbuf_submit)(void *, u64) = (void *)132;
static u64 (*const bpf_get_attach_cookie)(void *) = (void *)174;
static u64 (*const bpf_get_func_ip)(void *) = (void *)173;

struct task_struct {
    int pid;
    int tgid;
    struct task_struct *real_parent;
    int exit_code;
    char comm[16];
} CORE;

struct filename {
    const char *name;
} CORE;

struct pt_regs {
    u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
} CORE;

struct file {
    u32 f_flags;
} CORE;

struct seq_file;
struct bpf_iter_meta {
    struct seq_file *seq;
    u64 session_id, seq_num;
} CORE;
struct bpf_iter__task {
    struct bpf_iter_meta *meta;
    struct task_struct *task;
} CORE;

struct xdp_md {
    u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};
struct __sk_buff {
    u32 len, pkt_type, mark, queue_mapping, protocol;
};

struct event {
    int pid, ppid, exit_code;
    u64 duration;
    char comm[16];
};

struct {
    __uint(type, HASH);
    __uint(max_entries, 8192);
    __type(key, int);
    __type(value, u64);
} exec_start SEC(".maps");

struct {
    __uint(type, RINGBUF);
    __uint(max_entries, 256 * 1024);
} rb SEC(".maps");

/* usdt.bpf.h */
struct usdt_spec {
    struct {
        u64 val_off;
        u32 arg_type;
        short reg_off;
        _Bool arg_signed;
        char arg_bitshift;
    } args[12];
    u64 usdt_cookie;
    short arg_cnt;
};

struct {
    __uint(type, ARRAY);
    __uint(max_entries, 256);
    __type(key, int);
    __type(value, struct usdt_spec);
} __bpf_usdt_specs SEC(".maps") __weak;

struct {
    __uint(type, HASH);
    __uint(max_entries, 1024);
    __type(key, long);
    __type(value, u32);
} __bpf_usdt_ip_to_spec_id SEC(".maps") __weak;

extern const _Bool LINUX_HAS_BPF_COOKIE __kconfig;
extern int LINUX_KERNEL_VERSION __kconfig;

__weak __hidden NOINLINE int bpf_usdt_arg_cnt(struct pt_regs *ctx)
{
    int id = LINUX_HAS_BPF_COOKIE ? bpf_get_attach_cookie(ctx) : 0;
    struct usdt_spec *spec = bpf_map_lookup_elem(&__bpf_usdt_specs, &id);
    return spec ? spec->arg_cnt : -3;
}

const volatile u64 min_duration_ns = 0;
const volatile u32 targ_pid = 0;
int my_pid = 0;

SEC("tp/syscalls/sys_enter_write") int handle_tp(void *ctx)
{
    int pid = bpf_get_current_pid_tgid() >> 32;
    if (pid != my_pid)
        return 0;
    static const char text[] = "BPF triggered from PID %d.\n";
    bpf_trace_printk(text, sizeof(text), pid);
    return 1;
}

SEC("tp/sched/sched_process_exec") int handle_exec(void *ctx)
{
    int pid = bpf_get_current_pid_tgid() >> 32;
    u64 ts = bpf_ktime_get_ns();
    bpf_map_update_elem(&exec_start, &pid, &ts, 0);
    if (min_duration_ns)
        return 0;
    struct event *e = bpf_ringbuf_reserve(&rb, sizeof(*e), 0);
    if (!e)
        return 0;
    struct task_struct *task = (void *)bpf_get_current_task(), *parent = 0;
    core_read(&parent, &task->real_parent);
    core_read(&e->ppid, &parent->tgid);
    e->pid = pid;
    bpf_get_current_comm(e->comm, sizeof(e->comm));
    bpf_ringbuf_submit(e, 0);
    return 1;
}

SEC("kprobe/do_unlinkat") int do_unlinkat(struct pt_regs *ctx)
{
    struct filename *name = 0;
    const char *text = 0;
    char first[8];
    core_read(&name, &ctx->si);
    core_read(&text, &name->name);
    return bpf_probe_read_kernel_str(first, sizeof(first), text) + targ_pid;
}

SEC("kretprobe/do_unlinkat") int do_unlinkat_exit(struct pt_regs *ctx) { return ctx->ax; }
SEC("ksyscall/kill") int entry_probe(struct pt_regs *ctx) { return ctx->di; }
SEC("uprobe") int uprobe_add(struct pt_regs *ctx) { return ctx->di + ctx->si; }
SEC("uretprobe//proc/self/exe:uprobed_sub") int uretprobe_sub(struct pt_regs *ctx) { return ctx->ax; }
SEC("usdt/libc.so.6:libc:setjmp") int usdt_auto_attach(struct pt_regs *ctx) { return bpf_usdt_arg_cnt(ctx); }
SEC("fentry/do_unlinkat") int do_unlinkat_entry(u64 *ctx) { return ctx[1] != 0; }
SEC("fexit/do_unlinkat") int do_unlinkat_done(u64 *ctx) { return (long)ctx[2] < 0; }
SEC("lsm/bpf") int lsm_bpf(u64 *ctx) { return (int)ctx[3] ? (int)ctx[3] : -1; }
SEC("perf_event") int profile(void *ctx) { return bpf_get_current_pid_tgid() >> 32 ? 1 : 0; }
SEC("raw_tp/sys_enter") int raw(u64 *ctx) { return ctx[1]; }

SEC("iter/task") int get_tasks(struct bpf_iter__task *ctx)
{
    static const char text[] = "%d\n";
    struct task_struct *task = ctx->task;
    if (!task)
        return 0;
    u64 arguments[] = { task->pid };
    bpf_seq_printf(ctx->meta->seq, text, sizeof(text), arguments, sizeof(arguments));
    return 0;
}

SEC("xdp") int xdp_pass(struct xdp_md *ctx)
{
    void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
    int size = end - data;
    static const char text[] = "packet size: %d";
    bpf_trace_printk(text, sizeof(text), size);
    return 2;
}

SEC("tc") int tc_ingress(struct __sk_buff *ctx) { return ctx->protocol == 8 ? 0 : 2; }

SEC("socket") int socket_handler(struct __sk_buff *skb)
{
    u16 protocol;
    bpf_skb_load_bytes(skb, 12, &protocol, 2);
    return protocol == 8 ? skb->len : 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
