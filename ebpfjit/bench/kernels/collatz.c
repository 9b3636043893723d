/* Steps of the Collatz sequence: arithmetic and branches alone.   mem: u32 starts[] */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    const u32 *starts = (const u32 *)mem;
    u64 total = 0;
    for (u64 i = 0; i < len / 4; i++)
        for (u64 n = (starts[i] & 0xffff) + 1; n != 1; total++)
            n = n & 1 ? 3 * n + 1 : n / 2;
    return total;
}
