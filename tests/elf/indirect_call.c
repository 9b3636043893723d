/* A program that calls a function through a pointer that only run time knows.
 *
 *     clang -O2 -g0 -target bpf -c indirect_call.c -o indirect_call.o
 *
 * clang 14 puts the register of the call into imm; newer ones put it into dst_reg.
 */

static __attribute__((noinline)) long twice(long x) { return 2 * x; }
static __attribute__((noinline)) long thrice(long x) { return 3 * x; }

__attribute__((section("socket"))) long choose(unsigned char *data, unsigned long size)
{
    long (*function)(long) = data[0] ? twice : thrice;
    return function(data[1]);
}
