/* A list and a hash table in an arena, its variables among them.
 * Debian clang 19.1.7:
 *
 *     clang-19 -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v4 -c arena_data.c -o arena_data_clang19.o
 *     llvm-strip-19 --strip-debug arena_data_clang19.o
 */

#include "bpf_support.h"

#define ARENA __attribute__((address_space(1)))
#define NODES 100
#define BUCKETS 8
#define PAGE 4096

struct {
    __uint(type, 33);
    __uint(map_flags, 1 << 10);
    __uint(max_entries, 16);
    __ulong(map_extra, 0x1ull << 44);
} arena SEC(".maps");

extern void ARENA *bpf_arena_alloc_pages(void *map, void ARENA *at, u32 pages, int node, u64 flags) __ksym;
extern void bpf_arena_free_pages(void *map, void ARENA *at, u32 pages) __ksym;

struct node { struct node ARENA *next; u64 key, value; };
typedef struct node ARENA node;

/* in the arena; `numbered` has data, and `itself` a pointer to a variable */
node *ARENA head SEC(".addr_space.1") = 0;
node *ARENA buckets[BUCKETS] SEC(".addr_space.1") = {};
u64 ARENA numbered[3] SEC(".addr_space.1") = {11, 22, 33};

/* in .bss */
node *room;
u64 used, count, sum, missed;

static NOINLINE node *take(void)
{
    if (!room || used + sizeof(node) > PAGE) {
        room = bpf_arena_alloc_pages(&arena, 0, 1, -1, 0);
        used = 0;
    }
    if (!room)
        return 0;
    node *taken = (node *)((char ARENA *)room + used);
    used += sizeof(node);
    return taken;
}

SEC("syscall") int list_build(void *context)
{
    for (u64 i = 0; i < NODES; i++) {
        node *made = take();
        if (!made)
            return -1;
        made->key = i;
        made->value = i * i;
        made->next = head;
        head = made;
    }
    return 0;
}

SEC("syscall") int list_sum(void *context)
{
    node *at = head;
    count = sum = 0;
    for (int i = 0; i < NODES && at; i++, at = at->next) {
        count++;
        sum += at->value;
    }
    if (!room)
        take();
    return at != 0;
}

/* takes every other node out, and frees the first page at the end of the list: the rest reads as zeros */
SEC("syscall") int list_thin(void *context)
{
    node *at = head;
    for (int i = 0; i < NODES / 2 && at; i++) {
        node *gone = at->next;
        if (gone)
            at->next = gone->next;
        at = at->next;
    }
    if (!room)
        take();
    return 0;
}

static NOINLINE node *find(u64 key)
{
    node *at = buckets[key % BUCKETS];
    for (int i = 0; i < 64 && at; i++, at = at->next)
        if (at->key == key)
            return at;
    missed++;
    return 0;
}

SEC("syscall") int table_count(void *context)
{
    missed = 0;
    for (u64 i = 0; i < 60; i++) {
        u64 key = i * 7 % 40;
        node *found = find(key);
        if (!found) {
            found = take();
            if (!found)
                return -1;
            found->key = key;
            found->value = 0;
            found->next = buckets[key % BUCKETS];
            buckets[key % BUCKETS] = found;
        }
        __sync_fetch_and_add(&found->value, 1);
    }
    return missed;
}

SEC("syscall") int numbers(void *context)
{
    for (int i = 0; i < 3; i++)
        numbered[i] += 100;
    if (!room)
        take();
    return numbered[0] + numbered[2];
}

/* a function of its own that gets a pointer for programs, one that is on the stack across a call */
static NOINLINE u64 sum_of(u64 ARENA *words, int many)
{
    u64 total = 0;
    for (int i = 0; i < many && i < 8; i++)
        total += words[i];
    return total;
}

SEC("syscall") int passed(void *context)
{
    u64 ARENA *words = bpf_arena_alloc_pages(&arena, 0, 1, -1, 0);
    if (!words)
        return -1;
    for (int i = 0; i < 8; i++)
        words[i] = i + 1;
    u64 first = sum_of(words, 8), second = sum_of(words + 4, 4);
    words[0] = first;
    bpf_arena_free_pages(&arena, words, 1);
    return first * 100 + second + words[0];
}

char _license[] SEC("license") = "GPL";
