/* What the target kernel does not have: fields, a value of an enum, a field of another size.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c missing_field.c -o missing_field.o
 *     llvm-strip --strip-debug missing_field.o
 */

#include "bpf_support.h"

#define CORE __attribute__((preserve_access_index))

struct inside {
    u32 gone;
} CORE;

struct task {
    u32 pid;
    u32 no_such_field;
    struct inside parts[2];
} CORE;

typedef enum { RUNNING, NOT_THERE = 5 } state;

SEC("kprobe/f") int guarded(struct task *task)
{
    if (__builtin_preserve_field_info(task->no_such_field, 2))
        return task->no_such_field;
    return 3;
}

SEC("kprobe/f") int field(struct task *task) { return task->no_such_field; }
SEC("kprobe/f") int nested(struct task *task) { return task->parts[1].gone; }
SEC("kprobe/f") int value(struct task *task)
{
    return __builtin_preserve_enum_value(*(state *)NOT_THERE, 1);
}
