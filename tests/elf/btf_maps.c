/* Every form of a map's definition in .maps.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c btf_maps.c -o btf_maps.o
 *     llvm-strip --strip-debug btf_maps.o
 */

#include "bpf_support.h"

enum color { RED, GREEN = 7 };

struct key {
    u32 address;
    u16 port;
    u8 mac[6];
};

struct value {
    s64 total;
    enum color color;
    _Bool seen;
    char name[11];
    union {
        u32 word;
        u16 halves[2];
    };
    u32 low : 3, high : 5;
    s32 below : 4;
    struct key *next;
    double ratio;
};

typedef struct {
    __uint(type, HASH);
    __type(key, struct key);
    __type(value, struct value);
    __uint(max_entries, 100);
    __uint(map_flags, 1);
    __uint(pinning, 1);
} hash_map;

hash_map flows SEC(".maps");

/* Sizes without types; static. */
static struct {
    __uint(type, PERCPU_ARRAY);
    __uint(key_size, 4);
    __uint(value_size, 24);
    __ulong(max_entries, 3);
} sizes SEC(".maps");

struct inner {
    __uint(type, ARRAY);
    __type(key, u32);
    __type(value, u64);
    __uint(max_entries, 2);
} first SEC(".maps"), second SEC(".maps");

struct {
    __uint(type, ARRAY_OF_MAPS);
    __type(key, u32);
    __uint(max_entries, 4);
    __array(values, struct inner);
} outer SEC(".maps") = { .values = { [0] = &first, [3] = &second } };

/* A template without a name, nothing inside. */
struct {
    __uint(type, HASH_OF_MAPS);
    __type(key, u64);
    __uint(max_entries, 8);
    __array(values, struct {
        __uint(type, HASH);
        __type(key, u16);
        __type(value, u8);
        __uint(max_entries, 5);
    });
} by_number SEC(".maps");

int leaf(void *context);
SEC("xdp") int other_leaf(void *context) { return 3; }

struct {
    __uint(type, PROG_ARRAY);
    __uint(key_size, 4);
    __uint(max_entries, 4);
    __array(values, int(void *));
} jumps SEC(".maps") = { .values = { [1] = (void *)&leaf, [2] = (void *)&other_leaf } };

struct {
    __uint(type, RINGBUF);
    __uint(max_entries, 4096);
} events SEC(".maps");

struct {
    __uint(type, BLOOM_FILTER);
    __type(value, u32);
    __uint(max_entries, 64);
    __uint(map_extra, 3);
} seen SEC(".maps");

SEC("xdp") int leaf(void *context)
{
    struct key key = {};
    u32 index = 1;

    return bpf_map_lookup_elem(&flows, &key) || bpf_map_lookup_elem(&sizes, &index);
}

char _license[] SEC("license") = "Dual MIT/GPL";
u32 _version SEC("version") = 0x060c05;
