/* Maps whose sizes the loader gives, or fills in where Linux would refuse; one that objects share.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c maps_by_loader.c -o maps_by_loader.o
 *     llvm-strip --strip-debug maps_by_loader.o
 */

#include "bpf_support.h"

enum { PERF_EVENT_ARRAY = 4, PIN_BY_NAME = 1 };

struct event {
    u32 what;
    u64 when;
};

static long (*const update)(void *, const void *, const void *, u64) = (void *)2;
static long (*const perf_output)(void *, void *, u64, void *, u64) = (void *)25;
static long (*const ring_output)(void *, void *, u64, u64) = (void *)130;

struct {
    __uint(type, HASH);
    __type(key, u32);
    __type(value, u64);
} flows SEC(".maps");

struct {
    __uint(type, HASH);
    __uint(max_entries, 8);
    __type(key, u32);
    __type(value, u64);
    __uint(pinning, PIN_BY_NAME);
} shared SEC(".maps");

struct {
    __uint(type, PERF_EVENT_ARRAY);
} samples SEC(".maps");

struct {
    __uint(type, RINGBUF);
    __uint(max_entries, 5000);
    __type(value, struct event);
} ring SEC(".maps");

struct {
    __uint(type, RINGBUF);
    __type(value, struct event);
} sized SEC(".maps");

u64 counted = 7;

SEC("xdp") int count(void *context)
{
    u32 key = 1;
    u64 one = 1;
    return update(&flows, &key, &one, 0) ? 1 : 2;
}

SEC("xdp") int share(void *context)
{
    u32 key = 1;
    u64 one = 1;
    return update(&shared, &key, &one, 0) ? 1 : 2;
}

SEC("xdp") int report(void *context)
{
    struct event event = { 1, 2 };
    perf_output(context, &samples, 0xffffffff, &event, sizeof(event));
    return ring_output(&ring, &event, sizeof(event), 0) ? 1 : 2;
}

SEC("xdp") int report_sized(void *context)
{
    struct event event = { 3, 4 };
    return ring_output(&sized, &event, sizeof(event), 0) ? 1 : 2;
}

SEC("xdp") int add(void *context) { return counted++; }

char LICENSE[] SEC("license") = "GPL";
