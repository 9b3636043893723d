/* Objects with a struct for each processor: made, reached, kept in a map's value; and what Linux refuses.
 * Debian clang 19.1.7: clang 14 drops the tags of pointers to structs.
 *
 *     clang-19 -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c percpu_objects.c -o percpu_objects_clang19.o
 *     llvm-strip-19 --strip-debug percpu_objects_clang19.o
 */

#include "bpf_support.h"

#define __percpu_kptr __attribute__((btf_type_tag("percpu_kptr")))

static void *(*const bpf_per_cpu_ptr)(const void *object, u32 cpu) = (void *)153;
static void *(*const bpf_this_cpu_ptr)(const void *object) = (void *)154;
static void *(*const bpf_kptr_xchg)(void *place, void *object) = (void *)194;

extern void *bpf_percpu_obj_new_impl(u64 type, void *meta) __ksym;
extern void bpf_percpu_obj_drop_impl(void *object, void *meta) __ksym;
extern void *bpf_obj_new_impl(u64 type, void *meta) __ksym;
extern void bpf_obj_drop_impl(void *object, void *meta) __ksym;

#define bpf_percpu_obj_new(type) ((type *)bpf_percpu_obj_new_impl(__builtin_btf_type_id(*(type *)0, 0), 0))

struct point { u32 x, y; };
struct counter { u64 count; struct point point; u32 numbers[3]; };
struct large { char bytes[520]; };
struct points { u64 count; struct point points[2]; };
struct linked { u64 count; struct counter *next; };

struct slot { struct counter __percpu_kptr *counter; };
struct { __uint(type, ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, struct slot); } slots SEC(".maps");

u32 cpus = 2;

#define PUT(slot, result)                                      \
    do {                                                       \
        struct counter *made = bpf_percpu_obj_new(struct counter); \
        if (!made)                                             \
            return -2;                                         \
        made = bpf_kptr_xchg(&(slot)->counter, made);          \
        if (made) {                                            \
            bpf_percpu_obj_drop_impl(made, 0);                 \
            result = 1;                                        \
        }                                                      \
    } while (0)

/* Each processor has its own. */
SEC("tc") int counted(void *context)
{
    u32 key = 0, i, total = 0;
    struct slot *slot = bpf_map_lookup_elem(&slots, &key);
    struct counter *object, *counter;

    if (!slot)
        return -1;
    PUT(slot, key);
    object = slot->counter;
    if (!object)
        return -3;
    for (i = 0; i < 4; i++) {
        counter = bpf_per_cpu_ptr(object, i);
        if (!counter)
            break;
        counter->count = 10 + i;
        counter->point.y = i;
        counter->numbers[2] = i;
    }
    counter = bpf_this_cpu_ptr(object);
    counter->count += 100;
    total = i * 10000;
    for (i = 0; i < 4; i++) {
        counter = bpf_per_cpu_ptr(object, i);
        if (counter)
            total += counter->count + 1000 * counter->point.y * counter->numbers[2];
    }
    return total;
}

SEC("tc") int put(void *context)
{
    u32 key = 0, result = 0;
    struct slot *slot = bpf_map_lookup_elem(&slots, &key);

    if (!slot)
        return -1;
    PUT(slot, result);
    return result;
}

SEC("tc") int increased(void *context)
{
    u32 key = 0;
    struct slot *slot = bpf_map_lookup_elem(&slots, &key);
    struct counter *object, *counter;

    if (!slot)
        return -1;
    object = slot->counter;
    if (!object)
        return -2;
    counter = bpf_this_cpu_ptr(object);
    return ++counter->count;
}

/* What Linux's verifier refuses. */

SEC("tc") int forgotten(void *context)
{
    return bpf_percpu_obj_new(struct counter) != 0;
}

SEC("tc") int owned(void *context)
{
    struct counter *object = bpf_percpu_obj_new(struct counter), *counter;

    if (!object)
        return 0;
    counter = bpf_this_cpu_ptr(object);
    counter->count = 7;
    bpf_percpu_obj_drop_impl(object, 0);
    return 0;
}

SEC("tc") int direct(void *context)
{
    struct counter *object = bpf_percpu_obj_new(struct counter);
    int result;

    if (!object)
        return 0;
    result = object->count;
    bpf_percpu_obj_drop_impl(object, 0);
    return result;
}

SEC("tc") int dropped_otherwise(void *context)
{
    struct counter *object = bpf_percpu_obj_new(struct counter);

    if (object)
        bpf_obj_drop_impl(object, 0);
    return 0;
}

SEC("tc") int too_large(void *context)
{
    struct large *object = bpf_percpu_obj_new(struct large);

    if (object)
        bpf_percpu_obj_drop_impl(object, 0);
    return 0;
}

SEC("tc") int with_pointers(void *context)
{
    struct linked *object = bpf_percpu_obj_new(struct linked);

    if (object)
        bpf_percpu_obj_drop_impl(object, 0);
    return 0;
}

SEC("tc") int with_structs(void *context)
{
    struct points *object = bpf_percpu_obj_new(struct points);

    if (object)
        bpf_percpu_obj_drop_impl(object, 0);
    return 0;
}

char _license[] SEC("license") = "GPL";
