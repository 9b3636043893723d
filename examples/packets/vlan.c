/* TC: push a VLAN tag on the way out, pop it on the way in. */

#include "program.h"

const volatile __u16 vlan_id = 100;

SEC("tc")
int push(struct __sk_buff *skb)
{
    if (skb->protocol == htons(ETH_P_8021Q))
        return TC_ACT_SHOT;
    return bpf_skb_vlan_push(skb, htons(ETH_P_8021Q), vlan_id) ? TC_ACT_SHOT : TC_ACT_OK;
}

SEC("tc")
int pop(struct __sk_buff *skb)
{
    if (!skb->vlan_present)
        return TC_ACT_OK;
    if ((skb->vlan_tci & 0xfff) != vlan_id)
        return TC_ACT_SHOT;
    return bpf_skb_vlan_pop(skb) ? TC_ACT_SHOT : TC_ACT_OK;
}

/* Both, one after the other: what comes out is what went in. */
SEC("tc")
int push_and_pop(struct __sk_buff *skb)
{
    __u32 before = skb->len;

    if (bpf_skb_vlan_push(skb, htons(ETH_P_8021Q), vlan_id))
        return TC_ACT_SHOT;
    if (bpf_skb_vlan_pop(skb))
        return TC_ACT_SHOT;
    return skb->len == before ? TC_ACT_OK : TC_ACT_SHOT;
}
