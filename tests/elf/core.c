/* CO-RE relocations of every kind. core_target.c is the kernel that it meets.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c core.c -o core.o
 *     llvm-strip --strip-debug core.o
 */

#include "bpf_support.h"

#define RELOCATED __attribute__((preserve_access_index))
#define FIELD(what, field) __builtin_preserve_field_info(field, what)
#define TYPE(what, type) __builtin_preserve_type_info(*(typeof(type) *)0, what)
#define ENUM(what, type, value) __builtin_preserve_enum_value(*(typeof(type) *)value, what)

enum { BYTE_OFFSET, BYTE_SIZE, EXISTS, SIGNED, LSHIFT, RSHIFT };
enum { TYPE_EXISTS, TYPE_SIZE }; /* and TYPE_MATCHES, which clang 14 does not know */
enum { VALUE_EXISTS, VALUE };

struct inner { int x; u64 y; } RELOCATED;

struct task {
    u32 pid;
    u32 flags : 3, state : 9;
    s32 below : 5;
    u64 start;
    struct inner inner;
    u16 table[4];
    struct task *parent;
    u32 shrunk;
    s32 resized;
    u32 gone;
    struct { u32 nested; };
} RELOCATED;

struct task___flavor { u64 start; } RELOCATED;
struct missing { int a; } RELOCATED;
struct other { int a; char b; };
enum mode { IDLE = 1, BUSY = 5, LOST = 9 };
enum wide { HUGE = 0x11223344 };
typedef int number;

struct output { u64 word[16]; };

SEC("socket") u64 pid(struct task *t) { return t->pid; }
SEC("socket") u64 start(struct task___flavor *t) { return t->start; }
SEC("socket") u64 inner_y(struct task *t) { return t->inner.y; }
SEC("socket") u64 table_2(struct task *t) { return t->table[2]; }
SEC("socket") u64 shrunk(struct task *t) { return t->shrunk; }
SEC("socket") u64 nested(struct task *t) { return t->nested; }
SEC("socket") s64 resized(struct task *t) { return t->resized; }
SEC("socket") u64 parent_pid(struct task *t) { return t->parent->pid; }
SEC("socket") u64 gone(struct task *t) { return t->gone; }
SEC("socket") u64 store(struct task *t) { t->start = 5; t->pid = 9; return t->pid; }

SEC("socket") u64 careful(struct task *t)
{
    return FIELD(EXISTS, t->gone) ? t->gone : 1234;
}

SEC("socket") u64 fields(struct output *o)
{
    struct task *t = 0;

    o->word[0] = FIELD(BYTE_OFFSET, t->start);
    o->word[1] = FIELD(BYTE_SIZE, t->shrunk);
    o->word[2] = FIELD(EXISTS, t->gone);
    o->word[3] = FIELD(EXISTS, t->pid);
    o->word[4] = FIELD(SIGNED, t->below);
    o->word[5] = FIELD(SIGNED, t->pid);
    o->word[6] = FIELD(LSHIFT, t->state);
    o->word[7] = FIELD(RSHIFT, t->state);
    o->word[8] = FIELD(BYTE_OFFSET, t->state);
    o->word[9] = FIELD(BYTE_SIZE, t->state);
    o->word[10] = FIELD(BYTE_OFFSET, t->table[3]);
    o->word[11] = FIELD(BYTE_SIZE, t->inner);
    return 0;
}

SEC("socket") u64 types(struct output *o)
{
    o->word[0] = TYPE(TYPE_EXISTS, struct task);
    o->word[1] = TYPE(TYPE_EXISTS, struct missing);
    o->word[2] = TYPE(TYPE_SIZE, struct task);
    o->word[3] = TYPE(TYPE_SIZE, struct missing);
    o->word[4] = TYPE(TYPE_EXISTS, number);
    o->word[5] = TYPE(TYPE_EXISTS, struct other);
    o->word[6] = TYPE(TYPE_EXISTS, struct inner);
    o->word[7] = __builtin_btf_type_id(*(struct task *)0, 0);
    o->word[8] = __builtin_btf_type_id(*(struct task *)0, 1);
    o->word[9] = __builtin_btf_type_id(*(struct missing *)0, 1);
    return 0;
}

SEC("socket") u64 values(struct output *o)
{
    o->word[0] = ENUM(VALUE_EXISTS, enum mode, BUSY);
    o->word[1] = ENUM(VALUE_EXISTS, enum mode, LOST);
    o->word[2] = ENUM(VALUE, enum mode, BUSY);
    o->word[3] = ENUM(VALUE, enum wide, HUGE);
    return 0;
}

SEC("socket") u64 lost_value(void *context) { return ENUM(VALUE, enum mode, LOST); }
