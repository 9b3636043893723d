/* CRC-32, a bit at a time.   mem: bytes */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u32 crc = ~0u;
    for (u64 i = 0; i < len; i++) {
        crc ^= mem[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0xedb88320 & -(crc & 1));
    }
    return ~crc;
}
