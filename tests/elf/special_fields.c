/* Locks, timers and kernel pointers in values of maps; ways out that forget what was taken.
 *
 *     clang -target bpf -mcpu=v3 -O2 -g -fdebug-compilation-dir=. -c special_fields.c -o special_fields.o
 */
typedef unsigned int u32;
typedef unsigned long long u64;
static void *(*const lookup)(void *, const void *) = (void *)1;
static long (*const update)(void *, const void *, const void *, u64) = (void *)2;
static long (*const tail_call)(void *, void *, u32) = (void *)12;
static long (*const lock)(void *) = (void *)93;
static long (*const unlock)(void *) = (void *)94;
static void *(*const reserve)(void *, u64, u64) = (void *)131;
static void (*const submit)(void *, u64) = (void *)132;

struct bpf_spin_lock { u32 val; };
struct bpf_timer { u64 x[2]; } __attribute__((aligned(8)));
struct account { u64 count; struct { u32 flags; struct bpf_spin_lock lock; } inner; u64 last; };
struct timed { u64 before; struct bpf_timer timer; u64 behind; };
struct pointed { struct { u64 number; void __attribute__((btf_type_tag("kptr"))) *pointer; } pairs[2]; };

#define MAP(name, kind, entries, type_of_value)                   \
    struct {                                                      \
        int (*type)[kind];                                        \
        int (*max_entries)[entries];                              \
        u32 *key;                                                 \
        type_of_value *value;                                     \
    } name __attribute__((section(".maps"), used));

MAP(accounts, 2, 2, struct account)
MAP(others, 1, 2, struct account)
MAP(timers, 9, 2, struct timed)
MAP(pointers, 5, 2, struct pointed)
struct { int (*type)[27]; int (*max_entries)[4096]; } ring __attribute__((section(".maps"), used));
struct { int (*type)[3]; int (*max_entries)[1]; u32 *key; u32 *value; } programs
    __attribute__((section(".maps"), used));
char _license[] __attribute__((section("license"), used)) = "GPL";

#define PROGRAM(name) __attribute__((section("tc"), used)) int name(void *context)

static __attribute__((always_inline)) struct account *account_of(u32 key)
{
    return lookup(&accounts, &key);
}

PROGRAM(adds)
{
    struct account *account = account_of(0);
    if (!account)
        return 1;
    lock(&account->inner.lock);
    account->count++;
    unlock(&account->inner.lock);
    return 7;
}

PROGRAM(forgets)
{
    struct account *account = account_of(0);
    if (!account)
        return 1;
    lock(&account->inner.lock);
    return 7;
}

PROGRAM(locks_twice)
{
    struct account *account = account_of(0);
    if (!account)
        return 1;
    lock(&account->inner.lock);
    lock(&account->inner.lock);
    unlock(&account->inner.lock);
    return 7;
}

PROGRAM(unlocks_another)
{
    struct account *account = account_of(0), *other = account_of(1);
    if (!account || !other)
        return 1;
    lock(&account->inner.lock);
    unlock(&other->inner.lock);
    return 7;
}

PROGRAM(locks_a_number)
{
    struct account *account = account_of(0);
    if (!account)
        return 1;
    lock(&account->count);
    unlock(&account->count);
    return 7;
}

PROGRAM(locks_a_timer)
{
    u32 key = 0;
    struct timed zero = {}, *timed;
    update(&timers, &key, &zero, 0);
    timed = lookup(&timers, &key);
    if (!timed)
        return 1;
    lock(&timed->timer);
    return 7;
}

PROGRAM(updates)
{
    u32 key = 1;
    struct account given = {5, {6, {7}}, 8};
    return update(&accounts, &key, &given, 0) | update(&others, &key, &given, 4);
}

PROGRAM(keeps_a_record)
{
    u64 *record = reserve(&ring, 8, 0), *second;
    if (!record)
        return 1;
    submit(record, 0);
    second = reserve(&ring, 16, 0);
    return second ? 7 : 2;
}

PROGRAM(tail_calls_with_a_lock)
{
    struct account *account = account_of(0);
    if (!account)
        return 1;
    lock(&account->inner.lock);
    tail_call(context, &programs, 0);
    unlock(&account->inner.lock);
    return 7;
}
