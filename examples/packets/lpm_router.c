/* XDP: route IPv4 packets by longest prefix match: new MAC addresses, TTL down by one, sent out again. */

#include "program.h"

struct prefix {
    __u32 length; /* bits of the address that count */
    __u8 address[4];
};

struct next_hop {
    __u8 destination[6];
    __u8 source[6];
    __u32 packets;
};

struct {
    MAP_UINT(type, BPF_MAP_TYPE_LPM_TRIE);
    MAP_UINT(max_entries, 256);
    MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
    MAP_TYPE(key, struct prefix);
    MAP_TYPE(value, struct next_hop);
} routes SEC(".maps");

SEC("xdp")
int route(struct xdp_md *xdp)
{
    void *data = (void *)(long)xdp->data;
    void *data_end = (void *)(long)xdp->data_end;
    struct ethhdr *ethernet = data;
    struct iphdr *ip = ipv4_header(data, data_end);
    struct prefix prefix = {.length = 32};

    if (!ip)
        return XDP_PASS;
    if (ip->ttl <= 1)
        return XDP_DROP;
    __builtin_memcpy(prefix.address, &ip->daddr, 4);
    struct next_hop *hop = bpf_map_lookup_elem(&routes, &prefix);
    if (!hop)
        return XDP_DROP;
    __sync_fetch_and_add(&hop->packets, 1);
    __builtin_memcpy(ethernet->h_dest, hop->destination, 6);
    __builtin_memcpy(ethernet->h_source, hop->source, 6);
    /* RFC 1141: one less in the high byte of a word is 0x100 more in the checksum. */
    __u32 sum = ip->check + htons(0x0100);
    ip->check = sum + (sum >= 0xffff);
    ip->ttl--;
    return XDP_TX;
}
