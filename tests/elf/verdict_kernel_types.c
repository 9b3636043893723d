/* What programs may do with the kernel's structs: operations that write to them, pointers that maps keep, what is
 * trusted of what is loaded, memory that iterators show. Programs whose names begin with bad_ are refused,
 * those that begin with lost_ where the kernel's types are given.
 *
 *     clang-19 -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -w -c verdict_kernel_types.c \
 *         -o verdict_kernel_types_clang19.o
 *     llvm-strip --strip-debug verdict_kernel_types_clang19.o
 */

#include "bpf_support.h"

#define CORE __attribute__((preserve_access_index))
#define POINTER(type, name) union { type name; u64 : 64; } __attribute__((aligned(8)))
#define KPTR __attribute__((btf_type_tag("kptr_untrusted")))
#define KEPT __attribute__((btf_type_tag("kptr")))

struct sock { unsigned long sk_pacing_rate; u32 sk_pacing_status; } CORE;
struct inet_sock { struct sock sk; } CORE;
struct inet_connection_sock {
    struct inet_sock icsk_inet;
    struct { u8 pending; u8 quick; } icsk_ack;
    u64 icsk_ca_priv[13];
} CORE;
struct tcp_sock {
    struct inet_connection_sock inet_conn;
    u32 snd_cwnd, snd_cwnd_cnt, snd_cwnd_stamp, snd_ssthresh, app_limited, prior_cwnd;
    u8 ecn_flags;
} CORE;
struct cpumask { unsigned long bits[1]; } CORE;
struct css_set;
struct task_struct {
    int pid;
    char comm[16];
    struct task_struct *group_leader, *parent;
    const struct cpumask *cpus_ptr;
} CORE;
struct seq_file;
struct bpf_map { u32 id; } CORE;
struct bpf_iter_meta { POINTER(struct seq_file *, seq); u64 session_id, seq_num; } CORE;
struct bpf_iter__bpf_map_elem {
    POINTER(struct bpf_iter_meta *, meta);
    POINTER(struct bpf_map *, map);
    POINTER(void *, key);
    POINTER(void *, value);
} CORE;
struct cgroup_subsys_state { int id; } CORE;
struct cgroup { struct cgroup_subsys_state self; } CORE;
struct bpf_iter__cgroup { POINTER(struct bpf_iter_meta *, meta); POINTER(struct cgroup *, cgroup); } CORE;
struct bpf_iter_css_task { u64 opaque; };

static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const bpf_get_smp)(void) = (void *)8;
static u64 (*const bpf_ktime)(void) = (void *)5;
static long (*const bpf_setsockopt)(void *sk, int level, int name, void *value, int size) = (void *)49;
static struct task_struct *(*const bpf_get_current_task_btf)(void) = (void *)158;
static long (*const bpf_strncmp)(const char *text, u32 size, const char *other) = (void *)182;
static void *(*const bpf_kptr_xchg)(void *place, void *object) = (void *)194;

extern struct task_struct *bpf_task_acquire(struct task_struct *task) __ksym;
extern struct task_struct *bpf_task_from_pid(int pid) __ksym;
extern void bpf_task_release(struct task_struct *task) __ksym;
extern int bpf_cpumask_test_cpu(u32 cpu, const struct cpumask *mask) __ksym;
extern int bpf_iter_css_task_new(struct bpf_iter_css_task *it, struct cgroup_subsys_state *css, u32 flags) __ksym;
extern struct task_struct *bpf_iter_css_task_next(struct bpf_iter_css_task *it) __ksym;
extern void bpf_iter_css_task_destroy(struct bpf_iter_css_task *it) __ksym;
extern void bpf_throw(u64 cookie) __ksym;
extern u32 tcp_reno_ssthresh(struct sock *sk) __ksym;
extern void tcp_reno_cong_avoid(struct sock *sk, u32 ack, u32 acked) __ksym;

/* -- operations ------------------------------------------------------------------------------------------ */

struct tcp_congestion_ops {
    void (*init)(struct sock *sk);
    void (*release)(struct sock *sk);
    u32 (*ssthresh)(struct sock *sk);
    void (*cong_avoid)(struct sock *sk, u32 ack, u32 acked);
    void (*set_state)(struct sock *sk, u8 state);
    u32 (*undo_cwnd)(struct sock *sk);
    u64 (*get_info)(struct sock *sk, u32 ext, int *attr, void *info);
    char name[16];
};
struct bpf_dummy_ops_state { int val; } CORE;
struct bpf_dummy_ops {
    int (*test_1)(struct bpf_dummy_ops_state *state);
    int (*test_sleepable)(struct bpf_dummy_ops_state *state);
};

