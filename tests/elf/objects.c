/* Objects of a program's own: made, dropped, counted, in kptrs and lists of map values and of globals.
 *
 *     clang -O2 -g -fdebug-compilation-dir=. -target bpf -mcpu=v3 -c objects.c -o objects.o
 *     llvm-strip --strip-debug objects.o
 */

#include "bpf_objects.h"

SEC("tc") int roundtrip(void *context)
{
    struct item *item = bpf_obj_new(struct item);
    int result;

    if (!item)
        return -1;
    result = item->number == 0 && item->last == 0;
    item->number = 40;
    item->last = 2;
    result += item->number + item->last;
    bpf_obj_drop(item);
    return result;
}

SEC("tc") int queued(void *context)
{
    u32 key = 0, i;
    struct queue *queue = bpf_map_lookup_elem(&queues, &key);
    struct bpf_list_node *node;
    struct item *item;

    if (!queue)
        return -1;
    for (i = 0; i < 4; i++) {
        item = bpf_obj_new(struct item);
        if (!item)
            return -2;
        item->number = i + 1;
        bpf_spin_lock(&queue->lock);
        if (i & 1)
            bpf_list_push_front_impl(&queue->head, &item->node, 0, 0);
        else
            bpf_list_push_back_impl(&queue->head, &item->node, 0, 0);
        item->last = 10 * item->number;
        bpf_spin_unlock(&queue->lock);
    }
    return 0;
}

SEC("tc") int flood(void *context)
{
    u32 key = 1, i;
    struct queue *queue = bpf_map_lookup_elem(&queues, &key);
    struct item *item;

    if (!queue)
        return -1;
    for (i = 0; i < 2000; i++) {
        item = bpf_obj_new(struct item);
        if (!item)
            break;
        bpf_spin_lock(&queue->lock);
        bpf_list_push_front_impl(&queue->head, &item->node, 0, 0);
        bpf_spin_unlock(&queue->lock);
    }
    return i;
}

SEC("tc") int taken(void *context)
{
    u32 key = 0, result = 0, i;
    struct queue *queue = bpf_map_lookup_elem(&queues, &key);
    struct bpf_list_node *node;
    struct item *item;

    if (!queue)
        return -1;
    for (i = 0; i < 5; i++) {
        bpf_spin_lock(&queue->lock);
        node = i & 1 ? bpf_list_pop_back(&queue->head) : bpf_list_pop_front(&queue->head);
        bpf_spin_unlock(&queue->lock);
        if (!node)
            break;
        item = container_of(node, struct item, node);
        result = result * 100 + item->last;
        bpf_obj_drop(item);
    }
    return result * 10 + i;
}

SEC("tc") int ends(void *context)
{
    u32 key = 0, result = 0;
    struct queue *queue = bpf_map_lookup_elem(&queues, &key);
    struct bpf_list_node *node;

    if (!queue)
        return -1;
    bpf_spin_lock(&queue->lock);
    node = bpf_list_front(&queue->head);
    if (node)
        result = container_of(node, struct item, node)->number;
    node = bpf_list_back(&queue->head);
    if (node)
        result = 10 * result + container_of(node, struct item, node)->number;
    bpf_spin_unlock(&queue->lock);
    return result;
}

SEC("tc") int exchanged(void *context)
{
    u32 key = 1;
    struct slot *slot = bpf_map_lookup_elem(&slots, &key);
    struct item *item, *before;
    int result = 7;

    if (!slot)
        return -1;
    item = bpf_obj_new(struct item);
    if (!item)
        return -2;
    item->number = 5;
    before = bpf_kptr_xchg(&slot->item, item);
    if (before) {
        result = 100 + before->number;
        bpf_obj_drop(before);
    }
    return result;
}

SEC("tc") int overwritten(void *context)
{
    u32 key = 1;
    struct slot empty = {};

    return bpf_map_update_elem(&slots, &key, &empty, 0);
}

SEC("tc") int shared(void *context)
{
    struct counted *one = bpf_obj_new(struct counted), *two;
    struct bpf_list_node *node;
    int result = 0;

    if (!one)
        return -1;
    one->number = 3;
    two = bpf_refcount_acquire_impl(one, 0);
    bpf_spin_lock(&lock);
    result = bpf_list_push_back_impl(&list, &one->node, 0, 0);
    bpf_spin_unlock(&lock);
    bpf_spin_lock(&lock);
    result += 1000 * bpf_list_push_back_impl(&list, &two->node, 0, 0);
    node = bpf_list_pop_front(&list);
    bpf_spin_unlock(&lock);
    if (!node)
        return -2;
    one = container_of(node, struct counted, node);
    result += one->number;
    bpf_obj_drop(one);
    return result;
}

struct leaf { u64 number; struct bpf_rb_node node; };
private(T) struct bpf_spin_lock tree_lock;
private(T) struct bpf_rb_root tree __contains(leaf, node);
u64 numbers[16] = {50, 20, 80, 10, 30, 70, 90, 60, 75, 85, 95, 5, 15, 25, 35, 20};
u32 removed = 3;

static int less(struct bpf_rb_node *one, const struct bpf_rb_node *other)
{
    return container_of(one, struct leaf, node)->number < container_of(other, struct leaf, node)->number;
}

static NOINLINE int plant(u64 number)
{
    struct leaf *leaf = bpf_obj_new(struct leaf);

    if (!leaf)
        return 1;
    leaf->number = number;
    bpf_spin_lock(&tree_lock);
    bpf_rbtree_add_impl(&tree, &leaf->node, less, 0, 0);
    bpf_spin_unlock(&tree_lock);
    return 0;
}

