/* XDP: a firewall, right as it stands, and with one of ten bugs that people make: clang -DBUG=1 to 10.
 *
 * 1 bounds: a byte behind what was compared     6 a port compared without htons
 * 2 VLAN tags are not looked behind             7 a map's answer is not tested
 * 3 IPv6 extension headers are taken for TCP    8 a counter of 8 bits, which overflows
 * 4 fragments are taken for whole packets       9 a prefix too short in a longest prefix match
 * 5 the checksum leaves out the options        10 a tail call to a slot that may be empty
 */

#include "../packets/program.h"
#include <linux/ipv6.h>

#ifndef BUG
#define BUG 0
#endif

#define VLAN 0x8100
#define VLAN_QINQ 0x88a8
#define LIMIT 200

struct {
    MAP_UINT(type, BPF_MAP_TYPE_HASH);
    MAP_UINT(max_entries, 1024);
    MAP_TYPE(key, __u16);
    MAP_TYPE(value, __u32);
} ports SEC(".maps");

struct prefix {
    __u32 length;
    __u8 address[4];
};

struct {
    MAP_UINT(type, BPF_MAP_TYPE_LPM_TRIE);
    MAP_UINT(max_entries, 256);
    MAP_UINT(map_flags, BPF_F_NO_PREALLOC);
    MAP_TYPE(key, struct prefix);
    MAP_TYPE(value, __u32);
} sources SEC(".maps");

struct {
    MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
    MAP_UINT(max_entries, 1);
    MAP_TYPE(key, __u32);
    MAP_TYPE(value, __u32);
} resets SEC(".maps");

SEC("xdp")
int telnet(struct xdp_md *xdp)
{
    return XDP_DROP;
}

SEC("xdp")
int tftp(struct xdp_md *xdp)
{
    return XDP_DROP;
}

struct {
    MAP_UINT(type, BPF_MAP_TYPE_PROG_ARRAY);
    MAP_UINT(max_entries, 4);
    MAP_TYPE(key, __u32);
    int (*values[])(struct xdp_md *);
} handlers SEC(".maps") = {.values = {[0] = &telnet, [1] = &tftp}};

struct ipv6_option {
    __u8 next;
    __u8 length; /* in units of 8 bytes, but for the first 8 */
};

INLINE __u16 sum_of(const void *data, void *data_end, int size)
{
    __u32 sum = 0;
    for (int i = 0; i < 30; i++) {
        const __u16 *half = data + 2 * i;
        if (2 * i >= size || (void *)(half + 1) > data_end)
            break;
        sum += *half;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

INLINE int on_ports(struct xdp_md *xdp, void *transport, void *data_end, __u8 protocol)
{
    struct udphdr *header = transport;
#if BUG == 1
    if ((void *)header + 3 > data_end)
#else
    if ((void *)header + 4 > data_end)
#endif
        return XDP_DROP;
#if BUG == 6
    if (protocol == IPPROTO_TCP && header->dest == 22)
#else
    if (protocol == IPPROTO_TCP && header->dest == htons(22))
#endif
        return XDP_DROP;
    if (header->dest == htons(23) || header->dest == htons(69)) {
        __u32 slot = header->dest == htons(23) ? 0 : 1;
#if BUG == 10
        slot = header->source == htons(53) ? 2 : slot;
#endif
        bpf_tail_call(xdp, &handlers, slot);
        return XDP_ABORTED;
    }
    __u16 port = htons(header->dest);
    __u32 *blocked = bpf_map_lookup_elem(&ports, &port);
#if BUG == 7
    if (*blocked)
#else
    if (blocked && *blocked)
#endif
        return XDP_DROP;
    if (protocol == IPPROTO_TCP) {
        struct tcphdr *tcp = transport;
        if ((void *)(tcp + 1) > data_end)
            return XDP_DROP;
        if (tcp->rst) { /* so many, and no more */
            __u32 first = 0, *count = bpf_map_lookup_elem(&resets, &first);
            if (count) {
#if BUG == 8
                __u8 *small = (__u8 *)count;
                *small += 1;
                if (*small > LIMIT)
#else
                *count += *count <= LIMIT;
                if (*count > LIMIT)
#endif
                    return XDP_DROP;
            }
        }
    }
    return XDP_PASS;
}

SEC("xdp")
int firewall(struct xdp_md *xdp)
{
    void *data = (void *)(long)xdp->data;
    void *data_end = (void *)(long)xdp->data_end;
    struct ethhdr *ethernet = data;
    void *next = ethernet + 1;
    if (next > data_end)
        return XDP_DROP;
    __u16 kind = ethernet->h_proto;
#if BUG != 2
#pragma unroll
    for (int tags = 0; tags < 2; tags++)
        if (kind == htons(VLAN) || kind == htons(VLAN_QINQ)) {
            __u16 *tag = next;
            next += 4;
            if (next > data_end)
                return XDP_DROP;
            kind = tag[1];
        }
#endif
    if (kind == htons(ETH_P_IP)) {
        struct iphdr *ip = next;
        if ((void *)(ip + 1) > data_end || ip->ihl < 5)
            return XDP_DROP;
        int size = ip->ihl * 4;
        if ((void *)ip + size > data_end)
            return XDP_DROP;
#if BUG == 5
        if (sum_of(ip, data_end, 20) != 0xffff)
#else
        if (sum_of(ip, data_end, size) != 0xffff)
#endif
            return XDP_DROP;
#if BUG == 9
        struct prefix prefix = {.length = 24};
#else
        struct prefix prefix = {.length = 32};
#endif
        __builtin_memcpy(prefix.address, &ip->saddr, 4);
        __u32 *known = bpf_map_lookup_elem(&sources, &prefix);
        if (known && *known)
            return XDP_DROP;
#if BUG != 4
        if (ip->frag_off & htons(0x1fff)) /* no ports in there */
            return XDP_PASS;
#endif
        if (ip->protocol == IPPROTO_TCP || ip->protocol == IPPROTO_UDP)
            return on_ports(xdp, (void *)ip + size, data_end, ip->protocol);
        return XDP_PASS;
    }
    if (kind == htons(ETH_P_IPV6)) {
        struct ipv6hdr *ip = next;
        if ((void *)(ip + 1) > data_end)
            return XDP_DROP;
        __u8 protocol = ip->nexthdr;
        next = ip + 1;
#if BUG == 3
        if (protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_DSTOPTS)
            protocol = IPPROTO_TCP;
#else
#pragma unroll
        for (int options = 0; options < 2; options++)
            if (protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_DSTOPTS) {
                struct ipv6_option *option = next;
                if ((void *)(option + 1) > data_end)
                    return XDP_DROP;
                protocol = option->next;
                next += 8 * (option->length + 1);
                if (next > data_end)
                    return XDP_DROP;
            }
#endif
        if (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP)
            return on_ports(xdp, next, data_end, protocol);
    }
    return XDP_PASS;
}
