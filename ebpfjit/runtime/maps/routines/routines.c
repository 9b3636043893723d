/* What programs do to maps, on the flat memory of ../flat.py and ../hash.py.
 *
 *     make routines      clang -target bpf -> one .bin of eBPF instructions for each function
 *
 * The JIT makes bare native functions of them, which machine code calls: no frame, no budget, no
 * checks. ../hash.py says the same in Python, for the interpreter; a test compares all three. The
 * benchmark compiles this very file with gcc, to be held against.
 *
 * map points to the header, key and value to as many bytes as it says. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

#define INLINE static inline __attribute__((always_inline))
#define SECTION(name) __attribute__((section("routine." name))) /* so that objcopy can take each by itself */

enum { ENOENT = 2, E2BIG = 7, ENOMEM = 12, EEXIST = 17, EINVAL = 22 };
enum { BPF_ANY, BPF_NOEXIST, BPF_EXIST, BPF_F_LOCK = 4 };
enum { IN_USE = 1, LOOKED_UP = 2 };
enum { LONGEST_PREFIX = 4 + 256 }; /* bytes of a key with its length */
enum { LONGEST_CHAIN = 64, MOST_PASSED = 128 }; /* so that no walk is long, whoever chose the keys */

struct map {         /* HEADER in ../flat.py */
    u8 *values;      /* of the running CPU */
    u8 *keys;
    u32 *buckets;    /* entry + 1 of a chain's first, 0 for none */
    u32 *links;      /* entry + 1 of the next in the chain, or of the next free entry */
    u8 *states;
    u8 *first_values; /* of CPU 0 */
    u64 cpu_stride;
    const u64 *secrets; /* one for each word of a key, and one more */
    u32 *newer;      /* of LRU kinds, by entry + 1: the next younger one; at 0 the oldest of all */
    u32 *older;      /* the other way round */
    const u32 *lengths; /* of LPM tries: how many prefix lengths there are, then these, the longest first */
    u32 cpus, key_size, value_size, value_stride, max_entries, mask, count, used, free, is_lru;
    u32 busy; /* Python is in the middle of a change: callers look before they come here */
    u32 lock; /* and take this where code without Python's lock uses the map */
    u32 version; /* odd while a shared map is changed: lookups without the lock look before and after */
};

#define MULTIPLIER 0x9E3779B97F4A7C15ull

/* The words of a key, each times a secret of its own: nobody can choose keys that meet (see ../hash.py). */
INLINE u64 hash_of(const struct map *map, const u8 *key, u32 size)
{
    const u64 *secret = map->secrets;
    u64 hash = 0;
    for (; size >= 4; size -= 4, key += 4)
        hash += *secret++ * *(const u32 *)key;
    if (size & 2) {
        hash += *secret++ * *(const u16 *)key;
        key += 2;
    }
    if (size & 1)
        hash += *secret++ * *key;
    hash += *secret;
    hash = (hash ^ hash >> 32) * MULTIPLIER;
    return hash ^ hash >> 32;
}

INLINE int same(const u8 *one, const u8 *other, u32 size)
{
    for (; size >= 8; size -= 8, one += 8, other += 8)
        if (*(const u64 *)one != *(const u64 *)other)
            return 0;
    if (size & 4) {
        if (*(const u32 *)one != *(const u32 *)other)
            return 0;
        one += 4;
        other += 4;
    }
    if (size & 2) {
        if (*(const u16 *)one != *(const u16 *)other)
            return 0;
        one += 2;
        other += 2;
    }
    return !(size & 1) || *one == *other;
}

/* They may overlap. */
INLINE void copy(u8 *to, const u8 *from, u32 size)
{
    if ((u64)to - (u64)from < size) { /* `to` starts inside: from the end */
        for (; size & 7; size--)
            to[size - 1] = from[size - 1];
        for (; size; size -= 8)
            *(u64 *)(to + size - 8) = *(const u64 *)(from + size - 8);
        return;
    }
    for (; size >= 8; size -= 8, to += 8, from += 8)
        *(u64 *)to = *(const u64 *)from;
    for (; size; size--)
        *to++ = *from++;
}

/* The entry + 1 of a key, 0 where it is not there. */
INLINE u32 find(const struct map *map, const u8 *key, u32 size)
{
    const u8 *keys = map->keys;
    u32 link = map->buckets[(u32)hash_of(map, key, size) & map->mask];
    while (link && !same(keys + (u64)(link - 1) * size, key, size))
        link = map->links[link - 1];
    return link;
}

INLINE u8 *value_of(const struct map *map, u32 link)
{
    return map->values + (u64)(link - 1) * map->value_stride;
}

