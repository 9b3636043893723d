/* Iterators: over tasks, the files of tasks and the entries of a map; contexts as vmlinux.h has them.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c iterators_of.c -o iterators_of.o
 *     llvm-strip --strip-debug iterators_of.o
 */

#include "bpf_support.h"

#define CORE __attribute__((preserve_access_index))
#define POINTER(type, name)                                                                              \
    union {                                                                                              \
        type name;                                                                                       \
        u64 : 64;                                                                                        \
    } __attribute__((aligned(8)))

struct task_struct {
    int pid, tgid;
    char comm[16];
} CORE;
struct file {
    u32 f_flags;
} CORE;
struct seq_file;
struct bpf_map {
    u32 id;
} CORE;
struct bpf_iter_meta {
    POINTER(struct seq_file *, seq);
    u64 session_id;
    u64 seq_num;
} CORE;
struct bpf_iter__task {
    POINTER(struct bpf_iter_meta *, meta);
    POINTER(struct task_struct *, task);
} CORE;
struct bpf_iter__task_file {
    POINTER(struct bpf_iter_meta *, meta);
    POINTER(struct task_struct *, task);
    u32 fd;
    POINTER(struct file *, file);
} CORE;
struct bpf_iter__bpf_map_elem {
    POINTER(struct bpf_iter_meta *, meta);
    POINTER(struct bpf_map *, map);
    POINTER(void *, key);
    POINTER(void *, value);
} CORE;

static long (*bpf_seq_printf)(struct seq_file *seq, const char *text, u32 size, const u64 *data, u32 bytes) =
    (void *)126;

SEC("iter/task") int tasks(struct bpf_iter__task *ctx)
{
    static const char head[] = "pid name\n", row[] = "%d %s\n";
    struct task_struct *task = ctx->task;
    if (!task)
        return 0;
    if (ctx->meta->seq_num == 0)
        bpf_seq_printf(ctx->meta->seq, head, sizeof(head), 0, 0);
    u64 arguments[] = { task->pid, (u64)task->comm };
    bpf_seq_printf(ctx->meta->seq, row, sizeof(row), arguments, sizeof(arguments));
    return 0;
}

SEC("iter/task_file") int files(struct bpf_iter__task_file *ctx)
{
    static const char row[] = "%d: fd %u, flags %x\n";
    struct task_struct *task = ctx->task;
    struct file *file = ctx->file;
    if (!task || !file)
        return 0;
    u64 arguments[] = { task->pid, ctx->fd, file->f_flags };
    bpf_seq_printf(ctx->meta->seq, row, sizeof(row), arguments, sizeof(arguments));
    return 0;
}

SEC("iter/bpf_map_elem") int entries(struct bpf_iter__bpf_map_elem *ctx)
{
    static const char row[] = "%u: %llu\n";
    u32 *key = ctx->key;
    u64 *value = ctx->value;
    if (!key || !value)
        return 0;
    u64 arguments[] = { *key, *value };
    bpf_seq_printf(ctx->meta->seq, row, sizeof(row), arguments, sizeof(arguments));
    *value += 1;
    return 0;
}

char _license[] SEC("license") = "GPL";
