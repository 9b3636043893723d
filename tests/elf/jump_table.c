/* A table of jumps, as LLVM 22 makes one of a large switch: a section .jumptables, and gotox (Linux 6.19).
 *
 *     python -m ziglang clang -O2 -g -fdebug-compilation-dir=. -target bpfel -mcpu=v4 -c jump_table.c \
 *         -o jump_table_clang22.o            # wheel ziglang 0.17.1: clang 22.1.8
 *     llvm-strip-19 --strip-debug jump_table_clang22.o
 */

#include "bpf_support.h"

struct xdp_md { u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex; };
u64 seen;

SEC("xdp") int table(struct xdp_md *context)
{
    u8 *in = (void *)(long)context->data;
    if ((void *)(in + 1) > (void *)(long)context->data_end)
        return 0;
    switch (in[0]) {
#define CASE(n, what) case n: seen = what; return n * 7 % 31;
    CASE(0, 9) CASE(1, seen + 3) CASE(2, seen * 5) CASE(3, seen ^ 8) CASE(4, seen << 1) CASE(5, seen - 2)
    CASE(6, seen | 6) CASE(7, seen & 3) CASE(8, 80) CASE(9, seen + 91) CASE(10, seen * 10) CASE(11, 11)
    CASE(12, seen >> 2) CASE(13, -seen) CASE(14, seen % 14) CASE(15, seen / 3) CASE(16, seen + 61)
    }
    return 99;
}

SEC("xdp") int plain(struct xdp_md *context) { return 2; }
