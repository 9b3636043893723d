/* Locks of bpf_res_spin_lock, in the values of maps: several at a time, lists under them, and what Linux refuses.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c res_locks.c -o res_locks.o
 *     llvm-strip --strip-debug res_locks.o
 */

#include "bpf_support.h"

struct bpf_res_spin_lock { u32 val; };

static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;

extern int bpf_res_spin_lock(struct bpf_res_spin_lock *lock) __ksym;
extern void bpf_res_spin_unlock(struct bpf_res_spin_lock *lock) __ksym;
extern int bpf_res_spin_lock_irqsave(struct bpf_res_spin_lock *lock, unsigned long *flags) __ksym;
extern void bpf_res_spin_unlock_irqrestore(struct bpf_res_spin_lock *lock, unsigned long *flags) __ksym;
extern void bpf_local_irq_save(unsigned long *flags) __ksym;
extern void bpf_local_irq_restore(unsigned long *flags) __ksym;

struct account { struct bpf_res_spin_lock lock; u64 count; };
struct {
    __uint(type, ARRAY);
    __uint(max_entries, 2);
    __type(key, u32);
    __type(value, struct account);
} accounts SEC(".maps");

u32 same;

#define ACCOUNTS()                                                                 \
    u32 k = 0;                                                                     \
    struct account *one = bpf_map_lookup_elem(&accounts, &k), *other;              \
    unsigned long flags, more;                                                     \
    k = !same;                                                                     \
    other = bpf_map_lookup_elem(&accounts, &k);                                    \
    if (!one || !other)                                                            \
        return 1;

SEC("tc") int moved(void *context)
{
    int failed;
    ACCOUNTS()
    if (bpf_res_spin_lock(&one->lock))
        return 2;
    failed = bpf_res_spin_lock(&other->lock);
    if (failed) {
        bpf_res_spin_unlock(&one->lock);
        return failed;
    }
    one->count += 2;
    other->count += 40;
    bpf_res_spin_unlock(&other->lock);
    bpf_res_spin_unlock(&one->lock);
    return one->count + other->count;
}

SEC("tc") int without_interrupts(void *context)
{
    int failed;
    ACCOUNTS()
    if (bpf_res_spin_lock_irqsave(&one->lock, &flags))
        return 2;
    failed = bpf_res_spin_lock_irqsave(&other->lock, &more);
    if (!failed)
        bpf_res_spin_unlock_irqrestore(&other->lock, &more);
    bpf_res_spin_unlock_irqrestore(&one->lock, &flags);
    return failed;
}

/* What Linux's verifier refuses. */

SEC("tc") int forgotten(void *context)
{
    ACCOUNTS()
    return bpf_res_spin_lock(&one->lock);
}

SEC("tc") int out_of_order(void *context)
{
    ACCOUNTS()
    if (bpf_res_spin_lock(&one->lock))
        return 2;
    if (bpf_res_spin_lock(&other->lock)) {
        bpf_res_spin_unlock(&one->lock);
        return 3;
    }
    bpf_res_spin_unlock(&one->lock);
    bpf_res_spin_unlock(&other->lock);
    return 0;
}

SEC("tc") int asks_time(void *context)
{
    ACCOUNTS()
    if (bpf_res_spin_lock(&one->lock))
        return 2;
    one->count = bpf_ktime_get_ns();
    bpf_res_spin_unlock(&one->lock);
    return 0;
}

SEC("tc") int another_unlock(void *context)
{
    ACCOUNTS()
    if (bpf_res_spin_lock_irqsave(&one->lock, &flags))
        return 2;
    bpf_res_spin_unlock(&one->lock);
    return 0;
}

SEC("tc") int another_restore(void *context)
{
    ACCOUNTS()
    if (bpf_res_spin_lock_irqsave(&one->lock, &flags))
        return 2;
    bpf_local_irq_restore(&flags);
    bpf_res_spin_unlock(&one->lock);
    return 0;
}

SEC("tc") int not_held(void *context)
{
    ACCOUNTS()
    bpf_res_spin_unlock(&one->lock);
    return 0;
}

SEC("tc") int no_lock(void *context)
{
    ACCOUNTS()
    return bpf_res_spin_lock((void *)&one->count);
}

char _license[] SEC("license") = "GPL";
