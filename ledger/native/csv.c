/* CSV (RFC 4180) taken apart: bytes into a column of text for each cell of the header.
 *
 * Records that every reader takes apart alike are: each quote opens a cell, closes one or is doubled inside one; each CR stands before an LF;
 * there are as many cells as the header has. A record of another width, or with a quote in an unquoted cell, is odd: where it is, is told.
 * Where quoting makes uncertain what follows, and where a lone CR ends a line, csvsyntax.Parser reads all of it. Comma, quote, CR and LF are
 * never part of another character in UTF-8, so bytes do.
 */
#include "dz.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { IRREGULAR = -1, SLACK = 16 };

/* A bit for each of 64 bytes that is a comma, a quote, CR or LF. */
static u64 marks64(const u8 *p)
{
    u64 found = 0;
#ifdef __SSE2__
    const __m128i comma = _mm_set1_epi8(','), quote = _mm_set1_epi8('"'), cr = _mm_set1_epi8('\r'), lf = _mm_set1_epi8('\n');
    for (int i = 0; i < 4; i++) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(p + 16 * i));
        __m128i one = _mm_or_si128(_mm_cmpeq_epi8(bytes, comma), _mm_cmpeq_epi8(bytes, quote));
        __m128i two = _mm_or_si128(_mm_cmpeq_epi8(bytes, cr), _mm_cmpeq_epi8(bytes, lf));
        found |= (u64)(u32)_mm_movemask_epi8(_mm_or_si128(one, two)) << (16 * i);
    }
#else
    for (int i = 0; i < 64; i++)
        found |= (u64)(p[i] == ',' || p[i] == '"' || p[i] == '\r' || p[i] == '\n') << i;
#endif
    return found;
}

static u64 marks(const u8 *p, int64_t size)
{
    if (size >= 64)
        return marks64(p);
    u8 rest[64] = {0};
    memcpy(rest, p, (size_t)size);
    return marks64(rest);
}

/* What dz_csv_cut found: whole records, how many of them are odd, the bytes and physical lines they take, and whether there is a quote among
 * them. */
typedef struct {
    int64_t records, odd, size, lines, quoted;
} Cut;

/* The record begins at `start`, on `line`, its cell number `at` at `cell`. */
typedef struct {
    int64_t width, room, start, cell, at, odd, lines, line;
    int32_t *bounds;
    int64_t *numbers, *sizes;
    Cut *found;
} Cutter;

static int end_cell(Cutter *it, int64_t end)
{
    if (it->found->records == it->room)
        return 0;
    if (it->at < it->width) {
        int32_t *bounds = it->bounds + it->found->records * (it->width + 1);
        if (!it->at)
            bounds[0] = (int32_t)it->start;
        bounds[it->at + 1] = (int32_t)end;
        it->sizes[it->at] += end - it->cell;
    }
    it->at++;
    return 1;
}

/* The record ends at `end`, its line break included at `next`. An empty line is no record. */
static int end_record(Cutter *it, int64_t end, int64_t next)
{
    if (it->at || end > it->start) {
        if (!end_cell(it, end))
            return 0;
        if (it->odd || it->at != it->width) {
            int32_t *bounds = it->bounds + it->found->records * (it->width + 1);
            bounds[0] = (int32_t)~it->start, bounds[1] = (int32_t)end;
            it->found->odd++;
        }
        it->numbers[it->found->records++] = it->line;
    }
    it->found->size = it->start = it->cell = next;
    it->found->lines = it->line = it->lines;
    it->at = it->odd = 0;
    return 1;
}

/* Where the cells of the whole records in `data` end: `width` + 1 numbers for each record, its start and then the end of each cell, or of an
 * odd one ~start and its end; the line of each record counted from 0; and in `sizes` (of `width`) the bytes that each column has at most. There
 * is room for `room` records. Without `final` the last record counts only if its line end is there. 0, or IRREGULAR. */
