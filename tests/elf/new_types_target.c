/* The types of a kernel that new_types.c was not built for.
 *
 *     clang-19 -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v4 -c new_types_target.c -o new_types_target.o
 *     llvm-strip-19 --strip-debug new_types_target.o
 */

typedef signed char s8;
typedef short s16;
typedef int s32;

enum huge { BEFORE = 2, LARGE = 0x223456789abcULL, LAST = 0xfffffffffffffff0ULL };
enum low { LOWEST = -0x6000000000000000LL, ZERO = 0 };

struct bits {
    long in_front;
    enum huge huge;
    s32 word;
    s16 half;
    unsigned char rest : 7, flag : 1;
    s8 byte;
    long third : 16, gap : 7, second : 11, first : 5;
};

struct same { int x; struct same *next; };
struct other { int x; long y; };

struct bits a;
struct same b;
struct other c;
enum low d;
