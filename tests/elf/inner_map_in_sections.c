/* Records in sections of their own (gobpf): inner_map_idx counts the maps of the whole file.
 *
 *     clang -O2 -g0 -target bpf -c inner_map_in_sections.c -o inner_map_in_sections.o
 */

#include "bpf_support.h"

struct bpf_map_def {
    u32 type, key_size, value_size, max_entries, map_flags, inner_map_idx, numa_node;
};

struct bpf_map_def SEC("maps/first") first = { HASH, 4, 4, 1 };
struct bpf_map_def SEC("maps/inner") inner = { ARRAY, 4, 8, 3 };
struct bpf_map_def SEC("maps/outer") outer = { ARRAY_OF_MAPS, 4, 4, 2, 0, 1 };

SEC("socket") int look(void *context)
{
    u32 key = 0;
    void *found = bpf_map_lookup_elem(&outer, &key);
    return found ? bpf_map_lookup_elem(found, &key) != 0 : 0;
}
