/* Sets of processors: made, changed, compared, kept in a map's value; with what Linux's verifier refuses.
 * Debian clang 19.1.7: clang 14 drops the tags of pointers to structs.
 *
 *     clang-19 -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c cpumasks.c -o cpumasks_clang19.o
 *     llvm-strip-19 --strip-debug cpumasks_clang19.o
 */

#include "bpf_support.h"

struct cpumask { unsigned long bits[4]; };
struct bpf_cpumask { struct cpumask cpumask; int usage; };

#define __kptr __attribute__((btf_type_tag("kptr")))
#define MASK(mask) ((const struct cpumask *)(mask))

static void *(*const bpf_kptr_xchg)(void *place, void *object) = (void *)194;

/* Those that Linux declares as bool fill 8 bits of r0, which may have anything above. */
extern struct bpf_cpumask *bpf_cpumask_create(void) __ksym;
extern struct bpf_cpumask *bpf_cpumask_acquire(struct bpf_cpumask *mask) __ksym;
extern void bpf_cpumask_release(struct bpf_cpumask *mask) __ksym;
extern u32 bpf_cpumask_first(const struct cpumask *mask) __ksym;
extern u32 bpf_cpumask_first_zero(const struct cpumask *mask) __ksym;
extern u32 bpf_cpumask_first_and(const struct cpumask *one, const struct cpumask *other) __ksym;
extern void bpf_cpumask_set_cpu(u32 cpu, struct bpf_cpumask *mask) __ksym;
extern void bpf_cpumask_clear_cpu(u32 cpu, struct bpf_cpumask *mask) __ksym;
extern u32 bpf_cpumask_test_cpu(u32 cpu, const struct cpumask *mask) __ksym;
extern u32 bpf_cpumask_test_and_set_cpu(u32 cpu, struct bpf_cpumask *mask) __ksym;
extern u32 bpf_cpumask_test_and_clear_cpu(u32 cpu, struct bpf_cpumask *mask) __ksym;
extern void bpf_cpumask_setall(struct bpf_cpumask *mask) __ksym;
extern void bpf_cpumask_clear(struct bpf_cpumask *mask) __ksym;
extern u32 bpf_cpumask_and(struct bpf_cpumask *to, const struct cpumask *one, const struct cpumask *other) __ksym;
extern void bpf_cpumask_or(struct bpf_cpumask *to, const struct cpumask *one, const struct cpumask *other) __ksym;
extern void bpf_cpumask_xor(struct bpf_cpumask *to, const struct cpumask *one, const struct cpumask *other) __ksym;
extern u32 bpf_cpumask_equal(const struct cpumask *one, const struct cpumask *other) __ksym;
extern u32 bpf_cpumask_intersects(const struct cpumask *one, const struct cpumask *other) __ksym;
extern u32 bpf_cpumask_subset(const struct cpumask *one, const struct cpumask *other) __ksym;
extern u32 bpf_cpumask_empty(const struct cpumask *mask) __ksym;
extern u32 bpf_cpumask_full(const struct cpumask *mask) __ksym;
extern void bpf_cpumask_copy(struct bpf_cpumask *to, const struct cpumask *mask) __ksym;
extern u32 bpf_cpumask_any_distribute(const struct cpumask *mask) __ksym;
extern u32 bpf_cpumask_any_and_distribute(const struct cpumask *one, const struct cpumask *other) __ksym;
extern u32 bpf_cpumask_weight(const struct cpumask *mask) __ksym;
extern int bpf_cpumask_populate(struct bpf_cpumask *to, void *words, unsigned long size) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;

struct slot { struct bpf_cpumask __kptr *mask; };
struct { __uint(type, ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, struct slot); } slots SEC(".maps");

u64 words[2] = {0x5555555555555556, 1};
u64 answers[32];

