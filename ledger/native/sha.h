/* SHA-256 of FIPS 180-4 and HMAC under it (RFC 2104), with the processor's instructions where there are any.
 *
 * Two messages can be hashed at once: an instruction for SHA-256 waits for the one before it, and the other message's fills the gap. */
#ifndef DZ_SHA_H
#define DZ_SHA_H

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
#define DZ_SHA __attribute__((target("sha,sse4.1,ssse3")))

/* Four rounds; `w` holds the sixteen words that come next, `i` the group of four rounds. */
#define DZ_ROUNDS(abef, cdgh, w, i)                                                                                  \
    do {                                                                                                             \
        __m128i now = w[(i)&3];                                                                                      \
        __m128i sum = _mm_add_epi32(now, _mm_loadu_si128((const __m128i *)(K + 4 * (i))));                           \
        cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);                                                               \
        abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));                                      \
        if ((i) < 12) {                                                                                              \
            __m128i next = _mm_sha256msg1_epu32(now, w[((i) + 1) & 3]);                                              \
            next = _mm_add_epi32(next, _mm_alignr_epi8(w[((i) + 3) & 3], w[((i) + 2) & 3], 4));                      \
            w[(i)&3] = _mm_sha256msg2_epu32(next, w[((i) + 3) & 3]);                                                 \
        }                                                                                                            \
    } while (0)

/* The state as the instructions want it, and back. */
DZ_SHA static inline void load_state(const u32 state[8], __m128i *abef, __m128i *cdgh)
{
    __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state), 0xB1);
    __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state + 4)), 0x1B);
    *abef = _mm_alignr_epi8(low, high, 8);
    *cdgh = _mm_blend_epi16(high, low, 0xF0);
}

DZ_SHA static inline void store_state(u32 state[8], __m128i abef, __m128i cdgh)
{
    __m128i low = _mm_shuffle_epi32(abef, 0x1B), high = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(low, high, 0xF0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(high, low, 8));
}

DZ_SHA static inline void load_words(const u8 *data, __m128i w[4])
{
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bULL, 0x0405060700010203ULL);
    for (int i = 0; i < 4; i++)
        w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 16 * i)), swap);
}

DZ_SHA static void blocks_x86(u32 state[8], const u8 *data, size_t count)
{
    __m128i abef, cdgh, w[4];
    load_state(state, &abef, &cdgh);
    for (; count; count--, data += 64) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        load_words(data, w);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++)
            DZ_ROUNDS(abef, cdgh, w, i);
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    store_state(state, abef, cdgh);
}

DZ_SHA static void two_x86(u32 one[8], const u8 *data_one, u32 two[8], const u8 *data_two, size_t count)
{
    __m128i abef1, cdgh1, w1[4], abef2, cdgh2, w2[4];
    load_state(one, &abef1, &cdgh1);
    load_state(two, &abef2, &cdgh2);
    for (; count; count--, data_one += 64, data_two += 64) {
        const __m128i abef1_before = abef1, cdgh1_before = cdgh1, abef2_before = abef2, cdgh2_before = cdgh2;
        load_words(data_one, w1);
        load_words(data_two, w2);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            DZ_ROUNDS(abef1, cdgh1, w1, i);
            DZ_ROUNDS(abef2, cdgh2, w2, i);
        }
        abef1 = _mm_add_epi32(abef1, abef1_before);
        cdgh1 = _mm_add_epi32(cdgh1, cdgh1_before);
        abef2 = _mm_add_epi32(abef2, abef2_before);
        cdgh2 = _mm_add_epi32(cdgh2, cdgh2_before);
    }
    store_state(one, abef1, cdgh1);
    store_state(two, abef2, cdgh2);
}

static int has_instructions(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid_count(1, 0, &a, &b, &c, &d) || !(c & (1u << 19)) || !(c & (1u << 9)))
        return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & (1u << 29)) != 0;
}
#endif

static void two_portable(u32 one[8], const u8 *data_one, u32 two[8], const u8 *data_two, size_t count)
{
    blocks_portable(one, data_one, count);
    blocks_portable(two, data_two, count);
}

