/* The hashing of entries and trees (formats F3-F5) over Arrow buffers; the Python beside it is the reference and must give the same bytes.
 *
 * Nothing is allocated and nothing is kept. In it: HMAC-SHA-256 tags, commitments, the root of RFC 9162, and the canonical JSON of rows
 * (formats F3). */
#include "sha.h"

/* Which SHA-256 runs: 1 for the processor's instructions. */
DZ_API int dz_instructions(void) { return engine_of(0).one != blocks_portable; }

/* For each of `count` messages, data[offsets[i]:offsets[i + 1]], the first 16 bytes of its HMAC at out + i * stride. */
DZ_API void dz_tags(const u8 *key, const u8 *data, const int32_t *offsets, int64_t count, u8 *out, int64_t stride, int portable)
{
    Engine run = engine_of(portable);
    Mac mac = keyed(run, key);
    u8 found[32];
    for (int64_t i = 0; i < count; i++) {
        mac_of(run, &mac, data + offsets[i], (u64)(offsets[i + 1] - offsets[i]), found);
        memcpy(out + i * stride, found, 16);
    }
}

/* For each record d = SHA-256(record), salt = HMAC(d), and SHA-256(salt || d), 32 bytes, at out + i * stride (formats F4). */
DZ_API void dz_commitments(const u8 *key, const u8 *data, const int32_t *offsets, int64_t count, u8 *out, int64_t stride, int portable)
{
    Engine run = engine_of(portable);
    Mac mac = keyed(run, key);
    u8 both[64];
    for (int64_t i = 0; i < count; i++) {
        finish(run, (Message){FIRST, 0, data + offsets[i], (u64)(offsets[i + 1] - offsets[i]), both + 32});
        mac_of(run, &mac, both + 32, 32, both);
        finish(run, (Message){FIRST, 0, both, 64, out + i * stride});
    }
}

#define DZ_PIECE 256 /* leaves that are hashed level by level; a power of two */

/* The root over `count` leaves, 1 to DZ_PIECE (RFC 9162 section 2.1.1); an odd node out moves up as it is. */
static void piece_root(Engine run, const u8 *entries, int64_t count, u8 out[32])
{
    u8 nodes[DZ_PIECE][32], one[65], two[65];
    one[0] = two[0] = 0;
    for (int64_t i = 0; i < count; i += 2) {
        memcpy(one + 1, entries + 64 * i, 64);
        if (i + 1 == count) {
            finish(run, (Message){FIRST, 0, one, 65, nodes[i]});
            continue;
        }
        memcpy(two + 1, entries + 64 * i + 64, 64);
        finish_two(run, (Message){FIRST, 0, one, 65, nodes[i]}, (Message){FIRST, 0, two, 65, nodes[i + 1]});
    }
    one[0] = two[0] = 1;
    for (; count > 1; count = (count + 1) / 2) {
        int64_t i = 0;
        for (; i + 3 < count; i += 4) {
            memcpy(one + 1, nodes[i], 64);
            memcpy(two + 1, nodes[i + 2], 64);
            finish_two(run, (Message){FIRST, 0, one, 65, nodes[i / 2]}, (Message){FIRST, 0, two, 65, nodes[i / 2 + 1]});
        }
        for (; i + 1 < count; i += 2) {
            memcpy(one + 1, nodes[i], 64);
            finish(run, (Message){FIRST, 0, one, 65, nodes[i / 2]});
        }
        if (i < count)
            memcpy(nodes[i / 2], nodes[i], 32);
    }
    memcpy(out, nodes[0], 32);
}

/* The root of the tree over `count` entries of 64 bytes (RFC 9162 section 2.1.1). */
static void tree(Engine run, const u8 *entries, int64_t count, u8 *out)
{
    u8 stack[64][32], node[65] = {1};
    int depth = 0;
    if (count < 1) {
        finish(run, (Message){FIRST, 0, node, 0, out});
        return;
    }
    for (int64_t piece = 0; piece * DZ_PIECE < count; piece++) {
        u8 hash[32];
        int64_t left = count - piece * DZ_PIECE;
        piece_root(run, entries + 64 * DZ_PIECE * piece, left < DZ_PIECE ? left : DZ_PIECE, hash);
        /* Each 1 at the end of the count of pieces is a complete subtree as large as the one growing on its right. */
        for (int64_t carry = left < DZ_PIECE ? 0 : piece; carry & 1; carry >>= 1) {
            memcpy(node + 1, stack[--depth], 32);
            memcpy(node + 33, hash, 32);
            finish(run, (Message){FIRST, 0, node, 65, hash});
        }
        memcpy(stack[depth++], hash, 32);
    }
    memcpy(out, stack[--depth & 63], 32);
    while (depth > 0) {
        memcpy(node + 1, stack[--depth], 32);
        memcpy(node + 33, out, 32);
        finish(run, (Message){FIRST, 0, node, 65, out});
    }
}

