/* The order of entries, and where a key tag stands among them: sorting by radix, and a table of places by tag. */
#include "dz.h"

typedef struct {
    u64 word;
    int64_t row;
} Place;

enum { FEW = 24, DIGIT = 11, DIGITS = 6 }; /* six digits of 11 bits hold 64 */

static u64 word_at(const u8 *p)
{
    u64 word;
    memcpy(&word, p, 8);
    return __builtin_bswap64(word);
}

/* Sorts by `word`; equal ones keep their order. `other` is as long. */
static void by_word(Place *places, Place *other, int64_t count)
{
    Place *from = places, *to = other;
    for (int digit = 0; digit < DIGITS; digit++) {
        int64_t starts[1 << DIGIT] = {0}, at = 0;
        int shift = digit * DIGIT;
        for (int64_t i = 0; i < count; i++)
            starts[from[i].word >> shift & ((1 << DIGIT) - 1)]++;
        if (starts[from[0].word >> shift & ((1 << DIGIT) - 1)] == count)
            continue;
        for (int64_t i = 0; i < 1 << DIGIT; i++) {
            int64_t size = starts[i];
            starts[i] = at;
            at += size;
        }
        for (int64_t i = 0; i < count; i++)
            to[starts[from[i].word >> shift & ((1 << DIGIT) - 1)]++] = from[i];
        Place *swap = from;
        from = to, to = swap;
    }
    if (from != places)
        memcpy(places, from, (size_t)count * sizeof *places);
}

/* Sorts rows by the bytes from `at` up to `end` of each; equal ones keep their order. */
static void by_bytes(const u8 *rows, int64_t stride, int64_t at, int64_t end, Place *places, Place *other, int64_t count)
{
    if (count <= FEW) {
        for (int64_t i = 1; i < count; i++) {
            Place moved = places[i];
            int64_t to = i;
            for (; to && memcmp(rows + places[to - 1].row * stride + at, rows + moved.row * stride + at, (size_t)(end - at)) > 0; to--)
                places[to] = places[to - 1];
            places[to] = moved;
        }
        return;
    }
    for (int64_t i = 0; i < count; i++)
        places[i].word = word_at(rows + places[i].row * stride + at);
    by_word(places, other, count);
    if (at + 8 == end)
        return;
    for (int64_t start = 0, i = 1; i <= count; i++) {
        if (i < count && places[i].word == places[start].word)
            continue;
        if (i - start > 1)
            by_bytes(rows, stride, at + 8, end, places + start, other, i - start);
        start = i;
    }
}

/* The order in which `count` rows of `stride` bytes ascend by their bytes `begin` up to `end`, a multiple of 8 of them; equal ones keep
 * theirs. `places` has room for twice `count`. */
DZ_API void dz_order(const u8 *rows, int64_t count, int64_t stride, int64_t begin, int64_t end, Place *places, int64_t *order)
{
    for (int64_t i = 0; i < count; i++)
        places[i].row = i;
    by_bytes(rows, stride, begin, end, places, places + count, count);
    for (int64_t i = 0; i < count; i++)
        order[i] = places[i].row;
}

/* Tags of 16 bytes are as good as random unless somebody who knows the key made them: hence the factors, drawn anew for each table. */
static u64 slot_of(const u8 *tag, const u64 factors[2], int shift)
{
    u64 high, low;
    memcpy(&high, tag, 8);
    memcpy(&low, tag + 8, 8);
    return ((high * factors[0]) ^ (low * factors[1])) * factors[0] >> shift;
}

/* Puts the place of each of `count` tags (16 bytes at tags + i * stride) into `table` of 2^(64 - shift) slots, more than `count`, all -1
 * before. The place of the first tag that was there already, else -1. */
DZ_API int64_t dz_index(const u8 *tags, int64_t count, int64_t stride, const u64 factors[2], int shift, int32_t *table)
{
    u64 mask = ((u64)1 << (64 - shift)) - 1;
    for (int64_t i = 0; i < count; i++) {
        if (i + 16 < count)
            __builtin_prefetch(table + slot_of(tags + (i + 16) * stride, factors, shift), 1);
        u64 slot = slot_of(tags + i * stride, factors, shift);
        for (; table[slot] >= 0; slot = (slot + 1) & mask)
            if (!memcmp(tags + table[slot] * stride, tags + i * stride, 16))
                return i;
        table[slot] = (int32_t)i;
    }
    return -1;
}

/* The place of each of `count` wanted tags (16 bytes, one after the other) in that table, or -1. */
DZ_API void dz_lookup(const u8 *tags, int64_t stride, const u64 factors[2], int shift, const int32_t *table, const u8 *wanted, int64_t count,
                      int64_t *found)
{
    enum { AHEAD = 16 };
    u64 mask = ((u64)1 << (64 - shift)) - 1, slots[AHEAD];
    for (int64_t start = 0; start < count; start += AHEAD) {
        int64_t part = count - start < AHEAD ? count - start : AHEAD;
        for (int64_t i = 0; i < part; i++) {
            slots[i] = slot_of(wanted + 16 * (start + i), factors, shift);
            __builtin_prefetch(table + slots[i]);
        }
        for (int64_t i = 0; i < part; i++)
            if (table[slots[i]] >= 0)
                __builtin_prefetch(tags + table[slots[i]] * stride);
        for (int64_t i = 0; i < part; i++) {
            u64 slot = slots[i];
            while (table[slot] >= 0 && memcmp(tags + table[slot] * stride, wanted + 16 * (start + i), 16))
                slot = (slot + 1) & mask;
            found[start + i] = table[slot];
        }
    }
}
