/* Insertion sort in blocks of 64.   mem: u32 values[] */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 sum = 0;
    for (u64 start = 0; start + 256 <= len; start += 256) {
        u32 *values = (u32 *)(mem + start);
        for (s32 i = 1; i < 64; i++) {
            u32 value = values[i];
            s32 j = i;
            for (; j > 0 && values[j - 1] > value; j--)
                values[j] = values[j - 1];
            values[j] = value;
        }
        sum += values[31];
    }
    return sum;
}
