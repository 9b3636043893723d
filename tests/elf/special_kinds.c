/* A map for each kind of special field, to be made of every type.
 *
 * clang -target bpf -g -O2 -fdebug-compilation-dir=. -c special_kinds.c -o special_kinds.o
 */
typedef unsigned int u32;
typedef unsigned long long u64;

struct bpf_spin_lock { u32 val; };
struct bpf_res_spin_lock { u32 val; };
struct bpf_timer { u64 opaque[2]; } __attribute__((aligned(8)));
struct bpf_wq { u64 opaque[2]; } __attribute__((aligned(8)));
struct bpf_task_work { u64 opaque; } __attribute__((aligned(8)));
struct bpf_list_head { u64 opaque[2]; } __attribute__((aligned(8)));
struct bpf_list_node { u64 opaque[3]; } __attribute__((aligned(8)));
struct bpf_rb_root { u64 opaque[2]; } __attribute__((aligned(8)));
struct bpf_rb_node { u64 opaque[4]; } __attribute__((aligned(8)));
struct bpf_refcount { u32 opaque[1]; } __attribute__((aligned(4)));

struct listed { u64 data; struct bpf_list_node node; };
struct sorted { u64 data; struct bpf_rb_node node; };

#define SEC(name) __attribute__((section(name), used))
#define contains(type, node) __attribute__((btf_decl_tag("contains:" #type ":" #node)))
#define MAP(name, ...)                                             \
	struct name##_value { u64 count; __VA_ARGS__ };            \
	struct {                                                   \
		int (*type)[1];                                    \
		int (*max_entries)[4];                             \
		int *key;                                          \
		struct name##_value *value;                        \
	} name SEC(".maps")

MAP(spin_lock, struct bpf_spin_lock field;);
MAP(res_spin_lock, struct bpf_res_spin_lock field;);
MAP(timer, struct bpf_timer field;);
MAP(wq, struct bpf_wq field;);
MAP(task_work, struct bpf_task_work field;);
MAP(list_head, struct bpf_list_head field contains(listed, node); struct bpf_spin_lock lock;);
MAP(rb_root, struct bpf_rb_root field contains(sorted, node); struct bpf_spin_lock lock;);
MAP(refcount, struct bpf_refcount field;);
MAP(two_timers, struct bpf_timer field; struct bpf_timer other;);
MAP(lock_and_timer, struct bpf_spin_lock field; struct bpf_timer other;);

struct listed one_listed SEC(".data.types");
struct sorted one_sorted SEC(".data.types");
