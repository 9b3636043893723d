/* Types as compilers of today write them, and CO-RE relocations of -mcpu=v4 code, which loads signed bit fields
 * with loads that extend the sign. new_types_target.c is the kernel that it meets.
 * Debian clang 19.1.7, and clang 22.1.8 of the wheel ziglang 0.17.1 (python -m ziglang clang):
 *
 *     clang-19 -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v4 -c new_types.c -o new_types_clang19.o
 *     llvm-strip-19 --strip-debug new_types_clang19.o
 *     python -m ziglang clang -O2 -g -fdebug-compilation-dir=. -target bpfel -mcpu=v4 -c new_types.c \
 *         -o new_types_clang22.o
 *     llvm-strip-19 --strip-debug new_types_clang22.o
 */

#include "bpf_support.h"

#define RELOCATED __attribute__((preserve_access_index))
#define TAG(text) __attribute__((btf_decl_tag(text)))
#define TYPE_TAG(text) __attribute__((btf_type_tag(text)))
#define FIELD(what, field) __builtin_preserve_field_info(field, what)
#define TYPE(what, type) __builtin_preserve_type_info(*(typeof(type) *)0, what)
#define ENUM(what, type, value) __builtin_preserve_enum_value(*(typeof(type) *)value, what)

enum { BYTE_OFFSET, BYTE_SIZE, EXISTS, SIGNED, LSHIFT, RSHIFT };
enum { TYPE_EXISTS, TYPE_SIZE, TYPE_MATCHES };
enum { VALUE_EXISTS, VALUE };

typedef short s16;

enum huge { TINY = 1, LARGE = 0x123456789abcULL, LAST = 0xffffffffffffff00ULL };
enum low { LOWEST = -0x7000000000000000LL, ZERO = 0 };

struct bits {
    s8 byte;
    s16 half;
    s32 word;
    int first : 5, second : 11, third : 16;
    unsigned char flag : 1, rest : 7;
    enum huge huge;
} RELOCATED;

struct same { int x; struct same *next; } RELOCATED;
struct other { int x; char y; } RELOCATED;

struct marked {
    u64 count TAG("counted");
    struct same TYPE_TAG("kptr_untrusted") *pointer;
    int TYPE_TAG("user") *user TAG("second tag");
} TAG("a struct");

struct {
    __uint(type, HASH);
    __uint(max_entries, 4);
    __type(key, enum huge);
    __type(value, struct bits);
} by_enum SEC(".maps");

struct {
    __uint(type, ARRAY);
    __uint(max_entries, 2);
    __type(key, u32);
    __type(value, struct marked);
} marks SEC(".maps");

u64 results[16];
enum huge choice TAG("a variable") = LARGE;
enum low lowest = LOWEST;

static NOINLINE TAG("a function") int added(struct bits *bits TAG("an argument"), int number)
{
    return bits->byte + number;
}

SEC("raw_tp") int fields(struct bits *in)
{
    results[0] = in->byte;
    results[1] = in->half;
    results[2] = in->word;
    results[3] = in->huge;
    return added(in, 5);
}

#define READ(field) ({                                                                        \
    s64 value;                                                                                \
    const void *at = (const void *)in + FIELD(BYTE_OFFSET, in->field);                        \
    switch (FIELD(BYTE_SIZE, in->field)) {                                                    \
    case 1: value = *(const u8 *)at; break;                                                   \
    case 2: value = *(const u16 *)at; break;                                                  \
    case 4: value = *(const u32 *)at; break;                                                  \
    default: value = *(const u64 *)at;                                                        \
    }                                                                                         \
    value <<= FIELD(LSHIFT, in->field);                                                       \
    FIELD(SIGNED, in->field) ? value >> FIELD(RSHIFT, in->field)                              \
                             : (s64)((u64)value >> FIELD(RSHIFT, in->field));                 \
})

SEC("raw_tp") int bit_fields(struct bits *in)
{
    results[0] = READ(first);
    results[1] = READ(second);
    results[2] = READ(third);
    results[3] = READ(flag);
    results[4] = READ(rest);
    results[5] = READ(byte);
    return 1;
}

SEC("raw_tp") int questions(void *context)
{
    results[0] = ENUM(VALUE, enum huge, LARGE);
    results[1] = ENUM(VALUE, enum huge, LAST);
    results[2] = ENUM(VALUE_EXISTS, enum huge, TINY);
    results[3] = ENUM(VALUE, enum low, LOWEST);
    results[4] = TYPE(TYPE_MATCHES, struct same);
    results[5] = TYPE(TYPE_MATCHES, struct other);
    results[6] = TYPE(TYPE_SIZE, struct bits);
    results[7] = TYPE(TYPE_EXISTS, struct marked);
    return 2;
}

SEC("raw_tp") int chosen(u64 *context)
{
    enum huge key = choice;
    struct bits *found = bpf_map_lookup_elem(&by_enum, &key);
    u32 first = 0;
    struct marked *mark = bpf_map_lookup_elem(&marks, &first);
    if (mark)
        mark->count++;
    return found ? found->word : -1;
}

char _license[] SEC("license") = "GPL";
