/* Definitions that other objects share, and no program.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c maps_only.c -o maps_only.o
 *     llvm-strip --strip-debug maps_only.o
 */

#include "bpf_support.h"

struct {
    __uint(type, HASH);
    __uint(max_entries, 64);
    __type(key, u32);
    __type(value, u64);
} shared SEC(".maps");
