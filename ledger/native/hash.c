/* The hashing of entries and trees (formats F3-F5) over Arrow buffers; the Python beside it is the reference and must give the same bytes.
 *
 * Nothing is allocated and nothing is kept. In it: HMAC-SHA-256 tags, commitments, the root
 * of RFC 9162, and the canonical JSON of rows (formats F3). SHA-256 is that of FIPS 180-4, with the processor's instructions for it where
 * there are any.
 */
#include "dz.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define DZ_X86 1
#include <cpuid.h>
#include <immintrin.h>
#endif

static const u32 K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static const u32 FIRST[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static u32 turned(u32 x, int by) { return (x >> by) | (x << (32 - by)); }

static void blocks_portable(u32 state[8], const u8 *data, size_t count)
{
    u32 w[64];
    for (; count; count--, data += 64) {
        for (int i = 0; i < 16; i++)
            w[i] = (u32)data[4 * i] << 24 | (u32)data[4 * i + 1] << 16 | (u32)data[4 * i + 2] << 8 | data[4 * i + 3];
        for (int i = 16; i < 64; i++) {
            u32 a = turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ (w[i - 15] >> 3);
            u32 b = turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ (w[i - 2] >> 10);
            w[i] = w[i - 16] + a + w[i - 7] + b;
        }
        u32 a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
        for (int i = 0; i < 64; i++) {
            u32 one = h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) + K[i] + w[i];
            u32 two = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + two;
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e, state[5] += f, state[6] += g, state[7] += h;
    }
}

#ifdef DZ_X86
__attribute__((target("sha,sse4.1,ssse3"))) static void blocks_x86(u32 state[8], const u8 *data, size_t count)
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bULL, 0x0405060700010203ULL);
    __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xB1);
    __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1B);
    __m128i abef = _mm_alignr_epi8(low, high, 8), cdgh = _mm_blend_epi16(high, low, 0xF0);
    for (; count; count--, data += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4];
        for (int i = 0; i < 4; i++)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 16 * i)), swap);
        for (int i = 0; i < 16; i++) {
            __m128i now = w[i & 3];
            __m128i sum = _mm_add_epi32(now, _mm_loadu_si128((const __m128i *)(K + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));
            if (i < 12) {
                /* Words 16 on: from the four groups before. */
                __m128i next = _mm_sha256msg1_epu32(now, w[(i + 1) & 3]);
                next = _mm_add_epi32(next, _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
                w[i & 3] = _mm_sha256msg2_epu32(next, w[(i + 3) & 3]);
            }
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    low = _mm_shuffle_epi32(abef, 0x1B);
    high = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(low, high, 0xF0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(high, low, 8));
}

static int has_instructions(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid_count(1, 0, &a, &b, &c, &d) || !(c & (1u << 19)) || !(c & (1u << 9)))
        return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29)) != 0;
}
#endif

typedef void (*Blocks)(u32[8], const u8 *, size_t);

static Blocks blocks_of(int portable)
{
#ifdef DZ_X86
    if (!portable && has_instructions())
        return blocks_x86;
#else
    (void)portable;
#endif
    return blocks_portable;
}

/* Hash `size` bytes after `before` bytes (whole blocks) that are in `state` already; `out` is 32 bytes. */
static void finish(Blocks run, const u32 from[8], u64 before, const u8 *data, u64 size, u8 *out)
{
    u32 state[8];
    u8 last[128] = {0};
    memcpy(state, from, sizeof state);
    run(state, data, size / 64);
    u64 rest = size % 64, ends = rest < 56 ? 64 : 128, bits = (before + size) * 8;
    memcpy(last, data + (size - rest), rest);
    last[rest] = 0x80;
    for (int i = 0; i < 8; i++)
        last[ends - 1 - i] = (u8)(bits >> (8 * i));
    run(state, last, ends / 64);
    for (int i = 0; i < 8; i++) {
        out[4 * i] = (u8)(state[i] >> 24);
        out[4 * i + 1] = (u8)(state[i] >> 16);
        out[4 * i + 2] = (u8)(state[i] >> 8);
        out[4 * i + 3] = (u8)state[i];
    }
}

