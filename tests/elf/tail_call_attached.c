/* Programs of one type that are attached to different things: one program array cannot hold both.
 * clang -O2 -g -target bpf -mcpu=v3 -fdebug-compilation-dir=. -c tail_call_attached.c -o tail_call_attached.o
 */
static long (*const tail_call)(void *, void *, unsigned) = (void *)12;
#define SEC(name) __attribute__((section(name), used))
struct {
    int (*type)[3];
    int (*max_entries)[2];
    int (*key_size)[4];
    int (*value_size)[4];
} jumps SEC(".maps");
char _license[] SEC("license") = "GPL";
SEC("xdp") int caller(void *context)
{
    tail_call(context, &jumps, 0);
    return 1;
}
SEC("xdp") int same(void *context) { return 2; }
SEC("xdp/devmap") int other(void *context) { return 3; }
