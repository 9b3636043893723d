/* Decimal integers with signs, added up.   mem: text such as "12,-345,6,..." */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 sum = 0, i = 0;
    while (i < len) {
        u64 value = 0;
        int negative = mem[i] == '-';
        i += negative;
        while (i < len && (u8)(mem[i] - '0') < 10)
            value = value * 10 + (mem[i++] - '0');
        sum += negative ? -value : value;
        i++;
    }
    return sum;
}
