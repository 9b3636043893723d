/* The older storage of cgroups: by attach type, for all attach types, and per processor.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c cgroup_storage.c -o cgroup_storage.o
 */
#include "bpf_support.h"

struct bpf_cgroup_storage_key { u64 cgroup_inode_id; u32 attach_type; };
struct counts { u64 packets, bytes; };
struct __sk_buff { u32 len; };

struct { __uint(type, 19); __type(key, struct bpf_cgroup_storage_key); __type(value, struct counts); } isolated SEC(".maps");
struct { __uint(type, 19); __type(key, u64); __type(value, u64); } shared SEC(".maps");
struct { __uint(type, 21); __type(key, struct bpf_cgroup_storage_key); __type(value, u64); } each_cpu SEC(".maps");

static void *(*const bpf_get_local_storage)(void *map, u64 flags) = (void *)81;

static int count(struct __sk_buff *skb)
{
    struct counts *counts = bpf_get_local_storage(&isolated, 0);

    counts->packets++;
    counts->bytes += skb->len;
    return 1;
}

SEC("cgroup_skb/ingress") int ingress(struct __sk_buff *skb)
{
    return count(skb);
}

SEC("cgroup_skb/egress") int egress(struct __sk_buff *skb)
{
    return count(skb);
}

SEC("cgroup_skb/ingress") int into_shared(struct __sk_buff *skb)
{
    *(u64 *)bpf_get_local_storage(&shared, 0) += 1;
    return 1;
}

SEC("cgroup_skb/egress") int out_of_shared(struct __sk_buff *skb)
{
    *(u64 *)bpf_get_local_storage(&shared, 0) += 10;
    return 1;
}

SEC("cgroup_skb/egress") int on_processor(struct __sk_buff *skb)
{
    u64 *value = bpf_get_local_storage(&each_cpu, 0);

    *value += 1;
    return *value == 1;
}

char LICENSE[] SEC("license") = "GPL";
