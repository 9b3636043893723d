/* XDP: put IPv4 packets into IPv4 packets to the other end of a tunnel, and take them out again. */

#include "program.h"

struct tunnel {
    __u32 local; /* network byte order */
    __u32 remote;
};

struct {
    MAP_UINT(type, BPF_MAP_TYPE_HASH);
    MAP_UINT(max_entries, 64);
    MAP_TYPE(key, __u32); /* the packet's destination */
    MAP_TYPE(value, struct tunnel);
} tunnels SEC(".maps");

SEC("xdp")
int encapsulate(struct xdp_md *xdp)
{
    struct iphdr *inner = ipv4_header((void *)(long)xdp->data, (void *)(long)xdp->data_end);
    if (!inner)
        return XDP_PASS;
    __u32 destination = inner->daddr;
    struct tunnel *tunnel = bpf_map_lookup_elem(&tunnels, &destination);
    if (!tunnel)
        return XDP_PASS;
    __u16 length = htons(inner->tot_len);
    __u8 service = inner->tos;

    if (bpf_xdp_adjust_head(xdp, -(int)sizeof(struct iphdr)))
        return XDP_DROP;
    void *data = (void *)(long)xdp->data;
    void *data_end = (void *)(long)xdp->data_end;
    struct ethhdr *now = data, *before = data + sizeof(struct iphdr);
    struct iphdr *outer = (void *)(now + 1);
    if ((void *)(before + 1) > data_end || (void *)(outer + 1) > data_end)
        return XDP_DROP;
    __builtin_memmove(now, before, sizeof(*now));
    outer->version = 4;
    outer->ihl = 5;
    outer->tos = service;
    outer->tot_len = htons((__u16)(length + sizeof(*outer)));
    outer->id = 0;
    outer->frag_off = htons(0x4000);
    outer->ttl = 64;
    outer->protocol = IPPROTO_IPIP;
    outer->check = 0;
    outer->saddr = tunnel->local;
    outer->daddr = tunnel->remote;
    outer->check = checksum(outer, 5);
    return XDP_TX;
}

SEC("xdp")
int decapsulate(struct xdp_md *xdp)
{
    void *data = (void *)(long)xdp->data;
    struct iphdr *outer = ipv4_header(data, (void *)(long)xdp->data_end);
    struct ethhdr ethernet;

    if (!outer || outer->protocol != IPPROTO_IPIP || outer->ihl != 5)
        return XDP_PASS;
    __builtin_memcpy(&ethernet, data, sizeof(ethernet));
    if (bpf_xdp_adjust_head(xdp, sizeof(struct iphdr)))
        return XDP_DROP;
    data = (void *)(long)xdp->data;
    if (data + sizeof(ethernet) > (void *)(long)xdp->data_end)
        return XDP_DROP;
    __builtin_memcpy(data, &ethernet, sizeof(ethernet));
    return XDP_PASS;
}
