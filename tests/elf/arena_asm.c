/* An arena in code of a compiler that knows no address spaces: casts by hand, as in Linux's bpf_arena_common.h.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c arena_asm.c -o arena_asm.o
 *     llvm-strip --strip-debug arena_asm.o
 */

#include "bpf_support.h"

#define PAGE 4096
#define NODES 40

#define REGISTER(n) ".ifc %[reg], r" #n "; .byte 0x" #n #n "; .endif;"
#define cast(var, to, from)                                                                                   \
    asm volatile(".byte 0xBF;" REGISTER(0) REGISTER(1) REGISTER(2) REGISTER(3) REGISTER(4) REGISTER(5)        \
                     REGISTER(6) REGISTER(7) REGISTER(8) REGISTER(9) ".short 1; .long %[spaces]"              \
                 : [reg] "+r"(var)                                                                            \
                 : [spaces] "i"((to) << 16 | (from)))
#define to_kernel(var) cast(var, 0, 1)
#define to_user(var) cast(var, 1, 0)

struct {
    __uint(type, 33);
    __uint(map_flags, 1 << 10);
    __uint(max_entries, 8);
    __ulong(map_extra, (0x1ull << 44) + 0xffff0000);
} arena SEC(".maps");

extern void *bpf_arena_alloc_pages(void *map, void *at, u32 pages, int node, u64 flags) __ksym;
extern void bpf_arena_free_pages(void *map, void *at, u32 pages) __ksym;

struct node { struct node *next, **before; u64 value; };

struct node *list SEC(".addr_space.1") = 0;
u64 total SEC(".addr_space.1") = 0;
struct node *kept;

static void add(struct node *node, struct node **head)
{
    struct node *first = *head, **place;
    to_user(node);
    struct node *here = node;
    to_kernel(here);
    here->next = first;
    to_kernel(first);
    if (first) {
        place = &here->next;
        to_user(place);
        first->before = place;
    }
    *head = node;
    place = head;
    to_user(place);
    here->before = place;
}

static void drop(struct node *node)
{
    struct node *first = node->next, **before = node->before;
    to_kernel(before);
    *before = first;
    to_kernel(first);
    if (first) {
        before = node->before;
        first->before = before;
    }
}

SEC("syscall") int build(void *context)
{
    struct node *page = bpf_arena_alloc_pages(&arena, 0, 1, -1, 0), **head = &list;
    if (!page)
        return -1;
    kept = page;
    to_kernel(head);
    for (int i = 0; i < NODES; i++) {
        struct node *node = page + i;
        to_kernel(node);
        node->value = i;
        add(node, head);
    }
    return 0;
}

SEC("syscall") int walk(void *context)
{
    struct node **head = &list, *node;
    u64 *sum = &total, count = 0;
    asm volatile("" ::"r"(&arena));
    to_kernel(head);
    to_kernel(sum);
    *sum = 0;
    node = *head;
    for (int i = 0; i < NODES; i++) {
        to_kernel(node);
        if (!node)
            break;
        *sum += node->value;
        count++;
        node = node->next;
    }
    return count;
}

SEC("syscall") int thin(void *context)
{
    struct node **head = &list, *node;
    asm volatile("" ::"r"(&arena));
    to_kernel(head);
    node = *head;
    for (int i = 0; i < NODES; i++) {
        struct node *next;
        to_kernel(node);
        if (!node)
            break;
        next = node->next;
        if (node->value % 3 == 0)
            drop(node);
        node = next;
    }
    return 0;
}

SEC("syscall") int drop_page(void *context)
{
    struct node *node = kept;
    bpf_arena_free_pages(&arena, node, 1);
    to_kernel(node);
    return node->value + 1;
}

char _license[] SEC("license") = "GPL";
