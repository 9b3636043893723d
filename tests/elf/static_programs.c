/* Static programs, and the ways in which program arrays come to hold them.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c static_programs.c -o static_programs.o
 *     llvm-strip --strip-debug static_programs.o
 *     clang -O2 -g -fdebug-compilation-dir=. -DNO_IDS -target bpf -c static_programs.c -o static_programs_cilium.o
 *     llvm-strip --strip-debug static_programs_cilium.o
 */

#include "bpf_support.h"

#ifdef NO_IDS
#define CALLS cilium_calls_00042
#define ID
#else
#define CALLS calls
#define ID __uint(id, 2);
#endif
#define TEXT_(text) #text
#define TEXT(text) TEXT_(text)
#define TAIL(index) SEC("tc/tail") __attribute__((btf_decl_tag("tail:tagged/" TEXT(index))))

struct {
    __uint(type, PROG_ARRAY);
    __uint(key_size, 4);
    __uint(value_size, 4);
    __uint(max_entries, 8);
    ID
} CALLS SEC(".maps");

struct {
    __uint(type, PROG_ARRAY);
    __uint(key_size, 4);
    __uint(value_size, 4);
    __uint(max_entries, 4);
} tagged SEC(".maps");

SEC("tc") static int by_value(void *context) { return 11; }

struct {
    __uint(type, PROG_ARRAY);
    __uint(key_size, 4);
    __uint(max_entries, 4);
    __array(values, int(void *));
} named SEC(".maps") = { .values = { [1] = (void *)&by_value } };

SEC("2/5") static int by_section(void *context) { return 12; }
TAIL(3) static int by_tag(void *context) { return 13; }
TAIL(2) int by_tag_too(void *context) { return 14; }

SEC("tc") int to_value(void *context)
{
    bpf_tail_call(context, &named, 1);
    return 0;
}

SEC("tc") int to_section(void *context)
{
    bpf_tail_call(context, &CALLS, 5);
    return 0;
}

SEC("tc") int to_tag(void *context)
{
    bpf_tail_call(context, &tagged, 3);
    return 0;
}
