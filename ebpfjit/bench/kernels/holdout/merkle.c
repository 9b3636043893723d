/* A tree of hashes: two of a level make one of the next, down to the root.   mem: u32 leaf[][8], a power of 2 */
#include "kernel.h"

#define MIX(a, b, c, d)                                                                                      \
    do {                                                                                                     \
        a += b, d = rotr32(d ^ a, 16);                                                                       \
        c += d, b = rotr32(b ^ c, 12);                                                                       \
        a += b, d = rotr32(d ^ a, 8);                                                                        \
        c += d, b = rotr32(b ^ c, 7);                                                                        \
    } while (0)

u64 kernel(u8 *mem, u64 len) {
    u64 count = len / 32;
    u32 level = 0;
    for (; count > 1; count /= 2, level++) {
        for (u64 i = 0; i < count / 2; i++) {
            const u32 *left = (const u32 *)(mem + 64 * i), *right = left + 8;
            u32 *to = (u32 *)(mem + 32 * i);
            u32 a = left[0], b = left[1], c = left[2], d = left[3];
            u32 e = left[4], f = left[5], g = left[6], h = left[7];
            for (int round = 0; round < 4; round++) {
                a ^= right[round], e ^= right[7 - round] + level;
                MIX(a, b, c, d);
                MIX(e, f, g, h);
                MIX(a, f, c, h);
                MIX(e, b, g, d);
            }
            to[0] = a, to[1] = b, to[2] = c, to[3] = d, to[4] = e, to[5] = f, to[6] = g, to[7] = h;
        }
    }
    const u32 *root = (const u32 *)mem;
    return (u64)root[0] << 32 | root[7];
}
