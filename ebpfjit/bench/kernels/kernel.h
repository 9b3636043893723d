/* What every kernel is made of: a pure function of memory and its length.
 *
 * `mem` is 4096-byte aligned; its layout is stated at the top of each kernel and filled by
 * ebpfjit/bench/inputs.py. No kernel touches anything outside of mem[0] to mem[len - 1].
 */
#ifndef KERNEL_H
#define KERNEL_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef int s32;
typedef long s64;

static inline u32 rotl32(u32 x, int by) { return x << by | x >> (32 - by); }
static inline u32 rotr32(u32 x, int by) { return x >> by | x << (32 - by); }
static inline u64 rotl64(u64 x, int by) { return x << by | x >> (64 - by); }

/* Loads at any alignment: clang makes single bytes of them for eBPF. */
static inline u32 load32(const u8 *at) {
    u32 value;
    __builtin_memcpy(&value, at, sizeof value);
    return value;
}
static inline u64 load64(const u8 *at) {
    u64 value;
    __builtin_memcpy(&value, at, sizeof value);
    return value;
}

u64 kernel(u8 *mem, u64 len);

#endif
