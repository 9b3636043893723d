/* A JSON tokenizer: counts tokens by kind and the greatest depth.   mem: JSON text */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 strings = 0, numbers = 0, words = 0, marks = 0;
    u32 depth = 0, deepest = 0;
    u64 i = 0;
    while (i < len) {
        u8 c = mem[i++];
        switch (c) {
        case ' ':
        case '\t':
        case '\n':
        case '\r':
            break;
        case '{':
        case '[':
            if (++depth > deepest)
                deepest = depth;
            marks++;
            break;
        case '}':
        case ']':
            depth--;
            marks++;
            break;
        case ',':
        case ':':
            marks++;
            break;
        case '"':
            strings++;
            while (i < len && mem[i] != '"')
                i += mem[i] == '\\' ? 2 : 1;
            i++;
            break;
        case '-':
        case '0':
        case '1':
        case '2':
        case '3':
        case '4':
        case '5':
        case '6':
        case '7':
        case '8':
        case '9':
            numbers++;
            while (i < len && ((u8)(mem[i] - '0') < 10 || mem[i] == '.' || (mem[i] | 32) == 'e'))
                i++;
            break;
        default:
            words++;
            while (i < len && (u8)((mem[i] | 32) - 'a') < 26)
                i++;
        }
    }
    return strings << 48 ^ numbers << 32 ^ words << 24 ^ marks << 8 ^ deepest;
}
