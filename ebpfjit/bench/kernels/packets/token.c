/* Where "Host:" stands in the payload. */

#include "packet.h"

__attribute__((section("xdp"), used)) int program(struct xdp_md *context)
{
    u8 *start = START(context), *end = END(context), *at = start + ETHERNET + IP + TCP;

    for (int i = 0; i < MOST; i++) {
        if (at + 5 > end)
            break;
        if (at[0] == 'H' && at[1] == 'o' && at[2] == 's' && at[3] == 't' && at[4] == ':')
            return at - start;
        at++;
    }
    return PASS;
}
