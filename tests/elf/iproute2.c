/* Conventions of iproute2: ids, inner maps by id, tail calls by section, a type per object.
 *
 *     clang -O2 -g0 -target bpf -c iproute2.c -o iproute2.o
 */

#include "bpf_support.h"

struct bpf_elf_map {
    u32 type, size_key, size_value, max_elem, flags, id, pinning, inner_id, inner_idx;
};

struct bpf_elf_map SEC("maps") jumps = { .type = PROG_ARRAY, .id = 7, .size_key = 4, .size_value = 4, .max_elem = 4 };
struct bpf_elf_map SEC("maps") inner = { .type = ARRAY, .id = 1, .inner_idx = 2, .size_key = 4, .size_value = 4, .max_elem = 1 };
struct bpf_elf_map SEC("maps") outer = { .type = ARRAY_OF_MAPS, .inner_id = 1, .size_key = 4, .size_value = 4, .max_elem = 3 };

SEC("7/0") int tail_zero(void *context) { return 100; }
SEC("0x7/0x3") int tail_three(void *context) { return 103; }

SEC("classifier") int entry(void *context)
{
    u32 key = 2;
    bpf_tail_call(context, &jumps, 3);
    return bpf_map_lookup_elem(&outer, &key) != 0;
}
