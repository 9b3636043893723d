/* Work queues, kptrs of the kernel's, resilient locks, RCU, functions that take and give back: right and wrong.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -w -c verdict_kfuncs.c -o verdict_kfuncs.o
 *     llvm-strip --strip-debug verdict_kfuncs.o
 */

#include "bpf_objects.h"

struct tnode { u64 key; struct bpf_rb_node node; };
struct locked { u64 n; struct bpf_spin_lock lock; struct bpf_list_head inner __contains(item, node); };
private(T) struct bpf_spin_lock tlock;
private(T) struct bpf_rb_root tree __contains(tnode, node);
private(I) struct bpf_spin_lock ilock;
private(I) struct bpf_list_head ilist __contains(item, node);
struct kslot { struct item __kptr *item; };
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
#define PS(name, sec, body) SEC(sec) int name(void *context) { body return 0; }
extern void bpf_rcu_read_lock(void) __ksym; extern void bpf_rcu_read_unlock(void) __ksym;
extern void *bpf_percpu_obj_new_impl(u64 type, void *meta) __ksym; extern void bpf_percpu_obj_drop_impl(void *object, void *meta) __ksym;
struct task_struct { int pid; }; struct cgroup { int level; }; struct bpf_cpumask;
typedef struct task_struct a_task; typedef struct cgroup a_cgroup;
extern struct task_struct *bpf_task_from_pid(int pid) __ksym; extern void bpf_task_release(struct task_struct *p) __ksym; extern struct task_struct *bpf_task_acquire(struct task_struct *p) __ksym;
extern struct cgroup *bpf_cgroup_from_id(u64 id) __ksym; extern void bpf_cgroup_release(struct cgroup *p) __ksym; extern struct cgroup *bpf_cgroup_ancestor(struct cgroup *c, int level) __ksym;
struct bpf_res_spin_lock { u32 v; } ; struct bpf_wq { u64 o[2]; } __attribute__((aligned(8)));
extern int bpf_res_spin_lock(struct bpf_res_spin_lock *l) __ksym; extern void bpf_res_spin_unlock(struct bpf_res_spin_lock *l) __ksym;
extern int bpf_wq_init(struct bpf_wq *wq, void *map, unsigned int flags) __ksym; extern int bpf_wq_start(struct bpf_wq *wq, unsigned int flags) __ksym;
extern int bpf_wq_set_callback_impl(struct bpf_wq *wq, int (*cb)(void *map, int *key, void *value), unsigned int flags, void *aux) __ksym;
struct wv { u64 n; struct bpf_wq wq; };
struct { __uint(type, ARRAY); __uint(max_entries, 2); __type(key, u32); __type(value, struct wv); } wqs SEC(".maps");
struct { __uint(type, ARRAY); __uint(max_entries, 2); __type(key, u32); __type(value, struct wv); } wqs2 SEC(".maps");
struct tv { a_task __kptr *t; a_cgroup __kptr *c; };
struct { __uint(type, ARRAY); __uint(max_entries, 2); __type(key, u32); __type(value, struct tv); } tvs SEC(".maps");
struct rv { struct bpf_res_spin_lock lock; u32 pad; struct bpf_list_head head __contains(item, node); };
struct { __uint(type, ARRAY); __uint(max_entries, 2); __type(key, u32); __type(value, struct rv); } rvs SEC(".maps");
#define TV u32 k = 0; struct tv *v = bpf_map_lookup_elem(&tvs, &k); if (!v) return 0;
#define RV u32 k = 0; struct rv *v = bpf_map_lookup_elem(&rvs, &k); if (!v) return 0;
#define WV u32 k = 0; struct wv *v = bpf_map_lookup_elem(&wqs, &k); if (!v) return 0;
static int cb(void *map, int *key, void *value) { return 0; }
static int cb1(void *map, int *key, void *value) { return 1; }
static int cbw(void *map, int *key, void *value) { ((struct wv *)value)->n = *key; return 0; }
static int cbp(void *map, int *key, void *value) { return ((u64 *)value)[3]; }
static int cbwq(void *map, int *key, void *value) { return ((u64 *)value)[1]; }
P(wq_ok, WV bpf_wq_init(&v->wq, &wqs, 0); bpf_wq_set_callback_impl(&v->wq, cb, 0, 0); bpf_wq_start(&v->wq, 0);)
P(wq_othermap, WV bpf_wq_init(&v->wq, &wqs2, 0);)
P(wq_cb1, WV bpf_wq_init(&v->wq, &wqs, 0); bpf_wq_set_callback_impl(&v->wq, cb1, 0, 0);)
P(wq_cbw, WV bpf_wq_init(&v->wq, &wqs, 0); bpf_wq_set_callback_impl(&v->wq, cbw, 0, 0);)
P(wq_cbp, WV bpf_wq_init(&v->wq, &wqs, 0); bpf_wq_set_callback_impl(&v->wq, cbp, 0, 0);)
P(wq_cbwq, WV bpf_wq_init(&v->wq, &wqs, 0); bpf_wq_set_callback_impl(&v->wq, cbwq, 0, 0);)
P(wq_badoff, WV bpf_wq_init((void*)v, &wqs, 0);)
P(wq_read, WV return v->wq.o[0];)
PS(wq_xdp, "xdp", WV bpf_wq_init(&v->wq, &wqs, 0); bpf_wq_set_callback_impl(&v->wq, cb, 0, 0); bpf_wq_start(&v->wq, 0);)
PS(wq_kp, "kprobe/x", WV bpf_wq_init(&v->wq, &wqs, 0);)
P(t_xchg, TV struct task_struct *t = bpf_task_from_pid(1); if (!t) return 0; t = bpf_kptr_xchg(&v->t, t); if (t) bpf_task_release(t);)
P(t_xchg_leak, TV struct task_struct *t = bpf_task_from_pid(1); if (!t) return 0; t = bpf_kptr_xchg(&v->t, t);)
P(t_xchg_cg, TV struct task_struct *t = bpf_task_from_pid(1); if (!t) return 0; t = bpf_kptr_xchg(&v->c, t); if (t) bpf_task_release(t);)
P(t_xchg_rel_wrong, TV struct task_struct *t = bpf_task_from_pid(1); if (!t) return 0; t = bpf_kptr_xchg(&v->t, t); if (t) bpf_cgroup_release((void*)t);)
P(t_xchg_null, TV struct task_struct *t = bpf_task_from_pid(1); t = bpf_kptr_xchg(&v->t, t); if (t) bpf_task_release(t);)
P(t_xchg_twice, TV struct task_struct *t = bpf_task_from_pid(1); if (!t) return 0; struct task_struct *o = bpf_kptr_xchg(&v->t, t); if (o) bpf_task_release(o); bpf_task_release(t);)
P(t_load_acquire, TV struct task_struct *t = v->t; if (!t) return 0; t = bpf_task_acquire(t); if (t) bpf_task_release(t);)
P(t_load_release, TV struct task_struct *t = v->t; if (!t) return 0; bpf_task_release(t);)
P(t_load_rcu_gone, TV bpf_rcu_read_lock(); struct task_struct *t = v->t; bpf_rcu_read_unlock(); if (!t) return 0; t = bpf_task_acquire(t); if (t) bpf_task_release(t);)
PS(t_load_sys, "syscall", TV struct task_struct *t = v->t; if (!t) return 0; t = bpf_task_acquire(t); if (t) bpf_task_release(t);)
PS(t_load_sys_rcu, "syscall", TV bpf_rcu_read_lock(); struct task_struct *t = v->t; if (t) { t = bpf_task_acquire(t); if (t) bpf_task_release(t); } bpf_rcu_read_unlock();)
PS(t_load_sys_rcu_keep, "syscall", TV struct task_struct *u = 0; bpf_rcu_read_lock(); struct task_struct *t = v->t; if (t) u = bpf_task_acquire(t); bpf_rcu_read_unlock(); if (u) bpf_task_release(u);)
P(c_anc, struct cgroup *c = bpf_cgroup_from_id(1); if (!c) return 0; struct cgroup *a = bpf_cgroup_ancestor(c, 0); if (a) bpf_cgroup_release(a); bpf_cgroup_release(c);)
P(c_anc_after, struct cgroup *c = bpf_cgroup_from_id(1); if (!c) return 0; bpf_cgroup_release(c); struct cgroup *a = bpf_cgroup_ancestor(c, 0); if (a) bpf_cgroup_release(a);)
P(r_ok, RV NEW(struct item) if (bpf_res_spin_lock(&v->lock)) { bpf_obj_drop(o); return 0; } bpf_list_push_front_impl(&v->head, &o->node, 0, 0); bpf_res_spin_unlock(&v->lock);)
P(r_noleak, RV NEW(struct item) if (bpf_res_spin_lock(&v->lock)) return 0; bpf_list_push_front_impl(&v->head, &o->node, 0, 0); bpf_res_spin_unlock(&v->lock);)
P(r_unchecked, RV bpf_res_spin_lock(&v->lock); bpf_res_spin_unlock(&v->lock);)
P(r_after, RV NEW(struct item) if (bpf_res_spin_lock(&v->lock)) { bpf_obj_drop(o); return 0; } bpf_list_push_front_impl(&v->head, &o->node, 0, 0); bpf_res_spin_unlock(&v->lock); o->number = 1;)
P(r_two, RV k = 1; struct rv *w = bpf_map_lookup_elem(&rvs, &k); if (!w) return 0; if (bpf_res_spin_lock(&v->lock)) return 0; if (bpf_res_spin_lock(&w->lock)) { bpf_res_spin_unlock(&v->lock); return 0; } bpf_res_spin_unlock(&w->lock); bpf_res_spin_unlock(&v->lock);)
P(r_two_leak, RV k = 1; struct rv *w = bpf_map_lookup_elem(&rvs, &k); if (!w) return 0; if (bpf_res_spin_lock(&v->lock)) return 0; if (bpf_res_spin_lock(&w->lock)) return 0; bpf_res_spin_unlock(&w->lock); bpf_res_spin_unlock(&v->lock);)
P(r_other_head, RV k = 1; struct rv *w = bpf_map_lookup_elem(&rvs, &k); if (!w) return 0; NEW(struct item) if (bpf_res_spin_lock(&v->lock)) { bpf_obj_drop(o); return 0; } bpf_list_push_front_impl(&w->head, &o->node, 0, 0); bpf_res_spin_unlock(&v->lock);)
P(r_relookup, RV k = 0; struct rv *w = bpf_map_lookup_elem(&rvs, &k); if (!w) return 0; if (bpf_res_spin_lock(&v->lock)) return 0; bpf_res_spin_unlock(&w->lock);)
P(r_mixed, RV if (bpf_res_spin_lock(&v->lock)) return 0; bpf_spin_lock(&ilock); bpf_spin_unlock(&ilock); bpf_res_spin_unlock(&v->lock);)
P(r_in_spin, RV bpf_spin_lock(&ilock); if (bpf_res_spin_lock(&v->lock)) { bpf_spin_unlock(&ilock); return 0; } bpf_res_spin_unlock(&v->lock); bpf_spin_unlock(&ilock);)
P(r_write_lock, RV v->lock.v = 1;)
P(rcu_spin, bpf_rcu_read_lock(); bpf_spin_lock(&ilock); bpf_spin_unlock(&ilock); bpf_rcu_read_unlock();)
P(spin_rcu, bpf_spin_lock(&ilock); bpf_rcu_read_lock(); bpf_rcu_read_unlock(); bpf_spin_unlock(&ilock);)
__attribute__((noinline)) static int releases(struct task_struct *t) { bpf_task_release(t); return 0; }
P(static_release, struct task_struct *t = bpf_task_from_pid(1); if (!t) return 0; releases(t);)
P(static_release_twice, struct task_struct *t = bpf_task_from_pid(1); if (!t) return 0; releases(t); releases(t);)
__attribute__((noinline)) static struct item *makes(void) { return bpf_obj_new(struct item); }
P(static_makes, struct item *o = makes(); if (o) bpf_obj_drop(o);)
P(static_makes_leak, struct item *o = makes();)
__attribute__((noinline)) static void locks(void) { bpf_spin_lock(&ilock); }
__attribute__((noinline)) static void unlocksf(void) { bpf_spin_unlock(&ilock); }
P(static_lock, locks(); unlocksf();)
P(static_lock_leak, locks();)
static long (*const bpf_loop)(u32 n, void *f, void *c, u64 fl) = (void*)181;
static int lcb(u64 i, void *c) { struct item *o = bpf_obj_new(struct item); if (o) bpf_obj_drop(o); return 0; }
static int lcb_leak(u64 i, void *c) { struct item *o = bpf_obj_new(struct item); return 0; }
static int lcb_rel(u64 i, void **c) { bpf_task_release(*c); return 0; }
P(loop_obj, bpf_loop(5, lcb, 0, 0);)
P(loop_leak, bpf_loop(5, lcb_leak, 0, 0);)
P(loop_rel, struct task_struct *t = bpf_task_from_pid(1); if (!t) return 0; bpf_loop(2, lcb_rel, &t, 0);)
struct nums { u64 a; u32 b[3]; };
P(percpu_ok2, void *p = bpf_percpu_obj_new_impl(__builtin_btf_type_id(*(struct nums *)0, 0), 0); if (p) bpf_percpu_obj_drop_impl(p, 0);)
P(percpu_load, struct nums *p = bpf_percpu_obj_new_impl(__builtin_btf_type_id(*(struct nums *)0, 0), 0); if (p) { u64 r = p->a; bpf_percpu_obj_drop_impl(p, 0); return r; })
P(arr_elem, struct nums *p = bpf_obj_new(struct nums); if (p) { p->b[2] = 3; int r = p->b[1]; bpf_obj_drop(p); return r; })
P(arr_past, struct nums *p = bpf_obj_new(struct nums); if (p) { ((u32*)p)[5] = 3; bpf_obj_drop(p); })
P(arr_straddle, struct nums *p = bpf_obj_new(struct nums); if (p) { *(u64*)&p->b[0] = 3; bpf_obj_drop(p); })
P(bad_type, void *p = bpf_obj_new_impl(1, 0); if (p) bpf_obj_drop(p);)
P(bad_type0, void *p = bpf_obj_new_impl(100000, 0); if (p) bpf_obj_drop(p);)
P(var_type, void *p = bpf_obj_new_impl(bpf_get_prandom_u32(), 0); if (p) bpf_obj_drop(p);)
char LICENSE[] SEC("license") = "GPL";
