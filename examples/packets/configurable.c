/* XDP: global variables: constants that are set before the first run, counters that are read after. */

#include "program.h"

struct range {
    __u16 first;
    __u16 last;
};

const volatile struct range allowed_ports = {.first = 1024, .last = 65535};
const volatile __u8 minimum_ttl = 2;
const volatile char name[16] = "default";

__u64 seen;
__u64 dropped;
__u32 last_source = 0xffffffff;
static __u64 by_ttl[4]; /* static variables are globals of the object as well */

SEC("xdp")
int configurable(struct xdp_md *xdp)
{
    void *data_end = (void *)(long)xdp->data_end;
    struct iphdr *ip = ipv4_header((void *)(long)xdp->data, data_end);

    __sync_fetch_and_add(&seen, 1);
    if (!ip)
        return XDP_PASS;
    last_source = htonl(ip->saddr);
    __sync_fetch_and_add(&by_ttl[ip->ttl >> 6], 1);
    struct udphdr *ports = (void *)(ip + 1);
    if (ip->ttl < minimum_ttl)
        goto drop;
    if (ip->protocol != IPPROTO_UDP || ip->ihl != 5 || (void *)(ports + 1) > data_end)
        return XDP_PASS;
    if (htons(ports->dest) >= allowed_ports.first && htons(ports->dest) <= allowed_ports.last)
        return XDP_PASS;
drop:
    __sync_fetch_and_add(&dropped, 1);
    return XDP_DROP;
}
