/* An iterator over tasks: a line for each, with the user that it runs as.
 *
 * Structs are as vmlinux.h has them, cut down to what is read. Compiled with Debian clang 14.0.6:
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c task_iter.c -o task_iter.o
 *     llvm-strip --strip-debug task_iter.o
 */

#define SEC(name) __attribute__((section(name), used))
#define CORE __attribute__((preserve_access_index))

typedef unsigned int u32;
typedef unsigned long long u64;

struct seq_file;
struct cred {
    u32 uid;
} CORE;
struct task_struct {
    int pid, tgid;
    const struct cred *cred;
    char comm[16];
} CORE;
struct bpf_iter_meta {
    struct seq_file *seq;
    u64 session_id;
    u64 seq_num;
} CORE;
struct bpf_iter__task {
    struct bpf_iter_meta *meta;
    struct task_struct *task;
} CORE;

static long (*bpf_seq_printf)(struct seq_file *seq, const char *text, u32 size, const u64 *data, u32 bytes) =
    (void *)126;

SEC("iter/task") int dump_task(struct bpf_iter__task *ctx)
{
    static const char row[] = "%d %s, user %u\n";
    struct task_struct *task = ctx->task;
    if (!task)
        return 0;
    u64 arguments[] = { task->pid, (u64)task->comm, task->cred->uid };
    bpf_seq_printf(ctx->meta->seq, row, sizeof(row), arguments, sizeof(arguments));
    return 0;
}

char _license[] SEC("license") = "GPL";
