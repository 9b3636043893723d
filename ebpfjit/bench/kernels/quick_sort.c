/* Quicksort without recursion: the ranges still to do are on the stack.   mem: u32 values[] */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u32 *values = (u32 *)mem;
    u32 todo[24][2];
    u32 height = 1;
    todo[0][0] = 0;
    todo[0][1] = len / 4;
    while (height > 0) {
        height--;
        u32 low = todo[height][0], high = todo[height][1];
        while (high - low > 1) {
            u32 pivot = values[low + (high - 1 - low) / 2];
            u32 i = low - 1, j = high;
            for (;;) {
                do
                    i++;
                while (values[i] < pivot);
                do
                    j--;
                while (values[j] > pivot);
                if (i >= j)
                    break;
                u32 value = values[i];
                values[i] = values[j];
                values[j] = value;
            }
            /* The greater part waits, so that 24 are enough for 2**24 values. */
            u32 middle = j + 1;
            if (middle - low > high - middle) {
                todo[height][0] = low, todo[height][1] = middle;
                low = middle;
            } else {
                todo[height][0] = middle, todo[height][1] = high;
                high = middle;
            }
            height++;
        }
    }
    return values[len / 8];
}
