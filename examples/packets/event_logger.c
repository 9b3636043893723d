/* XDP: tell user space of each TCP packet that opens or ends a connection, through a ring buffer. */

#include "program.h"

struct event {
    __u32 source; /* addresses and ports in network byte order */
    __u32 destination;
    __u16 source_port;
    __u16 destination_port;
    __u8 is_syn;
    __u8 is_fin;
    __u8 is_rst;
    __u8 unused;
};

struct {
    MAP_UINT(type, BPF_MAP_TYPE_RINGBUF);
    MAP_UINT(max_entries, 1 << 16);
} events SEC(".maps");

__u64 lost;

SEC("xdp")
int log_connections(struct xdp_md *xdp)
{
    void *data_end = (void *)(long)xdp->data_end;
    struct iphdr *ip = ipv4_header((void *)(long)xdp->data, data_end);
    if (!ip || ip->protocol != IPPROTO_TCP || ip->ihl != 5)
        return XDP_PASS;
    struct tcphdr *tcp = (void *)(ip + 1);
    if ((void *)(tcp + 1) > data_end || !(tcp->syn || tcp->fin || tcp->rst))
        return XDP_PASS;

    struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
    if (!event) {
        __sync_fetch_and_add(&lost, 1);
        return XDP_PASS;
    }
    event->source = ip->saddr;
    event->destination = ip->daddr;
    event->source_port = tcp->source;
    event->destination_port = tcp->dest;
    event->is_syn = tcp->syn;
    event->is_fin = tcp->fin;
    event->is_rst = tcp->rst;
    event->unused = 0;
    bpf_ringbuf_submit(event, 0);
    return XDP_PASS;
}
