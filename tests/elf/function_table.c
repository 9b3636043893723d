/* Tables of functions, in constants and in variables: each program has the functions in the same place.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -mcpu=v3 -target bpf -c function_table.c -o function_table.o
 *     llvm-strip --strip-debug function_table.o
 */

#include "bpf_support.h"

typedef u64 (*operation)(u64);

static NOINLINE u64 more(u64 x) { asm volatile(""); return x + 1; }
static NOINLINE u64 thrice(u64 x) { asm volatile(""); return more(x * 3); }
SEC("socket") u64 program(u64 x) { return x; }

static const operation table[] = { more, thrice };
static operation volatile changing = thrice;
static void *volatile wrong = program;
const volatile u64 factor = 10;

SEC("socket") u64 choose(u64 *context) { return table[context[0] & 1](context[1]); }

SEC("socket") u64 choose_later(u64 *context)
{
    u64 sum = 0;
    for (int i = 0; i < 3; i++)
        sum += table[context[i] & 1](context[1]) * factor;
    return sum + changing(1);
}

SEC("socket") u64 no_table(u64 *context) { return context[1]; }
SEC("socket") u64 of_a_program(u64 *context) { return wrong != 0; }
