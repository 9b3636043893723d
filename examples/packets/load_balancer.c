/* XDP: a dispatcher that tail-calls a program for each protocol; TCP and UDP go to a backend by flow. */

#include "program.h"

enum { SLOT_TCP, SLOT_UDP, SLOT_OTHER, SLOTS };

struct {
    MAP_UINT(type, BPF_MAP_TYPE_PROG_ARRAY);
    MAP_UINT(max_entries, SLOTS);
    MAP_TYPE(key, __u32);
    MAP_TYPE(value, __u32);
} protocols SEC(".maps");

struct backend {
    __u32 address; /* network byte order */
    __u8 mac[6];
    __u16 unused;
    __u64 packets;
};

struct {
    MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
    MAP_UINT(max_entries, 4);
    MAP_TYPE(key, __u32);
    MAP_TYPE(value, struct backend);
} backends SEC(".maps");

/* Choose by source address and ports: one flow, one backend. */
INLINE int balance(struct xdp_md *xdp)
{
    void *data = (void *)(long)xdp->data;
    void *data_end = (void *)(long)xdp->data_end;
    struct ethhdr *ethernet = data;
    struct iphdr *ip = ipv4_header(data, data_end);
    if (!ip || ip->ihl != 5)
        return XDP_DROP;
    struct udphdr *ports = (void *)(ip + 1);
    if ((void *)ports + 4 > data_end)
        return XDP_DROP;
    __u32 hash = ip->saddr * 2654435761u ^ (ports->source << 16 | ports->dest);
    hash ^= hash >> 15;
    __u32 index = hash & 3;
    struct backend *backend = bpf_map_lookup_elem(&backends, &index);
    if (!backend || !backend->address)
        return XDP_ABORTED;
    __sync_fetch_and_add(&backend->packets, 1);
    ip->daddr = backend->address;
    ip->check = 0;
    ip->check = checksum(ip, 5);
    __builtin_memcpy(ethernet->h_dest, backend->mac, 6);
    return XDP_TX;
}

SEC("xdp")
int dispatch(struct xdp_md *xdp)
{
    struct iphdr *ip = ipv4_header((void *)(long)xdp->data, (void *)(long)xdp->data_end);
    if (!ip)
        return XDP_PASS;
    __u32 slot = ip->protocol == IPPROTO_TCP ? SLOT_TCP : ip->protocol == IPPROTO_UDP ? SLOT_UDP : SLOT_OTHER;
    bpf_tail_call(xdp, &protocols, slot);
    return XDP_PASS; /* nobody is in the slot */
}

SEC("xdp")
int balance_tcp(struct xdp_md *xdp)
{
    return balance(xdp);
}

SEC("xdp")
int balance_udp(struct xdp_md *xdp)
{
    return balance(xdp);
}
