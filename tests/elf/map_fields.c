/* Fields of struct bpf_map, read through the address of a map: each program returns 0, or the line that is wrong.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c map_fields.c -o map_fields.o
 *     llvm-strip --strip-debug map_fields.o
 */

#include "bpf_support.h"

#define RELOCATED __attribute__((preserve_access_index))
#define CHECK(expression) if (!(expression)) return __LINE__

enum bpf_map_type { BPF_MAP_TYPE_UNSPEC };
typedef struct { int counter; } atomic_t;

struct bpf_map { enum bpf_map_type map_type; u32 key_size, value_size, max_entries, id; } RELOCATED;
struct bpf_array { struct bpf_map map; u32 elem_size; } RELOCATED;
struct bpf_htab { struct bpf_map map; atomic_t count; u32 n_buckets, elem_size; } RELOCATED;

static long (*const update)(void *, const void *, const void *, u64) = (void *)2;
static long (*const delete)(void *, const void *) = (void *)3;
static long (*const for_each)(void *, void *, void *, u64) = (void *)164;
extern s64 bpf_map_sum_elem_count(const struct bpf_map *map) __ksym;

struct {
    __uint(type, HASH);
    __uint(map_flags, 1);
    __uint(max_entries, 6);
    __type(key, u32);
    __type(value, u32);
} flows SEC(".maps");

struct {
    __uint(type, ARRAY);
    __uint(max_entries, 5);
    __type(key, u32);
    __type(value, u32);
} numbers SEC(".maps");

struct {
    __uint(type, RINGBUF);
    __uint(max_entries, 4096);
} ring SEC(".maps");

struct inner {
    __uint(type, ARRAY);
    __uint(max_entries, 3);
    __type(key, u32);
    __type(value, u64);
} inner SEC(".maps");

struct {
    __uint(type, ARRAY_OF_MAPS);
    __uint(max_entries, 2);
    __type(key, u32);
    __uint(value_size, 4);
    __array(values, struct inner);
} outer SEC(".maps") = { .values = { &inner, 0 } };

struct bpf_arena { struct bpf_map map; u64 user_vm_start, user_vm_end; } RELOCATED;
struct {
    __uint(type, 33);
    __uint(map_flags, 1024);
    __uint(max_entries, 3);
} area SEC(".maps");

static NOINLINE int differs(struct bpf_map *map, u32 type, u32 key_size, u32 value_size, u32 max_entries)
{
    CHECK(map->map_type == type);
    CHECK(map->key_size == key_size);
    CHECK(map->value_size == value_size);
    CHECK(map->max_entries == max_entries);
    CHECK(map->id > 0);
    return 0;
}

SEC("tc") int array(void *context)
{
    struct bpf_array *array = (void *)&numbers;
    CHECK(array->elem_size == 8);
    return differs(&array->map, ARRAY, 4, 4, 5);
}

SEC("tc") int hash(void *context)
{
    struct bpf_htab *hash = (void *)&flows;
    CHECK(hash->n_buckets == 8);
    CHECK(hash->elem_size == 64);
    CHECK(hash->count.counter == 0);
    for (u32 number = 0; number < 3; number++) {
        u32 key = number;
        CHECK(!update(&flows, &key, &key, 0));
    }
    CHECK(hash->count.counter == 3);
    u32 key = 1;
    CHECK(!delete(&flows, &key));
    CHECK(hash->count.counter == 2);
    key = 0;
    delete(&flows, &key);
    key = 2;
    delete(&flows, &key);
    return differs(&hash->map, HASH, 4, 4, 6);
}

SEC("tc") int rings(void *context) { return differs((void *)&ring, RINGBUF, 0, 0, 4096); }

SEC("tc") int arena(void *context)
{
    struct bpf_arena *arena = (void *)&area;
    CHECK(arena->user_vm_end - arena->user_vm_start == 3 * 4096);
    return differs(&arena->map, 33, 0, 0, 3);
}

SEC("tc") int inside(void *context)
{
    u32 key = 0;
    struct bpf_map *map = bpf_map_lookup_elem(&outer, &key);
    CHECK(map);
    CHECK(map->id == ((struct bpf_map *)&inner)->id);
    CHECK(map->id != ((struct bpf_map *)&outer)->id);
    u64 *value = bpf_map_lookup_elem(map, &key);
    CHECK(value);
    CHECK(*value == 0);
    CHECK(map->max_entries == 3);
    CHECK(map->value_size == 8);
    key = 1;
    CHECK(!bpf_map_lookup_elem(&outer, &key));
    return differs((void *)&outer, ARRAY_OF_MAPS, 4, 4, 2);
}

struct found { u32 entries; };

static long visit(struct bpf_map *map, u32 *key, u32 *value, struct found *found)
{
    found->entries += map->max_entries;
    return 0;
}

SEC("tc") int each(void *context)
{
    struct found found = {};
    CHECK(for_each(&numbers, visit, &found, 0) == 5);
    CHECK(found.entries == 25);
    return 0;
}

SEC("tc") int sum(void *context)
{
    u32 key = 7;
    CHECK(!update(&flows, &key, &key, 0));
    s64 count = bpf_map_sum_elem_count((void *)&flows);
    delete(&flows, &key);
    CHECK(count == 1);
    CHECK(bpf_map_sum_elem_count((void *)&numbers) == 0);
    CHECK(bpf_map_sum_elem_count((void *)&flows) == 0);
    return 0;
}

struct bpf_timer { u64 opaque[2]; } __attribute__((aligned(8)));
static long (*const timer_init)(void *timer, void *map, u64 flags) = (void *)169;
static long (*const timer_set_callback)(void *timer, void *function) = (void *)170;
static long (*const timer_start)(void *timer, u64 nanoseconds, u64 flags) = (void *)171;

struct timed { struct bpf_timer timer; u64 entries; };

struct {
    __uint(type, ARRAY);
    __uint(max_entries, 7);
    __type(key, u32);
    __type(value, struct timed);
} timers SEC(".maps");

static int fires(struct bpf_map *map, u32 *key, struct timed *timed)
{
    u32 first = 0;
    struct timed *same = bpf_map_lookup_elem(map, &first);
    timed->entries = same == timed ? map->max_entries : 1;
    return 0;
}

SEC("tc") int starts(void *context)
{
    u32 key = 0;
    struct timed *timed = bpf_map_lookup_elem(&timers, &key);
    if (!timed)
        return __LINE__;
    CHECK(!timer_init(&timed->timer, &timers, 1));
    CHECK(!timer_set_callback(&timed->timer, fires));
    CHECK(!timer_start(&timed->timer, 1000, 0));
    return 0;
}

SEC("tc") int writes(void *context)
{
    ((volatile struct bpf_map *)&numbers)->max_entries = 9;
    return 0;
}

SEC("tc") int behind(void *context) { return ((volatile u32 *)&numbers)[1000]; }

char LICENSE[] SEC("license") = "GPL";
