/* Two programs in one section, one in another, functions in .text that they share.
 *
 *     clang -O2 -g0 -target bpf -c subprograms.c -o subprograms.o
 */

typedef unsigned int u32;
typedef unsigned long long u64;

#define SECTION(name) __attribute__((section(name), used))
#define NOINLINE __attribute__((noinline))

struct context {
    u64 a;
    u64 b;
};

/* Local and in .text: called through the section's symbol and an addend. */
static NOINLINE u64 square(u64 x) { asm volatile(""); return x * x; }
static NOINLINE u64 sum_of_squares(u64 x, u64 y) { asm volatile(""); return square(x) + square(y); }

/* Global and in .text: called through its own symbol. */
NOINLINE u64 triple(u64 x) { asm volatile(""); return x * 3; }

/* Local and in the section of its caller: resolved by the assembler, no relocation. */
SECTION("xdp") static NOINLINE u64 plus_one(u64 x) { asm volatile(""); return x + 1; }

SECTION("xdp") u64 squares(struct context *c) { return sum_of_squares(c->a, c->b); }
SECTION("xdp") u64 mixed(struct context *c) { return plus_one(triple(c->a)) + square(c->b); }
SECTION("tc/ingress") u64 tripled(struct context *c) { return triple(c->a); }
