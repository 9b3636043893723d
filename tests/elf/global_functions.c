/* Global functions, which Linux verifies by themselves: what they may be given, and what they may do.
 * clang -O2 -g -target bpf -mcpu=v3 -fdebug-compilation-dir=. -c global_functions.c -o global_functions.o
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
#define SEC(name) __attribute__((section(name), used))
#define GLOBAL __attribute__((noinline))

static void *(*const lookup)(void *, const void *) = (void *)1;
static long (*const adjust_head)(void *, int) = (void *)44;

struct xdp_md { u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex; };
struct pair { u64 first, second; };

struct { int (*type)[2]; int (*max_entries)[4]; u32 *key; struct pair *value; } pairs SEC(".maps");

/* Its own check of NULL lets it be called with a value that was not tested. */
GLOBAL u64 summed(struct pair *pair) { asm volatile(""); return pair ? pair->first + pair->second : 0; }

GLOBAL u64 unsafe(struct pair *pair) { asm volatile(""); return pair->first; }

GLOBAL int moved(struct xdp_md *context) { asm volatile(""); return adjust_head(context, 2); }

GLOBAL u64 doubled(u64 number) { asm volatile(""); return number * 2; }

SEC("xdp") int gives_a_value(struct xdp_md *context)
{
	u32 key = 1;

	return summed(lookup(&pairs, &key)) & 3;
}

SEC("xdp") int gives_the_stack(struct xdp_md *context)
{
	struct pair here = { 1, context->rx_queue_index };

	return summed(&here) & 3;
}

/* summed() reads 16 bytes. */
SEC("xdp") int gives_too_little(struct xdp_md *context)
{
	u64 here = context->rx_queue_index;

	return summed((void *)&here) & 3;
}

SEC("xdp") int calls_unsafe(struct xdp_md *context)
{
	struct pair here = { 1, context->rx_queue_index };

	return unsafe(&here) & 3;
}

SEC("xdp") int moves_the_packet(struct xdp_md *context)
{
	u8 *data = (u8 *)(u64)context->data;

	if (data + 1 > (u8 *)(u64)context->data_end)
		return 0;
	if (moved(context))
		return 1;
	return data[0];
}

/* Nothing is known of what a global function returns: not that it is at most 6. */
SEC("xdp") int trusts_the_result(struct xdp_md *context)
{
	u8 *data = (u8 *)(u64)context->data;

	if (data + 8 > (u8 *)(u64)context->data_end)
		return 0;
	return data[doubled(context->rx_queue_index & 3)];
}

/* What was compared is not known of a pointer that a number was added to later. */
SEC("xdp") int loses_what_it_compared(struct xdp_md *context)
{
	u8 *data = (u8 *)(u64)context->data;

	if (data + 8 > (u8 *)(u64)context->data_end)
		return 0;
	return data[doubled(context->rx_queue_index) & 7];
}

SEC("xdp") int gives_a_pointer_for_a_number(struct xdp_md *context)
{
	return doubled((u64)context) & 1;
}
