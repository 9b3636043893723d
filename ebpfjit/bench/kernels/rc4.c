/* RC4 in place, its state on the stack.   mem: u8 key[16], text */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u8 state[256];
    u8 i = 0, j = 0;
    for (u32 n = 0; n < 256; n++)
        state[n] = n;
    for (u32 n = 0; n < 256; n++) {
        u8 value = state[n];
        j += value + mem[n & 15];
        state[n] = state[j];
        state[j] = value;
    }
    j = 0;
    for (u64 at = 16; at < len; at++) {
        i++;
        u8 value = state[i];
        j += value;
        u8 other = state[j];
        state[i] = other;
        state[j] = value;
        mem[at] ^= state[(u8)(value + other)];
    }
    return i << 8 | j;
}