/* What hashes whole blocks: of one message, of two at once. */
typedef struct {
    void (*one)(u32[8], const u8 *, size_t);
    void (*two)(u32[8], const u8 *, u32[8], const u8 *, size_t);
} Engine;

static inline Engine engine_of(int portable)
{
#ifdef DZ_X86
    if (!portable && has_instructions())
        return (Engine){blocks_x86, two_x86};
#else
    (void)portable;
#endif
    return (Engine){blocks_portable, two_portable};
}

/* A message that is being hashed: `before` bytes (whole blocks) are in `from` already. */
typedef struct {
    const u32 *from;
    u64 before;
    const u8 *data;
    u64 size;
    u8 *out; /* 32 bytes; may be `data` */
} Message;

static inline u64 padded(const Message *it, u8 last[128])
{
    u64 rest = it->size % 64, ends = rest < 56 ? 64 : 128, bits = (it->before + it->size) * 8;
    memset(last, 0, 128);
    memcpy(last, it->data + (it->size - rest), rest);
    last[rest] = 0x80;
    for (int i = 0; i < 8; i++)
        last[ends - 1 - i] = (u8)(bits >> (8 * i));
    return ends / 64;
}

static inline void digest_out(const u32 state[8], u8 *out)
{
    for (int i = 0; i < 8; i++) {
        u32 word = __builtin_bswap32(state[i]);
        memcpy(out + 4 * i, &word, 4);
    }
}

static inline void finish(Engine run, Message it)
{
    u32 state[8];
    u8 last[128];
    memcpy(state, it.from, sizeof state);
    run.one(state, it.data, it.size / 64);
    run.one(state, last, padded(&it, last));
    digest_out(state, it.out);
}

static inline void finish_two(Engine run, Message a, Message b)
{
    u32 one[8], two[8];
    u8 last_one[128], last_two[128];
    memcpy(one, a.from, sizeof one);
    memcpy(two, b.from, sizeof two);
    u64 of_a = a.size / 64, of_b = b.size / 64, both = of_a < of_b ? of_a : of_b;
    run.two(one, a.data, two, b.data, both);
    run.one(one, a.data + 64 * both, of_a - both);
    run.one(two, b.data + 64 * both, of_b - both);
    of_a = padded(&a, last_one), of_b = padded(&b, last_two), both = of_a < of_b ? of_a : of_b;
    run.two(one, last_one, two, last_two, both);
    run.one(one, last_one + 64 * both, of_a - both);
    run.one(two, last_two + 64 * both, of_b - both);
    digest_out(one, a.out);
    digest_out(two, b.out);
}

/* An HMAC key: the states after both padded keys. */
typedef struct {
    u32 inner[8], outer[8];
} Mac;

static inline Mac keyed(Engine run, const u8 key[32])
{
    Mac mac;
    u8 block[64];
    for (int i = 0; i < 64; i++)
        block[i] = (u8)((i < 32 ? key[i] : 0) ^ 0x36);
    memcpy(mac.inner, FIRST, sizeof FIRST);
    run.one(mac.inner, block, 1);
    for (int i = 0; i < 64; i++)
        block[i] ^= 0x36 ^ 0x5c;
    memcpy(mac.outer, FIRST, sizeof FIRST);
    run.one(mac.outer, block, 1);
    return mac;
}

static inline void mac_of(Engine run, const Mac *mac, const u8 *data, u64 size, u8 out[32])
{
    finish(run, (Message){mac->inner, 64, data, size, out});
    finish(run, (Message){mac->outer, 64, out, 32, out});
}

static inline void mac_of_two(Engine run, const Mac *one, const u8 *a, u64 a_size, u8 *a_out, const Mac *two, const u8 *b, u64 b_size, u8 *b_out)
{
    finish_two(run, (Message){one->inner, 64, a, a_size, a_out}, (Message){two->inner, 64, b, b_size, b_out});
    finish_two(run, (Message){one->outer, 64, a_out, 32, a_out}, (Message){two->outer, 64, b_out, 32, b_out});
}

#endif