DZ_API int dz_csv_cut(const u8 *data, int64_t size, int final, int64_t width, int64_t room, int32_t *bounds, int64_t *numbers, int64_t *sizes,
                      Cut *found)
{
    Cutter it = {width, room, 0, 0, 0, 0, 0, 0, bounds, numbers, sizes, found};
    int inside = 0;
    int64_t skip = -1;
    memset(found, 0, sizeof *found);
    memset(sizes, 0, (size_t)width * sizeof *sizes);
    for (int64_t base = 0; base < size; base += 64) {
        for (u64 left = marks(data + base, size - base); left; left &= left - 1) {
            int64_t place = base + __builtin_ctzll(left);
            u8 mark = data[place];
            if (mark == '\r') {
                if (place + 1 == size ? final : data[place + 1] != '\n')
                    return IRREGULAR;
            } else if (mark == '"') {
                found->quoted = 1;
                if (place == skip)
                    continue;
                if (!inside) {
                    inside = place == it.cell;
                    it.odd |= !inside;
                } else if (place + 1 < size && data[place + 1] == '"') {
                    skip = place + 1;
                } else {
                    if (place + 1 < size && data[place + 1] != ',' && data[place + 1] != '\r' && data[place + 1] != '\n')
                        return IRREGULAR;
                    inside = 0;
                }
            } else if (mark == '\n') {
                it.lines++;
                if (!inside && !end_record(&it, place > it.start && data[place - 1] == '\r' ? place - 1 : place, place + 1))
                    return IRREGULAR;
            } else if (!inside) {
                if (!end_cell(&it, place))
                    return IRREGULAR;
                it.cell = place + 1;
            }
        }
    }
    if (!final)
        return 0;
    if (inside)
        return IRREGULAR;
    return it.start < size && !end_record(&it, size, size) ? IRREGULAR : 0;
}

typedef struct {
    u8 *data;
    int32_t *offsets;
} Text;

/* `size` bytes; what follows them, SLACK bytes at most, is written over too. */
static void copy_loosely(u8 *out, const u8 *from, int64_t size)
{
    for (int64_t i = 0; i < size; i += SLACK)
        memcpy(out + i, from + i, SLACK);
}

static u8 *unquoted(u8 *out, const u8 *from, const u8 *end)
{
    for (from++, end--; from < end; from++) {
        *out++ = *from;
        from += *from == '"';
    }
    return out;
}

/* The columns of what dz_csv_cut found in `data`: for each, `data` has the bytes in `sizes` and SLACK more, `offsets` one more than records. */
DZ_API void dz_csv_copy(const u8 *data, int64_t size, const int32_t *bounds, const Cut *found, int64_t width, Text *columns, int32_t *ends)
{
    const u8 *safe = data + size - SLACK;
    memset(ends, 0, (size_t)width * sizeof *ends);
    for (int64_t at = 0; at < width; at++)
        columns[at].offsets[0] = 0;
    for (int64_t row = 0; row < found->records; row++, bounds += width + 1) {
        int64_t start = bounds[0];
        if (start < 0) {
            /* Odd: nothing in any column. */
            for (int64_t at = 0; at < width; at++)
                columns[at].offsets[row + 1] = ends[at];
            continue;
        }
        for (int64_t at = 0; at < width; at++) {
            const u8 *from = data + start, *end = data + bounds[at + 1];
            u8 *out = columns[at].data + ends[at];
            if (found->quoted && from < end && *from == '"')
                ends[at] = (int32_t)(unquoted(out, from, end) - columns[at].data);
            else {
                if (end <= safe)
                    copy_loosely(out, from, end - from);
                else
                    memcpy(out, from, (size_t)(end - from));
                ends[at] += (int32_t)(end - from);
            }
            columns[at].offsets[row + 1] = ends[at];
            start = bounds[at + 1] + 1;
        }
    }
}
