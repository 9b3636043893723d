/* What is done to each packet of a capture: found, put behind an Ethernet header, written.
 *
 *     make routines      clang -target bpf -> one .bin of eBPF instructions for each function
 *
 * They run as any program does, with all checks: a damaged capture ends in a status or in a fault, never
 * outside of the two buffers that each is given: a window of the file, and `struct work` with what is behind it.
 * Where there is no machine code the interpreter runs them. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define INLINE static inline __attribute__((always_inline))
#define SECTION(name) __attribute__((section("routine." name), used)) /* so that objcopy can take each by itself */

enum { NANOSECONDS = 1000000000 };
enum { SECTION_HEADER = 0x0A0D0D0A, INTERFACE = 1, OLD_PACKET = 2, SIMPLE_PACKET = 3, PACKET = 6 };
enum status { END, FULL, PARTIAL, HEADER, OTHER_LINK, BAD_SIZE, BAD_INTERFACE, BAD_TRAILER, SHORT_BLOCK, STOPPED }; /* Status in ../walk.py */

struct interface {
    u32 link, snap;
    u64 divisor, units; /* a time is so many units of a second, once it is divided */
    u64 start;          /* nanoseconds that are added */
};

struct work { /* WORK in ../walk.py */
    u8 *data;
    u64 size;
    u64 position; /* of the next record in the window */
    u64 capacity, count;
    u32 status, swapped;
    u32 link, interfaces;
    u64 largest;
    u64 stop; /* the first record from here on is another's */
    u64 columns[]; /* offsets, lengths, times, sizes on the wire: `capacity` of each; then the interfaces */
};

INLINE const struct interface *known(const struct work *work)
{
    return (const struct interface *)(work->columns + 4 * work->capacity);
}

INLINE u32 load(const struct work *work, const u8 *at)
{
    u32 value = *(const u32 *)at;
    return work->swapped ? __builtin_bswap32(value) : value;
}

INLINE u32 load_half(const struct work *work, const u8 *at)
{
    u16 value = *(const u16 *)at;
    return work->swapped ? __builtin_bswap16(value) : value;
}

INLINE void add(struct work *work, u64 offset, u64 length, u64 time, u64 wire)
{
    u64 capacity = work->capacity;
    u64 *row = work->columns + work->count;
    row[0] = offset;
    row[capacity] = length;
    row[2 * capacity] = time;
    row[3 * capacity] = wire < length ? length : wire;
    work->count++;
}

/* pcap:  [seconds, fraction, length, size on the wire] [packet] ... */
SECTION("pcap") u64 walk_pcap(struct work *work)
{
    u64 position = work->position, size = work->size, scale = NANOSECONDS / known(work)->units;
    u32 status = FULL;
    while (work->count < work->capacity) {
        const u8 *at = work->data + position;
        if (position >= work->stop) {
            status = STOPPED;
            break;
        }
        if (position + 16 > size) {
            status = position == size ? END : PARTIAL;
            break;
        }
        u64 length = load(work, at + 8);
        if (length > work->largest) {
            status = BAD_SIZE;
            break;
        }
        if (position + 16 + length > size) {
            status = PARTIAL;
            break;
        }
        u64 time = (u64)load(work, at) * NANOSECONDS + load(work, at + 4) * scale;
        add(work, position + 16, length, time, load(work, at + 12));
        position += 16 + length;
    }
    work->position = position;
    work->status = status;
    return status;
}

