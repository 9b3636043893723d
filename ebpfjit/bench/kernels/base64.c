/* Base64 encoding, 4 times over.   mem: u8 alphabet[64], 3 parts of input, 4 parts for the output */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 triples = (len - 64) / 7;
    for (int turn = 0; turn < 4; turn++) {
        const u8 *in = mem + 64;
        u8 *out = mem + 64 + 3 * triples;
        for (u64 i = 0; i < triples; i++, in += 3, out += 4) {
            u32 bits = in[0] << 16 | in[1] << 8 | in[2];
            out[0] = mem[bits >> 18];
            out[1] = mem[bits >> 12 & 63];
            out[2] = mem[bits >> 6 & 63];
            out[3] = mem[bits & 63];
        }
    }
    return triples;
}
