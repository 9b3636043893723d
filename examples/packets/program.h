/* What the programs in this folder share: map definitions, helpers by number, byte order. */

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

/* A map is a struct of pointers in .maps; BTF keeps their types (libbpf's convention). */
#define MAP_UINT(name, value) int (*name)[value]
#define MAP_TYPE(name, type) typeof(type) *name

#define htons(x) ((__u16)__builtin_bswap16(x))
#define htonl(x) ((__u32)__builtin_bswap32(x))

/* Helpers by their numbers, enum bpf_func_id in <linux/bpf.h>. */
#define HELPER(result, name, ...) static result (*const bpf_##name)(__VA_ARGS__) = (void *)BPF_FUNC_##name
HELPER(void *, map_lookup_elem, void *map, const void *key);
HELPER(long, map_update_elem, void *map, const void *key, const void *value, __u64 flags);
HELPER(__u64, ktime_get_ns, void);
HELPER(long, tail_call, void *context, void *map, __u32 index);
HELPER(long, skb_store_bytes, struct __sk_buff *skb, __u32 offset, const void *from, __u32 size, __u64 flags);
HELPER(long, l3_csum_replace, struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags);
HELPER(long, l4_csum_replace, struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags);
HELPER(long, skb_vlan_push, struct __sk_buff *skb, __u16 protocol, __u16 tag);
HELPER(long, skb_vlan_pop, struct __sk_buff *skb);
HELPER(long, xdp_adjust_head, struct xdp_md *xdp, int delta);
HELPER(void *, ringbuf_reserve, void *map, __u64 size, __u64 flags);
HELPER(void, ringbuf_submit, void *data, __u64 flags);

/* Return the IPv4 header of an Ethernet frame, 0 where there is none. */
INLINE struct iphdr *ipv4_header(void *data, void *data_end)
{
    struct ethhdr *ethernet = data;
    struct iphdr *ip = (void *)(ethernet + 1);

    if ((void *)(ip + 1) > data_end || ethernet->h_proto != htons(ETH_P_IP))
        return 0;
    return ip;
}

/* Return the checksum of `words` 32-bit words, as it stands in an IPv4 header. */
INLINE __u16 checksum(const void *data, int words)
{
    const __u16 *halves = data;
    __u32 sum = 0;

#pragma unroll
    for (int i = 0; i < 2 * words; i++)
        sum += halves[i];
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return ~sum;
}

char program_license[] SEC("license") = "GPL";
