/* What the kernel would define: its configuration, and symbols that may be missing.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c externs.c -o externs.o
 *     llvm-strip --strip-debug externs.o
 */

#include "bpf_support.h"

extern int LINUX_KERNEL_VERSION __kconfig;
extern u32 CONFIG_HZ __kconfig;
extern char CONFIG_BPF __kconfig;
extern _Bool CONFIG_NET __kconfig;
extern char CONFIG_LOCALVERSION[8] __kconfig;
extern int CONFIG_MISSING __kconfig __weak;

extern const void a_symbol __ksym __weak;
extern int a_kfunc(int value) __ksym __weak;

SEC("socket") u64 configured(void *context)
{
    return LINUX_KERNEL_VERSION + (u64)CONFIG_HZ * 1000000000ull + CONFIG_MISSING;
}

SEC("socket") u64 letters(void *context)
{
    return CONFIG_BPF | CONFIG_LOCALVERSION[1] << 8 | CONFIG_NET << 16;
}

SEC("socket") u64 weak(void *context)
{
    if (a_kfunc)
        return a_kfunc(1);
    return &a_symbol ? 1 : 2;
}

SEC("socket") u64 weak_reached(void *context) { return a_kfunc(1); }
