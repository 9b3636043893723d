/* Matrix product.   mem: u64 n; u32 a[n][n], b[n][n], c[n][n] */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 n = *(u64 *)mem;
    if (n > 256 || 8 + 12 * n * n > len)
        return 0;
    const u32 *a = (const u32 *)(mem + 8), *b = a + n * n;
    u32 *c = (u32 *)(mem + 8) + 2 * n * n;
    for (u64 i = 0; i < n; i++)
        for (u64 j = 0; j < n; j++) {
            u32 sum = 0;
            for (u64 k = 0; k < n; k++)
                sum += a[i * n + k] * b[k * n + j];
            c[i * n + j] = sum;
        }
    return c[n * n - 1];
}
