/* Rows of a prepared SQLite statement into columns of text, by storage class; SQLite itself is called through the pointers that are given, so
 * it is the library that the process has already.
 */
#include "dz.h"

/* Functions of SQLite's C interface, by the names they have there. To ask a value is cheaper than to ask the statement for its column; only one
 * thread may do so at a time, which is how a statement is used here. */
typedef struct {
    int (*step)(void *);
    void *(*column_value)(void *, int);
    int (*value_type)(void *);
    int (*value_bytes)(void *);
    const u8 *(*value_text)(void *);
    const void *(*value_blob)(void *);
    int64_t (*value_int64)(void *);
    double (*value_double)(void *);
} Api;

/* `room` bytes at `data` of which `size` are taken; one more offset than rows; a bit in `valid` (all set before) and a byte in `kinds` for
 * each row; a bit in `seen` for each storage class met (1 INTEGER, 2 REAL, 3 TEXT, 4 BLOB, 5 NULL). */
typedef struct {
    u8 *data;
    int32_t *offsets;
    u8 *valid, *kinds;
    int64_t room, size, seen;
} Filled;

enum { INTEGER = 1, REAL, TEXT, BLOB, NOTHING };
enum { NOMEM = 7, ROW = 100, DONE = 101, FULL = -1, CRAMPED = -2 };
enum { LONGEST = 20 };

static int written(int64_t value, u8 *out)
{
    u8 digits[LONGEST];
    int count = 0, size = 0;
    u64 rest = value < 0 ? 0 - (u64)value : (u64)value;
    do
        digits[count++] = (u8)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0)
        out[size++] = '-';
    while (count)
        out[size++] = digits[--count];
    return size;
}

/* The row the statement stands on, as row `row`; nothing of it counts before all of it is there. ROW, CRAMPED with the column that has no
 * room in `cramped`, or NOMEM. */
static int take(const Api *api, void *statement, Filled *columns, int width, int64_t row, int64_t *cramped)
{
    for (int at = 0; at < width; at++) {
        Filled *column = columns + at;
        void *value = api->column_value(statement, at);
        int kind = api->value_type(value);
        const void *from = NULL;
        u8 number[LONGEST];
        int64_t size = 0;
        if (kind == TEXT || kind == BLOB) {
            /* The pointer first: it is what may convert the value, and so change its length. */
            from = kind == TEXT ? api->value_text(value) : api->value_blob(value);
            size = api->value_bytes(value);
            if (from == NULL && (size || kind == TEXT))
                return NOMEM;
        } else if (kind == INTEGER) {
            size = written(api->value_int64(value), number);
            from = number;
        } else if (kind == REAL) {
            double real = api->value_double(value);
            memcpy(number, &real, sizeof real);
            size = sizeof real;
            from = number;
        }
        int64_t begin = column->offsets[row];
        if (size > INT32_MAX - begin)
            return NOMEM;
        if (size > column->room - begin) {
            cramped[0] = at, cramped[1] = begin + size;
            return CRAMPED;
        }
        if (size)
            memcpy(column->data + begin, from, (size_t)size);
        column->size = begin + size;
        column->offsets[row + 1] = (int32_t)column->size;
        column->kinds[row] = (u8)kind;
        column->seen |= (int64_t)1 << kind;
        if (kind == NOTHING)
            column->valid[row >> 3] &= (u8)~(1 << (row & 7));
    }
    return ROW;
}

/* Rows from `*row` on, as many as there are, up to `rows` of them and about `bytes` bytes in all. FULL: go on with other columns. CRAMPED: go on
 * with the same once column cramped[0] has room for cramped[1] bytes; `stepped` remembers that the statement stands on a row not taken yet.
 * DONE: there are no more. Anything else is SQLite's refusal. */
DZ_API int dz_sqlite(const Api *api, void *statement, Filled *columns, int width, int64_t rows, int64_t bytes, int64_t *row, int *stepped,
                     int64_t *cramped)
{
    while (*row < rows) {
        if (!*stepped) {
            int stepping = api->step(statement);
            if (stepping != ROW)
                return stepping;
            *stepped = 1;
        }
        int taken = take(api, statement, columns, width, *row, cramped);
        if (taken != ROW)
            return taken;
        *stepped = 0, ++*row;
        int64_t total = 0;
        for (int at = 0; at < width; at++)
            total += columns[at].size;
        if (total >= bytes)
            return FULL;
    }
    return FULL;
}
