/* LZ4 block decoding, copying bytes one by one.
 *
 * mem: u32 packed size, u32 free, the packed block; the rest from `free` is for what it unpacks to
 */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    const u32 *head = (const u32 *)mem;
    u64 in = 8, stop = 8 + (u64)head[0], out = head[1], base = out;
    if (stop > base || base > len)
        return 0;
    while (in < stop) {
        u32 token = mem[in++];
        u64 literals = token >> 4, more = 255;
        if (literals == 15)
            while (more == 255 && in < stop)
                literals += more = mem[in++];
        if (literals > stop - in || literals > len - out)
            return 0;
        while (literals-- > 0)
            mem[out++] = mem[in++];
        if (stop - in < 2)
            break;
        u64 distance = mem[in] | mem[in + 1] << 8;
        in += 2;
        u64 match = token & 15;
        more = 255;
        if (match == 15)
            while (more == 255 && in < stop)
                match += more = mem[in++];
        match += 4;
        if (distance == 0 || distance > out - base || match > len - out)
            return 0;
        for (u64 from = out - distance; match > 0; match--)
            mem[out++] = mem[from++];
    }
    return out - base;
}