SEC("struct_ops") void op_writes(u64 *context)
{
    struct sock *sk = (void *)context[0];
    struct tcp_sock *tp = (void *)sk;
    tp->snd_cwnd = 4;
    tp->snd_cwnd_cnt = 1;
    tp->ecn_flags = 1;
    tp->inet_conn.icsk_ack.pending = 1;
    tp->inet_conn.icsk_ca_priv[3] = 7;
    *((volatile u16 *)&tp->inet_conn.icsk_ca_priv[12]) = 7;
    sk->sk_pacing_rate = 100;
}
SEC("struct_ops") u32 op_calls(u64 *context) { return tcp_reno_ssthresh((void *)context[0]); }
SEC("struct_ops") void op_avoids(u64 *context) { tcp_reno_cong_avoid((void *)context[0], context[1], 2); }
SEC("struct_ops") void op_option(u64 *context)
{
    char name[] = "reno";
    bpf_setsockopt((void *)context[0], 6, 13, name, sizeof(name));
}
SEC("struct_ops") void bad_op_option_at_release(u64 *context)
{
    char name[] = "reno";
    bpf_setsockopt((void *)context[0], 6, 13, name, sizeof(name));
}
SEC("struct_ops") u32 bad_op_writes_another(u64 *context)
{
    struct tcp_sock *tp = (void *)context[0];
    tp->prior_cwnd = 4;
    return 2;
}
SEC("struct_ops") u32 bad_op_writes_too_much(u64 *context)
{
    struct tcp_sock *tp = (void *)context[0];
    *(volatile u64 *)&tp->snd_cwnd = 4;
    return 2;
}
SEC("struct_ops") u32 bad_op_writes_inside(u64 *context)
{
    struct tcp_sock *tp = (void *)context[0];
    *((volatile u16 *)&tp->snd_cwnd + 1) = 4;
    return 2;
}
SEC("struct_ops") u64 bad_op_get_info(u64 *context) { return 0; }
SEC("struct_ops.s") int op_sleeps(u64 *context) { return 0; }
SEC("struct_ops.s") int bad_op_sleeps(u64 *context) { return 0; }

SEC("struct_ops") void op_reads_half(u64 *context) { (void)*(volatile u16 *)&context[1]; }
SEC("struct_ops") u32 bad_op_reads_half_a_pointer(u64 *context) { return *(volatile u32 *)&context[0] & 1; }
SEC("struct_ops") int op_tests_its_state(u64 *context)
{
    struct bpf_dummy_ops_state *state = (void *)context[0];
    return state ? state->val : 0;
}
SEC("struct_ops") int bad_op_trusts_its_state(u64 *context)
{
    return ((volatile struct bpf_dummy_ops_state *)context[0])->val;
}

SEC(".struct_ops") struct tcp_congestion_ops tcp_a = {
    .init = (void *)op_writes, .ssthresh = (void *)op_calls, .cong_avoid = (void *)op_avoids,
    .set_state = (void *)op_option, .release = (void *)bad_op_option_at_release,
    .undo_cwnd = (void *)bad_op_writes_another, .get_info = (void *)bad_op_get_info, .name = "a",
};
SEC(".struct_ops") struct tcp_congestion_ops tcp_b = {
    .ssthresh = (void *)bad_op_writes_too_much, .undo_cwnd = (void *)bad_op_writes_inside,
    .cong_avoid = (void *)op_reads_half, .name = "b",
};
SEC(".struct_ops") struct tcp_congestion_ops tcp_c = {
    .undo_cwnd = (void *)bad_op_reads_half_a_pointer, .name = "c",
};
SEC(".struct_ops") struct bpf_dummy_ops dummy_tests = { .test_1 = (void *)op_tests_its_state };
SEC(".struct_ops") struct bpf_dummy_ops dummy_trusts = { .test_1 = (void *)bad_op_trusts_its_state };
SEC(".struct_ops") struct bpf_dummy_ops dummy = {
    .test_sleepable = (void *)op_sleeps, .test_1 = (void *)bad_op_sleeps,
};

/* -- pointers that maps keep ------------------------------------------------------------------------------ */

