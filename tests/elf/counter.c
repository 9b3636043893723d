/* A counter in a map: as it is, stripped of its symbols, and for machines of the other byte order.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c counter.c -o counter.o
 *     llvm-strip --strip-all --keep-section=.BTF --keep-section=.BTF.ext counter.o -o stripped.o
 *     llvm-strip --strip-debug counter.o
 *     clang -O2 -g0 -target bpfeb -c counter.c -o big_endian.o
 */

#include "bpf_support.h"

struct {
    __uint(type, ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, u64);
} seen SEC(".maps");

u32 plain = 3;

SEC("xdp") int count(void *context)
{
    u32 key = 0;
    u64 *value = bpf_map_lookup_elem(&seen, &key);
    if (value)
        ++*value;
    return 2;
}

SEC("xdp") int without_maps(void *context) { return plain; }
