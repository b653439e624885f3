/* PostgreSQL's COPY ... (FORMAT binary) into Arrow buffers: taking the messages from libpq, and writing each value as formats F2 has it.
 *
 * libpq's functions come as pointers from the library that psycopg has loaded. Nothing a server sends is believed: lengths are checked
 * against the message they stand in. */
#include "dz.h"

#include <poll.h>

typedef int (*GetCopyData)(void *, char **, int);
typedef int (*ConsumeInput)(void *);
typedef void (*FreeMem)(void *);

/* What is being read. `held` is a message that did not fit into the last block. */
typedef struct {
    void *connection;
    GetCopyData get;
    ConsumeInput consume;
    FreeMem free;
    int64_t socket;
    char *held;
    int64_t held_size;
} Copy;

enum { FULL = 0, WAITING = 1, ENDED = 2, FAILED = 3 };

/* Messages, one after the other, into `block` of `size` bytes; ends[i] is where message i ends, ends[-1] where the first begins. Adds to
 * `count`, at most up to `most`, and goes on from there when it is called again. FULL: no room (or, if nothing was taken, the message held
 * needs more than the block); WAITING: nothing came for `patience` milliseconds; ENDED, FAILED: as libpq says. */
DZ_API int dz_copy_read(Copy *copy, u8 *block, int64_t size, int64_t *ends, int64_t most, int64_t *count, int patience)
{
    while (*count < most) {
        if (!copy->held) {
            int got = copy->get(copy->connection, &copy->held, 1);
            copy->held_size = got;
            if (got == -1)
                return ENDED;
            if (got < -1)
                return FAILED;
            if (got == 0) {
                copy->held = NULL;
                struct pollfd wait = {(int)copy->socket, POLLIN, 0};
                int ready = poll(&wait, 1, patience);
                if (!copy->consume(copy->connection))
                    return FAILED;
                if (ready <= 0)
                    return WAITING;
                continue;
            }
        }
        int64_t at = ends[*count - 1];
        if (copy->held_size > size - at)
            return FULL;
        memcpy(block + at, copy->held, (size_t)copy->held_size);
        ends[(*count)++] = at + copy->held_size;
        copy->free(copy->held);
        copy->held = NULL;
    }
    return FULL;
}

/* Gives back a message that was held when a scan is given up. */
DZ_API void dz_copy_drop(Copy *copy)
{
    if (copy->held)
        copy->free(copy->held);
    copy->held = NULL;
}

enum { TEXT, INTEGER, DECIMAL, DATE, TIMESTAMP, ZONED };

/* A column of the result, Arrow's buffers, NULL as an empty text; `odd` counts values that only the reference may judge (infinite, NaN, before year 1, after 9999). */
typedef struct {
    u8 *data;
    int32_t *offsets;
    int64_t kind, odd;
} Out;

static int64_t big_endian(const u8 *p, int64_t size)
{
    u64 found = p[0] & 0x80 ? ~(u64)0 : 0;
    for (int64_t i = 0; i < size; i++)
        found = found << 8 | p[i];
    return (int64_t)found;
}

/* `value` in decimal with at least `least` digits; the number of characters. */
static int64_t put_number(u64 value, int least, u8 *out)
{
    u8 turned[24];
    int size = 0;
    for (; value || size < least; value /= 10)
        turned[size++] = (u8)('0' + value % 10);
    for (int i = 0; i < size; i++)
        out[i] = turned[size - 1 - i];
    return size;
}

static int64_t put_text(const char *text, u8 *out)
{
    int64_t size = (int64_t)strlen(text);
    memcpy(out, text, (size_t)size);
    return size;
}

static int64_t put_integer(const u8 *p, int64_t size, u8 *out)
{
    int64_t value = big_endian(p, size), minus = value < 0;
    if (minus)
        *out = '-';
    return minus + put_number(minus ? -(u64)value : (u64)value, 1, out + minus);
}

/* A numeric: digits of base 10,000, the first of weight 10,000^weight. Without trailing zeros of the fraction, as trim_scale has it. */
static int64_t put_decimal(const u8 *p, int64_t size, u8 *out, int64_t *odd)
{
    int64_t count = big_endian(p, 2), weight = big_endian(p + 2, 2), sign = big_endian(p + 4, 2) & 0xFFFF, at = 0;
    if (size < 8 || count < 0 || size != 8 + 2 * count)
        return -1;
    p += 8;
    if (sign != 0 && sign != 0x4000) {
        *odd += 1;
        return put_text(sign == 0xC000 ? "NaN" : sign == 0xD000 ? "Infinity" : "-Infinity", out);
    }
    for (int64_t i = 0; i < count; i++)
        if (big_endian(p + 2 * i, 2) < 0 || big_endian(p + 2 * i, 2) > 9999)
            return -1;
    while (count && !p[2 * count - 2] && !p[2 * count - 1])
        count--;
    if (!count)
        return put_text("0", out);
    if (sign) {
        *out = '-';
        at = 1;
    }
    if (weight < 0)
        at += put_text("0", out + at);
    for (int64_t i = 0; i <= weight; i++)
        at += put_number(i < count ? (u64)big_endian(p + 2 * i, 2) : 0, i ? 4 : 1, out + at);
    if (count <= weight + 1)
        return at;
    at += put_text(".", out + at);
    for (int64_t i = weight + 1; i < 0; i++)
        at += put_text("0000", out + at);
    for (int64_t i = weight < 0 ? 0 : weight + 1; i < count; i++) {
        u64 digit = (u64)big_endian(p + 2 * i, 2);
        int places = 4;
        for (; i == count - 1 && digit % 10 == 0; digit /= 10)
            places--;
        at += put_number(digit, places, out + at);
    }
    return at;
}

