/* The sieve of Eratosthenes: primes below len.   mem: u8 composite[], zero */
#include "kernel.h"

u64 kernel(u8 *mem, u64 len) {
    u64 primes = 0;
    for (u64 i = 2; i < len; i++) {
        if (mem[i])
            continue;
        primes++;
        for (u64 multiple = i * i; multiple < len; multiple += i)
            mem[multiple] = 1;
    }
    return primes;
}
