/* The struct of kernel_memory.c as another kernel has it.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c kernel_moved.c -o kernel_moved.o
 *     llvm-strip --strip-debug kernel_moved.o
 */

#include "bpf_support.h"

struct task_struct {
    int tgid;
    int pid;
    char comm[16];
} __attribute__((preserve_access_index));

SEC("fentry/wake_up_new_task") int reads(u64 *context) { return ((struct task_struct *)context[0])->pid; }

char _license[] __attribute__((section("license"), used)) = "GPL";
