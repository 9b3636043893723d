/* Records of several shapes: what columns are laid out as.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c columns.c -o columns.o
 */

#include "bpf_support.h"

enum colour { RED, GREEN = 7 };

struct point {
    s32 x, y;
};

struct event {
    u8 kind;
    u32 size; /* three bytes of padding before it */
    char name[6];
    struct point at;
    u16 samples[3];
    s64 delta;
    enum colour colour;
};

struct flags {
    u32 low : 3, high : 29;
};

SEC("records") u64 weigh(struct event *event)
{
    return event->kind + event->size + event->at.x * event->at.y + event->samples[2] + event->delta + event->colour
           + event->name[0];
}

SEC("records") u64 with_bits(struct flags *flags) { return flags->low; }

SEC("records") u64 of_a_number(u64 number) { return number; }
