/* An arena: pointers of another address space, which code converts (addr_space_cast).
 * Debian clang 19.1.7:
 *
 *     clang-19 -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v4 -c arena.c -o arena_clang19.o
 *     llvm-strip-19 --strip-debug arena_clang19.o
 */

#include "bpf_support.h"

#define ARENA __attribute__((address_space(1)))

struct {
    __uint(type, 33);
    __uint(map_flags, 1 << 10);
    __uint(max_entries, 10);
} arena SEC(".maps");

extern void ARENA *bpf_arena_alloc_pages(void *map, void ARENA *at, u32 pages, int node, u64 flags) __ksym;

u64 ARENA *page;
u64 plain;
u64 ARENA counter SEC(".addr_space.1");

SEC("syscall") int allocates(void *context)
{
    page = bpf_arena_alloc_pages(&arena, 0, 1, -1, 0);
    if (!page)
        return 1;
    page[3] = 7;
    return page[3] + 1;
}

SEC("syscall") int casts(void *context)
{
    u64 ARENA *at = page;
    plain = (u64)(u64 *)at;
    return at ? 2 : 3;
}

SEC("syscall") int counts(void *context)
{
    counter++;
    return counter;
}

SEC("xdp") int without(void *context) { return 2; }

char _license[] SEC("license") = "GPL";
