/* Tail calls by section names, as the kernel's samples and OVS have them.
 *
 *     clang -O2 -g0 -DMAP=jmp_table '-DTAIL(n)="socket/" #n' -DENTRY='"socket"' -target bpf -c numbered_sections.c -o numbered_samples.o
 *     clang -O2 -g0 -DMAP=tailcalls '-DTAIL(n)="tail-" #n' -DENTRY='"ingress"' -target bpf -c numbered_sections.c -o numbered_ovs.o
 */

#include "bpf_support.h"

struct bpf_map_def {
    u32 type, key_size, value_size, max_entries, map_flags;
};

struct bpf_map_def SEC("maps") MAP = { PROG_ARRAY, 4, 4, 8 };

SEC(TAIL(1)) int one(void *context) { return 1; }
SEC(TAIL(5)) int five(void *context) { return 5; }
SEC(ENTRY) int entry(void *context)
{
    bpf_tail_call(context, &MAP, 5);
    return 0;
}
