/* The payload, changed byte by byte, each one by the one before. */

#include "packet.h"

__attribute__((section("xdp"), used)) int program(struct xdp_md *context)
{
    u8 *start = START(context), *end = END(context), key = 0x5a;

    if (start + ETHERNET + IP + TCP > end)
        return PASS;
    for (u8 *at = start + ETHERNET + IP + TCP; at + 1 <= end; at++) {
        *at ^= key;
        key = key * 5 + *at;
    }
    return TRANSMIT;
}
