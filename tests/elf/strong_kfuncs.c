/* Kfuncs that a kernel must have: an open-coded iterator.
 * clang -O2 -g -target bpf -mcpu=v3 -fdebug-compilation-dir=. -c strong_kfuncs.c -o strong_kfuncs.o
 */
#define SEC(name) __attribute__((section(name), used))
#define KSYM __attribute__((section(".ksyms")))
struct bpf_iter_num { unsigned long long x; } __attribute__((aligned(8)));
extern int bpf_iter_num_new(struct bpf_iter_num *, int, int) KSYM;
extern int *bpf_iter_num_next(struct bpf_iter_num *) KSYM;
extern void bpf_iter_num_destroy(struct bpf_iter_num *) KSYM;
char _license[] SEC("license") = "GPL";
SEC("xdp") int sum(void *context)
{
    struct bpf_iter_num numbers;
    int *number, total = 0;
    bpf_iter_num_new(&numbers, 0, 10);
    while ((number = bpf_iter_num_next(&numbers)))
        total += *number;
    bpf_iter_num_destroy(&numbers);
    return total;
}
