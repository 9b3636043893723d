/* Pages of an arena: allocated, freed, reserved, and what is read where there are none.
 * Debian clang 19.1.7:
 *
 *     clang-19 -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v4 -c arena_pages.c -o arena_pages_clang19.o
 *     llvm-strip-19 --strip-debug arena_pages_clang19.o
 */

#include "bpf_support.h"

#define ARENA __attribute__((address_space(1)))
#define PAGE 4096
#define PAGES 20

struct {
    __uint(type, 33);
    __uint(map_flags, 1 << 10);
    __uint(max_entries, PAGES);
    __ulong(map_extra, (0x1ull << 44) + 0x12345000);
} arena SEC(".maps");

extern void ARENA *bpf_arena_alloc_pages(void *map, void ARENA *at, u32 pages, int node, u64 flags) __ksym;
extern void bpf_arena_free_pages(void *map, void ARENA *at, u32 pages) __ksym;
extern int bpf_arena_reserve_pages(void *map, void ARENA *at, u32 pages) __ksym __weak;

typedef char ARENA page;

u64 r[40];
u64 start = (0x1ull << 44) + 0x12345000;

#define alloc(at, pages) (u64)bpf_arena_alloc_pages(&arena, (void ARENA *)(u64)(at), pages, -1, 0)
#define give(at, pages) bpf_arena_free_pages(&arena, (void ARENA *)(u64)(at), pages)
#define reserve(at, pages) (u64)(s64)bpf_arena_reserve_pages(&arena, (void ARENA *)(u64)(at), pages)
#define at(type, address) (*(volatile type ARENA *)(u64)(address))

SEC("syscall") int fit(void *context)
{
    r[0] = alloc(0, 3);
    r[1] = alloc(0, 1);
    r[2] = alloc(0, 2);
    r[3] = alloc(0, 1);
    give(r[1], 1);
    give(r[0], 3);
    r[4] = alloc(0, 1);
    r[5] = alloc(0, 5);
    give(r[2], 2);
    r[6] = alloc(0, 2);
    r[7] = alloc(0, 6);
    r[8] = alloc(0, 4);
    r[9] = alloc(0, 1);
    r[10] = alloc(0, 3);
    r[11] = alloc(0, 1);
    return 0;
}

SEC("syscall") int refused(void *context)
{
    r[0] = alloc(0, 0);
    r[1] = alloc(0, PAGES + 1);
    r[2] = alloc(0, 0xffffffff);
    r[3] = (u64)bpf_arena_alloc_pages(&arena, 0, 1, -1, 1);
    r[4] = alloc(start + 1, 1);
    r[5] = alloc(start - PAGE, 1);
    r[6] = alloc(start + (u64)PAGES * PAGE, 1);
    r[7] = alloc(start + (u64)(PAGES - 1) * PAGE, 2);
    r[8] = alloc(start + (u64)(PAGES - 1) * PAGE, 1);
    r[9] = alloc(start + (u64)(PAGES - 1) * PAGE, 1);
    r[10] = alloc((u32)start + 2 * PAGE, 1);              /* the low half counts */
    r[11] = alloc(start + (0xabcull << 32) + 3 * PAGE, 1);
    r[12] = alloc(start + PAGE, 2);                       /* the second is taken */
    r[13] = alloc(0, PAGES);
    r[14] = alloc(0, PAGES - 4);
    r[15] = alloc(0, PAGES - 5);
    r[16] = alloc(start, 1);
    r[17] = alloc(0xfffffffffffff000, 1);
    return 0;
}

