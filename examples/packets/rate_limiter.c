/* XDP: a token bucket for each source address, and totals for each processor. */

#include "program.h"

const volatile __u64 packets_per_second = 1000;
const volatile __u64 burst = 4;

struct bucket {
    __u64 tokens; /* billionths of a packet */
    __u64 filled; /* nanoseconds */
};

struct {
    MAP_UINT(type, BPF_MAP_TYPE_LRU_HASH);
    MAP_UINT(max_entries, 4096);
    MAP_TYPE(key, __u32);
    MAP_TYPE(value, struct bucket);
} buckets SEC(".maps");

enum { PASSED, LIMITED, TOTALS };

struct {
    MAP_UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    MAP_UINT(max_entries, TOTALS);
    MAP_TYPE(key, __u32);
    MAP_TYPE(value, __u64);
} totals SEC(".maps");

enum { SECOND = 1000000000 };

INLINE int count(__u32 which)
{
    __u64 *total = bpf_map_lookup_elem(&totals, &which);
    if (total)
        (*total)++;
    return which == PASSED ? XDP_PASS : XDP_DROP;
}

SEC("xdp")
int limit(struct xdp_md *xdp)
{
    struct iphdr *ip = ipv4_header((void *)(long)xdp->data, (void *)(long)xdp->data_end);
    if (!ip)
        return XDP_PASS;
    __u32 source = ip->saddr;
    __u64 now = bpf_ktime_get_ns(), full = burst * SECOND;
    struct bucket *bucket = bpf_map_lookup_elem(&buckets, &source);
    if (!bucket) {
        struct bucket fresh = {.tokens = full - SECOND, .filled = now};
        bpf_map_update_elem(&buckets, &source, &fresh, BPF_ANY);
        return count(PASSED);
    }
    __u64 passed = now - bucket->filled;
    if (passed > 1000ull * SECOND)
        passed = 1000ull * SECOND;
    __u64 tokens = bucket->tokens + passed * packets_per_second;
    if (tokens > full)
        tokens = full;
    bucket->filled = now;
    if (tokens < SECOND) {
        bucket->tokens = tokens;
        return count(LIMITED);
    }
    bucket->tokens = tokens - SECOND;
    return count(PASSED);
}
