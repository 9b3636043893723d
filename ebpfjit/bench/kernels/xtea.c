/* XTEA, in place.   mem: u32 key[4]; u32 text[], two words at a time */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    const u32 *key = (const u32 *)mem;
    u32 *text = (u32 *)mem;
    u32 mixed = 0;
    for (u64 i = 4; i + 2 <= len / 4; i += 2) {
        u32 a = text[i], b = text[i + 1], sum = 0;
        for (int round = 0; round < 32; round++) {
            a += ((b << 4 ^ b >> 5) + b) ^ (sum + key[sum & 3]);
            sum += 0x9e3779b9;
            b += ((a << 4 ^ a >> 5) + a) ^ (sum + key[sum >> 11 & 3]);
        }
        text[i] = a;
        text[i + 1] = b;
        mixed ^= a + b;
    }
    return mixed;
}