/* One function for each size of key that is common: what is constant is folded. */
#define LOOKUP(name, size)                          \
    SECTION(#name)                                  \
    u8 *name(struct map *map, const u8 *key)        \
    {                                               \
        u32 link = find(map, key, size);            \
        if (!link)                                  \
            return 0;                               \
        if (map->is_lru)                            \
            map->states[link - 1] |= LOOKED_UP;     \
        return value_of(map, link);                 \
    }

LOOKUP(hash_lookup, map->key_size)
LOOKUP(hash_lookup_4, 4)
LOOKUP(hash_lookup_8, 8)
LOOKUP(hash_lookup_16, 16)

/* The longest prefix that matches is the first that is there: each has the bits behind it zero. Callers have
 * paid for the lengths, and the key's own is not too large. */
INLINE u8 *match(const struct map *map, const u8 *key, u32 size)
{
    u32 longest = *(const u32 *)key, cleared = size;
    const u32 *length = map->lengths, *stop = length + *length;
    __attribute__((aligned(8))) u8 prefix[(LONGEST_PREFIX + 7) / 8 * 8];

    for (u32 at = 0; at < size; at++)
        prefix[at] = key[at];
    while (length++ != stop) {
        u32 at = 4 + (*length >> 3), link;
        if (*length > longest)
            continue;
        while (cleared > at + 1)
            prefix[--cleared] = 0;
        if (at < size)
            prefix[at] &= ~(0xff >> (*length & 7));
        *(u32 *)prefix = *length;
        link = find(map, prefix, size);
        if (link)
            return value_of(map, link);
    }
    return 0;
}

#define LPM_LOOKUP(name, size)                      \
    SECTION(#name)                                  \
    u8 *name(struct map *map, const u8 *key)        \
    {                                               \
        return match(map, key, size);               \
    }

LPM_LOOKUP(lpm_lookup, map->key_size)
LPM_LOOKUP(lpm_lookup_8, 8)
LPM_LOOKUP(lpm_lookup_20, 20)

/* Put an entry behind the youngest. */
INLINE void join(struct map *map, u32 link)
{
    u32 youngest = map->older[0];
    map->newer[youngest] = link;
    map->older[link] = youngest;
    map->newer[link] = 0;
    map->older[0] = link;
}

/* Take an entry out of the order of ages. */
INLINE void leave(struct map *map, u32 link)
{
    u32 newer = map->newer[link], older = map->older[link];
    map->newer[older] = newer;
    map->older[newer] = older;
}

/* Take an entry out of its chain, and out of the order of ages. */
INLINE void unlink(struct map *map, u32 link)
{
    u32 size = map->key_size;
    const u8 *key = map->keys + (u64)(link - 1) * size;
    u32 *place = &map->buckets[(u32)hash_of(map, key, size) & map->mask];
    while (*place != link)
        place = &map->links[*place - 1];
    *place = map->links[link - 1];
    map->states[link - 1] = 0;
    if (map->is_lru)
        leave(map, link);
    map->count--;
}

/* Remove the oldest entry that was not looked up of late; or the next behind as many as may be passed over,
 * which become the youngest. */
INLINE u32 evict(struct map *map)
{
    u32 oldest = map->newer[0];
    for (u32 passed = 0; map->states[oldest - 1] & LOOKED_UP && passed < MOST_PASSED; passed++) {
        map->states[oldest - 1] = IN_USE;
        leave(map, oldest);
        join(map, oldest);
        oldest = map->newer[0];
    }
    unlink(map, oldest);
    return oldest;
}

SECTION("hash_update")
s64 hash_update(struct map *map, const u8 *key, const u8 *value, u64 flags)
{
    u32 size = map->key_size, link, steps = 0;
    u32 *bucket = &map->buckets[(u32)hash_of(map, key, size) & map->mask];

    if (flags > BPF_EXIST)
        return -EINVAL;
    link = *bucket;
    while (link && !same(map->keys + (u64)(link - 1) * size, key, size)) {
        link = map->links[link - 1];
        steps++;
    }
    if (link) {
        if (flags == BPF_NOEXIST)
            return -EEXIST;
        if (map->is_lru) { /* the youngest from now on */
            leave(map, link);
            join(map, link);
            map->states[link - 1] |= LOOKED_UP;
        }
        copy(value_of(map, link), value, map->value_size);
        return 0;
    }
    if (flags == BPF_EXIST)
        return -ENOENT;
    if (steps >= LONGEST_CHAIN)
        return -ENOMEM;
    if (map->free) {
        link = map->free;
        map->free = map->links[link - 1];
    } else if (map->used < map->max_entries) {
        link = ++map->used;
    } else if (map->is_lru) {
        link = evict(map);
    } else {
        return -E2BIG;
    }
    copy(map->keys + (u64)(link - 1) * size, key, size);
    map->links[link - 1] = *bucket;
    *bucket = link;
    map->states[link - 1] = IN_USE;
    if (map->is_lru)
        join(map, link);
    map->count++;
    /* First, as it may lie in what is cleared: the memory of a value that was deleted. */
    copy(value_of(map, link), value, map->value_size);
    if (map->cpus > 1) {
        u8 *own = value_of(map, link);
        u8 *zeroed = map->first_values + (u64)(link - 1) * map->value_stride;
        for (u32 byte = map->value_size; byte < map->value_stride; byte++)
            *(volatile u8 *)(own + byte) = 0;
        for (u32 cpu = 0; cpu < map->cpus; cpu++, zeroed += map->cpu_stride)
            for (u32 word = 0; zeroed != own && word < map->value_stride; word += 8)
                *(volatile u64 *)(zeroed + word) = 0;
    }
    return 0;
}

SECTION("hash_delete")
s64 hash_delete(struct map *map, const u8 *key)
{
    u32 link = find(map, key, map->key_size);
    if (!link)
        return -ENOENT;
    unlink(map, link);
    map->links[link - 1] = map->free;
    map->free = link;
    return 0;
}

SECTION("array_update")
s64 array_update(struct map *map, const u8 *key, const u8 *value, u64 flags)
{
    u32 index = *(const u32 *)key;
    if ((flags & ~(u64)BPF_F_LOCK) > BPF_EXIST)
        return -EINVAL;
    if (index >= map->max_entries)
        return -E2BIG;
    if (flags & BPF_NOEXIST)
        return -EEXIST;
    if (flags & BPF_F_LOCK) /* maps with a lock in their values are left to Python */
        return -EINVAL;
    copy(value_of(map, index + 1), value, map->value_size);
    return 0;
}
