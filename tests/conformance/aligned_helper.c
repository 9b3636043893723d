/* A helper that keeps vectors on its stack with aligned stores (movaps): it faults (SIGSEGV) where
 * the stack was not aligned to 16 bytes at the call, as the System V ABI promises it is.
 *
 * aligned_helper.hex is made of it, once; tests need no compiler:
 *
 *   gcc -O1 -fPIC -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables \
 *       -c aligned_helper.c
 *   objcopy -O binary --only-section=.text aligned_helper.o aligned_helper.bin
 *   xxd -p aligned_helper.bin aligned_helper.hex
 */
typedef unsigned long long u64;
typedef u64 pair __attribute__((vector_size(16)));

u64 aligned_helper(u64 r1, u64 r2, u64 r3, u64 r4, u64 r5)
{
    volatile pair first = { r1, r2 };
    volatile pair second = { r3, r4 };
    pair sum = first + second;
    return sum[0] + 2 * sum[1] + 4 * r5;
}