SEC("syscall") int freed(void *context)
{
    u64 a = alloc(0, 4);
    r[0] = a;
    at(u64, a) = 1;
    at(u64, a + PAGE) = 2;
    at(u64, a + 2 * PAGE) = 3;
    at(u64, a + 3 * PAGE) = 4;
    give(0, 1);
    give(a, 0);
    give(a + PAGE + 123, 1);                              /* the page that it is in */
    r[1] = at(u64, a);
    r[2] = at(u64, a + PAGE);
    r[3] = at(u64, a + 2 * PAGE);
    give(a + PAGE, 1);                                    /* once more */
    give((u32)a + 2 * PAGE, 1);                           /* the low half counts */
    r[4] = at(u64, a + 2 * PAGE);
    give(a + 3 * PAGE, 0xffffffff);                       /* to the end */
    r[5] = at(u64, a + 3 * PAGE);
    give(start + (u64)PAGES * PAGE, 3);                   /* behind the end */
    r[6] = alloc(a + PAGE, 3);                            /* and they are zero again */
    r[7] = at(u64, a + PAGE) + at(u64, a + 2 * PAGE) + at(u64, a + 3 * PAGE);
    at(u64, a + 3 * PAGE) = 9;
    give(a + PAGE, 3);
    at(u64, a + 3 * PAGE) = 10;                           /* used when it is free: nothing happens */
    r[8] = alloc(a + 3 * PAGE, 1);
    r[9] = at(u64, a + 3 * PAGE);
    return 0;
}

SEC("syscall") int reserved(void *context)
{
    r[0] = reserve(start, 2);
    r[1] = reserve(start, 2);
    r[2] = reserve(start + PAGE, 2);
    r[3] = reserve(start + 1, 2);
    r[4] = reserve(start + 2 * PAGE, 0);
    r[5] = reserve(start, PAGES + 1);
    r[6] = reserve(start + (u64)(PAGES - 1) * PAGE, 2);
    r[7] = reserve(start - PAGE, 1);
    r[8] = alloc(start, 1);
    r[9] = alloc(0, 1);
    r[10] = alloc(0, PAGES - 2);
    r[11] = alloc(0, PAGES - 3);
    give(start, 1);
    r[12] = alloc(0, 1);
    r[13] = at(u64, start + PAGE);
    r[14] = reserve(0, 1);
    return 0;
}

SEC("syscall") int absent(void *context)
{
    u64 a = alloc(start + 2 * PAGE, 1), n = a + PAGE;
    at(u64, a + PAGE - 8) = 0xf1f2f3f4f5f6f7f8;
    at(u64, n) = 5;
    r[0] = at(u8, n);
    r[1] = at(u16, n);
    r[2] = at(u32, n);
    r[3] = at(u64, n);
    r[4] = at(s8, n);
    r[5] = at(s16, n);
    r[6] = at(s32, n);
    r[7] = at(u64, a - 8);
    r[8] = at(u64, n - 8);
    r[9] = at(u64, n - 4);                                /* over the end: nothing of it */
    r[10] = at(u32, n - 2);
    r[11] = at(u16, n - 1);
    at(u64, n - 4) = 1;
    at(u32, n - 1) = 1;
    at(u64, a - 4) = 1;
    r[12] = at(u64, n - 8);
    r[13] = at(u64, a);
    r[14] = at(s32, n - 4);
    r[15] = at(s16, n - 2);
    r[16] = at(s8, n - 1);
    at(u8, n - 1) = 0x11;
    at(u16, n - 4) = 0x2222;
    at(u32, n - 8) = 0x33333333;
    r[17] = at(u64, n - 8);
    r[18] = at(u64, 0);                                   /* no pointer at all */
    r[19] = at(u64, 0xffffffffffffffff);
    r[20] = at(u64, start + (u64)PAGES * PAGE);
    r[21] = at(u64, start - 8);
    at(u64, 0) = 7;
    at(u64, 0xfffffffffffffff8) = 7;
    at(u64, start + (u64)PAGES * PAGE) = 7;
    at(u64, (u32)a) = 44;                                 /* the low half counts */
    r[22] = at(u64, a + (0x77ull << 32));
    return 0;
}

