/* XDP: drop UDP and TCP packets to ports that are in `blocked`; count packets by verdict in `counters`. */

#include "program.h"

struct {
    MAP_UINT(type, BPF_MAP_TYPE_HASH);
    MAP_UINT(max_entries, 1024);
    MAP_TYPE(key, __u16);
    MAP_TYPE(value, __u8);
} blocked SEC(".maps");

struct counter {
    __u64 packets;
    __u64 bytes;
};

struct {
    MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
    MAP_UINT(max_entries, XDP_REDIRECT + 1);
    MAP_TYPE(key, __u32);
    MAP_TYPE(value, struct counter);
} counters SEC(".maps");

INLINE __u32 verdict(void *data, void *data_end)
{
    struct iphdr *ip = ipv4_header(data, data_end);
    if (!ip || (ip->protocol != IPPROTO_UDP && ip->protocol != IPPROTO_TCP))
        return XDP_PASS;
    /* UDP and TCP begin with the same two fields. */
    struct udphdr *ports = (void *)ip + ip->ihl * 4;
    if ((void *)ports + 4 > data_end)
        return XDP_PASS;
    __u16 destination = htons(ports->dest);
    return bpf_map_lookup_elem(&blocked, &destination) ? XDP_DROP : XDP_PASS;
}

SEC("xdp")
int port_filter(struct xdp_md *xdp)
{
    void *data = (void *)(long)xdp->data;
    void *data_end = (void *)(long)xdp->data_end;
    __u32 action = verdict(data, data_end);
    struct counter *counter = bpf_map_lookup_elem(&counters, &action);

    if (counter) {
        __sync_fetch_and_add(&counter->packets, 1);
        __sync_fetch_and_add(&counter->bytes, data_end - data);
    }
    return action;
}
