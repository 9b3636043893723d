/* Operations of struct bpf_dummy_ops, which Linux has for test runs; and one of another struct.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c dummy_ops.c -o dummy_ops.o
 *     llvm-strip --strip-debug dummy_ops.o
 */

#include "bpf_support.h"

struct bpf_dummy_ops_state { int val; } __attribute__((preserve_access_index));

struct bpf_dummy_ops {
    int (*test_1)(struct bpf_dummy_ops_state *state);
    int (*test_2)(struct bpf_dummy_ops_state *state, int a1, unsigned short a2, char a3, unsigned long a4);
    int (*test_sleepable)(struct bpf_dummy_ops_state *state);
};

struct tcp_congestion_ops { u32 (*ssthresh)(void *sk); char name[16]; };

SEC("struct_ops/test_1") int test_1(u64 *context)
{
    struct bpf_dummy_ops_state *state = (void *)context[0];
    asm volatile("if %[state] != 0 goto +2; r0 = 0xf2f3f4f5; exit;" ::[state] "r"(state));
    int before = state->val;
    state->val = 0x5a;
    return before;
}

u64 seen[5];

SEC("struct_ops/test_2") int test_2(u64 *context)
{
    struct bpf_dummy_ops_state *state = (void *)context[0];
    seen[0] = state ? state->val : 0;
    seen[1] = (int)context[1];
    seen[2] = (unsigned short)context[2];
    seen[3] = (char)context[3];
    seen[4] = context[4];
    return 0;
}

SEC("struct_ops.s/test_sleepable") int test_sleepable(u64 *context) { return 3; }
SEC("struct_ops/ssthresh") u32 ssthresh(u64 *context) { return 2; }

SEC(".struct_ops") struct bpf_dummy_ops dummy = {
    .test_1 = (void *)test_1, .test_2 = (void *)test_2, .test_sleepable = (void *)test_sleepable,
};
SEC(".struct_ops.link") struct tcp_congestion_ops tcp = { .ssthresh = (void *)ssthresh, .name = "nothing" };

char LICENSE[] SEC("license") = "GPL";
