/* A socket filter: bytes by IP protocol, read with the packet loads of classic BPF (LD_ABS, LD_IND). */

#include "program.h"

/* The compiler's names for those instructions; the packet starts at the network header. */
unsigned long long load_byte(void *skb, unsigned long long offset) asm("llvm.bpf.load.byte");
unsigned long long load_half(void *skb, unsigned long long offset) asm("llvm.bpf.load.half");

struct {
    MAP_UINT(type, BPF_MAP_TYPE_ARRAY);
    MAP_UINT(max_entries, 256);
    MAP_TYPE(key, __u32);
    MAP_TYPE(value, __u64);
} bytes_by_protocol SEC(".maps");

struct {
    MAP_UINT(type, BPF_MAP_TYPE_HASH);
    MAP_UINT(max_entries, 64);
    MAP_TYPE(key, __u16);
    MAP_TYPE(value, __u64);
} packets_by_port SEC(".maps");

SEC("socket")
int count(struct __sk_buff *skb)
{
    __u32 first = load_byte(skb, 0);
    if (first >> 4 != 4)
        return 0; /* not IPv4: not for this socket */
    __u32 protocol = load_byte(skb, __builtin_offsetof(struct iphdr, protocol));
    __u64 *bytes = bpf_map_lookup_elem(&bytes_by_protocol, &protocol);
    if (bytes)
        __sync_fetch_and_add(bytes, skb->len);
    if (protocol == IPPROTO_UDP || protocol == IPPROTO_TCP) {
        __u16 port = load_half(skb, (first & 15) * 4 + 2);
        __u64 one = 1, *packets = bpf_map_lookup_elem(&packets_by_port, &port);
        if (packets)
            __sync_fetch_and_add(packets, 1);
        else
            bpf_map_update_elem(&packets_by_port, &port, &one, BPF_NOEXIST);
    }
    return skb->len;
}
