/* Netfilter programs: what they see of the hook's state and of the packet.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c netfilter.c -o netfilter.o
 *     llvm-strip --strip-debug netfilter.o
 */

#include "bpf_support.h"

static long (*const bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;
static long (*const bpf_dynptr_read)(void *to, u32 size, const void *dynptr, u32 offset, u64 flags) = (void *)201;

struct net_device { int ifindex; u32 mtu; char name[16]; unsigned short type; } __attribute__((preserve_access_index));
struct nf_hook_state { u8 hook; u8 pf; struct net_device *in; struct net_device *out; } __attribute__((preserve_access_index));
struct sk_buff {
    struct net_device *dev;
    u32 len, data_len;
    u16 mac_len, protocol, mac_header, network_header, transport_header;
    u32 mark, priority, skb_iif, hash;
    u32 tail, end, truesize;
    u8 *head, *data;
    struct sock *sk;
    u8 pkt_type : 3;
} __attribute__((preserve_access_index));
struct bpf_nf_ctx { const struct nf_hook_state *state; struct sk_buff *skb; };
struct bpf_dynptr { u64 opaque[2]; } __attribute__((aligned(8)));

extern int bpf_dynptr_from_skb(struct sk_buff *skb, u64 flags, struct bpf_dynptr *dynptr) __ksym;
extern void *bpf_dynptr_slice(const struct bpf_dynptr *dynptr, u32 offset, void *buffer, u32 size) __ksym;
extern u32 bpf_dynptr_size(const struct bpf_dynptr *dynptr) __ksym;
extern int bpf_dynptr_is_rdonly(const struct bpf_dynptr *dynptr) __ksym;

enum { NF_DROP, NF_ACCEPT };

u32 hook, pf, in, out, in_mtu, in_type, dev, len, data_len, protocol, pkt_type, mark, iif, hash;
u32 mac_at, network_at, transport_at, data_at, tail_at, end_at;
u8 in_name[16], first[20];
int probed, flagged, sized, readonly, past;

SEC("netfilter") int look(struct bpf_nf_ctx *context)
{
    const struct nf_hook_state *state = context->state;
    struct sk_buff *skb = context->skb;

    hook = state->hook;
    pf = state->pf;
    in = state->in ? state->in->ifindex : 0;
    out = state->out ? state->out->ifindex : 0;
    in_mtu = state->in ? state->in->mtu : 0;
    in_type = state->in ? state->in->type : 0;
    dev = skb->dev ? skb->dev->ifindex : 0;
    len = skb->len;
    data_len = skb->data_len;
    protocol = skb->protocol;
    pkt_type = skb->pkt_type;
    mark = skb->mark;
    iif = skb->skb_iif;
    hash = skb->hash;
    mac_at = skb->mac_header;
    network_at = skb->network_header;
    transport_at = skb->transport_header;
    data_at = skb->data - skb->head;
    tail_at = skb->tail;
    end_at = skb->end;
    probed = bpf_probe_read_kernel(first, sizeof(first), skb->data);
    return skb->sk ? NF_DROP : NF_ACCEPT;
}

/* Drops UDP to port 53, over IPv4 without options or IPv6 without extension headers. */
SEC("netfilter") int no_names(struct bpf_nf_ctx *context)
{
    u8 buffer[48], *head;
    struct bpf_dynptr packet;

    flagged = bpf_dynptr_from_skb(context->skb, 1, &packet);
    if (bpf_dynptr_from_skb(context->skb, 0, &packet))
        return NF_DROP;
    sized = bpf_dynptr_size(&packet);
    readonly = bpf_dynptr_is_rdonly(&packet);
    past = bpf_dynptr_read(buffer, 4, &packet, sized - 3, 0);
    if (context->state->pf == 2) {
        head = bpf_dynptr_slice(&packet, 0, buffer, 24);
        if (!head)
            return NF_ACCEPT;
        return head[9] == 17 && head[22] == 0 && head[23] == 53 ? NF_DROP : NF_ACCEPT;
    }
    head = bpf_dynptr_slice(&packet, 0, buffer, 44);
    if (!head)
        return NF_ACCEPT;
    return head[6] == 17 && head[42] == 0 && head[43] == 53 ? NF_DROP : NF_ACCEPT;
}

char _license[] SEC("license") = "GPL";
