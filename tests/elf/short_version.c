/* The version of the kernel in fewer bytes than it takes.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c short_version.c -o short_version.o
 */

#include "bpf_support.h"

extern unsigned short LINUX_KERNEL_VERSION __kconfig;

SEC("socket") u64 version(void *context) { return LINUX_KERNEL_VERSION; }

SEC("socket") u64 other(void *context) { return 7; }
