/* A regular expression as a machine of up to 64 places, all of its states at once.
 *
 * mem: u64 first, last; u64 takes[256]: the places that take a byte; u64 follows[64]; text
 * Returns how many bytes of the text end a match. */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    const u64 *header = (const u64 *)mem, *takes = header + 2, *follows = takes + 256;
    u64 first = header[0], last = header[1], states = 0, matches = 0;
    for (u64 at = 8 * (2 + 256 + 64); at < len; at++) {
        u64 next = first, rest = states;
        for (u64 place = 0; rest; place++, rest >>= 1)
            if (rest & 1)
                next |= follows[place & 63];
        states = next & takes[mem[at]];
        if (states & last)
            matches++;
    }
    return matches;
}
