/* ChaCha20, in place.   mem: u32 key[8], nonce[3], padding[5]; u32 text[], 16 words at a time */
#include "kernel.h"

#define QUARTER(a, b, c, d)                                              \
    do {                                                                 \
        a += b, d = rotl32(d ^ a, 16);                                   \
        c += d, b = rotl32(b ^ c, 12);                                   \
        a += b, d = rotl32(d ^ a, 8);                                    \
        c += d, b = rotl32(b ^ c, 7);                                    \
    } while (0)

u64 kernel(u8 *mem, u64 len) {
    const u32 *key = (const u32 *)mem;
    u32 counter = 0;
    for (u64 start = 64; start + 64 <= len; start += 64, counter++) {
        u32 *text = (u32 *)(mem + start);
        u32 x0 = 0x61707865, x1 = 0x3320646e, x2 = 0x79622d32, x3 = 0x6b206574;
        u32 x4 = key[0], x5 = key[1], x6 = key[2], x7 = key[3];
        u32 x8 = key[4], x9 = key[5], x10 = key[6], x11 = key[7];
        u32 x12 = counter, x13 = key[8], x14 = key[9], x15 = key[10];
        for (int i = 0; i < 10; i++) {
            QUARTER(x0, x4, x8, x12);
            QUARTER(x1, x5, x9, x13);
            QUARTER(x2, x6, x10, x14);
            QUARTER(x3, x7, x11, x15);
            QUARTER(x0, x5, x10, x15);
            QUARTER(x1, x6, x11, x12);
            QUARTER(x2, x7, x8, x13);
            QUARTER(x3, x4, x9, x14);
        }
        text[0] ^= x0 + 0x61707865, text[1] ^= x1 + 0x3320646e;
        text[2] ^= x2 + 0x79622d32, text[3] ^= x3 + 0x6b206574;
        text[4] ^= x4 + key[0], text[5] ^= x5 + key[1], text[6] ^= x6 + key[2], text[7] ^= x7 + key[3];
        text[8] ^= x8 + key[4], text[9] ^= x9 + key[5], text[10] ^= x10 + key[6], text[11] ^= x11 + key[7];
        text[12] ^= x12 + counter, text[13] ^= x13 + key[8];
        text[14] ^= x14 + key[9], text[15] ^= x15 + key[10];
    }
    return counter;
}