DZ_API void dz_root(const u8 *entries, int64_t count, u8 *out, int portable) { tree(engine_of(portable), entries, count, out); }

/* The roots of the trees over `each` entries at a time, the last over what remains: ceil(count / each) hashes at out. */
DZ_API void dz_subroots(const u8 *entries, int64_t count, int64_t each, u8 *out, int portable)
{
    Engine run = engine_of(portable);
    for (int64_t at = 0; at < count; at += each, out += 32)
        tree(run, entries + 64 * at, count - at < each ? count - at : each, out);
}

/* A column of text: Arrow's buffers; `valid` is NULL where nothing is null, `first` its bit for row 0. */
typedef struct {
    const u8 *data;
    const int32_t *offsets;
    const u8 *valid;
    int64_t first;
    const u8 *before; /* what stands before the value: separators and the member's name */
    int64_t before_size;
} Column;

static int is_null(const Column *column, int64_t row)
{
    int64_t bit = column->first + row;
    return column->valid && !(column->valid[bit >> 3] >> (bit & 7) & 1);
}

/* What a byte of a JSON string takes beyond itself (RFC 8785 section 3.2.2.2), and the letter of the short escapes. */
static const u8 MORE[256] = {[0 ... 7] = 5, [8 ... 10] = 1, [11] = 5, [12 ... 13] = 1, [14 ... 31] = 5, ['"'] = 1, ['\\'] = 1};
static const u8 LETTER[32] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};

/* Whether every byte stands as it is; written so that the compiler looks at many at once. */
static int is_plain(const u8 *data, int64_t size)
{
    u8 found = 0;
    for (int64_t i = 0; i < size; i++)
        found |= (u8)(data[i] < 0x20) | (u8)(data[i] == '"') | (u8)(data[i] == '\\');
    return !found;
}

u8 *dz_escaped(const u8 *data, int64_t size, u8 *out)
{
    static const char digits[] = "0123456789abcdef";
    for (const u8 *p = data; p < data + size; p++) {
        if (!MORE[*p]) {
            *out++ = *p;
            continue;
        }
        *out++ = '\\';
        if (*p >= 0x20 || LETTER[*p]) {
            *out++ = *p >= 0x20 ? *p : LETTER[*p];
            continue;
        }
        memcpy(out, "u00", 3);
        out[3] = (u8)digits[*p >> 4], out[4] = (u8)digits[*p & 15];
        out += 5;
    }
    return out;
}

/* Where each of `count` objects would end: ends[0] = 0, then their sizes added up; -1 where they do not fit into 31 bits. */
DZ_API int64_t dz_json_ends(const Column *columns, int64_t width, int64_t tail_size, int64_t count, int32_t *ends)
{
    int64_t total = 0;
    ends[0] = 0;
    for (int64_t row = 0; row < count; row++) {
        total += tail_size;
        for (int64_t at = 0; at < width; at++) {
            const Column *column = columns + at;
            total += column->before_size;
            if (is_null(column, row)) {
                total += 4;
                continue;
            }
            const u8 *value = column->data + column->offsets[row];
            int64_t size = column->offsets[row + 1] - column->offsets[row];
            total += 2 + size;
            for (int64_t i = is_plain(value, size) ? size : 0; i < size; i++)
                total += MORE[value[i]];
        }
        if (total > INT32_MAX)
            return -1;
        ends[row + 1] = (int32_t)total;
    }
    return total;
}

/* The objects themselves, one after the other; `out` has room for what dz_json_ends said. */
DZ_API void dz_json(const Column *columns, int64_t width, const u8 *tail, int64_t tail_size, int64_t count, u8 *out)
{
    for (int64_t row = 0; row < count; row++) {
        for (int64_t at = 0; at < width; at++) {
            const Column *column = columns + at;
            memcpy(out, column->before, (size_t)column->before_size);
            out += column->before_size;
            if (is_null(column, row)) {
                memcpy(out, "null", 4);
                out += 4;
                continue;
            }
            *out++ = '"';
            const u8 *value = column->data + column->offsets[row];
            int64_t size = column->offsets[row + 1] - column->offsets[row];
            if (is_plain(value, size)) {
                memcpy(out, value, (size_t)size);
                out += size;
            } else {
                out = dz_escaped(value, size, out);
            }
            *out++ = '"';
        }
        memcpy(out, tail, (size_t)tail_size);
        out += tail_size;
    }
}
