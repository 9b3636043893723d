/* LEB128 numbers, added up.   mem: bytes */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 sum = 0, i = 0;
    while (i < len) {
        u64 value = 0;
        u32 shift = 0;
        u8 byte;
        do {
            byte = mem[i++];
            value |= (u64)(byte & 0x7f) << (shift & 63);
            shift += 7;
        } while (byte & 0x80 && i < len);
        sum = sum * 31 + value;
    }
    return sum;
}
