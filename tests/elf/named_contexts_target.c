/* The types of a kernel whose tracepoints are laid out otherwise than named_contexts.c has them.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c named_contexts_target.c \
 *         -o named_contexts_target.o
 *     llvm-strip --strip-debug named_contexts_target.o
 */

struct trace_entry { unsigned short type; unsigned char flags, preempt_count; int pid; long more; };
struct trace_event_raw_sys_enter { struct trace_entry ent; long before, id; unsigned long args[6]; char __data[]; };
struct options { int other; };

int uses(struct trace_event_raw_sys_enter *context, struct options *options)
{
    return context->id + options->other;
}
