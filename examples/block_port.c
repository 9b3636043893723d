/* A classifier that drops TCP packets from or to port 0x9999.
 *
 * The context is a metadata buffer with the packet's start at offset 0x40 and its end at 0x50,
 * both 64-bit addresses, as EbpfVmFixedMbuff(prog, 0x40, 0x50) provides it. Returns 0 to accept
 * a packet, 0xffffffff to drop it, and says what it dropped through bpf_trace_printk.
 *
 * Compiled with Debian clang 14.0.6:
 *
 *     clang -O2 -g0 -target bpf -c block_port.c -o block_port.o
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define NETWORK16(x) ((u16)__builtin_bswap16(x))

enum { ETHERTYPE_IPV4 = 0x0800, PROTOCOL_TCP = 6, BLOCKED_PORT = 0x9999 };
enum { ACCEPT = 0, DROP = -1 };

struct metadata {
    u8 before[0x40];
    u8 *data;
    u8 between[8];
    u8 *data_end;
};

struct ethernet {
    u8 destination[6];
    u8 source[6];
    u16 type;
};

struct ipv4 {
    u8 version_and_length; /* header length in 4-byte words in the low half */
    u8 service;
    u16 length;
    u16 id;
    u16 fragment;
    u8 ttl;
    u8 protocol;
    u16 checksum;
    u32 source;
    u32 destination;
};

struct tcp {
    u16 source;
    u16 destination;
};

/* Helper 6, by its number: format, its size, up to three values. */
static long (*const bpf_trace_printk)(const char *format, u32 size, u64, u64, u64) = (void *)6;

SECTION(".classifier")
int block_port(struct metadata *context)
{
    u8 *data = context->data;
    u8 *data_end = context->data_end;
    struct ethernet *ethernet = (void *)data;
    struct ipv4 *ip = (void *)(ethernet + 1);

    if ((u8 *)(ip + 1) > data_end)
        return ACCEPT;
    if (ethernet->type != NETWORK16(ETHERTYPE_IPV4) || ip->protocol != PROTOCOL_TCP)
        return ACCEPT;

    struct tcp *tcp = (void *)((u8 *)ip + (ip->version_and_length & 15) * 4);
    if ((u8 *)(tcp + 1) > data_end)
        return ACCEPT;

    u16 source = NETWORK16(tcp->source);
    u16 destination = NETWORK16(tcp->destination);
    if (source != BLOCKED_PORT && destination != BLOCKED_PORT)
        return ACCEPT;

    /* Written letter by letter: a string constant would be a global variable, in .rodata. */
    volatile char format[8];
    format[0] = '%';
    format[1] = 'x';
    format[2] = ' ';
    format[3] = '%';
    format[4] = 'x';
    format[5] = '\n';
    format[6] = 0;
    bpf_trace_printk((const char *)format, 7, source, destination, BLOCKED_PORT);
    return DROP;
}
