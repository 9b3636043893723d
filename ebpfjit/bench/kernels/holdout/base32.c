/* Base32: five bytes to eight characters.   mem: u8 alphabet[32]; bytes, 5 at a time; room for characters */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    const u8 *alphabet = mem, *from = mem + 32;
    u64 groups = (len - 32) / 13;
    u8 *to = mem + 32 + 5 * groups;
    u64 sum = 0;
    for (u64 i = 0; i < groups; i++, from += 5, to += 8) {
        u64 bits = (u64)from[0] << 32 | (u64)from[1] << 24 | (u64)from[2] << 16 | (u64)from[3] << 8 | from[4];
        for (int j = 7; j >= 0; j--, bits >>= 5)
            to[j] = alphabet[bits & 31];
        sum += to[0] ^ to[7];
    }
    return sum;
}
