/* What compilers of today make of -mcpu=v4: signed division and remainder, moves and loads that extend the sign,
 * byte swaps of registers, long jumps, may_goto, atomics; tables of jumps where LLVM 22 has them.
 * Debian clang 19.1.7, and clang 22.1.8 of the wheel ziglang 0.17.1 (python -m ziglang clang):
 *
 *     clang-19 -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v4 -c v4.c -o v4_clang19.o
 *     llvm-strip-19 --strip-debug v4_clang19.o
 *     python -m ziglang clang -O2 -g -fdebug-compilation-dir=. -target bpfel -mcpu=v4 -c v4.c -o v4_clang22.o
 *     llvm-strip-19 --strip-debug v4_clang22.o
 */

#include "bpf_support.h"

struct xdp_md { u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex; };

typedef short s16;

s64 words[4];
u64 results[8];
static u64 hidden;

#define PACKET(type)                                                          \
    type *in = (void *)(long)context->data;                                   \
    if ((void *)(in + 8) > (void *)(long)context->data_end)                   \
        return 0

SEC("xdp") int division(struct xdp_md *context)
{
    PACKET(s64);
    results[0] = in[0] / in[1];
    results[1] = in[0] % in[1];
    results[2] = (s32)in[0] / (s32)in[2];
    results[3] = (s32)in[0] % (s32)in[2];
    results[4] = in[3] / -7;
    results[5] = (s32)in[3] % 10;
    results[6] = (u64)in[0] / (u64)in[1];
    results[7] = (u64)in[0] % (u64)in[1];
    return 1;
}

SEC("xdp") int moves(struct xdp_md *context)
{
    PACKET(u64);
    u64 value = in[0] + in[1], other = in[2] ^ in[3];
    results[0] = (s64)(s8)value;
    results[1] = (s64)(s16)value;
    results[2] = (s64)(s32)value;
    results[3] = (u32)(s32)(s8)other;
    results[4] = (u32)(s32)(s16)other;
    results[5] = (s8)value + (s16)other;
    return 2;
}

SEC("xdp") int loads(struct xdp_md *context)
{
    PACKET(u64);
    results[0] = ((volatile s8 *)in)[3];
    results[1] = ((volatile s16 *)in)[5];
    results[2] = ((volatile s32 *)in)[4];
    results[3] = (u32)((volatile s8 *)in)[40];
    volatile s16 numbers[4] = { in[2], in[3], in[4], in[5] };
    results[4] = numbers[in[0] & 3];
    return 3;
}

SEC("xdp") int swaps(struct xdp_md *context)
{
    PACKET(u64);
    results[0] = __builtin_bswap64(in[0]);
    results[1] = __builtin_bswap32(in[1]);
    results[2] = __builtin_bswap16(in[2]);
    results[3] = __builtin_bswap64(in[3] + in[4]) >> 16;
    return 4;
}

SEC("xdp") int jumps(struct xdp_md *context)
{
    PACKET(u64);
    u64 found = in[0];
    asm volatile("if %0 s> 5 goto near_%=\n"
                 "gotol far_%=\n"
                 "near_%=: %0 += 3\n"
                 "goto out_%=\n"
                 "far_%=: %0 <<= 1\n"
                 "gotol near_%=\n"
                 "out_%=:"
                 : "+r"(found));
    results[0] = found;
    return 5;
}

SEC("xdp") int may_jump(struct xdp_md *context)
{
    PACKET(u64);
    u64 sum = 0, round = 0;
    asm volatile("again_%=: .byte 0xe5, 0, 4, 0, 0, 0, 0, 0\n"
                 "%0 += %2\n"
                 "%1 += 1\n"
                 "if %1 s> 99 goto +1\n"
                 "goto again_%=\n"
                 : "+r"(sum), "+r"(round) : "r"(in[0]));
    results[0] = sum;
    results[1] = round;
    return 6;
}

SEC("xdp") int atomics(struct xdp_md *context)
{
    PACKET(u64);
    words[0] = in[0];
    words[1] = in[1];
    u32 *narrow = (u32 *)&words[2];
    *narrow = in[2];
    results[0] = __sync_fetch_and_add(&words[0], in[1]);
    results[1] = __sync_fetch_and_or(&words[1], 0xff00);
    results[2] = __sync_lock_test_and_set(&words[0], in[3]);
    results[3] = __sync_val_compare_and_swap(&words[1], in[1] | 0xff00, 77);
    results[4] = __sync_fetch_and_xor(narrow, 5);
    results[5] = __sync_fetch_and_and(&words[3], -2);
    __sync_fetch_and_add(&hidden, in[0]);
    results[6] = hidden;
    results[7] = words[0] + words[1] + words[2];
    hidden = 0;
    return 7;
}

static NOINLINE int pick(u64 which, u64 *in)
{
    switch (which) {
    case 0: return in[0] + 1;
    case 1: return in[1] * 3;
    case 2: return in[2] ^ 0x55;
    case 3: return in[3] - 7;
    case 4: return in[4] >> 3;
    case 5: return (s32)in[5] / 11;
    case 6: return in[6] | 0x100;
    case 7: return in[7] & 0xfff;
    default: return -1;
    }
}

SEC("xdp") int choices(struct xdp_md *context)
{
    PACKET(u64);
    u64 copy[8];
    __builtin_memcpy(copy, in, sizeof(copy));
    for (int which = 0; which < 8; which++)
        results[which] = pick(copy[which] & 15, copy);
    return 8;
}

char _license[] SEC("license") = "GPL";
