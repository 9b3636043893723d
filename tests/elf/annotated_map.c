/* A record whose key and value BTF knows (BPF_ANNOTATE_KV_PAIR).
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c annotated_map.c -o annotated_map.o
 *     llvm-strip --strip-debug annotated_map.o
 */

#include "bpf_support.h"

struct pair { u32 a; s32 b; };

struct { u32 type, key_size, value_size, max_entries, map_flags; } pairs SEC("maps") = { HASH, 4, 8, 10, 0 };
struct ____btf_map_pairs { u32 key; struct pair value; };
struct ____btf_map_pairs ____btf_map_pairs SEC(".maps.pairs") = {};

SEC("socket") int count(void *context)
{
    u32 key = 0;
    return bpf_map_lookup_elem(&pairs, &key) != 0;
}
