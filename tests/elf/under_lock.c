/* Helpers that are called while a spin lock is held: Linux takes none of these programs but `unlocked`.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c under_lock.c -o under_lock.o
 *     llvm-strip --strip-debug under_lock.o
 */

#include "bpf_support.h"

static long (*const bpf_map_update_elem)(void *, const void *, const void *, u64) = (void *)2;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static u32 (*const bpf_get_prandom_u32)(void) = (void *)7;
static u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static long (*const bpf_skb_load_bytes)(void *, u32, void *, u32) = (void *)26;
static long (*const bpf_spin_lock)(void *) = (void *)93;
static long (*const bpf_spin_unlock)(void *) = (void *)94;
static long (*const bpf_loop)(u32, void *, void *, u64) = (void *)181;

struct bpf_spin_lock { u32 val; };
struct account { struct bpf_spin_lock lock; u64 count; };

struct {
    __uint(type, HASH);
    __uint(max_entries, 4);
    __type(key, u32);
    __type(value, struct account);
} accounts SEC(".maps");

struct {
    __uint(type, ARRAY);
    __uint(max_entries, 4);
    __type(key, u32);
    __type(value, u64);
} counts SEC(".maps");

static long visited(u32 index, void *context)
{
    return 0;
}

#define PROGRAM(name, statement)                                       \
    SEC("tc") int name(void *context)                                  \
    {                                                                  \
        u32 key = 0;                                                   \
        u64 value = 1;                                                 \
        struct account empty = {}, *account;                           \
        bpf_map_update_elem(&accounts, &key, &empty, 0);               \
        account = bpf_map_lookup_elem(&accounts, &key);                \
        if (!account)                                                  \
            return 1;                                                  \
        bpf_spin_lock(&account->lock);                                 \
        statement;                                                     \
        account->count += value;                                       \
        bpf_spin_unlock(&account->lock);                               \
        return 7;                                                      \
    }

PROGRAM(unlocked, value = 2)
PROGRAM(looks_up, value += !!bpf_map_lookup_elem(&counts, &key))
PROGRAM(updates, bpf_map_update_elem(&counts, &key, &value, 0))
PROGRAM(asks_time, value = bpf_ktime_get_ns())
PROGRAM(asks_number, value = bpf_get_prandom_u32())
PROGRAM(asks_processor, value = bpf_get_smp_processor_id())
PROGRAM(reads, bpf_skb_load_bytes(context, 0, &value, sizeof(value)))
PROGRAM(loops, bpf_loop(2, visited, 0, 0))

char _license[] SEC("license") = "GPL";
