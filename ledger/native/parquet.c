/* A dictionary page of Parquet: values in PLAIN form, four bytes of length (little-endian) before each. */
#include "dz.h"

/* The length of the longest of `count` values; -1 where they do not fill `data` exactly. */
DZ_API int64_t dz_longest(const u8 *data, int64_t size, int64_t count)
{
    int64_t longest = 0, place = 0;
    for (; count > 0; count--) {
        if (size - place < 4)
            return -1;
        const u8 *p = data + place;
        int64_t length = (int64_t)((u32)p[0] | (u32)p[1] << 8 | (u32)p[2] << 16 | (u32)p[3] << 24);
        if (length > size - place - 4)
            return -1;
        longest = length > longest ? length : longest;
        place += 4 + length;
    }
    return count || place != size ? -1 : longest;
}
