/* An XDP program that drops IPv4 UDP packets to port 9 (discard) and passes everything else.
 *
 * Compiled with Debian clang 14.0.6:
 *
 *     clang -O2 -g0 -target bpf -c drop_discard.c -o drop_discard.o
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

#define SECTION(name) __attribute__((section(name), used))
#define NETWORK16(x) ((u16)__builtin_bswap16(x))

enum { XDP_DROP = 1, XDP_PASS = 2 };
enum { ETHERTYPE_IPV4 = 0x0800, PROTOCOL_UDP = 17, DISCARD = 9 };
enum { ETHERNET_SIZE = 14, IPV4_SIZE = 20, UDP_SIZE = 8 };

struct xdp_md {
    u32 data;
    u32 data_end;
};

SECTION("xdp")
int drop_discard(struct xdp_md *context)
{
    u8 *packet = (u8 *)(long)context->data;
    u8 *end = (u8 *)(long)context->data_end;
    u8 *ip = packet + ETHERNET_SIZE;

    if (ip + IPV4_SIZE + UDP_SIZE > end)
        return XDP_PASS;
    if (*(u16 *)(packet + 12) != NETWORK16(ETHERTYPE_IPV4) || ip[9] != PROTOCOL_UDP)
        return XDP_PASS;
    if ((ip[0] & 15) != 5)
        return XDP_PASS;
    return *(u16 *)(ip + IPV4_SIZE + 2) == NETWORK16(DISCARD) ? XDP_DROP : XDP_PASS;
}
