/* A kernel function that must be there.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c kfunc.c -o kfunc.o
 *     llvm-strip --strip-debug kfunc.o
 */

#include "bpf_support.h"

extern int bpf_needed(int value) __ksym;

SEC("xdp") int caller(void *context)
{
    return bpf_needed(1);
}
