/* Records of map definitions as they were before BTF; FORM is the length of one.
 *
 *     for form in 16 20 24 28 32 36 280; do
 *         clang -O2 -g0 -DFORM=$form -target bpf -c legacy_maps.c -o legacy_maps_$form.o
 *     done
 */

#include "bpf_support.h"

struct record {
    u32 type, key_size, value_size, max_entries;
    u32 rest[FORM / 4 - 4];
};

struct record table SEC("maps") = { HASH, 8, 16, 64 };
struct record counters SEC("maps") = { ARRAY, 4, 8, 3 };

SEC("socket") int count(void *context)
{
    u32 key = 0;
    u64 wide = 0;
    return bpf_map_lookup_elem(&counters, &key) == bpf_map_lookup_elem(&table, &wide);
}
