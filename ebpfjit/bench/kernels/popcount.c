/* Bits counted and reversed by shifts and masks, 4 times over.   mem: u64 words[] */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    const u64 *words = (const u64 *)mem;
    u64 bits = 0, mixed = 0;
    for (u64 turn = 0; turn < 4; turn++)
        for (u64 i = 0; i < len / 8; i++) {
            u64 x = words[i] ^ turn, y = x;
            x -= x >> 1 & 0x5555555555555555;
            x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
            x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f;
            bits += x * 0x0101010101010101 >> 56;
            y = (y & 0x5555555555555555) << 1 | (y >> 1 & 0x5555555555555555);
            y = (y & 0x3333333333333333) << 2 | (y >> 2 & 0x3333333333333333);
            y = (y & 0x0f0f0f0f0f0f0f0f) << 4 | (y >> 4 & 0x0f0f0f0f0f0f0f0f);
            mixed = rotl64(mixed, 1) ^ __builtin_bswap64(y);
        }
    return mixed + bits;
}
