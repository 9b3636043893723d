/* An object of which some parts cannot be had: each program but two needs one of them.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c parts.c -o parts.o
 *     llvm-strip --strip-debug parts.o
 */

#include "bpf_support.h"

struct {
    __uint(type, 99);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, u64);
} unknown SEC(".maps");

struct {
    __uint(type, HASH);
    __uint(max_entries, 4);
    __type(key, u32);
    __type(value, u64);
} known SEC(".maps");

struct {
    __uint(type, ARRAY_OF_MAPS);
    __uint(max_entries, 2);
    __type(key, u32);
    __array(values, struct {
        __uint(type, HASH);
        __uint(max_entries, 1);
        __type(key, u32);
        __type(value, u64);
    });
} outer SEC(".maps") = { .values = { [0] = (void *)&unknown } };

extern u32 CONFIG_NOT_GIVEN __kconfig;
extern u32 CONFIG_GIVEN __kconfig;
extern int a_kfunc(int value) __ksym;
extern const void a_symbol __ksym;
extern int elsewhere(int value);

u64 sum = 5;
u32 limit[2] = { 1, 2 };
static void *volatile where = &known;

SEC("xdp") int fine(void *context)
{
    u32 key = 1;
    return bpf_map_lookup_elem(&known, &key) ? 1 : sum + CONFIG_GIVEN + limit[1];
}

SEC("xdp") int also_fine(void *context) { return 2; }

SEC("xdp") int uses_map(void *context)
{
    u32 key = 1;
    return bpf_map_lookup_elem(&unknown, &key) != 0;
}

SEC("xdp") int uses_outer(void *context)
{
    u32 key = 1;
    return bpf_map_lookup_elem(&outer, &key) != 0;
}

SEC("xdp") int uses_kconfig(void *context) { return CONFIG_NOT_GIVEN; }
SEC("xdp") int uses_kfunc(void *context) { return a_kfunc(1); }
SEC("xdp") int uses_symbol(void *context) { return (u64)&a_symbol; }
SEC("xdp") int uses_function(void *context) { return elsewhere(1); }
SEC("xdp") int uses_pointer(void *context) { return where != 0; }

static NOINLINE int inner(void *context) { return a_kfunc(2); }
SEC("xdp") int uses_subprogram(void *context) { return inner(context) + 1; }
