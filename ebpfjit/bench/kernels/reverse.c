/* Lines reversed in place, letters made upper case.   mem: text, lines of several lengths */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 lines = 0, start = 0;
    while (start < len) {
        u64 end = start;
        while (end < len && mem[end] != '\n') {
            u8 c = mem[end];
            mem[end++] = (u8)(c - 'a') < 26 ? c - 32 : c;
        }
        for (u64 i = start, j = end; i + 1 < j; i++) {
            j--;
            u8 c = mem[i];
            mem[i] = mem[j];
            mem[j] = c;
        }
        lines++;
        start = end + 1;
    }
    return lines;
}
