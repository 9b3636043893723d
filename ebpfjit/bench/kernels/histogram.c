/* How often each byte occurs, counted 4 times.   mem: u32 counts[256], zero; bytes */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u32 *counts = (u32 *)mem;
    for (int turn = 0; turn < 4; turn++)
        for (u64 i = 1024; i < len; i++)
            counts[mem[i]]++;
    u64 mixed = 0;
    for (int i = 0; i < 256; i++)
        mixed = mixed * 31 + counts[i];
    return mixed;
}
