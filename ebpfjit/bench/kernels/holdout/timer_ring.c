/* Timers in a ring of slots: each tick fires those of its slot that are due, which start again.
 *
 * mem: u32 slots (a power of 2), timers, ticks, zero; u32 heads[slots];
 *      struct {u32 next, due, period, fired;} timer[timers + 1], of which 0 is none */
#include "kernel.h"

struct timer {
    u32 next, due, period, fired;
};

u64 kernel(u8 *mem, u64 len) {
    const u32 *header = (const u32 *)mem;
    u32 mask = header[0] - 1, timers = header[1], ticks = header[2];
    u32 *heads = (u32 *)(mem + 16);
    struct timer *timer = (struct timer *)(heads + mask + 1);
    for (u32 at = 1; at <= timers; at++) {
        u32 *head = &heads[timer[at].due & mask];
        timer[at].next = *head, *head = at;
    }
    u64 fired = 0;
    for (u32 now = 0; now < ticks; now++) {
        u32 at = heads[now & mask], later = 0;
        heads[now & mask] = 0;
        while (at) {
            struct timer *it = &timer[at];
            u32 next = it->next;
            if (it->due == now) {
                it->fired++, fired++;
                it->due = now + it->period;
                if ((it->due & mask) != (now & mask)) {
                    u32 *head = &heads[it->due & mask];
                    it->next = *head, *head = at;
                    at = next;
                    continue;
                }
            }
            it->next = later, later = at;
            at = next;
        }
        heads[now & mask] = later;
    }
    return fired;
}
