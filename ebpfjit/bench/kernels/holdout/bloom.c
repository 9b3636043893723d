/* A bloom filter: four bits a key, from two hashes.
 *
 * mem: u64 words (a power of 2), keys; u64 bits[words]; u64 key[]: each second one is added, all are looked for */
#include "kernel.h"

static inline u64 mixed(u64 x) {
    x ^= x >> 33, x *= 0xff51afd7ed558ccdUL;
    x ^= x >> 33, x *= 0xc4ceb9fe1a85ec53UL;
    return x ^ x >> 33;
}

u64 kernel(u8 *mem, u64 len) {
    u64 *header = (u64 *)mem, mask = 64 * header[0] - 1, keys = header[1];
    u64 *bits = header + 2;
    const u64 *key = bits + header[0];
    for (u64 i = 0; i < keys; i += 2) {
        u64 hash = mixed(key[i]), step = hash >> 32 | 1;
        for (int j = 0; j < 4; j++, hash += step)
            bits[(hash & mask) >> 6] |= 1UL << (hash & 63);
    }
    u64 found = 0;
    for (u64 i = 0; i < keys; i++) {
        u64 hash = mixed(key[i]), step = hash >> 32 | 1;
        int there = 1;
        for (int j = 0; j < 4 && there; j++, hash += step)
            there = bits[(hash & mask) >> 6] >> (hash & 63) & 1;
        found += there;
    }
    return found;
}
