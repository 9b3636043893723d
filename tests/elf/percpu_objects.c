/* Objects of which each processor has one.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c percpu_objects.c -o percpu_objects.o
 */
#include "bpf_support.h"

#define __percpu_kptr __attribute__((btf_type_tag("percpu_kptr")))

struct counts { u64 first, second; u32 third; };
typedef struct counts kept_counts; /* clang 14 loses a tag of a struct, not of a typedef */
struct slot { kept_counts __percpu_kptr *counts; };
struct { __uint(type, ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, struct slot); } slots SEC(".maps");

extern void *bpf_percpu_obj_new_impl(u64 type, void *meta) __ksym;
extern void bpf_percpu_obj_drop_impl(void *object, void *meta) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;

static void *(*const bpf_per_cpu_ptr)(const void *object, u32 cpu) = (void *)153;
static void *(*const bpf_this_cpu_ptr)(const void *object) = (void *)154;
static void *(*const bpf_kptr_xchg)(void *place, void *pointer) = (void *)194;

SEC("tc") int made(void *context)
{
    void *object = bpf_percpu_obj_new_impl(__builtin_btf_type_id(*(struct counts *)0, 0), 0);
    u32 key = 0;
    struct slot *slot = bpf_map_lookup_elem(&slots, &key);

    if (!object)
        return 1;
    if (slot)
        object = bpf_kptr_xchg(&slot->counts, object);
    if (object)
        bpf_percpu_obj_drop_impl(object, 0);
    return 0;
}

SEC("tc") int counted(void *context)
{
    u32 key = 0, sum = 0, cpu;
    struct slot *slot = bpf_map_lookup_elem(&slots, &key);
    struct counts *object, *mine;

    if (!slot)
        return -1;
    bpf_rcu_read_lock();
    object = slot->counts;
    if (object) {
        mine = bpf_this_cpu_ptr(object);
        mine->second += 1;
        mine->third = 100;
        for (cpu = 0; cpu < 4; cpu++) {
            mine = bpf_per_cpu_ptr(object, cpu);
            if (mine)
                sum += mine->first + mine->second + mine->third;
        }
    }
    bpf_rcu_read_unlock();
    return sum;
}

SEC("tc") int forgotten(void *context)
{
    return bpf_percpu_obj_new_impl(__builtin_btf_type_id(*(struct counts *)0, 0), 0) != 0;
}

char LICENSE[] SEC("license") = "GPL";
