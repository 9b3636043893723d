/* The internet checksum (RFC 1071) of blocks, 16 times over.   mem: u64 words of a block; u16 words[] */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 size = *(u64 *)mem, total = 0;
    if (size == 0 || size > len)
        return 0;
    for (u32 turn = 0; turn < 16; turn++)
        for (u64 start = 8; start + 2 * size <= len; start += 2 * size) {
            const u16 *words = (const u16 *)(mem + start);
            u32 sum = total & 0xffff;
            for (u64 i = 0; i < size; i++)
                sum += words[i];
            sum = (sum & 0xffff) + (sum >> 16);
            sum = (sum & 0xffff) + (sum >> 16);
            total += (u16)~sum;
        }
    return total;
}
