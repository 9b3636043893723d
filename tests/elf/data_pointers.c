/* Variables that point to what programs cannot follow, and which code gets to through other variables.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c data_pointers.c -o data_pointers.o
 *     llvm-strip --strip-debug data_pointers.o
 */

#include "bpf_support.h"

struct { __uint(type, ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, u64); } numbers SEC(".maps");

struct settings { void *map; u64 limit; };
static struct settings first = { &numbers, 5 };
struct settings *current = &first;

SEC("socket") int limit(void *context) { return current->limit; }

SEC("socket") int through_a_pointer(void *context)
{
    u32 key = 0;
    return bpf_map_lookup_elem(current->map, &key) != 0;
}
