/* Programs that ask what their kernel has before they use it, as those do that are for several kernels.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c asks_first.c -o asks_first.o
 */

#include "bpf_support.h"

SEC("license") const char LICENSE[] = "GPL";

#define VALUE_EXISTS(type, value) __builtin_preserve_enum_value(*(typeof(type) *)value, 0)
#define TYPE_EXISTS(type) __builtin_preserve_type_info(*(typeof(type) *)0, 0)
#define VERSION(major, minor) ((major) << 16 | (minor) << 8)

extern int LINUX_KERNEL_VERSION __kconfig;
extern _Bool LINUX_HAS_BPF_COOKIE __kconfig;

enum bpf_func_id { BPF_FUNC_ktime_get_boot_ns = 125, BPF_FUNC_loop = 181 };
struct bpf_ringbuf {
    int any;
};

static u64 (*const ktime_get_ns)(void) = (void *)5;
static u64 (*const ktime_get_boot_ns)(void) = (void *)125;
static u64 (*const get_attach_cookie)(void *context) = (void *)174;
static u64 (*const get_func_ip)(void *context) = (void *)173;
static u64 (*const jiffies64)(void) = (void *)118;

SEC("kprobe/do_exit") int by_value(void *context)
{
    return VALUE_EXISTS(enum bpf_func_id, BPF_FUNC_ktime_get_boot_ns) ? ktime_get_boot_ns() : ktime_get_ns();
}

SEC("kprobe/do_exit") int by_type(void *context)
{
    if (!TYPE_EXISTS(struct bpf_ringbuf))
        return ktime_get_ns();
    return ktime_get_boot_ns();
}

SEC("kprobe/do_exit") int by_version(void *context)
{
    return LINUX_KERNEL_VERSION >= VERSION(5, 15) ? get_attach_cookie(context) : 0;
}

/* Not enough is asked: 5.10 has no cookie. */
SEC("kprobe/do_exit") int by_another_version(void *context)
{
    return LINUX_KERNEL_VERSION >= VERSION(5, 10) ? get_attach_cookie(context) : 0;
}

SEC("kprobe/do_exit") int by_cookie(void *context)
{
    return LINUX_HAS_BPF_COOKIE ? get_attach_cookie(context) : 0;
}

/* The same helper once more, without a question. */
SEC("kprobe/do_exit") int forgets(void *context)
{
    u64 time = VALUE_EXISTS(enum bpf_func_id, BPF_FUNC_ktime_get_boot_ns) ? ktime_get_boot_ns() : ktime_get_ns();

    return time > 5 ? ktime_get_boot_ns() : time;
}

/* A question about something else. */
SEC("kprobe/do_exit") int behind(void *context)
{
    if (jiffies64() & 1)
        return get_func_ip(context);
    return VALUE_EXISTS(enum bpf_func_id, BPF_FUNC_loop);
}
