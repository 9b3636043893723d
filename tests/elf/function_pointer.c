/* A program that passes the address of a function of its object to a helper.
 *
 *     clang -O2 -g0 -target bpf -c function_pointer.c -o function_pointer.o
 */

static long (*const loop)(unsigned count, void *function, void *context, unsigned long long flags) = (void *)181;

static long other(unsigned index, void *context) { return index == 3; }
static long step(unsigned index, void *context) { return index == 7; }

__attribute__((section("socket"))) long looping(void *context)
{
    return loop(10, other, context, 0) + loop(10, step, context, 0);
}
