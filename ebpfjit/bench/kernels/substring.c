/* Substring search without cleverness.   mem: u8 size, the pattern, up to mem[63]; then the text */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 size = mem[0], found = 0;
    const u8 *pattern = mem + 1;
    if (size > 63)
        return 0;
    for (u64 at = 64; at + size <= len; at++) {
        u64 i = 0;
        while (i < size && mem[at + i] == pattern[i])
            i++;
        found += i == size;
    }
    return found;
}
