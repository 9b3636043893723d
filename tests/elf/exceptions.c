/* clang -target bpf -O2 -g -mcpu=v3 -fdebug-compilation-dir=. -c exceptions.c -o exceptions.o
 *
 * bpf_throw: from the program, from functions it calls, from what helpers call; programs with and without a
 * function that is called then.
 */
#include "bpf_support.h"

#define ON_THROW(name) __attribute__((btf_decl_tag("exception_callback:" #name)))

extern void bpf_throw(u64 cookie) __ksym;

static long (*const bpf_for_each_map_elem)(void *map, void *callback, void *context, u64 flags) = (void *)164;
static long (*const bpf_loop)(u32 count, void *callback, void *context, u64 flags) = (void *)181;

struct __sk_buff {
    u32 len;
};

struct {
    __uint(type, ARRAY);
    __uint(max_entries, 4);
    __type(key, u32);
    __type(value, u64);
} numbers SEC(".maps");

int target(struct __sk_buff *skb);

struct {
    __uint(type, PROG_ARRAY);
    __uint(max_entries, 1);
    __uint(key_size, 4);
    __array(values, int(struct __sk_buff *));
} jumps SEC(".maps") = {.values = {[0] = (void *)&target}};

u64 steps, seen;

static NOINLINE int deep(u32 len)
{
    volatile u32 kept = len;

    if (kept > 60)
        bpf_throw(kept);
    return kept + 1;
}

NOINLINE int deeper(u32 len)
{
    volatile u32 kept = len;

    kept = deep(kept) + deep(kept + 1);
    steps++;
    return kept;
}

NOINLINE int doubled(u64 cookie)
{
    seen = cookie;
    return cookie * 2;
}

SEC("tc") int at_once(struct __sk_buff *skb)
{
    steps++;
    bpf_throw(skb->len + 7);
    steps++;
    return 1;
}

SEC("tc") int from_functions(struct __sk_buff *skb)
{
    int result = deeper(skb->len);

    steps += 100;
    return result;
}

SEC("tc") ON_THROW(doubled) int with_callback(struct __sk_buff *skb)
{
    return deeper(skb->len);
}

static int round(u32 index, u64 *context)
{
    steps++;
    if (index == *context)
        bpf_throw(index + 1000);
    return 0;
}

SEC("tc") int from_loop(struct __sk_buff *skb)
{
    u64 last = skb->len;

    steps += 10 * bpf_loop(70, round, &last, 0);
    return 3;
}

SEC("tc") ON_THROW(doubled) int from_loop_with_callback(struct __sk_buff *skb)
{
    u64 last = skb->len;

    bpf_loop(70, round, &last, 0);
    return 3;
}

static int inner_round(u32 index, u64 *context)
{
    u64 none = 1 << 20;

    if (index == 2)
        none = 5;
    bpf_loop(10, round, &none, 0);
    return 0;
}

SEC("tc") int from_loop_in_loop(struct __sk_buff *skb)
{
    u64 unused = 0;

    bpf_loop(4, inner_round, &unused, 0);
    return 3;
}

static int each(void *map, u32 *key, u64 *value, void *context)
{
    steps++;
    *value = 5;
    if (*key == 2)
        bpf_throw(*key);
    return 0;
}

SEC("tc") int from_each(struct __sk_buff *skb)
{
    bpf_for_each_map_elem(&numbers, each, 0, 0);
    return 9;
}

SEC("tc") int target(struct __sk_buff *skb)
{
    bpf_throw(16);
    return 0;
}

static NOINLINE int jumping(struct __sk_buff *skb)
{
    volatile int result = 10;

    bpf_tail_call(skb, &jumps, 0);
    return result;
}

SEC("tc") int from_tail_call(struct __sk_buff *skb)
{
    volatile int result = jumping(skb);

    return result + 8;
}

SEC("tc") ON_THROW(round) int callback_missing(struct __sk_buff *skb)
{
    bpf_throw(1);
    return 0;
}

struct {
    __uint(type, RINGBUF);
    __uint(max_entries, 4096);
} ring SEC(".maps");

static void *(*const bpf_ringbuf_reserve)(void *ring, u64 size, u64 flags) = (void *)131;

SEC("tc") int holding(struct __sk_buff *skb)
{
    void *record = bpf_ringbuf_reserve(&ring, 8, 0);

    bpf_throw(1);
    return record != 0;
}

struct bpf_timer {
    u64 opaque[2];
} __attribute__((aligned(8)));

struct timed {
    struct bpf_timer timer;
};

struct {
    __uint(type, ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct timed);
} timers SEC(".maps");

static long (*const bpf_timer_init)(struct bpf_timer *timer, void *map, u64 flags) = (void *)169;
static long (*const bpf_timer_set_callback)(struct bpf_timer *timer, void *callback) = (void *)170;
static long (*const bpf_timer_start)(struct bpf_timer *timer, u64 delay, u64 flags) = (void *)171;

static int fired(void *map, u32 *key, struct timed *value)
{
    bpf_throw(1);
    return 0;
}

SEC("tc") int from_timer(struct __sk_buff *skb)
{
    u32 key = 0;
    struct timed *value = bpf_map_lookup_elem(&timers, &key);

    if (!value)
        return 1;
    bpf_timer_init(&value->timer, &timers, 1);
    bpf_timer_set_callback(&value->timer, fired);
    bpf_timer_start(&value->timer, 0, 0);
    return 0;
}

char LICENSE[] SEC("license") = "GPL";
