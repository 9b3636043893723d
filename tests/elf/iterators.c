/* Open-coded iterators over numbers and bits, as bpf_for and bpf_for_each of libbpf's headers make them.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c iterators.c -o iterators.o
 *     llvm-strip --strip-debug iterators.o
 */

#include "bpf_support.h"

struct bpf_iter_num { u64 opaque[1]; } __attribute__((aligned(8)));
struct bpf_iter_bits { u64 opaque[2]; } __attribute__((aligned(8)));

extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;
extern int bpf_iter_bits_new(struct bpf_iter_bits *it, const u64 *mask, u32 words) __ksym __weak;
extern int *bpf_iter_bits_next(struct bpf_iter_bits *it) __ksym __weak;
extern void bpf_iter_bits_destroy(struct bpf_iter_bits *it) __ksym __weak;

int low = -3, high = 5;

SEC("tc") int numbers(void *context)
{
    struct bpf_iter_num numbers;
    int *number, total = 0;

    bpf_iter_num_new(&numbers, low, high);
    while ((number = bpf_iter_num_next(&numbers)))
        total = 3 * total + *number;
    bpf_iter_num_destroy(&numbers);
    return total;
}

SEC("tc") int nested(void *context)
{
    struct bpf_iter_num outer, inner;
    int *i, *j, total = 0;

    bpf_iter_num_new(&outer, 0, 7);
    while ((i = bpf_iter_num_next(&outer))) {
        bpf_iter_num_new(&inner, 0, *i);
        while ((j = bpf_iter_num_next(&inner)))
            total += *i * *j;
        bpf_iter_num_destroy(&inner);
    }
    bpf_iter_num_destroy(&outer);
    return total;
}

SEC("tc") int refusal(void *context)
{
    struct bpf_iter_num numbers;
    int result = bpf_iter_num_new(&numbers, high, low);

    bpf_iter_num_destroy(&numbers);
    return result;
}

SEC("syscall") int bits(void *context)
{
    u64 mask[3] = {0x8000000000000005, 0, 0x10};
    struct bpf_iter_bits bits;
    int *bit, total = 0;

    bpf_iter_bits_new(&bits, mask, 3);
    while ((bit = bpf_iter_bits_next(&bits)))
        total = 7 * total + *bit;
    bpf_iter_bits_destroy(&bits);
    return total;
}

char _license[] SEC("license") = "GPL";
