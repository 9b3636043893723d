/* Variables of the kernel: one of all, one of each processor, a weak one, and one that is only probed.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c ksyms.c -o ksyms.o
 *     llvm-strip --strip-debug ksyms.o
 */

#include "bpf_support.h"

extern const int bpf_prog_active __ksym;
extern const int cpu_number __ksym;
extern const void a_missing_symbol __ksym __weak;
extern const void linux_banner __ksym;

static void *(*bpf_per_cpu_ptr)(const void *variable, u32 cpu) = (void *)153;
static void *(*bpf_this_cpu_ptr)(const void *variable) = (void *)154;
static long (*bpf_probe_read_kernel)(void *to, u32 size, const void *from) = (void *)113;

SEC("raw_tp/sys_enter") u64 active(void *context)
{
    const int *here = bpf_this_cpu_ptr(&bpf_prog_active);
    return *here + 1;
}

SEC("raw_tp/sys_enter") u64 numbers(void *context)
{
    const int *first = bpf_per_cpu_ptr(&cpu_number, 0), *second = bpf_per_cpu_ptr(&cpu_number, 1);
    const int *none = bpf_per_cpu_ptr(&cpu_number, 1 << 20);
    return (first ? *first + 100 : 0) + (second ? *second * 1000 : 0) + (none ? 1 << 20 : 0);
}

SEC("raw_tp/sys_enter") u64 missing(void *context) { return &a_missing_symbol ? 1 : 2; }

SEC("raw_tp/sys_enter") u64 banner(void *context)
{
    char text[5] = {};
    bpf_probe_read_kernel(text, sizeof(text), &linux_banner);
    return text[0] == 'L' && text[4] == 'x';
}

char _license[] SEC("license") = "GPL";
