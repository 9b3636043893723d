/* XDP: UDP packets to blocked ports are dropped and counted. -DFIRST is the version with which the tutorial starts. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1024);
    __type(key, __u16);
    __type(value, __u8);
} blocked SEC(".maps");

__u64 dropped;

SEC("xdp")
int firewall(struct xdp_md *xdp)
{
    void *data = (void *)(long)xdp->data, *end = (void *)(long)xdp->data_end;
    struct ethhdr *ethernet = data;
    struct iphdr *ip = (void *)(ethernet + 1);

    if ((void *)(ip + 1) > end || ethernet->h_proto != bpf_htons(ETH_P_IP))
        return XDP_PASS;
    if (ip->protocol != IPPROTO_UDP)
        return XDP_PASS;
#ifdef FIRST
    struct udphdr *udp = (void *)(ip + 1);
#else
    struct udphdr *udp = (void *)ip + ip->ihl * 4;
#endif
    if ((void *)(udp + 1) > end)
        return XDP_PASS;
    __u16 port = bpf_ntohs(udp->dest);
    if (!bpf_map_lookup_elem(&blocked, &port))
        return XDP_PASS;
    __sync_fetch_and_add(&dropped, 1);
    return XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