struct { __uint(type, ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, u64); } numbers SEC(".maps");
struct kept { struct task_struct KPTR *seen; struct task_struct KEPT *held; u64 number; };
struct { __uint(type, ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, struct kept); } kept SEC(".maps");

static struct kept *place(void)
{
    u32 key = 0;
    return bpf_map_lookup_elem(&kept, &key);
}
#define KPTR_PROGRAM(name, ...)                                                                          \
    SEC("tc") int name(void *context)                                                                    \
    {                                                                                                    \
        struct kept *kept = place();                                                                     \
        if (!kept)                                                                                       \
            return 0;                                                                                    \
        struct task_struct *seen = kept->seen, *task;                                                    \
        if (!seen)                                                                                       \
            return 0;                                                                                    \
        __VA_ARGS__                                                                                      \
        return 0;                                                                                        \
    }
KPTR_PROGRAM(kptr_again, *(struct task_struct *volatile *)&kept->seen = seen;)
KPTR_PROGRAM(kptr_null, *(struct task_struct *volatile *)&kept->seen = 0;)
KPTR_PROGRAM(kptr_maybe, *(struct task_struct *volatile *)&kept->seen = *(struct task_struct *volatile *)&kept->held;)
KPTR_PROGRAM(kptr_current, *(struct task_struct *volatile *)&kept->seen = bpf_get_current_task_btf();)
KPTR_PROGRAM(kptr_of_a_reference,
    task = bpf_task_from_pid(1);
    if (task) { *(struct task_struct *volatile *)&kept->seen = task; bpf_task_release(task); })
KPTR_PROGRAM(bad_kptr_number, *(volatile u64 *)&kept->seen = 1;)
KPTR_PROGRAM(bad_kptr_any, *(volatile u64 *)&kept->seen = bpf_get_smp();)
KPTR_PROGRAM(bad_kptr_moved, *(char *volatile *)&kept->seen = (char *)seen + 4;)
KPTR_PROGRAM(bad_kptr_far,
    u32 by = bpf_ktime() & 248; asm volatile("" : "+r"(by));
    *(char *volatile *)&kept->seen = (char *)seen + by;)
KPTR_PROGRAM(bad_kptr_map, *(void *volatile *)&kept->seen = kept;)
KPTR_PROGRAM(bad_kptr_other, *(void *volatile *)&kept->seen = (void *)*(const struct cpumask *volatile *)&seen->cpus_ptr;)
KPTR_PROGRAM(bad_kptr_held, *(struct task_struct *volatile *)&kept->held = seen;)
KPTR_PROGRAM(bad_kptr_held_null, *(struct task_struct *volatile *)&kept->held = 0;)
KPTR_PROGRAM(bad_kptr_half, *(volatile u32 *)&kept->seen = 0;)
KPTR_PROGRAM(bad_kptr_added, __sync_fetch_and_add((u64 *)&kept->seen, 1);)

/* -- what is trusted -------------------------------------------------------------------------------------- */

SEC("tc") int leader_is_kept_by_rcu(void *context)
{
    struct task_struct *more = bpf_task_acquire(bpf_get_current_task_btf()->group_leader);
    if (more)
        bpf_task_release(more);
    return 0;
}
SEC("syscall") int bad_leader_without_rcu(void *context)
{
    struct task_struct *more = bpf_task_acquire(bpf_get_current_task_btf()->group_leader);
    if (more)
        bpf_task_release(more);
    return 0;
}
SEC("tc") int bad_parent_is_not_kept(void *context)
{
    struct task_struct *more = bpf_task_acquire(bpf_get_current_task_btf()->parent);
    if (more)
        bpf_task_release(more);
    return 0;
}
static const char NAME[8] = "init";
SEC("tc") int name_of_a_task(void *context) { return !!bpf_strncmp(bpf_get_current_task_btf()->comm, 8, NAME); }
SEC("tc") int bad_name_of_a_parent(void *context)
{
    return !!bpf_strncmp(bpf_get_current_task_btf()->parent->comm, 8, NAME);
}

/* -- iterators -------------------------------------------------------------------------------------------- */

