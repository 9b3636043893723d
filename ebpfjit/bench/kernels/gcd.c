/* Euclid's algorithm on neighbours.   mem: u32 values[] */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    const u32 *values = (const u32 *)mem;
    u64 sum = 0;
    for (u64 i = 0; i + 1 < len / 4; i += 2) {
        u32 a = values[i], b = values[i + 1];
        while (b != 0) {
            u32 rest = a % b;
            a = b;
            b = rest;
        }
        sum += a;
    }
    return sum;
}
