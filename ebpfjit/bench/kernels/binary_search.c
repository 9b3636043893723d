/* Binary search, half of the words sought in the other half.   mem: u32 sorted[n], sought[n] */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 count = len / 8, sum = 0;
    const u32 *sorted = (const u32 *)mem, *sought = sorted + count;
    for (u64 i = 0; i < count; i++) {
        u64 low = 0, high = count;
        while (low < high) {
            u64 middle = (low + high) / 2;
            if (sorted[middle] < sought[i])
                low = middle + 1;
            else
                high = middle;
        }
        sum += low;
    }
    return sum;
}
