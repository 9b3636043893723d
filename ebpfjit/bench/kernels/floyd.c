/* Floyd-Warshall: shortest paths between all pairs.   mem: u64 n; u32 distance[n][n] */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 n = *(u64 *)mem;
    u32 *distance = (u32 *)(mem + 8);
    if (n > 256 || 8 + 4 * n * n > len)
        return 0;
    for (u64 k = 0; k < n; k++)
        for (u64 i = 0; i < n; i++) {
            u32 first = distance[i * n + k];
            for (u64 j = 0; j < n; j++) {
                u32 through = first + distance[k * n + j];
                if (through < distance[i * n + j])
                    distance[i * n + j] = through;
            }
        }
    return distance[n - 1];
}
