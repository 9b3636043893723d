/* The types of another kernel, for core.c; only its BTF is of use.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -c core_target.c -o core_target.o
 *     llvm-strip --strip-debug core_target.o
 */

#include "bpf_support.h"

struct inner { u64 y; int x; };

struct task {
    u64 state : 11, flags : 5;
    s32 below : 5;
    union {
        u64 start;
        u8 start_bytes[8];
    };
    const u32 pid;
    struct inner inner;
    u16 before;
    u16 table[8];
    struct task *volatile parent;
    u8 shrunk;
    s64 resized;
    union { struct { u16 more; u32 nested; }; };
};

struct other { char b; u64 added; int a; };
enum mode { FIRST, BUSY = 3, IDLE = 6 };
enum wide { HUGE = 0x44332211 };
typedef int number;

struct task *tasks;
struct other others;
enum mode mode;
enum wide wide;
number numbers;

SEC("socket") u64 use(void *context) { return tasks->pid + others.a + mode + wide + numbers; }
