/* Objects, lists, trees and kptrs, right and wrong: one program a line, whose verdicts Linux has given, too.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -w -c verdict_objects.c -o verdict_objects.o
 *     llvm-strip --strip-debug verdict_objects.o
 */

#include "bpf_objects.h"

struct tnode { u64 key; struct bpf_rb_node node; };
struct locked { u64 n; struct bpf_spin_lock lock; struct bpf_list_head inner __contains(item, node); };
private(T) struct bpf_spin_lock tlock;
private(T) struct bpf_rb_root tree __contains(tnode, node);
private(I) struct bpf_spin_lock ilock;
private(I) struct bpf_list_head ilist __contains(item, node);
typedef struct item kept_item;
struct kslot { kept_item __kptr *item; };
struct { __uint(type, ARRAY); __uint(max_entries, 2); __type(key, u32); __type(value, struct kslot); } kslots SEC(".maps");
static long (*const bpf_get_prandom_u32)(void) = (void *)7;
static int less(struct bpf_rb_node *a, const struct bpf_rb_node *b) { return container_of(a, struct tnode, node)->key < container_of(b, struct tnode, node)->key; }
static int bad_range(struct bpf_rb_node *a, const struct bpf_rb_node *b) { return container_of(a, struct tnode, node)->key; }
static int unlocks(struct bpf_rb_node *a, const struct bpf_rb_node *b) { bpf_spin_unlock(&tlock); return 0; }
static int writes(struct bpf_rb_node *a, const struct bpf_rb_node *b) { container_of(a, struct tnode, node)->key = 3; return 0; }
static int calls_helper(struct bpf_rb_node *a, const struct bpf_rb_node *b) { return bpf_get_prandom_u32() & 1; }
static int past(struct bpf_rb_node *a, const struct bpf_rb_node *b) { return ((u64*)container_of(a, struct tnode, node))[5] & 1; }
#define NEW(T) T *o = bpf_obj_new(T); if (!o) return 0;
#define P(name, body) SEC("tc") int name(void *context) { body return 0; }
P(push_ok, NEW(struct item) bpf_spin_lock(&ilock); bpf_list_push_front_impl(&ilist, &o->node, 0, 0); bpf_spin_unlock(&ilock);)
P(push_nolock, NEW(struct item) bpf_list_push_front_impl(&ilist, &o->node, 0, 0);)
P(push_otherlock, NEW(struct item) bpf_spin_lock(&tlock); bpf_list_push_front_impl(&ilist, &o->node, 0, 0); bpf_spin_unlock(&tlock);)
P(push_write_in_lock, NEW(struct item) bpf_spin_lock(&ilock); bpf_list_push_front_impl(&ilist, &o->node, 0, 0); o->number = 4; bpf_spin_unlock(&ilock);)
P(push_write_after, NEW(struct item) bpf_spin_lock(&ilock); bpf_list_push_front_impl(&ilist, &o->node, 0, 0); bpf_spin_unlock(&ilock); o->number = 4;)
P(push_drop, NEW(struct item) bpf_spin_lock(&ilock); bpf_list_push_front_impl(&ilist, &o->node, 0, 0); bpf_spin_unlock(&ilock); bpf_obj_drop(o);)
P(push_twice, NEW(struct item) bpf_spin_lock(&ilock); bpf_list_push_front_impl(&ilist, &o->node, 0, 0); bpf_list_push_front_impl(&ilist, &o->node, 0, 0); bpf_spin_unlock(&ilock);)
P(push_wrong_off, NEW(struct item) bpf_spin_lock(&ilock); bpf_list_push_front_impl(&ilist, (void*)o, 0, 0); bpf_spin_unlock(&ilock);)
P(push_wrong_struct, NEW(struct other) bpf_spin_lock(&ilock); bpf_list_push_front_impl(&ilist, &o->node, 0, 0); bpf_spin_unlock(&ilock);)
P(pop_ok, bpf_spin_lock(&ilock); struct bpf_list_node *n = bpf_list_pop_front(&ilist); bpf_spin_unlock(&ilock); if (!n) return 0; struct item *o = container_of(n, struct item, node); int r = o->number; bpf_obj_drop(o); return r;)
P(pop_leak, bpf_spin_lock(&ilock); struct bpf_list_node *n = bpf_list_pop_front(&ilist); bpf_spin_unlock(&ilock);)
P(pop_drop_node, bpf_spin_lock(&ilock); struct bpf_list_node *n = bpf_list_pop_front(&ilist); bpf_spin_unlock(&ilock); if (!n) return 0; bpf_obj_drop(n);)
P(pop_drop_in_lock, bpf_spin_lock(&ilock); struct bpf_list_node *n = bpf_list_pop_front(&ilist); if (n) bpf_obj_drop(container_of(n, struct item, node)); bpf_spin_unlock(&ilock);)
P(pop_push, bpf_spin_lock(&ilock); struct bpf_list_node *n = bpf_list_pop_front(&ilist); if (n) bpf_list_push_back_impl(&ilist, n, 0, 0); bpf_spin_unlock(&ilock);)
P(pop_node_write, bpf_spin_lock(&ilock); struct bpf_list_node *n = bpf_list_pop_front(&ilist); bpf_spin_unlock(&ilock); if (!n) return 0; n->opaque[0] = 1; bpf_obj_drop(container_of(n, struct item, node));)
P(front_ok, bpf_spin_lock(&ilock); struct bpf_list_node *n = bpf_list_front(&ilist); int r = 0; if (n) r = container_of(n, struct item, node)->number; bpf_spin_unlock(&ilock); return r;)
P(front_after, bpf_spin_lock(&ilock); struct bpf_list_node *n = bpf_list_front(&ilist); bpf_spin_unlock(&ilock); if (n) return container_of(n, struct item, node)->number;)
P(front_drop, bpf_spin_lock(&ilock); struct bpf_list_node *n = bpf_list_front(&ilist); bpf_spin_unlock(&ilock); if (n) bpf_obj_drop(container_of(n, struct item, node));)
P(front_push, bpf_spin_lock(&ilock); struct bpf_list_node *n = bpf_list_front(&ilist); if (n) bpf_list_push_front_impl(&ilist, n, 0, 0); bpf_spin_unlock(&ilock);)
P(front_then_pop, bpf_spin_lock(&ilock); struct bpf_list_node *n = bpf_list_front(&ilist); struct bpf_list_node *m = bpf_list_pop_front(&ilist); int r = 0; if (n) r = container_of(n, struct item, node)->number; bpf_spin_unlock(&ilock); if (m) bpf_obj_drop(container_of(m, struct item, node)); return r;)
P(field_past, NEW(struct item) ((u64*)o)[5] = 1; bpf_obj_drop(o);)
P(field_node, NEW(struct item) int r = o->node.opaque[1]; bpf_obj_drop(o); return r;)
P(field_neg, NEW(struct item) int r = ((u64*)o)[-1]; bpf_obj_drop(o); return r;)
P(field_straddle, NEW(struct tnode) int r = *(u32*)((char*)o + 2); bpf_obj_drop(o); return r;)
P(field_var, NEW(struct item) int r = ((u8*)o)[bpf_get_prandom_u32() & 7]; bpf_obj_drop(o); return r;)
P(drop_twice, NEW(struct item) bpf_obj_drop(o); bpf_obj_drop(o);)
P(drop_mid, NEW(struct item) bpf_obj_drop(&o->last);)
P(drop_null, struct item *o = bpf_obj_new(struct item); bpf_obj_drop(o);)
P(tree_add, NEW(struct tnode) bpf_spin_lock(&tlock); bpf_rbtree_add_impl(&tree, &o->node, less, 0, 0); bpf_spin_unlock(&tlock);)
P(tree_add_range, NEW(struct tnode) bpf_spin_lock(&tlock); bpf_rbtree_add_impl(&tree, &o->node, bad_range, 0, 0); bpf_spin_unlock(&tlock);)
P(tree_add_unlocks, NEW(struct tnode) bpf_spin_lock(&tlock); bpf_rbtree_add_impl(&tree, &o->node, unlocks, 0, 0); bpf_spin_unlock(&tlock);)
P(tree_add_writes, NEW(struct tnode) bpf_spin_lock(&tlock); bpf_rbtree_add_impl(&tree, &o->node, writes, 0, 0); bpf_spin_unlock(&tlock);)
P(tree_add_helper, NEW(struct tnode) bpf_spin_lock(&tlock); bpf_rbtree_add_impl(&tree, &o->node, calls_helper, 0, 0); bpf_spin_unlock(&tlock);)
P(tree_add_past, NEW(struct tnode) bpf_spin_lock(&tlock); bpf_rbtree_add_impl(&tree, &o->node, past, 0, 0); bpf_spin_unlock(&tlock);)
P(tree_add_nolock, NEW(struct tnode) bpf_rbtree_add_impl(&tree, &o->node, less, 0, 0);)
P(tree_add_list, NEW(struct tnode) bpf_spin_lock(&ilock); bpf_rbtree_add_impl((void*)&ilist, &o->node, less, 0, 0); bpf_spin_unlock(&ilock);)
P(tree_remove, bpf_spin_lock(&tlock); struct bpf_rb_node *n = bpf_rbtree_first(&tree); struct bpf_rb_node *m = 0; if (n) m = bpf_rbtree_remove(&tree, n); bpf_spin_unlock(&tlock); if (m) bpf_obj_drop(container_of(m, struct tnode, node));)
P(tree_remove_use_first, bpf_spin_lock(&tlock); struct bpf_rb_node *n = bpf_rbtree_first(&tree); int r = 0; struct bpf_rb_node *m = 0; if (n) { m = bpf_rbtree_remove(&tree, n); r = container_of(n, struct tnode, node)->key; } bpf_spin_unlock(&tlock); if (m) bpf_obj_drop(container_of(m, struct tnode, node)); return r;)
P(tree_remove_leak, bpf_spin_lock(&tlock); struct bpf_rb_node *n = bpf_rbtree_first(&tree); if (n) bpf_rbtree_remove(&tree, n); bpf_spin_unlock(&tlock);)
P(tree_remove_owned, NEW(struct tnode) bpf_spin_lock(&tlock); struct bpf_rb_node *m = bpf_rbtree_remove(&tree, &o->node); bpf_spin_unlock(&tlock); if (m) bpf_obj_drop(container_of(m, struct tnode, node)); bpf_obj_drop(o);)
P(tree_remove_added, NEW(struct tnode) bpf_spin_lock(&tlock); bpf_rbtree_add_impl(&tree, &o->node, less, 0, 0); struct bpf_rb_node *m = bpf_rbtree_remove(&tree, &o->node); bpf_spin_unlock(&tlock); if (m) bpf_obj_drop(container_of(m, struct tnode, node));)
P(tree_walk, int r = 0; bpf_spin_lock(&tlock); struct bpf_rb_node *n = bpf_rbtree_root(&tree); if (n) { n = bpf_rbtree_left(&tree, n); if (n) r = container_of(n, struct tnode, node)->key; } bpf_spin_unlock(&tlock); return r;)
P(ref_ok, NEW(struct counted) struct counted *p = bpf_refcount_acquire_impl(o, 0); bpf_obj_drop(o); bpf_obj_drop(p);)
P(ref_none, NEW(struct item) struct item *p = bpf_refcount_acquire_impl(o, 0); bpf_obj_drop(o); if (p) bpf_obj_drop(p);)
P(ref_leak, NEW(struct counted) struct counted *p = bpf_refcount_acquire_impl(o, 0); bpf_obj_drop(o);)
P(ref_borrowed, NEW(struct counted) bpf_spin_lock(&lock); bpf_list_push_front_impl(&list, &o->node, 0, 0); struct counted *p = bpf_refcount_acquire_impl(o, 0); bpf_spin_unlock(&lock); if (p) bpf_obj_drop(p);)
P(ref_borrowed_null, NEW(struct counted) bpf_spin_lock(&lock); bpf_list_push_front_impl(&list, &o->node, 0, 0); struct counted *p = bpf_refcount_acquire_impl(o, 0); bpf_spin_unlock(&lock); bpf_obj_drop(p);)
P(obj_lock_list, NEW(struct locked) struct item *i = bpf_obj_new(struct item); if (i) { bpf_spin_lock(&o->lock); bpf_list_push_front_impl(&o->inner, &i->node, 0, 0); bpf_spin_unlock(&o->lock); } bpf_obj_drop(o);)
P(obj_lock_other, NEW(struct locked) struct locked *q = bpf_obj_new(struct locked); if (!q) { bpf_obj_drop(o); return 0; } struct item *i = bpf_obj_new(struct item); if (i) { bpf_spin_lock(&q->lock); bpf_list_push_front_impl(&o->inner, &i->node, 0, 0); bpf_spin_unlock(&q->lock); } bpf_obj_drop(o); bpf_obj_drop(q);)
P(obj_lock_drop, NEW(struct locked) bpf_spin_lock(&o->lock); bpf_obj_drop(o);)
P(kptr_ok, u32 k = 0; struct kslot *s = bpf_map_lookup_elem(&kslots, &k); if (!s) return 0; NEW(struct item) o = bpf_kptr_xchg(&s->item, o); if (o) bpf_obj_drop(o);)
P(kptr_leak, u32 k = 0; struct kslot *s = bpf_map_lookup_elem(&kslots, &k); if (!s) return 0; NEW(struct item) o = bpf_kptr_xchg(&s->item, o);)
P(kptr_take, u32 k = 0; struct kslot *s = bpf_map_lookup_elem(&kslots, &k); if (!s) return 0; struct item *o = bpf_kptr_xchg(&s->item, 0); if (o) { o->number = 3; bpf_obj_drop(o); })
P(kptr_wrong, u32 k = 0; struct kslot *s = bpf_map_lookup_elem(&kslots, &k); if (!s) return 0; NEW(struct other) void *r = bpf_kptr_xchg(&s->item, o); if (r) bpf_obj_drop(r);)
P(kptr_load, u32 k = 0; struct kslot *s = bpf_map_lookup_elem(&kslots, &k); if (!s) return 0; struct item *o = s->item; if (o) return o->number;)
P(kptr_load_write, u32 k = 0; struct kslot *s = bpf_map_lookup_elem(&kslots, &k); if (!s) return 0; struct item *o = s->item; if (o) o->number = 7;)
P(kptr_load_drop, u32 k = 0; struct kslot *s = bpf_map_lookup_elem(&kslots, &k); if (!s) return 0; struct item *o = s->item; if (o) bpf_obj_drop(o);)
P(kptr_store, u32 k = 0; struct kslot *s = bpf_map_lookup_elem(&kslots, &k); if (!s) return 0; s->item = 0;)
P(kptr_half, u32 k = 0; struct kslot *s = bpf_map_lookup_elem(&kslots, &k); if (!s) return 0; return *(u32*)&s->item;)
P(kptr_borrowed, u32 k = 0; struct kslot *s = bpf_map_lookup_elem(&kslots, &k); if (!s) return 0; NEW(struct item) bpf_spin_lock(&ilock); bpf_list_push_front_impl(&ilist, &o->node, 0, 0); o = bpf_kptr_xchg(&s->item, o); bpf_spin_unlock(&ilock); if (o) bpf_obj_drop(o);)
P(kptr_after_use, u32 k = 0; struct kslot *s = bpf_map_lookup_elem(&kslots, &k); if (!s) return 0; NEW(struct item) struct item *p = bpf_kptr_xchg(&s->item, o); if (p) bpf_obj_drop(p); return o->number;)
P(kptr_sub, u32 k = 0; struct kslot *s = bpf_map_lookup_elem(&kslots, &k); if (!s) return 0; NEW(struct item) o = bpf_kptr_xchg(&s->item, &o->last); if (o) bpf_obj_drop(o);)
P(pops_loop, for (int i = 0; i < 20; i++) { bpf_spin_lock(&ilock); struct bpf_list_node *n = bpf_list_pop_front(&ilist); bpf_spin_unlock(&ilock); if (!n) break; bpf_obj_drop(container_of(n, struct item, node)); })
char LICENSE[] SEC("license") = "GPL";
