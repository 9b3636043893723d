/* kptrs among variables, in an array of two dimensions; no lock, list or tree.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c kptr_variables.c -o kptr_variables.o
 */
#include "bpf_support.h"

#define __kptr __attribute__((btf_type_tag("kptr")))

struct item { u64 number; };
typedef struct item kept_item; /* clang 14 loses a tag of a struct, not of a typedef */
struct slot { kept_item __kptr *item; };

extern void *bpf_obj_new_impl(u64 type, void *meta) __ksym;
extern void bpf_obj_drop_impl(void *object, void *meta) __ksym;
static void *(*const bpf_kptr_xchg)(void *place, void *pointer) = (void *)194;

static kept_item __kptr *one SEC(".data.G");
static struct slot grid[2][2] SEC(".data.G");

static int exchanged(void *place, u64 number)
{
    struct item *item = bpf_obj_new_impl(__builtin_btf_type_id(*(struct item *)0, 0), 0);
    int before = 0;

    if (!item)
        return -1;
    item->number = number;
    item = bpf_kptr_xchg(place, item);
    if (item) {
        before = item->number;
        bpf_obj_drop_impl(item, 0);
    }
    return before;
}

SEC("tc") int kept(void *context)
{
    int result = 100 * exchanged(&one, 3) + 10 * exchanged(&grid[1][1].item, 4);

    return result + exchanged(&grid[1][1].item, 5);
}

char LICENSE[] SEC("license") = "GPL";
