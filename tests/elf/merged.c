/* Maps of kinds that differ in what a run leaves there: values by keys, records, maps inside of maps, jumps.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c merged.c -o merged.o
 */

#include "bpf_support.h"

enum { QUEUE = 22, STACK = 23 };

static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static long (*const bpf_map_push_elem)(void *map, const void *value, u64 flags) = (void *)87;
static long (*const bpf_ringbuf_output)(void *map, void *data, u64 size, u64 flags) = (void *)130;

struct {
    __uint(type, QUEUE);
    __uint(value_size, 8);
    __uint(max_entries, 4);
} queue SEC(".maps");

struct {
    __uint(type, STACK);
    __uint(value_size, 8);
    __uint(max_entries, 4);
} stack SEC(".maps");

struct {
    __uint(type, BLOOM_FILTER);
    __uint(value_size, 8);
    __uint(max_entries, 4);
} bloom SEC(".maps");

struct {
    __uint(type, RINGBUF);
    __uint(max_entries, 4096);
} ring SEC(".maps");

struct called {
    u32 count;
    char name[4];
};

struct {
    __uint(type, HASH);
    __uint(max_entries, 8);
    __type(key, u32);
    __type(value, struct called);
} names SEC(".maps");

struct counters {
    __uint(type, ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, u64);
} inside SEC(".maps"), shared SEC(".maps"), beside SEC(".maps");

struct {
    __uint(type, ARRAY_OF_MAPS);
    __uint(max_entries, 1);
    __type(key, u32);
    __array(values, struct counters);
} outer SEC(".maps") = {.values = {&inside}};

int counted(void *ctx);

struct {
    __uint(type, PROG_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __array(values, int(void *));
} jumps SEC(".maps") = {.values = {(void *)&counted}};

static void count(void *map)
{
    u32 key = 0;
    u64 *value = bpf_map_lookup_elem(map, &key);
    if (value)
        ++*value;
}

SEC("xdp") int counted(void *ctx)
{
    count(&shared);
    count(&beside);
    return 1;
}

SEC("xdp") int jump(void *ctx)
{
    count(&shared);
    bpf_tail_call(ctx, &jumps, 0);
    return 2;
}

SEC("xdp") int nested(void *ctx)
{
    u32 key = 0;
    void *map = bpf_map_lookup_elem(&outer, &key);
    if (map)
        count(map);
    return 2;
}

SEC("xdp") int pushes(void *ctx)
{
    u64 value = 5;
    bpf_map_push_elem(&queue, &value, 0);
    bpf_map_push_elem(&stack, &value, 0);
    bpf_map_push_elem(&bloom, &value, 0);
    bpf_ringbuf_output(&ring, &value, 8, 0);
    return 2;
}

SEC("xdp") int renames(void *ctx)
{
    u32 key = 1, old = 7;
    struct called value = {1, "abc"};
    bpf_map_update_elem(&names, &key, &value, 0);
    bpf_map_delete_elem(&names, &old);
    return 2;
}

char _license[] SEC("license") = "GPL";
