/* Kernel functions that no kernel has: whoever runs the program brings them.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c own_kfuncs.c -o own_kfuncs.o
 *     llvm-strip --strip-debug own_kfuncs.o
 */

#include "bpf_support.h"

struct entry { u32 state; u32 timeout; };

extern struct entry *my_lookup(void *context, const u32 *key, u32 size) __ksym;
extern s8 my_difference(s16 one, u8 other, u64 wide) __ksym;
extern void my_release(struct entry *entry) __ksym;
extern int my_optional(int value) __ksym __weak;

SEC("xdp") int looked_up(void *context)
{
    u32 key = 7;
    struct entry *entry = my_lookup(context, &key, sizeof(key));
    int state;

    if (!entry)
        return 99;
    state = entry->state;
    entry->timeout = 30;
    my_release(entry);
    return state;
}

SEC("xdp") int numbers(void *context)
{
    return my_difference(-5, 200, 1ULL << 40);
}

SEC("xdp") int optional(void *context)
{
    return my_optional ? my_optional(1) : 3;
}

SEC("xdp") int without(void *context)
{
    return 1;
}

char _license[] SEC("license") = "GPL";
