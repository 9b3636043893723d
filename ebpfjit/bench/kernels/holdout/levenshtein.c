/* How far words are from a pattern: a column of the table at once, as bits (Myers, 1999).
 *
 * mem: u64 size of the pattern (at most 64); u64 equal[256]; words, each ended by a zero byte
 * Returns the sum of the distances, and the least of them in the upper half. */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 size = *(const u64 *)mem, top = 1UL << (size - 1), sum = 0, least = 1000;
    const u64 *equal = (const u64 *)mem + 1;
    u64 at = 8 * 257;
    while (at < len) {
        u64 more = ~0UL, less = 0, distance = size;
        for (; at < len && mem[at]; at++) {
            u64 same = equal[mem[at]], across = same | less;
            u64 down = (((same & more) + more) ^ more) | same;
            u64 up = less | ~(down | more);
            u64 lower = more & down;
            if (up & top)
                distance++;
            else if (lower & top)
                distance--;
            up = up << 1 | 1;
            more = lower << 1 | ~(across | up);
            less = up & across;
        }
        at++;
        sum += distance;
        if (distance < least)
            least = distance;
    }
    return sum ^ least << 32;
}
