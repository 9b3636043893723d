/* Spin locks in maps of types that may not have one, beside one that may; a tc program that jumps to XDP.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c locks_refused.c -o locks_refused.o
 *     llvm-strip --strip-debug locks_refused.o
 */

#include "bpf_support.h"

static long (*const bpf_spin_lock)(void *) = (void *)93;
static long (*const bpf_spin_unlock)(void *) = (void *)94;

struct bpf_spin_lock { u32 val; };
struct account { struct bpf_spin_lock lock; u64 count; };
struct xdp_md { u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex; };

#define ACCOUNTS(name, kind)                                          \
    struct {                                                          \
        __uint(type, kind);                                           \
        __uint(max_entries, 4);                                       \
        __type(key, u32);                                             \
        __type(value, struct account);                                \
    } name SEC(".maps");                                              \
    SEC("tc") int use_##name(void *context)                           \
    {                                                                 \
        u32 key = 0;                                                  \
        struct account *account = bpf_map_lookup_elem(&name, &key);   \
        if (!account)                                                 \
            return 1;                                                 \
        bpf_spin_lock(&account->lock);                                \
        account->count++;                                             \
        bpf_spin_unlock(&account->lock);                              \
        return 7;                                                     \
    }

ACCOUNTS(plain, 2)
ACCOUNTS(lru_hash, 9)
ACCOUNTS(percpu_hash, 5)
ACCOUNTS(percpu_array, 6)
ACCOUNTS(lru_percpu_hash, 10)

struct {
    __uint(type, PROG_ARRAY);
    __uint(max_entries, 2);
    __uint(key_size, 4);
    __uint(value_size, 4);
} jumps SEC(".maps");

SEC("tc") int caller(void *context)
{
    bpf_tail_call(context, &jumps, 1);
    return 9;
}

SEC("xdp") int target(struct xdp_md *context)
{
    return context->ingress_ifindex * 1000 + context->rx_queue_index;
}

char _license[] SEC("license") = "GPL";
