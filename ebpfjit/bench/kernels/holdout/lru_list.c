/* A cache that forgets what was not used for longest: a table of chains, and a list through all nodes.
 *
 * mem: u32 nodes, queries, buckets (a power of 2), used; u32 heads[buckets];
 *      struct {u32 key, chain, before, after;} node[nodes], of which node 0 is the list's end; u32 query[]
 * Returns how many queries were found. */
#include "kernel.h"

struct node {
    u32 key, chain, before, after;
};

u64 kernel(u8 *mem, u64 len) {
    u32 *header = (u32 *)mem;
    u32 nodes = header[0], queries = header[1], mask = header[2] - 1, used = 1;
    u32 *heads = header + 4;
    struct node *node = (struct node *)(heads + mask + 1);
    const u32 *query = (const u32 *)(node + nodes);
    u64 found = 0;
    for (u32 i = 0; i < queries; i++) {
        u32 key = query[i], *head = &heads[(key * 2654435761u >> 12) & mask], at = *head;
        while (at && node[at].key != key)
            at = node[at].chain;
        if (at) {
            found++;
        } else if (used < nodes) {
            at = used++;
            node[at].key = key, node[at].chain = *head, *head = at;
            node[at].before = node[at].after = at;
        } else {
            at = node[0].before;
            u32 *link = &heads[(node[at].key * 2654435761u >> 12) & mask];
            while (*link != at)
                link = &node[*link].chain;
            *link = node[at].chain;
            node[at].key = key, node[at].chain = *head, *head = at;
        }
        struct node *it = &node[at];
        node[it->before].after = it->after, node[it->after].before = it->before;
        it->before = 0, it->after = node[0].after;
        node[it->after].before = at, node[0].after = at;
    }
    return found;
}
