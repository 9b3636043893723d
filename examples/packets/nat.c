/* TC: rewrite the destination of TCP and UDP packets, both checksums kept right by the helpers. */

#include "program.h"

#define IP_AT sizeof(struct ethhdr)
#define OF_IP(field) (IP_AT + __builtin_offsetof(struct iphdr, field))

struct endpoint {
    __u32 address; /* both in network byte order */
    __u16 port;
    __u16 unused;
};

struct {
    MAP_UINT(type, BPF_MAP_TYPE_HASH);
    MAP_UINT(max_entries, 128);
    MAP_TYPE(key, struct endpoint);
    MAP_TYPE(value, struct endpoint);
} translations SEC(".maps");

SEC("tc")
int translate(struct __sk_buff *skb)
{
    void *data_end = (void *)(long)skb->data_end;
    struct iphdr *ip = ipv4_header((void *)(long)skb->data, data_end);
    if (!ip || ip->ihl != 5)
        return TC_ACT_OK;
    __u8 protocol = ip->protocol;
    if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
        return TC_ACT_OK;
    struct udphdr *ports = (void *)(ip + 1);
    if ((void *)(ports + 1) > data_end)
        return TC_ACT_OK;
    struct endpoint from = {.address = ip->daddr, .port = ports->dest};
    struct endpoint *to = bpf_map_lookup_elem(&translations, &from);
    if (!to)
        return TC_ACT_OK;

    __u32 transport = IP_AT + sizeof(struct iphdr);
    __u32 sum = transport + (protocol == IPPROTO_TCP ? __builtin_offsetof(struct tcphdr, check)
                                                     : __builtin_offsetof(struct udphdr, check));
    __u64 zero_stays = protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
    __u32 address = to->address;
    __u16 port = to->port;

    bpf_l4_csum_replace(skb, sum, from.address, address, zero_stays | BPF_F_PSEUDO_HDR | sizeof(address));
    bpf_l4_csum_replace(skb, sum, from.port, port, zero_stays | sizeof(port));
    bpf_l3_csum_replace(skb, OF_IP(check), from.address, address, sizeof(address));
    bpf_skb_store_bytes(skb, OF_IP(daddr), &address, sizeof(address), 0);
    bpf_skb_store_bytes(skb, transport + __builtin_offsetof(struct udphdr, dest), &port, sizeof(port), 0);
    return TC_ACT_OK;
}
