/* UTF-8 checked strictly; code points and errors counted.   mem: text with some errors */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 points = 0, errors = 0, i = 0;
    while (i < len) {
        u8 first = mem[i++];
        u32 more, low = 0x80, high = 0xbf;
        points++;
        if (first < 0x80)
            continue;
        if (first >= 0xc2 && first <= 0xdf)
            more = 1;
        else if (first >= 0xe0 && first <= 0xef) {
            more = 2;
            if (first == 0xe0)
                low = 0xa0;
            if (first == 0xed)
                high = 0x9f;
        } else if (first >= 0xf0 && first <= 0xf4) {
            more = 3;
            if (first == 0xf0)
                low = 0x90;
            if (first == 0xf4)
                high = 0x8f;
        } else {
            errors++;
            continue;
        }
        while (more) {
            if (i == len || mem[i] < low || mem[i] > high) {
                errors++;
                break;
            }
            low = 0x80, high = 0xbf;
            more--, i++;
        }
    }
    return points << 32 | errors;
}
