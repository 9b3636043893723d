/* Tokens of program text: names, numbers, strings, comments, operators.   mem: text
 *
 * Returns how many there are, mixed with a hash of the names. */
#include "kernel.h"

static inline int is_letter(u8 c) { return (u8)((c | 32) - 'a') < 26 || c == '_'; }
static inline int is_digit(u8 c) { return (u8)(c - '0') < 10; }

u64 kernel(u8 *mem, u64 len) {
    u64 at = 0, names = 0, numbers = 0, strings = 0, operators = 0, comments = 0, hash = 0;
    while (at < len) {
        u8 c = mem[at];
        if (c == ' ' || c == '\n' || c == '\t') {
            at++;
        } else if (is_letter(c)) {
            u32 name = 5381;
            while (at < len && (is_letter(mem[at]) || is_digit(mem[at])))
                name = name * 33 + mem[at++];
            hash ^= name + (hash << 5) + (hash >> 2);
            names++;
        } else if (is_digit(c)) {
            u64 value = 0;
            while (at < len && is_digit(mem[at]))
                value = value * 10 + (mem[at++] - '0');
            hash += value;
            numbers++;
        } else if (c == '"') {
            for (at++; at < len && mem[at] != '"'; at++)
                if (mem[at] == '\\')
                    at++;
            at++;
            strings++;
        } else if (c == '/' && at + 1 < len && mem[at + 1] == '/') {
            while (at < len && mem[at] != '\n')
                at++;
            comments++;
        } else {
            if (at + 1 < len && mem[at + 1] == '=')
                at++;
            at++;
            operators++;
        }
    }
    return hash ^ names ^ numbers << 16 ^ strings << 32 ^ operators << 40 ^ comments << 52;
}