/* pcapng:  [type, size, body, size] ...  Sections and interfaces are for the caller, other blocks are passed over. */
SECTION("pcapng") u64 walk_pcapng(struct work *work)
{
    u64 position = work->position, size = work->size;
    u32 status = FULL;
    while (work->count < work->capacity) {
        const u8 *at = work->data + position;
        if (position >= work->stop) {
            status = STOPPED;
            break;
        }
        if (position + 12 > size) {
            status = position == size ? END : PARTIAL;
            break;
        }
        u32 type = load(work, at);
        u64 length = load(work, at + 4);
        if (type == SECTION_HEADER || type == INTERFACE) {
            status = HEADER;
            break;
        }
        if (length < 12 || length & 3 || length > work->largest + 64) {
            status = BAD_SIZE;
            break;
        }
        if (position + length > size) {
            status = PARTIAL;
            break;
        }
        if (load(work, at + length - 4) != length) {
            status = BAD_TRAILER;
            break;
        }
        if (type == PACKET || type == OLD_PACKET || type == SIMPLE_PACKET) {
            u32 start = type == SIMPLE_PACKET ? 12 : 28;
            if (length < start + 4) {
                status = SHORT_BLOCK;
                break;
            }
            u32 number = type == PACKET ? load(work, at + 8) : type == OLD_PACKET ? load_half(work, at + 8) : 0;
            if (number >= work->interfaces) {
                status = BAD_INTERFACE;
                break;
            }
            const struct interface *from = known(work) + number;
            if (from->link != work->link) {
                status = OTHER_LINK;
                break;
            }
            u64 time = 0, kept, wire;
            if (type == SIMPLE_PACKET) {
                kept = wire = load(work, at + 8);
                if (from->snap && kept > from->snap)
                    kept = from->snap;
                if (kept > length - 16)
                    kept = length - 16;
            } else {
                u64 ticks = ((u64)load(work, at + 12) << 32 | load(work, at + 16)) / from->divisor;
                u64 seconds = ticks / from->units, rest = ticks % from->units;
                time = seconds * NANOSECONDS + rest * NANOSECONDS / from->units + from->start;
                kept = load(work, at + 20);
                wire = load(work, at + 24);
            }
            if (kept > length - start - 4) {
                status = SHORT_BLOCK;
                break;
            }
            add(work, position + start, kept, time, wire);
        }
        position += length;
    }
    work->position = position;
    work->status = status;
    return status;
}

INLINE void copy(u8 *to, const u8 *from, u64 size)
{
    for (; size >= 8; size -= 8, to += 8, from += 8)
        *(u64 *)to = *(const u64 *)from;
    for (; size; size--)
        *to++ = *from++;
}

struct move { /* MOVE in ../moves.py */
    const u8 *data;
    u64 size;
    u64 count, position; /* where the next goes, behind the columns */
    u64 link;
    u64 chosen; /* not 0: behind the columns is a byte for each packet, 0 where it is left out */
    u64 columns[]; /* offsets, lengths, times, sizes on the wire: `count` of each; then bytes */
};

/* Whether a packet is left out. */
INLINE int is_left_out(const struct move *move, u64 n)
{
    return move->chosen && !((const u8 *)(move->columns + 4 * move->count))[n];
}

/* Where what is made begins. */
INLINE u8 *made(struct move *move)
{
    u64 words = move->chosen ? (move->count + 7) / 8 : 0;
    return (u8 *)(move->columns + 4 * move->count + words);
}

enum { NULL_LOOPBACK = 0, LOOPBACK = 108, COOKED = 113, COOKED_2 = 276 };
enum { ETHERNET_SIZE = 14, IPV4 = 0x0008, IPV6 = 0xdd86 }; /* types as they are in memory */

/* The ether type of a packet, as it is in memory, and how many bytes stand before what it is of. */
INLINE u32 type_of(const u8 *packet, u64 length, u64 link, u64 *header)
{
    if (link == COOKED || link == COOKED_2) {
        *header = link == COOKED ? 16 : 20;
        return length < *header ? 0 : *(const u16 *)(packet + (link == COOKED ? 14 : 0));
    }
    if (link == NULL_LOOPBACK || link == LOOPBACK) { /* an address family, 2 for IPv4, of either byte order */
        *header = 4;
        if (length < 4)
            return 0;
        return (packet[0] | packet[3]) == 2 ? IPV4 : IPV6;
    }
    *header = 0;
    return length && packet[0] >> 4 == 6 ? IPV6 : IPV4;
}

/* Put an Ethernet header without addresses in the place of what a link has: offsets and lengths are those of frames. */
SECTION("frames") u64 make_frames(struct move *move)
{
    u64 count = move->count;
    u64 *offsets = move->columns, *lengths = offsets + count, *wires = offsets + 3 * count;
    u8 *bytes = (u8 *)(offsets + 4 * count);
    for (u64 n = 0; n < count; n++) {
        const u8 *packet = move->data + offsets[n];
        u64 length = lengths[n], header;
        u32 type = type_of(packet, length, move->link, &header);
        if (header > length)
            header = length;
        u8 *frame = bytes + move->position;
        *(u64 *)frame = 0;
        *(u32 *)(frame + 8) = 0;
        *(u16 *)(frame + 12) = type;
        copy(frame + ETHERNET_SIZE, packet + header, length - header);
        offsets[n] = move->position;
        lengths[n] = ETHERNET_SIZE + length - header;
        wires[n] += ETHERNET_SIZE - header;
        move->position += lengths[n];
    }
    return 0;
}

