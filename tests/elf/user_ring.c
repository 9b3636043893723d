/* A program that drains what user space submits.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c user_ring.c -o user_ring.o
 *     llvm-strip --strip-debug user_ring.o
 */

#include "bpf_support.h"

struct { __uint(type, 31); __uint(max_entries, 4096); } ring SEC(".maps");
char _license[] SEC("license") = "GPL";

struct dynptr;
static long (*const dynptr_read)(void *, u32, struct dynptr *, u32, u64) = (void *)201;
static void *(*const dynptr_data)(struct dynptr *, u32, u32) = (void *)203;
static long (*const drain)(void *, void *, void *, u64) = (void *)209;

struct found {
    u64 sum;
    u32 calls;
    u32 stop_at;
};

u64 sum;
u32 calls;
u32 stop_at;
u64 flags;
int nested;

static long each(struct dynptr *sample, struct found *found)
{
    u64 number = 0;

    if (dynptr_read(&number, sizeof(number), sample, 0, 0))
        number = 1000;
    found->sum += number;
    return ++found->calls == found->stop_at;
}

SEC("tc") int drains(void *context)
{
    struct found found = {.stop_at = stop_at};
    int result = drain(&ring, each, &found, flags);

    sum = found.sum;
    calls = found.calls;
    return result;
}

static long in_place(struct dynptr *sample, struct found *found)
{
    u64 *number = dynptr_data(sample, 0, sizeof(*number));

    if (number)
        found->sum += (*number)++ + *number;
    return 0;
}

SEC("tc") int drains_in_place(void *context)
{
    struct found found = {};
    int result = drain(&ring, in_place, &found, 0);

    sum = found.sum;
    return result;
}

static long again(struct dynptr *sample, struct found *found)
{
    nested = drain(&ring, each, found, 0);
    return 0;
}

SEC("tc") int drains_while_draining(void *context)
{
    struct found found = {};

    return drain(&ring, again, &found, 0);
}
