/* Shell sort, the order asked of a function that is not inlined.   mem: u32 values[] */
#include "kernel.h"

static __attribute__((noinline)) int before(u32 a, u32 b) { return rotl32(a, 16) < rotl32(b, 16); }

u64 kernel(u8 *mem, u64 len) {
    u32 *values = (u32 *)mem;
    u64 count = len / 4;
    for (u64 gap = count / 2; gap > 0; gap /= 2)
        for (u64 i = gap; i < count; i++) {
            u32 value = values[i];
            u64 j = i;
            for (; j >= gap && before(value, values[j - gap]); j -= gap)
                values[j] = values[j - gap];
            values[j] = value;
        }
    return values[count / 2];
}
