/* SHA-256's compression, the schedule on the stack.   mem: u32 constants[64], blocks of 64 bytes */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    const u32 *constants = (const u32 *)mem;
    u32 h0 = 0x6a09e667, h1 = 0xbb67ae85, h2 = 0x3c6ef372, h3 = 0xa54ff53a;
    u32 h4 = 0x510e527f, h5 = 0x9b05688c, h6 = 0x1f83d9ab, h7 = 0x5be0cd19;
    for (u64 start = 256; start + 64 <= len; start += 64) {
        const u32 *block = (const u32 *)(mem + start);
        u32 w[64];
        for (int i = 0; i < 16; i++)
            w[i] = __builtin_bswap32(block[i]);
        for (int i = 16; i < 64; i++) {
            u32 x = w[i - 15], y = w[i - 2];
            w[i] = w[i - 16] + (rotr32(x, 7) ^ rotr32(x, 18) ^ x >> 3) + w[i - 7] +
                   (rotr32(y, 17) ^ rotr32(y, 19) ^ y >> 10);
        }
        u32 a = h0, b = h1, c = h2, d = h3, e = h4, f = h5, g = h6, h = h7;
        for (int i = 0; i < 64; i++) {
            u32 t1 = h + (rotr32(e, 6) ^ rotr32(e, 11) ^ rotr32(e, 25)) + ((e & f) ^ (~e & g)) + constants[i] + w[i];
            u32 t2 = (rotr32(a, 2) ^ rotr32(a, 13) ^ rotr32(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + t1;
            d = c, c = b, b = a, a = t1 + t2;
        }
        h0 += a, h1 += b, h2 += c, h3 += d, h4 += e, h5 += f, h6 += g, h7 += h;
    }
    return (u64)(h0 ^ h2 ^ h4 ^ h6) << 32 | (h1 ^ h3 ^ h5 ^ h7);
}