/* The states after the padded key (RFC 2104); `key` is 32 bytes. */
static void keyed(Blocks run, const u8 *key, u32 inner[8], u32 outer[8])
{
    u8 block[64];
    for (int i = 0; i < 64; i++)
        block[i] = (i < 32 ? key[i] : 0) ^ 0x36;
    memcpy(inner, FIRST, sizeof FIRST);
    run(inner, block, 1);
    for (int i = 0; i < 64; i++)
        block[i] ^= 0x36 ^ 0x5c;
    memcpy(outer, FIRST, sizeof FIRST);
    run(outer, block, 1);
}

/* Which SHA-256 runs: 1 for the processor's instructions. */
DZ_API int dz_instructions(void) { return blocks_of(0) != blocks_portable; }

/* For each of `count` messages, data[offsets[i]:offsets[i + 1]], the first 16 bytes of its HMAC at out + i * stride. */
DZ_API void dz_tags(const u8 *key, const u8 *data, const int32_t *offsets, int64_t count, u8 *out, int64_t stride, int portable)
{
    Blocks run = blocks_of(portable);
    u32 inner[8], outer[8];
    u8 found[32];
    keyed(run, key, inner, outer);
    for (int64_t i = 0; i < count; i++) {
        finish(run, inner, 64, data + offsets[i], (u64)(offsets[i + 1] - offsets[i]), found);
        finish(run, outer, 64, found, 32, found);
        memcpy(out + i * stride, found, 16);
    }
}

/* For each record d = SHA-256(record), salt = HMAC(d), and SHA-256(salt || d), 32 bytes, at out + i * stride (formats F4). */
DZ_API void dz_commitments(const u8 *key, const u8 *data, const int32_t *offsets, int64_t count, u8 *out, int64_t stride, int portable)
{
    Blocks run = blocks_of(portable);
    u32 inner[8], outer[8];
    u8 both[64];
    keyed(run, key, inner, outer);
    for (int64_t i = 0; i < count; i++) {
        finish(run, FIRST, 0, data + offsets[i], (u64)(offsets[i + 1] - offsets[i]), both + 32);
        finish(run, inner, 64, both + 32, 32, both);
        finish(run, outer, 64, both, 32, both);
        finish(run, FIRST, 0, both, 64, out + i * stride);
    }
}

/* The root of the tree over `count` entries of 64 bytes (RFC 9162 section 2.1.1). */
static void tree(Blocks run, const u8 *entries, int64_t count, u8 *out)
{
    u8 stack[64][32], leaf[65] = {0}, node[65] = {1};
    int depth = 0;
    if (count < 1) {
        finish(run, FIRST, 0, leaf, 0, out);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        u8 hash[32];
        memcpy(leaf + 1, entries + 64 * i, 64);
        finish(run, FIRST, 0, leaf, 65, hash);
        /* Each 1 at the end of the count so far is a complete subtree as large as the one growing on its right. */
        for (int64_t carry = i; carry & 1; carry >>= 1) {
            memcpy(node + 1, stack[--depth], 32);
            memcpy(node + 33, hash, 32);
            finish(run, FIRST, 0, node, 65, hash);
        }
        memcpy(stack[depth++], hash, 32);
    }
    memcpy(out, stack[--depth & 63], 32);
    while (depth > 0) {
        memcpy(node + 1, stack[--depth], 32);
        memcpy(node + 33, out, 32);
        finish(run, FIRST, 0, node, 65, out);
    }
}

DZ_API void dz_root(const u8 *entries, int64_t count, u8 *out, int portable) { tree(blocks_of(portable), entries, count, out); }

/* The roots of the trees over `each` entries at a time, the last over what remains: ceil(count / each) hashes at out. */
DZ_API void dz_subroots(const u8 *entries, int64_t count, int64_t each, u8 *out, int portable)
{
    Blocks run = blocks_of(portable);
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

static u8 *escaped(const u8 *data, int64_t size, u8 *out)
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
                out = escaped(value, size, out);
            }
            *out++ = '"';
        }
        memcpy(out, tail, (size_t)tail_size);
        out += tail_size;
    }
}
