/* Objects of a program's own, for the sources that make, keep and drop them: what libbpf's headers would give,
 * and the structures, maps and lists that these sources share.
 */

#include "bpf_support.h"

struct bpf_spin_lock { u32 value; };
struct bpf_list_head { u64 opaque[2]; } __attribute__((aligned(8)));
struct bpf_list_node { u64 opaque[3]; } __attribute__((aligned(8)));
struct bpf_rb_root { u64 opaque[2]; } __attribute__((aligned(8)));
struct bpf_rb_node { u64 opaque[4]; } __attribute__((aligned(8)));
struct bpf_refcount { u32 opaque[1]; } __attribute__((aligned(4)));

#define __contains(name, node) __attribute__((btf_decl_tag("contains:" #name ":" #node)))
#define __kptr __attribute__((btf_type_tag("kptr")))
#define private(name) __attribute__((section(".data." #name))) __attribute__((aligned(8))) static
#define container_of(pointer, type, member) ((type *)((char *)(pointer) - __builtin_offsetof(type, member)))

static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*const bpf_spin_lock)(void *lock) = (void *)93;
static long (*const bpf_spin_unlock)(void *lock) = (void *)94;
static void *(*const bpf_kptr_xchg)(void *place, void *object) = (void *)194;

extern void *bpf_obj_new_impl(u64 type, void *meta) __ksym;
extern void bpf_obj_drop_impl(void *object, void *meta) __ksym;
extern void *bpf_refcount_acquire_impl(void *object, void *meta) __ksym;
extern int bpf_list_push_front_impl(struct bpf_list_head *head, struct bpf_list_node *node, void *meta, u64 off) __ksym;
extern int bpf_list_push_back_impl(struct bpf_list_head *head, struct bpf_list_node *node, void *meta, u64 off) __ksym;
extern struct bpf_list_node *bpf_list_pop_front(struct bpf_list_head *head) __ksym;
extern struct bpf_list_node *bpf_list_pop_back(struct bpf_list_head *head) __ksym;
extern struct bpf_list_node *bpf_list_front(struct bpf_list_head *head) __ksym;
extern struct bpf_list_node *bpf_list_back(struct bpf_list_head *head) __ksym;
extern int bpf_rbtree_add_impl(struct bpf_rb_root *root, struct bpf_rb_node *node,
                               int (*less)(struct bpf_rb_node *one, const struct bpf_rb_node *other), void *meta,
                               u64 off) __ksym;
extern struct bpf_rb_node *bpf_rbtree_remove(struct bpf_rb_root *root, struct bpf_rb_node *node) __ksym;
extern struct bpf_rb_node *bpf_rbtree_first(struct bpf_rb_root *root) __ksym;
extern struct bpf_rb_node *bpf_rbtree_root(struct bpf_rb_root *root) __ksym;
extern struct bpf_rb_node *bpf_rbtree_left(struct bpf_rb_root *root, struct bpf_rb_node *node) __ksym;
extern struct bpf_rb_node *bpf_rbtree_right(struct bpf_rb_root *root, struct bpf_rb_node *node) __ksym;

#define bpf_obj_new(type) ((type *)bpf_obj_new_impl(__builtin_btf_type_id(*(type *)0, 0), 0))
#define bpf_obj_drop(object) bpf_obj_drop_impl(object, 0)

struct item { u64 number; struct bpf_list_node node; u64 last; };
struct counted { u64 number; struct bpf_refcount count; struct bpf_list_node node; };
struct other { struct bpf_list_node node; u64 number; };

struct queue { struct bpf_spin_lock lock; struct bpf_list_head head __contains(item, node); };
struct { __uint(type, ARRAY); __uint(max_entries, 2); __type(key, u32); __type(value, struct queue); } queues SEC(".maps");
struct slot { void __kptr *item; };
struct { __uint(type, ARRAY); __uint(max_entries, 2); __type(key, u32); __type(value, struct slot); } slots SEC(".maps");

private(L) struct bpf_spin_lock lock;
private(L) struct bpf_list_head list __contains(counted, node);

private(A) struct bpf_spin_lock array_lock;
private(A) struct bpf_list_head lists[2] __contains(item, node);

u64 seen[8];
