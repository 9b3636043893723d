/* A tc program whose program array an XDP program is put into: it would read its xdp_md out of the __sk_buff.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c tail_call_two_types.c -o tail_call_two_types.o
 */

#include "bpf_support.h"

struct xdp_md { u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex; };

struct {
    int (*type)[3]; /* PROG_ARRAY */
    int (*max_entries)[2];
    int (*key_size)[4];
    int (*value_size)[4];
} jumps SEC(".maps");

SEC("tc") int caller(void *context)
{
    bpf_tail_call(context, &jumps, 1);
    return 9;
}

SEC("xdp") int target(struct xdp_md *context)
{
    return context->ingress_ifindex * 1000 + context->rx_queue_index;
}
