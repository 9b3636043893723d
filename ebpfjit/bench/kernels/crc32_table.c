/* CRC-32 by table.   mem: u32 table[256], bytes */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    const u32 *table = (const u32 *)mem;
    u32 crc = ~0u;
    for (u64 i = 1024; i < len; i++)
        crc = table[(crc ^ mem[i]) & 0xff] ^ crc >> 8;
    return ~crc;
}
