/* What a program of XDP sees of its context; the packet lies below 4 GiB. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct xdp_md {
    u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

#define START(context) ((u8 *)(unsigned long)(context)->data)
#define END(context) ((u8 *)(unsigned long)(context)->data_end)

enum { ETHERNET = 14, IP = 20, TCP = 20, MOST = 1500 };
enum { PASS = 2, TRANSMIT = 3 };
