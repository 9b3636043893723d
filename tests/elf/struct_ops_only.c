/* A table for the kernel, of functions that are elsewhere, or nowhere; no program and no map.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c struct_ops_only.c -o struct_ops_only.o
 */
#include "bpf_support.h"

struct tcp_congestion_ops { u32 flags; char name[16]; };

SEC(".struct_ops.link") struct tcp_congestion_ops nothing = { .name = "nothing" };
