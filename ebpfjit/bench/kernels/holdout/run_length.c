/* Runs of equal bytes: packed, and read back.
 *
 * mem: u64 size; bytes[size]; room for 2 * size + 2 bytes. Packed: n < 128: n + 1 bytes as they are;
 * else n - 125 times the byte behind it. Returns a hash of what is read back. */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 size = *(const u64 *)mem;
    u8 *data = mem + 8, *packed = data + size;
    u64 at = 0, out = 0;
    while (at < size) {
        u64 run = 1;
        while (at + run < size && run < 130 && data[at + run] == data[at])
            run++;
        if (run >= 3) {
            packed[out++] = run + 125;
            packed[out++] = data[at];
            at += run;
            continue;
        }
        u64 start = at, head = out++;
        while (at < size && at - start < 128) {
            if (at + 2 < size && data[at] == data[at + 1] && data[at] == data[at + 2])
                break;
            packed[out++] = data[at++];
        }
        packed[head] = at - start - 1;
    }
    u64 hash = out;
    for (u64 from = 0; from < out;) {
        u64 n = packed[from++];
        if (n < 128) {
            for (u64 i = 0; i <= n; i++)
                hash = (hash ^ packed[from++]) * 0x100000001b3UL;
        } else {
            u8 byte = packed[from++];
            for (u64 i = 0; i < n - 125; i++)
                hash = (hash ^ byte) * 0x100000001b3UL;
        }
    }
    return hash;
}
