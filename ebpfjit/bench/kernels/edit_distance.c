/* Levenshtein distance.   mem: u32 n; u8 a[n], b[n], from mem[4]; u32 row[n + 1] from mem[64 + 2n] */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 n = *(u32 *)mem & ~3u;
    const u8 *a = mem + 4, *b = a + n;
    u32 *row = (u32 *)(mem + 64 + 2 * n);
    if (64 + 2 * n + 4 * (n + 1) > len)
        return 0;
    for (u64 j = 0; j <= n; j++)
        row[j] = j;
    for (u64 i = 0; i < n; i++) {
        u32 corner = row[0];
        row[0] = i + 1;
        for (u64 j = 0; j < n; j++) {
            u32 best = corner + (a[i] != b[j]);
            corner = row[j + 1];
            if (corner + 1 < best)
                best = corner + 1;
            if (row[j] + 1 < best)
                best = row[j] + 1;
            row[j + 1] = best;
        }
    }
    return row[n];
}
