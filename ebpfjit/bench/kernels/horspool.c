/* Boyer-Moore-Horspool, the shifts in a table on the stack.
 *
 * mem: u8 size, the pattern, up to mem[63]; then the text
 */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 size = mem[0], found = 0;
    const u8 *pattern = mem + 1;
    u64 shift_words[32];
    u8 *shift = (u8 *)shift_words;
    if (size == 0 || size > 63)
        return 0;
    for (int i = 0; i < 32; i++)
        shift_words[i] = size * 0x0101010101010101;
    for (u64 i = 0; i + 1 < size; i++)
        shift[pattern[i]] = size - 1 - i;
    u8 last = pattern[size - 1];
    for (u64 at = 64; at + size <= len;) {
        u8 c = mem[at + size - 1];
        if (c == last) {
            u64 i = 0;
            while (i < size - 1 && mem[at + i] == pattern[i])
                i++;
            found += i == size - 1;
        }
        at += shift[c];
    }
    return found;
}
