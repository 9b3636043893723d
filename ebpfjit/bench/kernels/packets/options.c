/* The options of a TCP header, whose lengths say where the next one is: 24 packets' worth of them. */

#include "packet.h"

__attribute__((section("xdp"), used)) int program(struct xdp_md *context)
{
    u8 *start = START(context), *end = END(context);
    u32 found = 0;

    if (start + ETHERNET + IP + TCP > end)
        return PASS;
    for (u32 round = 0; round < 24; round++) {
        u8 *at = start + ETHERNET + IP + TCP;
        u8 *last = start + ETHERNET + IP + (start[ETHERNET + IP + 12] >> 4) * 4;

        for (int i = 0; i < 40; i++) {
            if (at >= last || at + 1 > end || *at == 0)
                break;
            if (*at == 1) {
                at++;
                continue;
            }
            if (at + 2 > end || at[1] < 2)
                break;
            if (*at == 2 && at + 4 <= end)
                found += (at[2] << 8 | at[3]) ^ round;
            if (*at == 8 && at + 10 <= end)
                found ^= *(u32 *)(at + 2);
            at += at[1];
        }
    }
    return found;
}
