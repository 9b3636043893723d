/* A machine of eight registers that runs a program of its own.
 *
 * mem: u32 instructions, steps; u64 registers[8]; struct {u8 op, a, b, c; s32 number;} code[]; u64 cell[256] */
#include "kernel.h"

struct step {
    u8 op, a, b, c;
    s32 number;
};

u64 kernel(u8 *mem, u64 len) {
    const u32 *header = (const u32 *)mem;
    u64 *registers = (u64 *)(mem + 8);
    const struct step *code = (const struct step *)(mem + 72);
    u64 count = header[0], left = header[1], at = 0;
    u64 *cell = (u64 *)(mem + 72 + 8 * count);
    while (left-- && at < count) {
        struct step now = code[at++];
        u64 a = registers[now.a & 7], b = registers[now.b & 7];
        switch (now.op) {
        case 0: registers[now.c & 7] = a + b; break;
        case 1: registers[now.c & 7] = a - b; break;
        case 2: registers[now.c & 7] = a * b; break;
        case 3: registers[now.c & 7] = a ^ b; break;
        case 4: registers[now.c & 7] = a & b; break;
        case 5: registers[now.c & 7] = a >> (b & 63); break;
        case 6: registers[now.c & 7] = a + now.number; break;
        case 7: registers[now.c & 7] = now.number; break;
        case 8: registers[now.c & 7] = cell[a & 255]; break;
        case 9: cell[a & 255] = b; break;
        case 10: at = a < b ? at + now.number : at; break;
        case 11: at = a ? at + now.number : at; break;
        case 12: at += now.number; break;
        default: return at;
        }
    }
    u64 sum = 0;
    for (int i = 0; i < 8; i++)
        sum = sum * 31 + registers[i];
    return sum;
}
