/* A program that calls a function which no section defines.
 *
 *     clang -O2 -g0 -target bpf -c undefined_function.c -o undefined_function.o
 */

unsigned long long elsewhere(void *context);

__attribute__((section("socket"))) unsigned long long caller(void *context)
{
    return elsewhere(context) + 1;
}
