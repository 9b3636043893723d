/* Options of TCP headers: reserved, stored and found by a sock_ops program.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c header_options.c -o header_options.o
 *     llvm-strip --strip-debug header_options.o
 */

#include "bpf_support.h"

struct bpf_sock_ops {
    u32 op;
    u32 args[4];
    u32 family, remote_ip4, local_ip4, remote_ip6[4], local_ip6[4], remote_port, local_port;
    u32 is_fullsock, snd_cwnd, srtt_us, bpf_sock_ops_cb_flags, state, rtt_min, snd_ssthresh;
    u32 rcv_nxt, snd_nxt, snd_una, mss_cache, ecn_flags, rate_delivered, rate_interval_us;
    u32 packets_out, retrans_out, total_retrans, segs_in, data_segs_in, segs_out, data_segs_out;
    u32 lost_out, sacked_out, sk_txhash;
    u64 bytes_received, bytes_acked;
    u64 sk;
    u8 *skb_data, *skb_data_end;
    u32 skb_len, skb_tcp_flags;
};

static long (*const bpf_getsockopt)(void *ctx, int level, int name, void *value, int size) = (void *)57;
static long (*const bpf_sock_ops_cb_flags_set)(struct bpf_sock_ops *ctx, int flags) = (void *)59;
static long (*const bpf_load_hdr_opt)(struct bpf_sock_ops *ctx, void *option, u32 size, u64 flags) = (void *)142;
static long (*const bpf_store_hdr_opt)(struct bpf_sock_ops *ctx, const void *option, u32 size, u64 flags) = (void *)143;
static long (*const bpf_reserve_hdr_opt)(struct bpf_sock_ops *ctx, u32 size, u64 flags) = (void *)144;

enum { ESTABLISHED = 4, ACCEPTED = 5, PARSE = 13, LENGTH = 14, WRITE = 15, MOST = 24, ANSWERS = 12 };

struct call {
    u32 op, header_size, end_size, remaining, syn_size;
    u8 header[60];
    u8 end[60]; /* the header when the program ends */
    u8 syn[60];
    int answers[ANSWERS];
    u8 found[4][20];
} calls[MOST];
u32 count;

static const u8 first[6] = {254, 6, 0xEB, 0x9F, 0x12, 0x34}, second[4] = {253, 4, 0xEB, 0x9F}, other[6] = {254, 6, 0xEB, 0x9E, 7, 7};

#define COPY(to, size)                                                                      \
    for (int i = 0; i < 60; i++) {                                                          \
        u8 *data = ctx->skb_data, *end = ctx->skb_data_end;                                 \
        if (data + i + 1 > end)                                                             \
            break;                                                                          \
        to[i] = data[i];                                                                    \
        size = i + 1;                                                                       \
    }

static __attribute__((always_inline)) void reserve(struct bpf_sock_ops *ctx, struct call *call)
{
    call->answers[0] = bpf_reserve_hdr_opt(ctx, 41, 0);
    call->answers[1] = bpf_reserve_hdr_opt(ctx, 1, 0);
    call->answers[2] = bpf_reserve_hdr_opt(ctx, 4, 1);
    for (int size = 40; size > 1; size--)
        if (!bpf_reserve_hdr_opt(ctx, size, 0)) {
            call->remaining = size;
            break;
        }
    call->answers[3] = bpf_reserve_hdr_opt(ctx, 2, 0);
}

static __attribute__((always_inline)) void store(struct bpf_sock_ops *ctx, struct call *call)
{
    u8 bad[4] = {254, 3, 1, 2}, padding[2] = {1, 2}, window[3] = {3, 3, 5}, empty[2] = {200, 0};

    call->answers[0] = bpf_store_hdr_opt(ctx, first, 6, 0);
    call->answers[1] = bpf_store_hdr_opt(ctx, first, 6, 0);
    call->answers[2] = bpf_store_hdr_opt(ctx, second, 4, 0);
    call->answers[3] = bpf_store_hdr_opt(ctx, bad, 4, 0);
    call->answers[4] = bpf_store_hdr_opt(ctx, padding, 2, 0);
    call->answers[5] = bpf_store_hdr_opt(ctx, window, 3, 0);
    call->answers[6] = bpf_store_hdr_opt(ctx, other, 6, 0);
    call->answers[7] = bpf_store_hdr_opt(ctx, first, 5, 0);
    call->answers[8] = bpf_store_hdr_opt(ctx, first, 6, 1);
    call->answers[9] = bpf_store_hdr_opt(ctx, empty, 2, 0);
}

static __attribute__((always_inline)) void find(struct bpf_sock_ops *ctx, struct call *call)
{
    u8 magic[6] = {254, 4, 0xEB, 0x9F}, wrong[4] = {254, 5, 0xEB, 0x9F}, unknown[6] = {254, 6, 1, 2, 3, 4};
    u8 syn_magic[20] = {254, 4, 0xEB, 0x9F};

    call->answers[0] = bpf_load_hdr_opt(ctx, magic, 6, 0);
    call->found[0][0] = magic[4];
    call->found[0][1] = magic[5];
    call->found[1][0] = 2;
    call->answers[1] = bpf_load_hdr_opt(ctx, call->found[1], 20, 0);
    call->found[2][0] = 8;
    call->answers[2] = bpf_load_hdr_opt(ctx, call->found[2], 5, 0);
    call->answers[3] = bpf_load_hdr_opt(ctx, wrong, 4, 0);
    call->answers[4] = bpf_load_hdr_opt(ctx, unknown, 6, 0);
    call->answers[5] = bpf_load_hdr_opt(ctx, syn_magic, 20, 1);
    call->found[3][0] = 2;
    call->answers[6] = bpf_load_hdr_opt(ctx, call->found[3], 20, 1);
    call->answers[7] = bpf_load_hdr_opt(ctx, unknown, 1, 0);
    call->answers[8] = bpf_load_hdr_opt(ctx, unknown, 6, 2);
    call->answers[9] = bpf_getsockopt(ctx, 6, 1005, call->syn, 60);
    call->answers[10] = bpf_getsockopt(ctx, 6, 1006, syn_magic, 20);
    call->answers[11] = bpf_store_hdr_opt(ctx, first, 6, 0);
}

SEC("sockops") int options(struct bpf_sock_ops *ctx)
{
    struct call *call;
    u32 at = count;

    bpf_sock_ops_cb_flags_set(ctx, 0x70); /* all of headers: parse, parse unknown ones, write */
    if (ctx->op < ESTABLISHED || (ctx->op > ACCEPTED && ctx->op < PARSE) || at >= MOST)
        return 1;
    count = at + 1;
    call = &calls[at];
    call->op = ctx->op;
    COPY(call->header, call->header_size)
    if (ctx->op == LENGTH)
        reserve(ctx, call);
    else if (ctx->op == WRITE)
        store(ctx, call);
    else
        find(ctx, call);
    COPY(call->end, call->end_size)
    return 1;
}

char _license[] SEC("license") = "GPL";