SEC("tc") int planted(void *context)
{
    u32 i;

    for (i = 0; i < 16; i++)
        plant(numbers[i]);
    return 0;
}

/* The number at the top, then those below it at the left and at the right. */
static NOINLINE u64 shape_of_tree(void)
{
    struct bpf_rb_node *node, *below;
    u64 result = 0;

    bpf_spin_lock(&tree_lock);
    node = bpf_rbtree_root(&tree);
    if (node) {
        result = container_of(node, struct leaf, node)->number;
        below = bpf_rbtree_left(&tree, node);
        if (below)
            result = result * 100 + container_of(below, struct leaf, node)->number;
        below = bpf_rbtree_right(&tree, node);
        if (below)
            result = result * 100 + container_of(below, struct leaf, node)->number;
    }
    bpf_spin_unlock(&tree_lock);
    return result;
}

static NOINLINE u32 harvest(void)
{
    struct bpf_rb_node *node;
    struct leaf *leaf;
    u32 i, result = 0;

    for (i = 0; i < (removed & 31); i++) {
        bpf_spin_lock(&tree_lock);
        node = bpf_rbtree_first(&tree);
        if (!node) {
            bpf_spin_unlock(&tree_lock);
            break;
        }
        node = bpf_rbtree_remove(&tree, node);
        bpf_spin_unlock(&tree_lock);
        if (!node)
            return -1;
        leaf = container_of(node, struct leaf, node);
        result = result * 31 + leaf->number;
        bpf_obj_drop(leaf);
    }
    return result;
}

SEC("tc") int shape(void *context) { return shape_of_tree(); }
SEC("tc") int harvested(void *context) { return harvest(); }

SEC("tc") int grown(void *context)
{
    u32 i;

    for (i = 0; i < 16; i++)
        plant(numbers[i]);
    seen[0] = shape_of_tree();
    seen[1] = harvest();
    seen[2] = shape_of_tree();
    plant(numbers[0] + 1);
    plant(numbers[3] + 1);
    seen[3] = shape_of_tree();
    seen[4] = harvest();
    seen[5] = shape_of_tree();
    seen[6] = harvest();
    seen[7] = shape_of_tree();
    return seen[0] ^ seen[1] << 1 ^ seen[2] << 2 ^ seen[3] << 3 ^ seen[4] << 4 ^ seen[5] << 5 ^ seen[6] << 6 ^ seen[7] << 7;
}

/* What Linux's verifier refuses. */

SEC("tc") int forgotten(void *context)
{
    struct item *item = bpf_obj_new(struct item);

    seen[0] = (u64)item;
    return 1;
}

SEC("tc") int after_drop(void *context)
{
    struct item *item = bpf_obj_new(struct item);

    bpf_obj_drop(item);
    return item->number;
}

SEC("tc") int dropped_twice(void *context)
{
    struct item *item = bpf_obj_new(struct item);

    bpf_obj_drop(item);
    bpf_obj_drop(item);
    return 0;
}

SEC("tc") int after_unlock(void *context)
{
    u32 key = 0;
    struct queue *queue = bpf_map_lookup_elem(&queues, &key);
    struct item *item = bpf_obj_new(struct item);

    if (!queue)
        return 0;
    bpf_spin_lock(&queue->lock);
    bpf_list_push_front_impl(&queue->head, &item->node, 0, 0);
    bpf_spin_unlock(&queue->lock);
    return item->number;
}

SEC("tc") int without_lock(void *context)
{
    u32 key = 0;
    struct queue *queue = bpf_map_lookup_elem(&queues, &key);

    return queue && bpf_list_pop_front(&queue->head);
}

SEC("tc") int wrong_struct(void *context)
{
    u32 key = 0;
    struct queue *queue = bpf_map_lookup_elem(&queues, &key);
    struct other *other = bpf_obj_new(struct other);

    if (!queue)
        return 0;
    bpf_spin_lock(&queue->lock);
    bpf_list_push_front_impl(&queue->head, &other->node, 0, 0);
    bpf_spin_unlock(&queue->lock);
    return 0;
}

SEC("tc") int new_under_lock(void *context)
{
    u32 key = 0;
    struct queue *queue = bpf_map_lookup_elem(&queues, &key);

    if (!queue)
        return 0;
    bpf_spin_lock(&queue->lock);
    bpf_obj_drop(bpf_obj_new(struct item));
    bpf_spin_unlock(&queue->lock);
    return 0;
}

static int first_of(struct bpf_list_head *head)
{
    struct bpf_list_node *node;
    struct item *item;
    int number = 0;

    bpf_spin_lock(&array_lock);
    node = bpf_list_pop_front(head);
    bpf_spin_unlock(&array_lock);
    if (node) {
        item = container_of(node, struct item, node);
        number = item->number;
        bpf_obj_drop(item);
    }
    return number;
}

SEC("tc") int in_an_array(void *context)
{
    struct item *item = bpf_obj_new(struct item);

    if (!item)
        return -1;
    item->number = 7;
    bpf_spin_lock(&array_lock);
    bpf_list_push_front_impl(&lists[1], &item->node, 0, 0);
    bpf_spin_unlock(&array_lock);
    return 100 * first_of(&lists[0]) + 10 * first_of(&lists[1]) + first_of(&lists[1]);
}

char _license[] SEC("license") = "GPL";
