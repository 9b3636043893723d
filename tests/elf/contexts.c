/* Programs on contexts of several types, by field.
 *   clang -O2 -g -target bpf -mcpu=v3 -fdebug-compilation-dir=. -c contexts.c -o contexts.o
 */
typedef unsigned int u32;
#define SECTION(name) __attribute__((section(name), used))
struct bpf_sock_addr { u32 user_family, user_ip4, user_ip6[4], user_port, family, type, protocol; };
struct xdp_md { u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex; };
struct __sk_buff { u32 len; u32 before_data[18]; u32 data, data_end; };
static unsigned long long (*const length)(void *) = (void *)188;

SECTION("cgroup/connect4") int family(struct bpf_sock_addr *context) { context->user_family = 3; return 1; }
SECTION("cgroup/connect4") int address(struct bpf_sock_addr *context) { context->user_ip4 = 3; return 1; }
SECTION("xdp.frags") int linear(struct xdp_md *context) { return context->data_end - context->data; }
SECTION("xdp.frags") int whole(struct xdp_md *context) { return length(context); }
SECTION("sk_skb/stream_parser") int parse(struct __sk_buff *skb)
{
    unsigned char *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
    if (data + 2 > end)
        return 0;
    return 2 + (data[0] << 8 | data[1]);
}
