/* What Linux loads only with BTF and the right attach type, and each kind of test run that it has.
 * clang -O2 -g -target bpf -mcpu=v3 -fdebug-compilation-dir=. -c linux_loads.c -o linux_loads.o
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
#define SEC(name) __attribute__((section(name), used))
#define NOINLINE __attribute__((noinline))

static void *(*const lookup)(void *, const void *) = (void *)1;
static long (*const tail_call)(void *, void *, u32) = (void *)12;
static long (*const lock)(void *) = (void *)93;
static long (*const unlock)(void *) = (void *)94;
static long (*const for_each)(void *, void *, void *, u64) = (void *)164;
static long (*const timer_init)(void *, void *, u64) = (void *)169;
static long (*const loop)(u32, void *, void *, u64) = (void *)181;

struct bpf_spin_lock { u32 val; };
struct bpf_timer { u64 x[2]; } __attribute__((aligned(8)));
struct account { struct bpf_spin_lock lock; u32 padding; u64 count; };
struct entry { struct bpf_timer timer; u64 value; };

struct { int (*type)[1]; int (*max_entries)[4]; u32 *key; struct account *value; } accounts SEC(".maps");
struct { int (*type)[2]; int (*max_entries)[1]; u32 *key; struct entry *value; } timers SEC(".maps");
struct { int (*type)[2]; int (*max_entries)[4]; u32 *key; u64 *value; } numbers SEC(".maps");
struct { int (*type)[3]; int (*max_entries)[2]; int (*key_size)[4]; int (*value_size)[4]; } jumps SEC(".maps");

u64 total = 1;
const volatile u32 step = 3;
char _license[] SEC("license") = "Dual MIT/GPL";

SEC("tc") int deposit(void *context)
{
    u32 key = 7;
    struct account *account = lookup(&accounts, &key);
    if (!account)
        return 1;
    lock(&account->lock);
    account->count += step;
    unlock(&account->lock);
    return 7;
}

static int add_round(u32 index, u64 *sum)
{
    *sum += index;
    return 0;
}

static long add_value(void *map, u32 *key, u64 *value, u64 *sum)
{
    *sum += *value;
    return 0;
}

SEC("tc") int call_back(void *context)
{
    u64 sum = 0;
    loop(10, add_round, &sum, 0);
    for_each(&numbers, add_value, &sum, 0);
    total += sum;
    return sum;
}

NOINLINE int twice(u32 number) /* global: verified by itself */
{
    return number * 2;
}

static NOINLINE int jump(void *context)
{
    int result = 1;
    tail_call(context, &jumps, 0);
    asm volatile("%0 += 0" : "+r"(result));
    return result;
}

SEC("tc") int caller(void *context) { return jump(context) + twice(4); }
SEC("tc") int leaf(void *context) { return 77; }

SEC("tc") int start_timer(void *context)
{
    u32 key = 0;
    struct entry *entry = lookup(&timers, &key);
    return entry ? -timer_init(&entry->timer, &timers, 1) : 99;
}

struct sk_lookup_context {
    u64 cookie;
    u32 family, protocol, remote_ip4, remote_ip6[4];
    u16 remote_port, padding;
    u32 local_ip4, local_ip6[4], local_port, ingress_ifindex;
};
SEC("sk_lookup") int choose(struct sk_lookup_context *context)
{
    return context->local_port == 80 && context->protocol == 6;
}

struct flow_keys {
    u16 nhoff, thoff, addr_proto;
    u8 is_frag, is_first_frag, is_encap, ip_proto;
    u16 n_proto, sport, dport;
};
SEC("flow_dissector") int dissect(u8 *context)
{
    struct flow_keys *keys = *(struct flow_keys **)(context + 144); /* __sk_buff.flow_keys */
    keys->sport = 0x1234;
    keys->ip_proto = 17;
    return 0; /* BPF_OK */
}

SEC("netfilter") int accept(void *context) { return 1; }

SEC("syscall") int add_up(u32 *numbers_of)
{
    numbers_of[1] = numbers_of[0] + 1;
    return numbers_of[0] * 2;
}

SEC("raw_tp/task_rename") int trace(u64 *arguments) { return arguments[0] + arguments[1]; }
SEC("kprobe/vfs_read") int probe(void *context) { return 0; }
SEC("tracepoint/sched/sched_switch") int switched(void *context) { return 0; }
SEC("cgroup/connect6") int connect6(void *context) { return 1; }
SEC("cgroup/connect4") int connect4(void *context) { return 1; }
SEC("cgroup/sendmsg4") int sendmsg4(void *context) { return 1; }
SEC("cgroup/sysctl") int sysctl(void *context) { return 1; }
SEC("cgroup/getsockopt") int getsockopt(void *context) { return 1; }
SEC("cgroup/dev") int device(void *context) { return 1; }
SEC("cgroup/sock_release") int released(void *context) { return 1; }
SEC("cgroup_skb/egress") int egress(void *context) { return 1; }
SEC("sockops") int operate(void *context) { return 1; }
SEC("sk_msg") int message(void *context) { return 1; }
SEC("sk_skb/stream_parser") int parse(void *context) { return 0; }
SEC("sk_reuseport/migrate") int migrate(void *context) { return 1; }
SEC("perf_event") int sample(void *context) { return 0; }
SEC("tp_btf/sched_switch") int with_types(void *context) { return 0; }
SEC("iter/task") int iterate(void *context) { return 0; }
SEC("lwt_seg6local") int segment(void *context) { return 0; }
SEC("xdp.frags") int fragments(void *context) { return 2; }
SEC("xdp/devmap") int leaving(void *context) { return 2; }
SEC("uprobe.s") int user(void *context) { return 0; }
SEC("kprobe.multi/vfs_*") int many(void *context) { return 0; }
