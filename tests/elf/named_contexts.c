/* Programs whose context is a struct of their own types, by the names of its fields.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c named_contexts.c -o named_contexts.o
 *     llvm-strip --strip-debug named_contexts.o
 */

#include "bpf_support.h"

#define RELOCATED __attribute__((preserve_access_index))

struct trace_entry { u16 type; u8 flags; u8 preempt_count; s32 pid; } RELOCATED;
struct trace_event_raw_sys_enter { struct trace_entry ent; long id; unsigned long args[6]; char __data[]; } RELOCATED;
struct bpf_raw_tracepoint_args { u64 args[0]; };

enum color { RED = 1, GREEN = 2 };
struct options {
    u32 number;
    s16 small;
    u8 low : 3, high : 5;
    _Bool is_set;
    char name[8];
    u32 list[3];
    struct { s32 x, y; } point;
    union { u64 whole; u32 half; };
    enum color color;
    const char *text;
    u8 tail[];
};

SEC("tp/syscalls/sys_enter_openat") int entered(struct trace_event_raw_sys_enter *context)
{
    return context->id + context->ent.pid + (int)context->args[0] + context->args[1] + context->__data[1];
}

SEC("raw_tp/sys_enter") int raw(struct bpf_raw_tracepoint_args *context)
{
    return context->args[0] + context->args[1];
}

SEC("raw_tp/sys_enter") int words(u64 *context) { return context[1]; }

SEC("syscall") int change(struct options *options)
{
    if (options->name[1] != 'b' || options->low != 5 || options->small != -2 || !options->is_set)
        return 1;
    options->number += options->list[2];
    options->high = 17;
    options->point.y = options->point.x - 1;
    options->whole = -1;
    options->color = GREEN;
    options->name[7] = 'z';
    return 0;
}

SEC("syscall") int last(struct options *options) { return options->tail[2]; }

SEC("tp/syscalls/sys_exit_openat") int untyped(void *context) { return *(u32 *)context; }

char LICENSE[] SEC("license") = "GPL";
