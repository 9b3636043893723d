/* SipHash-2-4, 4 times over.   mem: u64 key[2], u64 words[] */
#include "kernel.h"

#define ROUND                                                            \
    do {                                                                 \
        a += b, b = rotl64(b, 13), b ^= a, a = rotl64(a, 32);            \
        c += d, d = rotl64(d, 16), d ^= c;                               \
        a += d, d = rotl64(d, 21), d ^= a;                               \
        c += b, b = rotl64(b, 17), b ^= c, c = rotl64(c, 32);            \
    } while (0)

static inline __attribute__((always_inline)) u64 siphash(const u64 *words, u64 len, u64 seed) {
    u64 a = 0x736f6d6570736575 ^ words[0] ^ seed, b = 0x646f72616e646f6d ^ words[1];
    u64 c = 0x6c7967656e657261 ^ words[0], d = 0x7465646279746573 ^ words[1];
    for (u64 i = 2; i < len / 8; i++) {
        u64 word = words[i];
        d ^= word;
        ROUND;
        ROUND;
        a ^= word;
    }
    u64 last = len << 56;
    d ^= last;
    ROUND;
    ROUND;
    a ^= last;
    c ^= 0xff;
    ROUND;
    ROUND;
    ROUND;
    ROUND;
    return a ^ b ^ c ^ d;
}

u64 kernel(u8 *mem, u64 len) {
    u64 hash = 0;
    for (int turn = 0; turn < 4; turn++)
        hash = siphash((const u64 *)mem, len, hash);
    return hash;
}
