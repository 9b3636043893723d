/* Programs that use variables beside a table of functions, and never go through it: Linux takes them.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -mcpu=v3 -target bpf -c beside_table.c -o beside_table.o
 *     llvm-strip --strip-debug beside_table.o
 */

#include "bpf_support.h"

typedef u64 (*operation)(u64);

static NOINLINE u64 more(u64 x) { asm volatile(""); return x + 1; }
static NOINLINE u64 thrice(u64 x) { asm volatile(""); return more(x * 3); }
static NOINLINE u64 squared(u64 x) { asm volatile(""); return x * x; }

operation table[] = { squared, thrice };
u64 variable = 7;

SEC("socket") int reads(void *context) { return variable; }

SEC("socket") int calls_one_of_it(void *context)
{
    u64 sum = variable;
    if (sum > 3)
        sum += thrice(sum);
    for (int i = 0; i < 5; i++) /* the longest program has the table right behind it */
        sum = sum * 5 + more(variable);
    return sum;
}

SEC("socket") int goes_through_it(void *context) { return table[variable & 1](variable); }