SEC("syscall") int answered(void *context)
{
    struct bpf_cpumask *one = bpf_cpumask_create(), *other;
    u32 at = 0;

    if (!one)
        return -1;
    other = bpf_cpumask_create();
    if (!other) {
        bpf_cpumask_release(one);
        return -2;
    }
    answers[at++] = (bpf_cpumask_empty(MASK(one)) & 1);
    answers[at++] = bpf_cpumask_first(MASK(one));
    answers[at++] = bpf_cpumask_any_distribute(MASK(one));
    bpf_cpumask_set_cpu(1, one);
    bpf_cpumask_set_cpu(1000, one);
    answers[at++] = bpf_cpumask_weight(MASK(one));
    answers[at++] = bpf_cpumask_first(MASK(one));
    answers[at++] = bpf_cpumask_first_zero(MASK(one));
    answers[at++] = (bpf_cpumask_test_cpu(1, MASK(one)) & 1) + 2 * (bpf_cpumask_test_cpu(1000, MASK(one)) & 1);
    answers[at++] = (bpf_cpumask_test_and_set_cpu(0, one) & 1) + 2 * (bpf_cpumask_test_and_set_cpu(0, one) & 1);
    answers[at++] = (bpf_cpumask_test_and_clear_cpu(0, one) & 1) + 2 * (bpf_cpumask_test_and_clear_cpu(0, one) & 1);
    answers[at++] = (bpf_cpumask_test_and_set_cpu(1000, one) & 1) + (bpf_cpumask_test_and_clear_cpu(-1, one) & 1);
    bpf_cpumask_setall(other);
    answers[at++] = bpf_cpumask_weight(MASK(other));
    answers[at++] = (bpf_cpumask_full(MASK(other)) & 1) + 2 * (bpf_cpumask_full(MASK(one)) & 1);
    answers[at++] = bpf_cpumask_first_zero(MASK(other));
    answers[at++] = (bpf_cpumask_subset(MASK(one), MASK(other)) & 1) + 2 * (bpf_cpumask_subset(MASK(other), MASK(one)) & 1);
    answers[at++] = bpf_cpumask_first_and(MASK(one), MASK(other));
    answers[at++] = bpf_cpumask_any_and_distribute(MASK(one), MASK(other));
    answers[at++] = (bpf_cpumask_intersects(MASK(one), MASK(other)) & 1);
    bpf_cpumask_xor(other, MASK(one), MASK(other));
    answers[at++] = (bpf_cpumask_intersects(MASK(one), MASK(other)) & 1);
    answers[at++] = (bpf_cpumask_and(other, MASK(one), MASK(other)) & 1) + 2 * bpf_cpumask_weight(MASK(other));
    bpf_cpumask_or(other, MASK(one), MASK(other));
    answers[at++] = (bpf_cpumask_equal(MASK(one), MASK(other)) & 1);
    bpf_cpumask_clear_cpu(1, other);
    bpf_cpumask_clear_cpu(-1, other);
    answers[at++] = (bpf_cpumask_equal(MASK(one), MASK(other)) & 1);
    bpf_cpumask_copy(other, MASK(one));
    answers[at++] = (bpf_cpumask_equal(MASK(one), MASK(other)) & 1);
    bpf_cpumask_clear(other);
    answers[at++] = bpf_cpumask_first(MASK(other));
    answers[at++] = bpf_cpumask_populate(other, words, 8);
    answers[at++] = bpf_cpumask_weight(MASK(other));
    answers[at++] = other->cpumask.bits[0] & 3;
    bpf_cpumask_release(one);
    bpf_cpumask_release(other);
    return at;
}

SEC("syscall") int too_short(void *context)
{
    struct bpf_cpumask *one = bpf_cpumask_create();
    int result;

    if (!one)
        return -1;
    result = bpf_cpumask_populate(one, words, 4);
    bpf_cpumask_release(one);
    return result;
}

/* Two references; one goes into the map. */
SEC("syscall") int put(void *context)
{
    u32 key = 0;
    struct slot *slot = bpf_map_lookup_elem(&slots, &key);
    struct bpf_cpumask *one, *more;
    int result;

    if (!slot)
        return -1;
    one = bpf_cpumask_create();
    if (!one)
        return -2;
    more = bpf_cpumask_acquire(one);
    bpf_cpumask_set_cpu(1, one);
    one = bpf_kptr_xchg(&slot->mask, one);
    if (one)
        bpf_cpumask_release(one);
    bpf_cpumask_set_cpu(0, more);
    result = bpf_cpumask_weight(MASK(more));
    bpf_cpumask_release(more);
    return result;
}

SEC("syscall") int looked_at(void *context)
{
    u32 key = 0;
    struct slot *slot = bpf_map_lookup_elem(&slots, &key);
    struct bpf_cpumask *one;
    int result = -3;

    if (!slot)
        return -1;
    bpf_rcu_read_lock();
    one = slot->mask;
    if (one)
        result = bpf_cpumask_weight(MASK(one)) + 10 * (bpf_cpumask_test_cpu(1, MASK(one)) & 1) + 100 * (one->cpumask.bits[0] & 3);
    bpf_rcu_read_unlock();
    return result;
}

SEC("syscall") int taken(void *context)
{
    u32 key = 0;
    struct slot *slot = bpf_map_lookup_elem(&slots, &key);
    struct bpf_cpumask *one;
    int result;

    if (!slot)
        return -1;
    one = bpf_kptr_xchg(&slot->mask, 0);
    if (!one)
        return -2;
    result = bpf_cpumask_weight(MASK(one));
    bpf_cpumask_release(one);
    return result;
}

SEC("syscall") int on_stack(void *context)
{
    struct bpf_cpumask mask = {};

    bpf_cpumask_set_cpu(1, &mask);
    return bpf_cpumask_weight(MASK(&mask)) + mask.cpumask.bits[0];
}

/* What Linux's verifier refuses. */

SEC("syscall") int forgotten(void *context)
{
    struct bpf_cpumask *one = bpf_cpumask_create();

    return one != 0;
}

SEC("syscall") int after_release(void *context)
{
    struct bpf_cpumask *one = bpf_cpumask_create();

    if (!one)
        return 0;
    bpf_cpumask_release(one);
    return bpf_cpumask_weight(MASK(one));
}

SEC("syscall") int unchecked(void *context)
{
    u32 key = 0;
    struct slot *slot = bpf_map_lookup_elem(&slots, &key);

    if (!slot)
        return 0;
    bpf_cpumask_release(slot->mask);
    return 1;
}

SEC("syscall") int written(void *context)
{
    struct bpf_cpumask *one = bpf_cpumask_create();

    if (!one)
        return 0;
    one->cpumask.bits[0] = 3;
    bpf_cpumask_release(one);
    return 1;
}

char _license[] SEC("license") = "GPL";
