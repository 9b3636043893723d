/* What helpers tell cgroup/sysctl programs, and what they may change.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c sysctl.c -o sysctl.o
 *     llvm-strip --strip-debug sysctl.o
 */

#include "bpf_support.h"

struct bpf_sysctl { u32 write; u32 file_pos; };

static long (*const bpf_sysctl_get_name)(struct bpf_sysctl *ctx, u8 *buffer, u64 size, u64 flags) = (void *)101;
static long (*const bpf_sysctl_get_current_value)(struct bpf_sysctl *ctx, u8 *buffer, u64 size) = (void *)102;
static long (*const bpf_sysctl_get_new_value)(struct bpf_sysctl *ctx, u8 *buffer, u64 size) = (void *)103;
static long (*const bpf_sysctl_set_new_value)(struct bpf_sysctl *ctx, const u8 *buffer, u64 size) = (void *)104;
static long (*const bpf_strtol)(const u8 *buffer, u64 size, u64 flags, s64 *result) = (void *)105;
static long (*const bpf_strtoul)(const u8 *buffer, u64 size, u64 flags, u64 *result) = (void *)106;

int write, position, runs;
int name_size, base_size, cut_size, current_size, current_cut, new_size, new_cut, digits, set, set_page;
u8 name[64], base[64], cut[12], current[32], current_short[2], new_value[32], new_short[2];
u8 page[4096];
u64 number;
s64 signed_number;

static __attribute__((always_inline)) void look_at(struct bpf_sysctl *ctx)
{
    runs++;
    write = ctx->write;
    position = ctx->file_pos;
    name_size = bpf_sysctl_get_name(ctx, name, sizeof(name), 0);
    base_size = bpf_sysctl_get_name(ctx, base, sizeof(base), 1);
    cut_size = bpf_sysctl_get_name(ctx, cut, sizeof(cut), 0);
    current_size = bpf_sysctl_get_current_value(ctx, current, sizeof(current));
    current_cut = bpf_sysctl_get_current_value(ctx, current_short, sizeof(current_short));
    new_size = bpf_sysctl_get_new_value(ctx, new_value, sizeof(new_value));
    new_cut = bpf_sysctl_get_new_value(ctx, new_short, sizeof(new_short));
    digits = bpf_strtoul(current, sizeof(current), 0, &number);
    bpf_strtol(new_value, sizeof(new_value), 0, &signed_number);
}

SEC("cgroup/sysctl") int look(struct bpf_sysctl *ctx)
{
    look_at(ctx);
    return 1;
}

SEC("cgroup/sysctl") int refuse(struct bpf_sysctl *ctx)
{
    look_at(ctx);
    return 0;
}

SEC("cgroup/sysctl") int change(struct bpf_sysctl *ctx)
{
    look_at(ctx);
    set_page = bpf_sysctl_set_new_value(ctx, page, sizeof(page));
    page[0] = '7';
    page[1] = '7';
    set = bpf_sysctl_set_new_value(ctx, page, 2);
    page[0] = 0;
    page[1] = 0;
    return 1;
}

SEC("cgroup/sysctl") int move(struct bpf_sysctl *ctx)
{
    look_at(ctx);
    ctx->file_pos = 1;
    return 1;
}

char _license[] SEC("license") = "GPL";
