/* The Internet checksum of all behind the IP header: a loop with two ends, of which one is for the verifier. */

#include "packet.h"

__attribute__((section("xdp"), used)) int program(struct xdp_md *context)
{
    u8 *end = END(context), *at = START(context) + ETHERNET + IP;
    u32 sum = 0;

    for (int i = 0; i < MOST / 2; i++) {
        if (at + 2 > end)
            break;
        sum += *(u16 *)at;
        at += 2;
    }
    if (at + 1 <= end)
        sum += *at;
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (u16)~sum;
}
