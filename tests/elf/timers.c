/* Timers and work queues in the values of maps.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c timers.c -o timers.o
 *     llvm-strip --strip-debug timers.o
 */

#include "bpf_support.h"

struct bpf_timer { u64 opaque[2]; } __attribute__((aligned(8)));
struct bpf_wq { u64 opaque[2]; } __attribute__((aligned(8)));

static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static long (*const bpf_spin_lock)(void *lock) = (void *)93;
static long (*const bpf_timer_init)(void *timer, void *map, u64 flags) = (void *)169;
static long (*const bpf_timer_set_callback)(void *timer, void *function) = (void *)170;
static long (*const bpf_timer_start)(void *timer, u64 nanoseconds, u64 flags) = (void *)171;
static long (*const bpf_timer_cancel)(void *timer) = (void *)172;

extern int bpf_wq_init(struct bpf_wq *wq, void *map, u32 flags) __ksym;
extern int bpf_wq_start(struct bpf_wq *wq, u32 flags) __ksym;
extern int bpf_wq_set_callback_impl(struct bpf_wq *wq, int (*callback)(void *map, int *key, void *value),
                                    u32 flags, void *aux) __ksym;

struct entry { u64 count; struct bpf_timer timer; u64 last; };
struct { __uint(type, HASH); __uint(max_entries, 8); __type(key, u32); __type(value, struct entry); } flows SEC(".maps");
struct { __uint(type, ARRAY); __uint(max_entries, 4); __type(key, u32); __type(value, struct entry); } slots SEC(".maps");
struct work { struct bpf_wq wq; u32 done; };
struct { __uint(type, ARRAY); __uint(max_entries, 2); __type(key, u32); __type(value, struct work); } works SEC(".maps");
struct bpf_spin_lock { u32 value; };
struct guarded { struct bpf_spin_lock lock; struct bpf_timer timer; };
struct { __uint(type, ARRAY); __uint(max_entries, 1); __type(key, u32); __type(value, struct guarded); } guards SEC(".maps");

u64 order[16], period = 1000;
u32 fired, key = 3, cancelled = 77, clock_id = 1, flags;

static int tick(void *map, u32 *k, struct entry *entry)
{
    entry->count++;
    entry->last = bpf_ktime_get_ns();
    order[fired++ & 15] = *k;
    cancelled = bpf_timer_cancel(&entry->timer);
    if (period && entry->count < 3) {
        bpf_timer_start(&entry->timer, period, 0);
    }
    return 0;
}

SEC("tc") int start(void *context)
{
    struct entry empty = {}, *entry;
    u32 k = key;
    long failed;

    bpf_map_update_elem(&flows, &k, &empty, 0);
    entry = bpf_map_lookup_elem(&flows, &k);
    if (!entry)
        return 1;
    failed = bpf_timer_init(&entry->timer, &flows, clock_id);
    if (failed)
        return failed;
    failed = bpf_timer_start(&entry->timer, 10, 0);
    if (failed != -22)
        return 1000;
    failed = bpf_timer_set_callback(&entry->timer, tick);
    if (!failed)
        failed = bpf_timer_start(&entry->timer, 1000 * k, flags);
    return failed;
}

SEC("tc") int start_slot(void *context)
{
    u32 k = key & 3;
    struct entry *entry = bpf_map_lookup_elem(&slots, &k);
    long failed;

    if (!entry)
        return 1;
    failed = bpf_timer_init(&entry->timer, &slots, clock_id);
    if (!failed)
        failed = bpf_timer_set_callback(&entry->timer, tick);
    if (!failed)
        failed = bpf_timer_start(&entry->timer, 1000 * k, flags);
    return failed;
}

SEC("tc") int stop(void *context)
{
    u32 k = key & 3;
    struct entry *entry = bpf_map_lookup_elem(&slots, &k);

    return entry ? bpf_timer_cancel(&entry->timer) : 1000;
}

SEC("tc") int forget(void *context)
{
    u32 k = key;

    return bpf_map_delete_elem(&flows, &k);
}

SEC("tc") int wrong_map(void *context)
{
    u32 k = key & 3;
    struct entry *entry = bpf_map_lookup_elem(&slots, &k);

    return entry ? bpf_timer_init(&entry->timer, &flows, 1) : 1000;
}

SEC("tc") int overwrite(void *context)
{
    u32 k = key & 3;
    struct entry empty = {};

    return bpf_map_update_elem(&slots, &k, &empty, 0);
}

static int forgetful(void *map, u32 *k, struct guarded *guarded)
{
    bpf_spin_lock(&guarded->lock);
    return 0;
}

SEC("tc") int start_forgetful(void *context)
{
    u32 k = 0;
    struct guarded *guarded = bpf_map_lookup_elem(&guards, &k);

    if (!guarded)
        return 1;
    bpf_timer_init(&guarded->timer, &guards, 1);
    bpf_timer_set_callback(&guarded->timer, forgetful);
    return bpf_timer_start(&guarded->timer, 1000, 0);
}

SEC("tc") int misplaced(void *context)
{
    u32 k = 0;
    struct guarded *guarded = bpf_map_lookup_elem(&guards, &k);

    return guarded ? bpf_timer_init(&guarded->lock, &guards, 1) : 1000;
}

static int work(void *map, int *k, void *value)
{
    struct work *this = value;

    this->done += 1 + *k;
    return 0;
}

SEC("tc") int start_work(void *context)
{
    u32 k = 1;
    struct work *this = bpf_map_lookup_elem(&works, &k);
    int failed;

    if (!this)
        return 1;
    failed = bpf_wq_init(&this->wq, &works, 0);
    if (!failed)
        failed = bpf_wq_set_callback_impl(&this->wq, work, 0, 0);
    if (!failed)
        failed = bpf_wq_start(&this->wq, 0);
    return failed;
}

char _license[] SEC("license") = "GPL";
