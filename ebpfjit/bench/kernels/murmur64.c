/* MurmurHash64A, 8 times over.   mem: bytes, at any alignment (so single-byte loads in eBPF) */
#include "kernel.h"

static inline __attribute__((always_inline)) u64 murmur64(const u8 *mem, u64 len, u64 seed) {
    const u64 m = 0xc6a4a7935bd1e995;
    u64 hash = seed ^ len * m;
    u64 i = 0;
    for (; i + 8 <= len; i += 8) {
        u64 k = load64(mem + i) * m;
        k ^= k >> 47;
        hash = (hash ^ k * m) * m;
    }
    u64 tail = 0;
    for (int shift = 0; i < len; i++, shift += 8)
        tail |= (u64)mem[i] << shift;
    if (len & 7)
        hash = (hash ^ tail) * m;
    hash ^= hash >> 47;
    hash *= m;
    return hash ^ hash >> 47;
}

u64 kernel(u8 *mem, u64 len) {
    u64 hash = 0x9747b28c;
    for (int turn = 0; turn < 8; turn++)
        hash = murmur64(mem, len, hash);
    return hash;
}