SEC("syscall") int atomics(void *context)
{
    u64 a = alloc(0, 1), n = a + PAGE;
    volatile u64 ARENA *here = (void ARENA *)a, *none = (void ARENA *)n;
    volatile u32 ARENA *here32 = (void ARENA *)(a + 8), *none32 = (void ARENA *)(n + 8);
    *here = 10;
    __sync_fetch_and_add(here, 5);
    r[0] = *here;
    r[1] = __sync_fetch_and_add(here, 7);
    r[2] = __sync_lock_test_and_set(here, 99);
    r[3] = __sync_val_compare_and_swap(here, 99, 100);
    r[4] = __sync_val_compare_and_swap(here, 1, 2);
    r[5] = *here;
    *here32 = 0x80000000;
    r[6] = __sync_fetch_and_add(here32, 0x80000001u);
    r[7] = __sync_lock_test_and_set(here32, 3);
    r[8] = __sync_val_compare_and_swap(here32, 3, 0xffffffff);
    r[9] = *here32;
    __sync_fetch_and_add(none, 5);
    r[10] = *none;
    r[11] = __sync_fetch_and_add(none, 7);                /* the registers stay as they are */
    r[12] = __sync_lock_test_and_set(none, 99);
    r[13] = __sync_val_compare_and_swap(none, 98, 100);
    r[14] = __sync_fetch_and_add(none32, 0x80000001u);
    r[15] = __sync_lock_test_and_set(none32, 3);
    r[16] = __sync_val_compare_and_swap(none32, 4, 0xffffffff);
    r[17] = *none;
    *here = 0xf0f0;
    __sync_fetch_and_or(here, 0x0f);
    __sync_fetch_and_and(here, 0xff0f);
    __sync_fetch_and_xor(here, 0xff);
    r[18] = *here;
    __sync_fetch_and_or(none, 1);
    r[19] = *none;
    return 0;
}

/* pointers of programs: 32 bits, whatever is done to them */
SEC("syscall") int numbers(void *context)
{
    u64 a = alloc(0, 2), to_kernel, back, none = 0, high = 0xffffffff00000000, sum, other, compared = 0;
    at(u64, a + 16) = 0x1122334455667788;
    asm volatile("%0 = addr_space_cast(%1, 0, 1)" : "=r"(to_kernel) : "r"(a));
    r[0] = to_kernel;
    asm volatile("%0 = addr_space_cast(%1, 1, 0)" : "=r"(back) : "r"(to_kernel));
    r[1] = back;
    asm volatile("%0 = addr_space_cast(%0, 1, 0)" : "+r"(none));
    r[2] = none;
    asm volatile("%0 = addr_space_cast(%0, 1, 0)" : "+r"(high));
    r[3] = high;
    sum = a;
    asm volatile("%0 = addr_space_cast(%0, 0, 1); %0 += %1; r1 = %0; %0 -= %1; %0 += 16; %2 = *(u64 *)(%0 + 0)"
                 : "+r"(sum) : "r"(0xfedcba9800001000), "r"(other) : "r1");
    r[4] = sum;
    sum = a;
    asm volatile("%0 = addr_space_cast(%0, 0, 1); %0 -= %1; %0 >>= 4" : "+r"(sum) : "r"(a + 0x10));
    r[5] = sum;
    sum = a;
    asm volatile("%0 = addr_space_cast(%0, 0, 1); %0 += -32; %0 = *(u64 *)(%0 + 48)" : "+r"(sum));
    r[6] = sum;
    sum = a;
    asm volatile("%0 = addr_space_cast(%0, 0, 1); *(u64 *)(r10 - 8) = %0; %0 = 0; %0 = *(u64 *)(r10 - 8);"
                 "%0 = *(u16 *)(%0 + 18)" : "+r"(sum));
    r[7] = sum;
    sum = 0;
    asm volatile("%0 = addr_space_cast(%0, 0, 1); if %0 != 0 goto +1; %1 = 77" : "+r"(sum), "+r"(compared));
    r[8] = compared;
    return 0;
}

char _license[] SEC("license") = "GPL";
