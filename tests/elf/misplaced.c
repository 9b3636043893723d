/* Helpers that are given a lock's or a kernel pointer's address where there is none; iterators left open.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c misplaced.c -o misplaced.o
 *     llvm-strip --strip-debug misplaced.o
 */

#include "bpf_support.h"

struct bpf_spin_lock { u32 val; };
struct bpf_iter_num { u64 opaque[1]; } __attribute__((aligned(8)));
struct bpf_iter_bits { u64 opaque[2]; } __attribute__((aligned(8)));
struct account { struct bpf_spin_lock lock; u32 flags; u64 count; };

struct { __uint(type, ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, struct account); }
    accounts SEC(".maps");
struct { __uint(type, ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, u64); } numbers SEC(".maps");
struct { __uint(type, PROG_ARRAY); __uint(max_entries, 1); __uint(key_size, 4); __uint(value_size, 4); }
    programs SEC(".maps");

struct { __uint(type, RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");

static long (*const bpf_spin_lock)(void *) = (void *)93;
static long (*const bpf_spin_unlock)(void *) = (void *)94;
static void *(*const bpf_kptr_xchg)(void *, void *) = (void *)194;
static long (*const bpf_ringbuf_reserve_dynptr)(void *, u32, u64, void *) = (void *)198;
extern int bpf_iter_num_new(struct bpf_iter_num *, int, int) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *) __ksym;
extern int bpf_iter_bits_new(struct bpf_iter_bits *, const u64 *, u32) __ksym;

char _license[] SEC("license") = "GPL";
u64 variable;

static __attribute__((always_inline)) void *value_of(void *map)
{
    u32 key = 0;
    return bpf_map_lookup_elem(map, &key);
}

SEC("tc") int exchanges_a_number(void *context)
{
    u64 *value = value_of(&numbers);
    return value && bpf_kptr_xchg(value, 0);
}

SEC("tc") int exchanges_beside_a_lock(void *context)
{
    struct account *account = value_of(&accounts);
    return account && bpf_kptr_xchg(&account->count, 0);
}

SEC("tc") int exchanges_a_variable(void *context)
{
    return bpf_kptr_xchg(&variable, 0) != 0;
}

SEC("tc") int exchanges_the_frame(void *context)
{
    u64 place = 0;
    return bpf_kptr_xchg(&place, 0) != 0;
}

SEC("tc") int locks_the_frame(void *context)
{
    struct bpf_spin_lock lock = {};
    bpf_spin_lock(&lock);
    bpf_spin_unlock(&lock);
    return 0;
}

SEC("tc") int leaves_numbers(void *context)
{
    struct bpf_iter_num it;
    bpf_iter_num_new(&it, 0, 3);
    return bpf_iter_num_next(&it) != 0;
}

SEC("tc") int leaves_bits(void *context)
{
    struct bpf_iter_bits it;
    u64 mask = 5;
    bpf_iter_bits_new(&it, &mask, 1);
    return 0;
}

SEC("tc") int leaves_what_failed(void *context)
{
    struct bpf_iter_num it;
    return bpf_iter_num_new(&it, 3, 0);
}

SEC("tc") int begins_twice(void *context)
{
    struct bpf_iter_num it;
    bpf_iter_num_new(&it, 0, 3);
    bpf_iter_num_new(&it, 0, 3);
    bpf_iter_num_destroy(&it);
    return 0;
}

SEC("tc") int jumps_away(void *context)
{
    struct bpf_iter_num it;
    bpf_iter_num_new(&it, 0, 3);
    bpf_tail_call(context, &programs, 0);
    bpf_iter_num_destroy(&it);
    return 0;
}

SEC("tc") int leaves_a_dynptr(void *context)
{
    struct { u64 opaque[2]; } __attribute__((aligned(8))) dynptr;
    return bpf_ringbuf_reserve_dynptr(&ring, 8, 0, &dynptr);
}
