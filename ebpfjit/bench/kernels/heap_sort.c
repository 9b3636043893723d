/* Heap sort.   mem: u32 values[] */
#include "kernel.h"

static inline __attribute__((always_inline)) void sift(u32 *values, u64 root, u64 count) {
    u32 value = values[root];
    for (;;) {
        u64 child = 2 * root + 1;
        if (child >= count)
            break;
        if (child + 1 < count && values[child] < values[child + 1])
            child++;
        if (values[child] <= value)
            break;
        values[root] = values[child];
        root = child;
    }
    values[root] = value;
}

u64 kernel(u8 *mem, u64 len) {
    u32 *values = (u32 *)mem;
    u64 count = len / 4;
    for (u64 root = count / 2; root-- > 0;)
        sift(values, root, count);
    for (u64 last = count - 1; last > 0; last--) {
        u32 value = values[0];
        values[0] = values[last];
        values[last] = value;
        sift(values, 0, last);
    }
    return values[count / 2];
}