struct bpf_iter__task {
    POINTER(struct bpf_iter_meta *, meta);
    POINTER(struct task_struct *, task);
} CORE;
SEC("iter/task") int processors_of_a_task(struct bpf_iter__task *ctx)
{
    struct task_struct *task = ctx->task;
    return task ? bpf_cpumask_test_cpu(0, task->cpus_ptr) & 1 : 0;
}
SEC("iter/task") int bad_processors_of_a_parent(struct bpf_iter__task *ctx)
{
    struct task_struct *task = ctx->task;
    return task ? bpf_cpumask_test_cpu(0, task->parent->cpus_ptr) & 1 : 0;
}
SEC("iter/bpf_map_elem") int element(struct bpf_iter__bpf_map_elem *ctx)
{
    u32 *key = ctx->key;
    u64 *value = ctx->value;
    if (!key || !value)
        return 0;
    *value = value[3] + *key;
    u32 first = *key;
    bpf_map_update_elem(&numbers, &first, value, 0);
    return 0;
}
SEC("iter/bpf_map_elem") int bad_element_key_looked_up(struct bpf_iter__bpf_map_elem *ctx)
{
    u32 *key = ctx->key;
    return key && bpf_map_lookup_elem(&numbers, key);
}
SEC("iter/bpf_map_elem") int bad_element_key_written(struct bpf_iter__bpf_map_elem *ctx)
{
    u32 *key = ctx->key;
    if (key)
        *key = 1;
    return 0;
}
SEC("iter/bpf_map_elem") int bad_element_not_tested(struct bpf_iter__bpf_map_elem *ctx)
{
    u32 *value = ctx->value, found;
    asm volatile("%0 = *(u32 *)(%1 + 0)" : "=r"(found) : "r"(value));
    return found & 0;
}
SEC("iter/bpf_map_elem") int bad_element_somewhere(struct bpf_iter__bpf_map_elem *ctx)
{
    u32 *key = ctx->key, at = bpf_get_smp() & 1;
    return key ? *(volatile u32 *)&key[at] & 0 : 0;
}
#define CSS_TASKS                                                                                        \
    {                                                                                                    \
        struct cgroup *cgroup = ctx->cgroup;                                                             \
        struct bpf_iter_css_task it;                                                                     \
        if (!cgroup)                                                                                     \
            return 0;                                                                                    \
        bpf_iter_css_task_new(&it, &cgroup->self, 1);                                                    \
        while (bpf_iter_css_task_next(&it))                                                              \
            ;                                                                                            \
        bpf_iter_css_task_destroy(&it);                                                                  \
        return 0;                                                                                        \
    }
SEC("iter/cgroup") int tasks_of_a_cgroup(struct bpf_iter__cgroup *ctx) CSS_TASKS

/* -- global functions ------------------------------------------------------------------------------------- */

#define UNTRUSTED(parameter) parameter __attribute__((btf_decl_tag("arg:untrusted")))
struct of_no_kernel { u32 number; };

NOINLINE int any_bytes(UNTRUSTED(const void *at)) { return ((const volatile u32 *)at)[1000] & 1; }
NOINLINE int any_numbers(UNTRUSTED(const u8 *at)) { return *(const volatile u64 *)at & 1; }
NOINLINE int bytes_written(UNTRUSTED(u8 *at)) { return *(volatile u8 *)at = 1; }
NOINLINE int of_no_kernels(UNTRUSTED(struct of_no_kernel *at)) { return at->number & 1; }

SEC("raw_tp/sys_enter") int reads_anything(void *context)
{
    u32 local = 1;
    return any_bytes(&local) + any_bytes(context) + any_bytes(0) + any_numbers((void *)7);
}
SEC("raw_tp/sys_enter") int bad_writes_anything(void *context) { return bytes_written(context); }
SEC("raw_tp/sys_enter") int lost_struct(void *context) { return of_no_kernels(context); }

/* -- kernel functions that engines do not have ------------------------------------------------------------ */

extern void __bpf_trap(void) __attribute__((section(".ksyms"))) __attribute__((weak));
SEC("tc") int bad_trap(void *context)
{
    __bpf_trap();
    return 0;
}

/* -- exceptions ------------------------------------------------------------------------------------------- */

NOINLINE int caught(u64 cookie) { return 0; }
NOINLINE int caught_too(u64 cookie) { return 0; }
__attribute__((btf_decl_tag("exception_callback:caught"))) __attribute__((btf_decl_tag("exception_callback:caught_too")))
SEC("tc") int bad_two_callbacks(void *context)
{
    bpf_throw(0);
    return 0;
}

char LICENSE[] SEC("license") = "GPL";
