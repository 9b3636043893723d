/* Variables of every section, with types and without.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c globals.c -o globals.o
 *     llvm-strip --strip-debug globals.o
 *     clang -O2 -g0 -target bpf -c globals.c -o globals_untyped.o
 */

#include "bpf_support.h"

struct limits {
    u32 first;
    s32 last;
    u8 mac[6];
    u16 bits : 4, rest : 12;
};

const volatile u32 threshold = 10;
const volatile struct limits limits = { 1, -2, { 1, 2, 3, 4, 5, 6 }, 5, 100 };
s64 total = -5;
u8 flag = 1;
u16 ports[4] = { 80, 443 };
char label[5] = "abcd";
_Bool enabled = 1;
static u64 hidden;
u32 large[100];
static const char *const words[] = { "one", "two", "three" };
static const char **volatile chosen = (const char **)words;
u32 own SEC(".data.own") = 77;
const u32 elsewhere SEC("settings") = 42;

/* r1: a u64, how often to count */
SEC("socket") u64 count(const u64 *context)
{
    hidden += *context;
    total += hidden;
    large[99] = threshold + limits.first;
    if (enabled)
        own++;
    return chosen[hidden % 3][0] + *(volatile const u32 *)&elsewhere;
}

SEC("socket") u64 write_constant(void *context)
{
    *(volatile u32 *)&threshold = 3;
    return 0;
}
