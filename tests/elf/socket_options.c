/* Options of sockets, from programs that are given the call by global variables.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c socket_options.c -o socket_options.o
 */
#include "bpf_support.h"

struct bpf_sock_addr { u32 user_family; };
struct bpf_sock_ops { u32 op; u32 args[4]; u32 family; u32 rest[15]; u32 flags; };
struct sockaddr { u16 family, port; u32 address, more[5]; };

static long (*const bpf_setsockopt)(void *, u32, u32, void *, u32) = (void *)49;
static long (*const bpf_getsockopt)(void *, u32, u32, void *, u32) = (void *)57;
static long (*const bpf_sock_ops_cb_flags_set)(void *, u32) = (void *)59;
static long (*const bpf_bind)(void *, void *, u32) = (void *)64;

u32 level, number, size = 4, wanted;
u8 value[64];
s32 set, got;
struct sockaddr address = { .family = 2 };

SEC("sockops") int options(void *context)
{
    u32 bytes = size & 63;

    set = bpf_setsockopt(context, level, number, value, bytes);
    __builtin_memset(value, 0xaa, sizeof(value));
    got = bpf_getsockopt(context, level, number, value, bytes);
    return 1;
}

SEC("cgroup/connect4") int options_of_address(void *context)
{
    set = bpf_setsockopt(context, level, number, value, 4);
    return 1;
}

SEC("sockops") int flags(struct bpf_sock_ops *context)
{
    set = bpf_sock_ops_cb_flags_set(context, wanted);
    got = context->flags;
    return 1;
}

SEC("cgroup/connect4") int bound(void *context)
{
    set = bpf_bind(context, &address, size & 31);
    return 1;
}

char LICENSE[] SEC("license") = "GPL";
