/* Static programs of one name, as where several files were linked into one: each array has its own.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c same_names.c -o same_names.o
 *     llvm-objcopy --strip-debug --redefine-sym tail_b=tail_a --redefine-sym tail_c=tail_a same_names.o
 */

#include "bpf_support.h"

#define FILE(name, number)                                                   \
    static int tail_##name(void *context);                                   \
    struct {                                                                 \
        __uint(type, PROG_ARRAY);                                            \
        __uint(max_entries, 2);                                              \
        __uint(key_size, 4);                                                 \
        __array(values, int(void *));                                        \
    } calls_##name SEC(".maps") = { .values = { [1] = (void *)&tail_##name } }; \
    SEC("tc") static int tail_##name(void *context) { return number; }       \
    SEC("tc") int main_##name(void *context)                                 \
    {                                                                        \
        bpf_tail_call(context, &calls_##name, 1);                            \
        return 0;                                                            \
    }

FILE(a, 11)
FILE(b, 22)
FILE(c, 33)
char _license[] SEC("license") = "GPL";
