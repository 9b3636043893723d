/* Points in Z order: two coordinates' bits in turn, and back.   mem: struct {u32 x, y;} point[]; same size of u64 */
#include "kernel.h"

static inline u64 spread(u64 x) {
    x = (x | x << 16) & 0x0000ffff0000ffffUL;
    x = (x | x << 8) & 0x00ff00ff00ff00ffUL;
    x = (x | x << 4) & 0x0f0f0f0f0f0f0f0fUL;
    x = (x | x << 2) & 0x3333333333333333UL;
    return (x | x << 1) & 0x5555555555555555UL;
}

static inline u64 gathered(u64 x) {
    x &= 0x5555555555555555UL;
    x = (x | x >> 1) & 0x3333333333333333UL;
    x = (x | x >> 2) & 0x0f0f0f0f0f0f0f0fUL;
    x = (x | x >> 4) & 0x00ff00ff00ff00ffUL;
    x = (x | x >> 8) & 0x0000ffff0000ffffUL;
    return (x | x >> 16) & 0xffffffffUL;
}

u64 kernel(u8 *mem, u64 len) {
    u64 points = len / 16;
    u32 *point = (u32 *)mem;
    u64 *code = (u64 *)(mem + 8 * points), sum = 0;
    for (u64 i = 0; i < points; i++)
        code[i] = spread(point[2 * i]) | spread(point[2 * i + 1]) << 1;
    for (u64 i = 1; i < points; i++) {
        u64 between = (code[i - 1] >> 1) + (code[i] >> 1);
        point[2 * i] = gathered(between);
        point[2 * i + 1] = gathered(between >> 1);
        sum += point[2 * i] ^ point[2 * i + 1];
    }
    return sum;
}
