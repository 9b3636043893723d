/* A matrix times a vector, in 32 bits, with a shift and a floor at zero as quantised networks have it.
 *
 * mem: u32 rows, columns, turns, shift; s32 matrix[rows][columns]; s32 vector[columns]; s32 out[rows]
 * Each turn's result is the next one's vector (rows = columns). */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    const u32 *header = (const u32 *)mem;
    u32 rows = header[0], columns = header[1], turns = header[2], shift = header[3] & 31;
    const s32 *matrix = (const s32 *)(mem + 16);
    s32 *vector = (s32 *)(matrix + rows * columns), *out = vector + columns;
    u64 total = 0;
    for (u32 turn = 0; turn < turns; turn++) {
        for (u32 row = 0; row < rows; row++) {
            s32 sum = 0;
            for (u32 column = 0; column < columns; column++)
                sum += matrix[row * columns + column] * vector[column];
            out[row] = sum > 0 ? sum >> shift : 0;
        }
        for (u32 column = 0; column < columns; column++) {
            vector[column] = out[column] & 0xffff;
            total += vector[column];
        }
    }
    return total;
}
