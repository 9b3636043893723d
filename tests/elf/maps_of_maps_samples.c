/* Maps of maps in the records of the kernel's samples: the template by its number.
 *
 *     clang -O2 -g0 -target bpf -c maps_of_maps_samples.c -o maps_of_maps_samples.o
 */

#include "bpf_support.h"

struct bpf_map_def {
    u32 type, key_size, value_size, max_entries, map_flags, inner_map_idx, numa_node;
};

struct bpf_map_def SEC("maps") inner = { HASH, 4, 8, 16 };
struct bpf_map_def SEC("maps") outer = { .type = ARRAY_OF_MAPS, .key_size = 4, .inner_map_idx = 0, .max_entries = 2 };

SEC("kprobe/sys_connect") int probe(void *context)
{
    u32 key = 0;
    return bpf_map_lookup_elem(&outer, &key) != 0;
}
