/* Where compilers of today put constants and variables that have no section of their own name.
 * Debian clang 19.1.7, and clang 22.1.8 of the wheel ziglang 0.17.1 (python -m ziglang clang):
 *
 *     clang-19 -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v4 -c sections.c -o sections_clang19.o
 *     llvm-strip-19 --strip-debug sections_clang19.o
 *     python -m ziglang clang -O2 -g -fdebug-compilation-dir=. -target bpfel -mcpu=v4 -c sections.c \
 *         -o sections_clang22.o
 *     llvm-strip-19 --strip-debug sections_clang22.o
 */

#include "bpf_support.h"

struct xdp_md { u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex; };

static long (*const bpf_trace_printk)(const char *, u32, ...) = (void *)6;
static long (*const bpf_strncmp)(const char *, u32, const char *) = (void *)182;

static u32 zeros[5];
static u32 numbers[4] = { 3, 1, 4, 1 };
static const u32 squares[8] = { 0, 1, 4, 9, 16, 25, 36, 49 };
static const char *const names[] = { "zero", "one", "two" };
struct pair { u64 low, high; };
static u64 wide_zero SEC(".bss.named");
static u32 own SEC(".data.own") = 5;
static const u32 own_constant SEC(".rodata.own") = 6;
const volatile char greeting[16] = "hello";

static NOINLINE void both(struct pair *pair, u32 which)
{
    static const struct pair made[3] = { { 1, 2 }, { 3, 4 }, { 5, 6 } };
    if (pair && which < 3)
        *pair = made[which];
}

SEC("xdp") int variables(struct xdp_md *context)
{
    static u32 calls;
    u32 which = context->rx_queue_index & 3;
    zeros[which] += squares[which + 4];
    numbers[which] += ++calls;
    wide_zero += own++ + own_constant;
    return zeros[which] + numbers[which] + wide_zero;
}

SEC("xdp") int constants(struct xdp_md *context)
{
    struct pair pair = {};
    both(&pair, context->ingress_ifindex & 1);
    char text[] = "a string of twenty-four";
    char ends[4] = { 1, 2, 3, 4 };
    bpf_trace_printk(text, sizeof(text));
    return pair.low * 16 + pair.high + ends[context->rx_queue_index & 3];
}

SEC("xdp") int strings(struct xdp_md *context)
{
    char mine[16] = "hello";
    if (bpf_strncmp(mine, 6, (const char *)greeting))
        return 1;
    bpf_trace_printk("merged", 7);
    bpf_trace_printk("a tail of merged", 17);
    return 2;
}

/* Pointers among the constants: Linux has no such thing, and refuses to read through one. */
SEC("xdp") int pointers(struct xdp_md *context) { return names[context->rx_queue_index & 1][0]; }

char _license[] SEC("license") = "GPL";
