/* Calls of the functions that clang takes for granted.
 *
 *     clang -O2 -g0 -fno-builtin -target bpf -c builtins.c -o builtins.o
 */

#include "bpf_support.h"

void *memcpy(void *to, const void *from, u64 size);
void *memmove(void *to, const void *from, u64 size);
void *memset(void *to, int value, u64 size);
int memcmp(const void *a, const void *b, u64 size);

struct work { u8 a[32]; u8 b[32]; u64 size; u64 shift; };

SEC("socket") u64 copy(struct work *w) { return memcpy(w->a, w->b, w->size) == w->a; }
SEC("socket") u64 move(struct work *w) { return memmove(w->a + w->shift, w->a + 8, w->size) == w->a + w->shift; }
SEC("socket") u64 fill(struct work *w) { return memset(w->a, w->shift, w->size) == w->a; }
SEC("socket") s64 compare(struct work *w) { return memcmp(w->a, w->b, w->size); }
