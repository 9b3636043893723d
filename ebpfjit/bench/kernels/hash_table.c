/* Words counted in a table with open addressing.
 *
 * mem: u32 words[n] (never 0); u32 (word, count)[n], zero, n a power of two
 */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 n = len / 12, distinct = 0, most = 0;
    const u32 *words = (const u32 *)mem;
    u32 *table = (u32 *)mem + n;
    for (u64 i = 0; i < n; i++) {
        u32 word = words[i];
        u64 slot = word * 0x9e3779b1u >> 7 & (n - 1);
        while (table[2 * slot] != 0 && table[2 * slot] != word)
            slot = (slot + 1) & (n - 1);
        distinct += table[2 * slot] == 0;
        table[2 * slot] = word;
        u32 count = ++table[2 * slot + 1];
        if (count > most)
            most = count;
    }
    return distinct << 32 | most;
}
