/* Maps and programs as tracing tools have them: sizes and types that the loader sets, packets of traced functions.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c tools.c -o tools.o
 *     llvm-strip --strip-debug tools.o
 */

#include "bpf_support.h"

enum { PERF_EVENT_ARRAY = 4, STACK_TRACE = 7 };

static long (*const get_stackid)(void *, void *, u64) = (void *)27;
static long (*const perf_output)(void *, void *, u64, void *, u64) = (void *)25;
static long (*const skb_output)(void *, void *, u64, void *, u64) = (void *)111;
static long (*const lock)(void *) = (void *)93;
static long (*const unlock)(void *) = (void *)94;
static long (*const xdp_output)(void *, void *, u64, void *, u64) = (void *)121;

/* offcputime, profile: perf_max_stack_depth is an option of the command. */
struct {
    __uint(type, STACK_TRACE);
    __uint(key_size, sizeof(u32));
} stacks SEC(".maps");

/* bcc's compat.bpf.h: a ring buffer that older kernels have as a perf event array. */
struct event {
    u32 what;
};
struct {
    __uint(type, RINGBUF);
    __uint(max_entries, 4096);
    __type(value, struct event);
} events SEC(".maps");

struct {
    __uint(type, PERF_EVENT_ARRAY);
} packets SEC(".maps");

/* A struct that nothing but pointers leads to: clang declares it, no more. */
struct flow {
    u32 from, to;
};
struct {
    __uint(type, ARRAY_OF_MAPS);
    __uint(max_entries, 2);
    __type(key, u32);
    __array(values, struct {
        __uint(type, HASH);
        __uint(max_entries, 4);
        __type(key, struct flow);
        __type(value, u32);
    });
} flows SEC(".maps");

SEC("perf_event") int profile(void *context) { return get_stackid(context, &stacks, 0); }

SEC("kprobe/vfs_open") int compatible(void *context)
{
    struct event event = { 5 };
    return perf_output(context, &events, 0xffffffff, &event, sizeof(event));
}

struct net_device {
    int ifindex;
} __attribute__((preserve_access_index));

struct xdp_rxq_info {
    struct net_device *dev;
} __attribute__((preserve_access_index));

struct xdp_buff {
    void *data, *data_end;
    struct xdp_rxq_info *rxq;
} __attribute__((preserve_access_index));

struct sk_buff {
    u32 len;
    unsigned char *data;
} __attribute__((preserve_access_index));

/* xdpdump. */
SEC("fexit/xdp_prog") int dump(u64 *context)
{
    struct xdp_buff *xdp = (void *)context[0];
    struct { int ifindex, verdict; } event = { xdp->rxq->dev->ifindex, context[1] };
    return xdp_output(xdp, &packets, 6ull << 32 | 0xffffffff, &event, sizeof(event));
}

SEC("tp_btf/kfree_skb") int dropped(u64 *context)
{
    struct sk_buff *skb = (void *)context[0];
    u32 len = skb->len;
    return skb_output(skb, &packets, context[1] << 32 | 0xffffffff, &len, sizeof(len));
}

/* Symbols without a size, and a lock: Linux takes the lock from BTF, which has the symbols too. */
extern const void somewhere __ksym __weak;
struct elsewhere;
extern const struct elsewhere there __ksym __weak;

struct bpf_spin_lock {
    u32 val;
};
struct guarded {
    struct bpf_spin_lock lock;
    u32 count;
};
struct {
    __uint(type, ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct guarded);
} counters SEC(".maps");

SEC("tc") int guard(void *context)
{
    u32 key = 0;
    struct guarded *found = bpf_map_lookup_elem(&counters, &key);
    if (!found || &somewhere || &there)
        return -1;
    lock(&found->lock);
    found->count += 5;
    unlock(&found->lock);
    return found->count;
}

/* Operations: the struct says which one a program is, whatever its section is called. */
struct tcp_congestion_ops {
    u32 (*undo_cwnd)(u64 *);
    u32 (*ssthresh)(u64 *);
    void (*cong_avoid)(u64 *);
    char name[16];
};

SEC("struct_ops") u32 halve(u64 *context) { return 2; }
SEC("struct_ops/any_name") u32 keep(u64 *context) { return 3; }
SEC("struct_ops/no_member") u32 nobody(u64 *context) { return 4; }

SEC(".struct_ops.link") struct tcp_congestion_ops tools = {
    .ssthresh = halve,
    .undo_cwnd = keep,
    .name = "tools",
};

/* A constant of 16 bytes: ELF has it in .rodata.cst16, BTF among the variables of .rodata. */
static const u32 table[4] = { 10, 20, 30, 40 };
const volatile u32 chosen = 1;

SEC("xdp") int constant(void *context) { return table[chosen & 3]; }

SEC("tail_of_something") int untyped(void *context) { return 0; }

SEC("xdp") int by_flow(void *context)
{
    u32 key = 0;
    return bpf_map_lookup_elem(&flows, &key) ? 1 : 2;
}

char LICENSE[] SEC("license") = "GPL";
