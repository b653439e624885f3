/* Whether bytes are UTF-8 as RFC 3629 has it: no overlong form, no surrogate, nothing past U+10FFFF. */
#include "dz.h"

static int is_continuation(u8 byte) { return (byte & 0xC0) == 0x80; }

/* The bytes of the one character that is not ASCII at `p`; 0 if it is none. */
static int character(const u8 *p, const u8 *end)
{
    u8 first = *p;
    if (first < 0xC2 || first > 0xF4)
        return 0;
    int size = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    if (end - p < size)
        return 0;
    u8 low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    u8 high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (p[1] < low || p[1] > high)
        return 0;
    for (int i = 2; i < size; i++)
        if (!is_continuation(p[i]))
            return 0;
    return size;
}

int dz_is_utf8(const u8 *data, int64_t size)
{
    const u8 *p = data, *end = data + size;
    while (p < end) {
        u64 word;
        if (end - p >= 8) {
            memcpy(&word, p, 8);
            if (!(word & 0x8080808080808080ULL)) {
                p += 8;
                continue;
            }
        }
        while (p < end && *p < 0x80)
            p++;
        /* Han comes in runs of three bytes: E1-EC lead with no further rule. */
        while (end - p >= 3 && (u8)(*p - 0xE1) < 0x0C && is_continuation(p[1]) && is_continuation(p[2]))
            p += 3;
        if (p < end && *p >= 0x80) {
            int found = character(p, end);
            if (!found)
                return 0;
            p += found;
        }
    }
    return 1;
}

/* Whether each of `count` values is UTF-8 by itself: together they are, and none starts inside a character. */
DZ_API int dz_utf8(const u8 *data, const int32_t *offsets, int64_t count)
{
    int64_t first = offsets[0], last = offsets[count];
    if (!dz_is_utf8(data + first, last - first))
        return 0;
    u8 inside = 0;
    for (int64_t row = 0; row < count; row++)
        inside |= offsets[row] < last && is_continuation(data[offsets[row]]);
    return !inside;
}
