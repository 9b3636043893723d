/* xxHash's 64-bit stripes, four lanes, 16 times over.   mem: u64 words, the rest is ignored */
#include "kernel.h"

#define PRIME_1 0x9e3779b185ebca87
#define PRIME_2 0xc2b2ae3d27d4eb4f
#define PRIME_3 0x165667b19e3779f9
#define PRIME_4 0x85ebca77c2b2ae63

static inline u64 round_of(u64 lane, u64 input) { return rotl64(lane + input * PRIME_2, 31) * PRIME_1; }
static inline u64 merge(u64 hash, u64 lane) { return (hash ^ round_of(0, lane)) * PRIME_1 + PRIME_4; }

static inline __attribute__((always_inline)) u64 xxh64(const u64 *words, u64 len, u64 seed) {
    u64 a = seed + PRIME_1 + PRIME_2, b = seed + PRIME_2, c = seed, d = seed - PRIME_1;
    for (u64 i = 0; i + 4 <= len / 8; i += 4) {
        a = round_of(a, words[i]);
        b = round_of(b, words[i + 1]);
        c = round_of(c, words[i + 2]);
        d = round_of(d, words[i + 3]);
    }
    u64 hash = rotl64(a, 1) + rotl64(b, 7) + rotl64(c, 12) + rotl64(d, 18);
    hash = merge(merge(merge(merge(hash, a), b), c), d) + len;
    hash = (hash ^ hash >> 33) * PRIME_2;
    hash = (hash ^ hash >> 29) * PRIME_3;
    return hash ^ hash >> 32;
}

u64 kernel(u8 *mem, u64 len) {
    u64 hash = 0;
    for (int turn = 0; turn < 16; turn++)
        hash = xxh64((const u64 *)mem, len, hash);
    return hash;
}