/* The records of a pcap file with nanoseconds. */
SECTION("records") u64 make_records(struct move *move)
{
    u64 count = move->count;
    u64 *offsets = move->columns, *lengths = offsets + count, *times = lengths + count, *wires = times + count;
    u8 *bytes = made(move);
    for (u64 n = 0; n < count; n++) {
        if (is_left_out(move, n))
            continue;
        u8 *record = bytes + move->position;
        u64 length = lengths[n];
        *(u32 *)record = times[n] / NANOSECONDS;
        *(u32 *)(record + 4) = times[n] % NANOSECONDS;
        *(u32 *)(record + 8) = length;
        *(u32 *)(record + 12) = wires[n];
        copy(record + 16, move->data + offsets[n], length);
        move->position += 16 + length;
    }
    return 0;
}

/* The blocks of packets of pcapng, with nanoseconds; `link` is the number of the interface. */
SECTION("blocks") u64 make_blocks(struct move *move)
{
    u64 count = move->count;
    u64 *offsets = move->columns, *lengths = offsets + count, *times = lengths + count, *wires = times + count;
    u8 *bytes = made(move);
    for (u64 n = 0; n < count; n++) {
        if (is_left_out(move, n))
            continue;
        u8 *block = bytes + move->position;
        u64 length = lengths[n], size = 32 + ((length + 3) & -4ull);
        *(u32 *)(block + size - 8) = 0; /* padding: the packet is written over it */
        *(u32 *)block = PACKET;
        *(u32 *)(block + 4) = size;
        *(u32 *)(block + 8) = move->link;
        *(u32 *)(block + 12) = times[n] >> 32;
        *(u32 *)(block + 16) = times[n];
        *(u32 *)(block + 20) = length;
        *(u32 *)(block + 24) = wires[n];
        copy(block + 28, move->data + offsets[n], length);
        *(u32 *)(block + size - 4) = size;
        move->position += size;
    }
    return 0;
}

enum { ROWS = 64 }; /* ROWS in ../tally.py */

struct tally { /* TALLY in ../tally.py */
    const u64 *data; /* a verdict for each packet */
    u64 size;
    u64 count, used, done; /* packets, rows in use, packets that were counted */
    struct row {
        u64 value, packets, bytes;
    } rows[ROWS];
    u64 lengths[]; /* of the packets; behind them a byte for each: its row */
};

/* Packets and bytes of each verdict, up to the first packet whose verdict finds no row. */
SECTION("tally") u64 count_verdicts(struct tally *tally)
{
    u64 count = tally->count, used = tally->used, last = 0, n;
    u8 *classes = (u8 *)(tally->lengths + count);
    for (n = 0; n < count; n++) {
        u64 value = tally->data[n];
        if (last >= used || tally->rows[last].value != value) {
            for (last = 0; last < used; last++)
                if (tally->rows[last].value == value)
                    break;
            if (last == used) {
                if (used == ROWS)
                    break;
                tally->rows[used++].value = value;
            }
        }
        struct row *row = tally->rows + last;
        row->packets++;
        row->bytes += tally->lengths[n];
        classes[n] = last;
    }
    tally->used = used;
    tally->done = n;
    return n;
}

struct causes { /* CAUSES in ../causes.py */
    const u64 *data; /* a verdict for each packet */
    u64 size;
    u64 count, used; /* packets, rows in use */
    struct cause {
        u64 verdict, pc, packets;
    } rows[ROWS];
    u64 pcs[]; /* what set the verdict of each packet */
};

/* Packets of each verdict by what set it, up to the first packet that finds no row. */
SECTION("causes") u64 count_causes(struct causes *causes)
{
    u64 count = causes->count, used = causes->used, last = 0, n;
    for (n = 0; n < count; n++) {
        u64 verdict = causes->data[n], pc = causes->pcs[n];
        if (last >= used || causes->rows[last].verdict != verdict || causes->rows[last].pc != pc) {
            for (last = 0; last < used; last++)
                if (causes->rows[last].verdict == verdict && causes->rows[last].pc == pc)
                    break;
            if (last == used) {
                if (used == ROWS)
                    break;
                causes->rows[used].verdict = verdict;
                causes->rows[used++].pc = pc;
            }
        }
        causes->rows[last].packets++;
    }
    causes->used = used;
    return n;
}
