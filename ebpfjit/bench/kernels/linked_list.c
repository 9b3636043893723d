/* A list walked through to its end, many times over.   mem: (u32 next, u32 value)[], next 0 at the end */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    const u32 *nodes = (const u32 *)mem;
    u64 sum = 0;
    for (u32 turn = 0; turn < 256; turn++) {
        u64 at = 0;
        do {
            sum = sum * 3 + (nodes[2 * at + 1] ^ turn);
            at = nodes[2 * at];
        } while (at != 0 && at < len / 8);
    }
    return sum;
}
