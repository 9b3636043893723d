/* Variables in an arena that .maps does not define, that is too small for them, or not to be had; two arenas.
 * Debian clang 19.1.7:
 *
 *     clang-19 -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v4 -c arena_refused.c -o arena_none_clang19.o
 *     clang-19 -DPAGES=1 -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v4 -c arena_refused.c -o arena_small_clang19.o
 *     clang-19 -DPAGES=2 -DTWO -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v4 -c arena_refused.c -o arena_two_clang19.o
 *     clang-19 -DPAGES=2 -DFLAGS=1 -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v4 -c arena_refused.c -o arena_bad_clang19.o
 *     llvm-strip-19 --strip-debug arena_none_clang19.o arena_small_clang19.o arena_two_clang19.o arena_bad_clang19.o
 */

#include "bpf_support.h"

#define ARENA __attribute__((address_space(1)))

#ifndef FLAGS
#define FLAGS (1 << 10)
#endif
#ifdef PAGES
struct { __uint(type, 33); __uint(map_flags, FLAGS); __uint(max_entries, PAGES); } arena SEC(".maps");
#endif
#ifdef TWO
struct { __uint(type, 33); __uint(map_flags, 1 << 10); __uint(max_entries, 3); } other SEC(".maps");
#endif

extern void ARENA *bpf_arena_alloc_pages(void *map, void ARENA *at, u32 pages, int node, u64 flags) __ksym;

u64 ARENA first SEC(".addr_space.1") = 5;
u64 ARENA many[600] SEC(".addr_space.1");
u64 ARENA *ARENA inside SEC(".addr_space.1") = &many[3];

SEC("syscall") int uses(void *context)
{
#ifdef PAGES
    asm volatile("" ::"r"(&arena));
#endif
    many[3] = first;
    return *inside + 1;
}

#ifdef TWO
SEC("syscall") int uses_other(void *context)
{
    u64 ARENA *page = bpf_arena_alloc_pages(&other, 0, 1, -1, 0);
    return page ? *page : 1;
}
#endif

SEC("syscall") int plain(void *context) { return 3; }

char _license[] SEC("license") = "GPL";