/* A day counted from 2000-01-01; `bc` tells whether " BC" is to follow. */
static int64_t put_day(int64_t days, u8 *out, int *bc, int64_t *odd)
{
    days += 730425; /* from 0000-03-01 */
    int64_t era = (days >= 0 ? days : days - 146096) / 146097, of_era = days - era * 146097;
    int64_t years = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * years + years / 4 - years / 100), shifted = (5 * of_year + 2) / 153;
    int64_t day = of_year - (153 * shifted + 2) / 5 + 1, month = shifted + (shifted < 10 ? 3 : -9);
    int64_t year = years + era * 400 + (month <= 2);
    *bc = year < 1;
    *odd += year < 1 || year > 9999;
    int64_t at = put_number((u64)(year < 1 ? 1 - year : year), 4, out);
    at += put_text("-", out + at);
    at += put_number((u64)month, 2, out + at);
    at += put_text("-", out + at);
    return at + put_number((u64)day, 2, out + at);
}

static int64_t put_date(const u8 *p, u8 *out, int64_t *odd)
{
    int64_t days = big_endian(p, 4), at;
    int bc;
    if (days == INT32_MAX || days == INT32_MIN) {
        *odd += 1;
        return put_text(days > 0 ? "infinity" : "-infinity", out);
    }
    at = put_day(days, out, &bc, odd);
    return at + (bc ? put_text(" BC", out + at) : 0);
}

static int64_t put_timestamp(const u8 *p, u8 *out, int zoned, int64_t *odd)
{
    int64_t micros = big_endian(p, 8), at;
    if (micros == INT64_MAX || micros == INT64_MIN) {
        *odd += 1;
        at = put_text(micros > 0 ? "infinity" : "-infinity", out);
        return at + (zoned ? put_text("Z", out + at) : 0);
    }
    int64_t day = 86400000000, days = micros / day, rest = micros % day;
    int bc;
    if (rest < 0)
        rest += day, days--;
    at = put_day(days, out, &bc, odd);
    const int64_t parts[3] = {rest / 3600000000, rest / 60000000 % 60, rest / 1000000 % 60};
    for (int i = 0; i < 3; i++) {
        at += put_text(i ? ":" : " ", out + at);
        at += put_number((u64)parts[i], 2, out + at);
    }
    if (rest % 1000000) {
        int places = 6;
        u64 fraction = (u64)(rest % 1000000);
        for (; fraction % 10 == 0; fraction /= 10)
            places--;
        at += put_text(".", out + at);
        at += put_number(fraction, places, out + at);
    }
    at += bc ? put_text(" BC", out + at) : 0;
    return at + (zoned ? put_text("Z", out + at) : 0);
}

/* At least as many bytes as the value's text has; -1 if it is not of its kind. */
static int64_t bound_of(int64_t kind, const u8 *p, int64_t size)
{
    if (kind == TEXT)
        return size;
    if (kind == INTEGER)
        return size == 2 || size == 4 || size == 8 ? 20 : -1;
    if (kind == DATE)
        return size == 4 ? 16 : -1;
    if (kind != DECIMAL)
        return size == 8 ? 40 : -1;
    if (size < 8)
        return -1;
    int64_t count = big_endian(p, 2), weight = big_endian(p + 2, 2);
    /* Minus, point, and four digits for each of its own, of those before the point, and of those between the point and the first. */
    return 16 + 4 * (count > 0 ? count : 0) + 4 * (weight < 0 ? -weight : weight + 1);
}

/* One value as text; the number of bytes, -1 if it is not of its kind. */
static int64_t put_value(int64_t kind, const u8 *p, int64_t size, u8 *out, int64_t *odd)
{
    if (kind == TEXT) {
        memcpy(out, p, (size_t)size);
        return size;
    }
    if (kind == INTEGER)
        return size == 2 || size == 4 || size == 8 ? put_integer(p, size, out) : -1;
    if (kind == DECIMAL)
        return size < 8 ? -1 : put_decimal(p, size, out, odd);
    if (kind == DATE)
        return size == 4 ? put_date(p, out, odd) : -1;
    return size == 8 ? put_timestamp(p, out, kind == ZONED, odd) : -1;
}

/* The columns of `rows` messages, message i being block[ends[i - 1]:ends[i]], a tuple of `width` values each. With `write` 0 as many
 * bytes as each column can take are counted into sizes[0:width]; with 1 they are written, into buffers of that size. The place of a message that is no such
 * tuple, else -1. */
DZ_API int64_t dz_copy_columns(const u8 *block, const int64_t *ends, int64_t rows, Out *columns, int64_t width, int64_t *sizes, int write)
{
    for (int64_t at = 0; at < width; at++) {
        sizes[at] = 0;
        if (write) {
            columns[at].offsets[0] = 0;
            columns[at].odd = 0;
        }
    }
    for (int64_t row = 0; row < rows; row++) {
        const u8 *p = block + ends[row - 1], *end = block + ends[row];
        if (end - p < 2 || big_endian(p, 2) != width)
            return row;
        p += 2;
        for (int64_t at = 0; at < width; at++) {
            Out *column = columns + at;
            int64_t size = end - p < 4 ? -2 : big_endian(p, 4);
            p += 4;
            if (size < -1 || (size > 0 && size > end - p))
                return row;
            if (size >= 0) {
                int64_t found = write ? put_value(column->kind, p, size, column->data + sizes[at], &column->odd)
                                      : bound_of(column->kind, p, size);
                if (found < 0)
                    return row;
                sizes[at] += found;
                p += size;
            }
            if (write)
                column->offsets[row + 1] = (int32_t)sizes[at];
        }
        if (p != end)
            return row;
    }
    return -1;
}
