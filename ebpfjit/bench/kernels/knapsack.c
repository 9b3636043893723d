/* 0/1 knapsack.   mem: u32 items; u32 capacity; u32 (weight, value)[items]; u32 best[capacity + 1], zero */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    const u32 *words = (const u32 *)mem;
    u64 items = words[0], capacity = words[1];
    u32 *best = (u32 *)(mem + 8 + 8 * items);
    if (8 + 8 * items + 4 * (capacity + 1) > len)
        return 0;
    for (u64 i = 0; i < items; i++) {
        u64 weight = words[2 + 2 * i];
        u32 value = words[3 + 2 * i];
        for (u64 room = capacity; room >= weight; room--) {
            u32 with = best[room - weight] + value;
            if (with > best[room])
                best[room] = with;
        }
    }
    return best[capacity];
}
