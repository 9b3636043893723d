/* Helpers for GPL programs only, in an object that does not say its licence; and one that anybody may call.
 * clang -O2 -g -target bpf -mcpu=v3 -fdebug-compilation-dir=. -c license_missing.c -o license_missing.o
 */
static long (*const clock)(void) = (void *)5;
static long (*const probe)(void *, unsigned, const void *) = (void *)113;
static long (*const print)(const char *, unsigned, ...) = (void *)6;
#define SEC(name) __attribute__((section(name), used))

SEC("xdp") int reads(void *context)
{
    long value;
    return probe(&value, sizeof(value), context) ? 1 : 2;
}
SEC("xdp") int prints(void *context)
{
    char text[] = "hello";
    print(text, sizeof(text));
    return 2;
}
SEC("xdp") int ticks(void *context) { return clock() ? 2 : 1; }
