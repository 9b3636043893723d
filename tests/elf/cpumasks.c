/* Sets of processors.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c cpumasks.c -o cpumasks.o
 */
#include "bpf_support.h"

#define __kptr __attribute__((btf_type_tag("kptr")))

struct cpumask { u64 bits[128]; };
typedef struct cpumask cpumask_t;
typedef struct { s32 counter; } atomic_t;
typedef struct refcount_struct { atomic_t refs; } refcount_t;
struct bpf_cpumask { cpumask_t cpumask; refcount_t usage; };

typedef const struct cpumask *set;
extern struct bpf_cpumask *bpf_cpumask_create(void) __ksym;
extern struct bpf_cpumask *bpf_cpumask_acquire(struct bpf_cpumask *) __ksym;
extern void bpf_cpumask_release(struct bpf_cpumask *) __ksym;
extern u32 bpf_cpumask_first(set) __ksym;
extern u32 bpf_cpumask_first_zero(set) __ksym;
extern u32 bpf_cpumask_first_and(set, set) __ksym;
extern void bpf_cpumask_set_cpu(u32, struct bpf_cpumask *) __ksym;
extern void bpf_cpumask_clear_cpu(u32, struct bpf_cpumask *) __ksym;
extern _Bool bpf_cpumask_test_cpu(u32, set) __ksym;
extern _Bool bpf_cpumask_test_and_set_cpu(u32, struct bpf_cpumask *) __ksym;
extern _Bool bpf_cpumask_test_and_clear_cpu(u32, struct bpf_cpumask *) __ksym;
extern void bpf_cpumask_setall(struct bpf_cpumask *) __ksym;
extern void bpf_cpumask_clear(struct bpf_cpumask *) __ksym;
extern _Bool bpf_cpumask_and(struct bpf_cpumask *, set, set) __ksym;
extern void bpf_cpumask_or(struct bpf_cpumask *, set, set) __ksym;
extern void bpf_cpumask_xor(struct bpf_cpumask *, set, set) __ksym;
extern _Bool bpf_cpumask_equal(set, set) __ksym;
extern _Bool bpf_cpumask_intersects(set, set) __ksym;
extern _Bool bpf_cpumask_subset(set, set) __ksym;
extern _Bool bpf_cpumask_empty(set) __ksym;
extern _Bool bpf_cpumask_full(set) __ksym;
extern void bpf_cpumask_copy(struct bpf_cpumask *, set) __ksym;
extern u32 bpf_cpumask_weight(set) __ksym;

static void *(*const bpf_kptr_xchg)(void *place, void *pointer) = (void *)194;

typedef struct bpf_cpumask kept_mask; /* clang 14 loses a tag of a struct, not of a typedef */
struct slot { kept_mask __kptr *mask; };
struct { __uint(type, ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, struct slot); } slots SEC(".maps");

u32 said[32];

/* With two processors: {0}, {1} and what comes of them. */
SEC("syscall") int answers(void *context)
{
    struct bpf_cpumask *a, *b, *c;
    u32 n = 0;

    a = bpf_cpumask_create();
    if (!a)
        return 1;
    b = bpf_cpumask_create();
    if (!b) {
        bpf_cpumask_release(a);
        return 1;
    }
    c = bpf_cpumask_create();
    if (!c) {
        bpf_cpumask_release(a);
        bpf_cpumask_release(b);
        return 1;
    }
    said[n++] = bpf_cpumask_empty((set)a);
    bpf_cpumask_set_cpu(0, a);
    said[n++] = bpf_cpumask_first((set)a);
    said[n++] = bpf_cpumask_first_zero((set)a);
    said[n++] = bpf_cpumask_test_and_set_cpu(1, b);
    said[n++] = bpf_cpumask_test_and_set_cpu(1, b);
    said[n++] = bpf_cpumask_test_cpu(1, (set)b);
    said[n++] = bpf_cpumask_test_cpu(100000, (set)b);
    said[n++] = bpf_cpumask_and(c, (set)a, (set)b);
    said[n++] = bpf_cpumask_intersects((set)a, (set)b);
    bpf_cpumask_or(c, (set)a, (set)b);
    said[n++] = bpf_cpumask_weight((set)c);
    said[n++] = bpf_cpumask_subset((set)a, (set)c);
    said[n++] = bpf_cpumask_subset((set)c, (set)a);
    bpf_cpumask_xor(c, (set)c, (set)b);
    said[n++] = bpf_cpumask_equal((set)c, (set)a);
    said[n++] = bpf_cpumask_first_and((set)a, (set)c);
    bpf_cpumask_copy(c, (set)b);
    said[n++] = bpf_cpumask_test_and_clear_cpu(1, c);
    said[n++] = bpf_cpumask_empty((set)c);
    bpf_cpumask_setall(c);
    said[n++] = bpf_cpumask_full((set)c);
    bpf_cpumask_clear_cpu(0, c);
    said[n++] = bpf_cpumask_full((set)c);
    bpf_cpumask_clear(c);
    said[n++] = bpf_cpumask_weight((set)c);
    bpf_cpumask_release(a);
    bpf_cpumask_release(b);
    bpf_cpumask_release(c);
    return 0;
}

SEC("syscall") int kept(void *context)
{
    struct bpf_cpumask *mask = bpf_cpumask_create(), *old;
    u32 key = 0;
    struct slot *slot = bpf_map_lookup_elem(&slots, &key);

    if (!mask)
        return -1;
    if (!slot) {
        bpf_cpumask_release(mask);
        return -2;
    }
    bpf_cpumask_set_cpu(1, mask);
    old = bpf_kptr_xchg(&slot->mask, mask);
    if (!old)
        return 0;
    key = bpf_cpumask_weight((set)old);
    bpf_cpumask_release(old);
    return key;
}

SEC("syscall") int counted(void *context)
{
    struct bpf_cpumask *mask = bpf_cpumask_create(), *again;
    u32 bits;

    if (!mask)
        return -1;
    again = bpf_cpumask_acquire(mask);
    bpf_cpumask_release(mask);
    bpf_cpumask_set_cpu(1, again);
    bits = again->cpumask.bits[0];
    bpf_cpumask_release(again);
    return bits;
}

SEC("syscall") int forgotten(void *context)
{
    return bpf_cpumask_create() != 0;
}

static kept_mask __kptr *one SEC(".data.G");
static struct slot grid[2][2] SEC(".data.G");

static int exchanged(void *place)
{
    struct bpf_cpumask *mask = bpf_cpumask_create();
    int weight = 0;

    if (!mask)
        return -1;
    bpf_cpumask_setall(mask);
    mask = bpf_kptr_xchg(place, mask);
    if (mask) {
        weight = bpf_cpumask_weight((set)mask);
        bpf_cpumask_release(mask);
    }
    return weight;
}

SEC("syscall") int kept_in_variables(void *context)
{
    int sum = exchanged(&one) + exchanged(&grid[1][1].mask);

    return 10 * sum + exchanged(&grid[1][1].mask);
}

char LICENSE[] SEC("license") = "GPL";
