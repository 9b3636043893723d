/* How often each value of the low six bits occurs; returns the most frequent one. */

#include "packet.h"

__attribute__((section("xdp"), used)) int program(struct xdp_md *context)
{
    u8 *start = START(context), *end = END(context);
    u32 counts[64] = {0}, best = 0;

    for (int i = 0; i < MOST; i++) {
        if (start + i + 1 > end)
            break;
        counts[start[i] & 63]++;
    }
    for (u32 i = 1; i < 64; i++)
        if (counts[i] > counts[best])
            best = i;
    return best;
}
