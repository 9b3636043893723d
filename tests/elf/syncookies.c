/* SYN cookies: made for the headers in `ip` and `tcp`, and given back.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c syncookies.c -o syncookies.o
 *     llvm-strip --strip-debug syncookies.o
 */

#include "bpf_support.h"

struct xdp_md { u32 data, data_end; };

static void *(*const bpf_skc_lookup_tcp)(void *ctx, void *tuple, u32 size, u64 netns, u64 flags) = (void *)99;
static long (*const bpf_sk_release)(void *sk) = (void *)86;
static long (*const bpf_tcp_check_syncookie)(void *sk, void *ip, u32 ip_size, void *tcp, u32 tcp_size) = (void *)100;
static s64 (*const bpf_tcp_gen_syncookie)(void *sk, void *ip, u32 ip_size, void *tcp, u32 tcp_size) = (void *)110;
static s64 (*const raw_gen4)(void *ip, void *tcp, u32 tcp_size) = (void *)204;
static s64 (*const raw_gen6)(void *ip, void *tcp, u32 tcp_size) = (void *)205;
static long (*const raw_check4)(void *ip, void *tcp) = (void *)206;
static long (*const raw_check6)(void *ip, void *tcp) = (void *)207;

u8 ip[40], tcp[64], tuple[36];
u32 ip_size, tcp_size, tuple_size;

s64 made;
u32 mss;
int given, given_back, given_wrong, given_old, found, raw_given;
u8 ack[20];

static __attribute__((always_inline)) void set32(u8 *place, u32 number)
{
    place[0] = number >> 24;
    place[1] = number >> 16;
    place[2] = number >> 8;
    place[3] = number;
}

static __attribute__((always_inline)) void answer(u32 cookie)
{
    u32 sequence = tcp[4] << 24 | tcp[5] << 16 | tcp[6] << 8 | tcp[7];

    for (int i = 0; i < 20; i++)
        ack[i] = tcp[i];
    set32(ack + 4, sequence + 1);
    set32(ack + 8, cookie + 1);
    ack[13] = 16;
}

SEC("xdp") int raw_ipv4(struct xdp_md *ctx)
{
    u32 size = tcp_size;

    if (size > sizeof(tcp))
        return 0;
    made = raw_gen4(ip, tcp, size);
    given = given_back = given_wrong = 0;
    if (made < 0)
        return 1;
    mss = made >> 32;
    answer(made);
    given = raw_check4(ip, ack);
    answer(made + 4);
    given_wrong = raw_check4(ip, ack);
    answer(made - (2 << 24));
    given_old = raw_check4(ip, ack);
    return 2;
}

SEC("xdp") int raw_ipv6(struct xdp_md *ctx)
{
    u32 size = tcp_size;

    if (size > sizeof(tcp))
        return 0;
    made = raw_gen6(ip, tcp, size);
    given = given_back = given_wrong = 0;
    if (made < 0)
        return 1;
    mss = made >> 32;
    answer(made);
    given = raw_check6(ip, ack);
    answer(made + 4);
    given_wrong = raw_check6(ip, ack);
    answer(made - (2 << 24));
    given_old = raw_check6(ip, ack);
    return 2;
}

SEC("xdp") int of_socket(struct xdp_md *ctx)
{
    u32 size = tcp_size, header = ip_size;
    void *sk;

    if (size > sizeof(tcp) || header > sizeof(ip) || !size || !header)
        return 0;
    found = given = given_back = given_wrong = raw_given = 0;
    sk = bpf_skc_lookup_tcp(ctx, tuple, tuple_size == 12 ? 12 : 36, -1, 0);
    if (!sk)
        return 1;
    found = 1;
    made = bpf_tcp_gen_syncookie(sk, ip, header, tcp, size);
    mss = made < 0 ? 0 : made >> 32;
    answer(made < 0 ? 0 : made);
    given = bpf_tcp_check_syncookie(sk, ip, header, ack, 20);
    ack[13] = 18;
    given_back = bpf_tcp_check_syncookie(sk, ip, header, ack, 20);
    ack[13] = 16;
    ack[11] ^= 4;
    given_wrong = bpf_tcp_check_syncookie(sk, ip, header, ack, 20);
    given_old = bpf_tcp_check_syncookie(sk, ip, header, ack, 19);
    bpf_sk_release(sk);
    return 2;
}

char _license[] SEC("license") = "GPL";
