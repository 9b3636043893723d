/* A program that refers to a global variable, and one that calls a function defined elsewhere.
 *
 *     clang -O2 -g0 -target bpf -c with_map.c -o with_map.o
 */

struct { int type, key_size, value_size, entries; } counters __attribute__((section("maps"), used));
static void *(*const lookup)(void *map, const void *key) = (void *)1;

__attribute__((section("socket"))) int count(void *context)
{
    int key = 0;
    return lookup(&counters, &key) != 0;
}
