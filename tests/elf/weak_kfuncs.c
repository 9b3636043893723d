/* Kfuncs that a kernel may have, or not: an open-coded iterator, and one that no kernel has.
 * clang -O2 -g -target bpf -mcpu=v3 -fdebug-compilation-dir=. -c weak_kfuncs.c -o weak_kfuncs.o
 */
#define SEC(name) __attribute__((section(name), used))
#define KSYM __attribute__((section(".ksyms"), weak))
struct bpf_iter_num { unsigned long long x; } __attribute__((aligned(8)));
extern int bpf_iter_num_new(struct bpf_iter_num *, int, int) KSYM;
extern int *bpf_iter_num_next(struct bpf_iter_num *) KSYM;
extern void bpf_iter_num_destroy(struct bpf_iter_num *) KSYM;
extern int no_kernel_has_this(int) KSYM;
extern const int runqueues KSYM;
char _license[] SEC("license") = "GPL";
SEC("xdp") int sum(void *context)
{
    struct bpf_iter_num numbers;
    int *number, total = 0;
    if (no_kernel_has_this)
        return no_kernel_has_this(1);
    if (!bpf_iter_num_new || !bpf_iter_num_next)
        return -1;
    bpf_iter_num_new(&numbers, 0, 10);
    while ((number = bpf_iter_num_next(&numbers)))
        total += *number;
    bpf_iter_num_destroy(&numbers);
    return total;
}
SEC("xdp") int has_runqueues(void *context) { return &runqueues != 0; }
