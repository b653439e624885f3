/* Rows of text columns into entries in one pass (formats F2-F4): each value is looked at once, its row's canonical bytes and record key are
 * written into a buffer that stays in the processor's cache, and hashed there.
 *
 * A value that is not plainly in normal form, or cannot be brought there by the fixed rewritings below, makes its row `odd`: the reference
 * reads it then. So nothing here decides what a normal form is, and no row is refused here. */
#include "sha.h"

enum { TEXT, CODE, INTEGER, DECIMAL, DATE, DATETIME };
enum { DONE, SKIPPED, ODD };
enum { MAX_DIGITS = 65 };

/* A declared field and its column (Arrow's buffers; `valid` NULL where nothing is null, `first` its bit for row 0). `before` stands before
 * its value in canonical bytes, `key_before` in the record key, NULL if it is no part of the key. Fields stand in the order of their names. */
typedef struct {
    const u8 *data;
    const int32_t *offsets;
    const u8 *valid;
    int64_t first;
    const u8 *before, *key_before;
    int64_t before_size, key_before_size, kind, scale;
} Field;

/* Of the automaton row s, column c says where byte c leads from state s; 0 leads nowhere, 1 is the start, `accepts` marks the ends. */
typedef struct {
    const Field *fields;
    int64_t width, subject, offset_seconds; /* subject: place of its field, or -1 */
    const u8 *commitment_key, *key_key, *subject_key, *public_key;
    const uint16_t *automaton; /* NULL: all subjects are public, if public_key is given; else none is */
    const u8 *accepts;
} Plan;

/* Characters beyond ASCII that NFC leaves alone whatever stands beside them, that combine with nothing, and that were assigned in Unicode
 * 14.0; U+4000-9FFF, by far the most frequent, are known by their first byte. Of those that F2 strips only two are here; `is_stripped_end`
 * knows them. */
static const u32 SAFE[][2] = {
    {0xA0, 0x2FF},     {0x391, 0x3A1},    {0x3A3, 0x3CE},    {0x400, 0x482},    {0x48A, 0x52F},    {0x2010, 0x2027},  {0x2030, 0x205E},
    {0x2070, 0x2071},  {0x2074, 0x208E},  {0x20A0, 0x20C0},  {0x2100, 0x2125},  {0x2127, 0x2129},  {0x212C, 0x218B},  {0x2190, 0x2328},
    {0x232B, 0x2426},  {0x2440, 0x244A},  {0x2460, 0x2ADB},  {0x3000, 0x3029},  {0x3030, 0x303F},  {0x3041, 0x3096},  {0x309B, 0x30FF},
    {0x3105, 0x312F},  {0x3131, 0x318E},  {0x3190, 0x31E3},  {0x31F0, 0x321E},  {0x3220, 0x3FFF},  {0xA000, 0xA48C},  {0xAC00, 0xD7A3},
    {0xE000, 0xF8FF},  {0xFE30, 0xFE52},  {0xFE54, 0xFE66},  {0xFE68, 0xFE6B},  {0xFF01, 0xFFBE},  {0xFFE0, 0xFFE6},  {0x1F300, 0x1F64F},
    {0x20000, 0x2A6DF}, {0x2A700, 0x2B738}, {0x2B740, 0x2B81D}, {0x2B820, 0x2CEA1}, {0x2CEB0, 0x2EBE0}, {0x30000, 0x3134A}};

/* Whether a character is in that list; exported for the test that tries each. */
DZ_API int dz_is_safe(u32 point)
{
    if (point < 0x80 || (point >= 0x4000 && point <= 0x9FFF))
        return 1;
    size_t low = 0, high = sizeof SAFE / sizeof SAFE[0];
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (point > SAFE[middle][1])
            low = middle + 1;
        else
            high = middle;
    }
    return low < sizeof SAFE / sizeof SAFE[0] && point >= SAFE[low][0];
}

enum { ESCAPED = 1, REFERRED = 2, LOWER = 4, HIGH = 8, IDEOGRAPH = 16 };
/* What a byte says of its value: needs an escape in JSON; only the reference can tell (NUL, CR); a small letter; beyond ASCII. */
static const u8 CLASS[256] = {
    [0] = REFERRED, [1 ... 12] = ESCAPED, [13] = REFERRED, [14 ... 31] = ESCAPED, ['"'] = ESCAPED, ['\\'] = ESCAPED,
    ['a' ... 'z'] = LOWER, [0x80 ... 0xE3] = HIGH, [0xE4 ... 0xE9] = HIGH | IDEOGRAPH, [0xEA ... 0xFF] = HIGH};

/* One character of valid UTF-8 beyond ASCII; its length, or 0 if the value ends before it does. */
static int64_t character(const u8 *p, int64_t left, u32 *point)
{
    int64_t size = *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : 4;
    if (size > left)
        return 0;
    *point = size == 2 ? *p & 0x1F : size == 3 ? *p & 0x0F : *p & 0x07;
    for (int64_t i = 1; i < size; i++)
        *point = *point << 6 | (p[i] & 0x3F);
    return size;
}

/* Whether the character that ends (or begins) here is one of those F2 strips, among the ASCII and SAFE ones. */
static int is_stripped_end(const u8 *p, int64_t size, int at_end)
{
    u8 c = at_end ? p[size - 1] : *p;
    if (c < 0x80)
        return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20);
    const u8 *two = at_end ? p + size - 2 : p, *three = at_end ? p + size - 3 : p;
    return (size >= 2 && two[0] == 0xC2 && two[1] == 0xA0) || (size >= 3 && three[0] == 0xE3 && three[1] == 0x80 && three[2] == 0x80);
}

/* The classes of all bytes of a value, with REFERRED for whatever may not be in normal form as `text`. */
static unsigned look(const u8 *p, int64_t size)
{
    unsigned seen = 0;
    for (int64_t i = 0; i < size;) {
        u8 of = CLASS[p[i]];
        seen |= of;
        if (!(of & HIGH)) {
            i++;
        } else if (of & IDEOGRAPH) {
            i += 3;
        } else {
            u32 point;
            int64_t width = character(p + i, size - i, &point);
            if (!width || !dz_is_safe(point))
                return REFERRED;
            i += width;
        }
    }
    return is_stripped_end(p, size, 0) || is_stripped_end(p, size, 1) ? seen | REFERRED : seen;
}

/* A buffer for one row: `next` grows from the front (canonical bytes, record key), `forms` shrinks from the back (rewritten values). */
typedef struct {
    u8 *next, *forms;
} Room;

typedef struct {
    const u8 *data;
    int64_t size;
    int escaped;
} Value;

static int digits(const u8 *p, int64_t size)
{
    u8 wrong = 0;
    for (int64_t i = 0; i < size; i++)
        wrong |= (u8)(p[i] - '0') > 9;
    return !wrong;
}

static int64_t number(const u8 *p, int size)
{
    int64_t found = 0;
    for (int i = 0; i < size; i++)
        found = found * 10 + (p[i] - '0');
    return found;
}

static void put(u8 *p, int64_t value, int size)
{
    for (int i = size - 1; i >= 0; i--, value /= 10)
        p[i] = (u8)('0' + value % 10);
}

/* Whether a whole number is written without leading zeros or a minus before zero, in at most `most` digits. */
static int is_whole(const u8 *p, int64_t size, int64_t most)
{
    if (size == 1 && *p == '0')
        return 1;
    if (size && *p == '-')
        p++, size--;
    return size >= 1 && size <= most && *p != '0' && digits(p, size);
}

static int is_day(int64_t year, int64_t month, int64_t day)
{
    static const int64_t days[13] = {0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (year < 1 || month < 1 || month > 12 || day < 1 || day > days[month])
        return 0;
    return month != 2 || day < 29 || (year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));
}

/* YYYY-MM-DD or YYYY/MM/DD at p, the separator twice the same. */
static int is_date(const u8 *p, int64_t *year, int64_t *month, int64_t *day)
{
    if ((p[4] != '-' && p[4] != '/') || p[7] != p[4] || !digits(p, 4) || !digits(p + 5, 2) || !digits(p + 8, 2))
        return 0;
    *year = number(p, 4), *month = number(p + 5, 2), *day = number(p + 8, 2);
    return is_day(*year, *month, *day);
}

/* Days since 1970-01-01 of a Gregorian day, and back; proleptic, years 1 to 9999. */
static int64_t day_number(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = year / 400, of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static void day_of(int64_t days, int64_t *year, int64_t *month, int64_t *day)
{
    days += 719468;
    int64_t era = days / 146097, of_era = days - era * 146097;
    int64_t years = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * years + years / 4 - years / 100), shifted = (5 * of_year + 2) / 153;
    *day = of_year - (153 * shifted + 2) / 5 + 1;
    *month = shifted + (shifted < 10 ? 3 : -9);
    *year = years + era * 400 + (*month <= 2);
}

static int date(Value *value, Room *room)
{
    int64_t year, month, day;
    const u8 *p = value->data;
    if (value->size == 10 && is_date(p, &year, &month, &day)) {
        if (p[4] == '-')
            return DONE;
    } else if (value->size == 8 && digits(p, 8)) {
        year = number(p, 4), month = number(p + 4, 2), day = number(p + 6, 2);
        if (!is_day(year, month, day))
            return ODD;
    } else {
        return ODD;
    }
    u8 *out = room->forms -= 10;
    put(out, year, 4), put(out + 5, month, 2), put(out + 8, day, 2);
    out[4] = out[7] = '-';
    *value = (Value){out, 10, 0};
    return DONE;
}

/* YYYY-MM-DD hh:mm:ss[.f][Z], f of one to six digits; years that UTC may push out of the calendar are the reference's. */
static int instant(Value *value, Room *room, int64_t offset_seconds)
{
    int64_t year, month, day, size = value->size;
    const u8 *p = value->data;
    if (size < 19 || size > 27 || !is_date(p, &year, &month, &day) || year < 2 || year > 9998)
        return ODD;
    if ((p[10] != ' ' && p[10] != 'T') || p[13] != ':' || p[16] != ':')
        return ODD;
    if (!digits(p + 11, 2) || !digits(p + 14, 2) || !digits(p + 17, 2))
        return ODD;
    int64_t hour = number(p + 11, 2), minute = number(p + 14, 2), second = number(p + 17, 2);
    if (hour > 23 || minute > 59 || second > 59)
        return ODD;
    if (p[size - 1] == 'Z')
        size--, offset_seconds = 0;
    int64_t fraction = size > 19 ? size - 20 : 0;
    if (size > 19 && (p[19] != '.' || fraction < 1 || fraction > 6 || !digits(p + 20, fraction)))
        return ODD;
    while (fraction && p[20 + fraction - 1] == '0')
        fraction--;
    int64_t seconds = hour * 3600 + minute * 60 + second - offset_seconds, days = day_number(year, month, day);
    for (; seconds < 0; seconds += 86400)
        days--;
    for (; seconds >= 86400; seconds -= 86400)
        days++;
    day_of(days, &year, &month, &day);
    u8 *out = room->forms -= 28;
    put(out, year, 4), put(out + 5, month, 2), put(out + 8, day, 2);
    put(out + 11, seconds / 3600, 2), put(out + 14, seconds / 60 % 60, 2), put(out + 17, seconds % 60, 2);
    out[4] = out[7] = '-', out[10] = 'T', out[13] = out[16] = ':';
    size = 19;
    if (fraction) {
        memcpy(out + 19, p + 19, (size_t)fraction + 1);
        size += fraction + 1;
    }
    out[size++] = 'Z';
    *value = (Value){out, size, 0};
    return DONE;
}

static int decimal(Value *value, Room *room, int64_t scale)
{
    const u8 *p = value->data, *point = memchr(p, '.', (size_t)value->size);
    int64_t whole = point ? point - p : value->size, given = point ? value->size - whole - 1 : 0;
    if (!is_whole(p, whole, MAX_DIGITS - scale) || given > scale || (point && (!given || !digits(point + 1, given))))
        return ODD;
    if (given == scale)
        return DONE;
    int64_t size = whole + 1 + scale;
    u8 *out = room->forms -= size;
    memcpy(out, p, (size_t)whole);
    out[whole] = '.';
    memcpy(out + whole + 1, point ? point + 1 : p, (size_t)given);
    memset(out + whole + 1 + given, '0', (size_t)(scale - given));
    *value = (Value){out, size, 0};
    return DONE;
}

static int code(Value *value, Room *room, unsigned seen)
{
    /* ASCII is its own NFKC; a text that holds an ideograph never has an ASCII one and stays as it is. */
    if (seen & HIGH)
        return seen & IDEOGRAPH ? DONE : ODD;
    if (!(seen & LOWER))
        return DONE;
    u8 *out = room->forms -= value->size;
    for (int64_t i = 0; i < value->size; i++) {
        u8 c = value->data[i];
        out[i] = c >= 'a' && c <= 'z' ? c - 32 : c;
    }
    value->data = out;
    return DONE;
}

/* The normal form of a value that is not empty: DONE, or ODD. */
static int normal(const Plan *plan, const Field *field, Value *value, Room *room)
{
    if (field->kind == INTEGER)
        return is_whole(value->data, value->size, MAX_DIGITS) ? DONE : ODD;
    if (field->kind == DECIMAL)
        return decimal(value, room, field->scale);
    if (field->kind == DATE)
        return date(value, room);
    if (field->kind == DATETIME)
        return instant(value, room, plan->offset_seconds);
    unsigned seen = look(value->data, value->size);
    if (seen & REFERRED)
        return ODD;
    value->escaped = (seen & ESCAPED) != 0;
    return field->kind == CODE ? code(value, room, seen) : DONE;
}

/* A value as a JSON string (RFC 8785 section 3.2.2.2). */
static u8 *written(Value value, u8 *out)
{
    *out++ = '"';
    if (value.escaped) {
        out = dz_escaped(value.data, value.size, out);
    } else {
        memcpy(out, value.data, (size_t)value.size);
        out += value.size;
    }
    *out++ = '"';
    return out;
}

/* What is hashed of one row; `subject` NULL where it has none. */
typedef struct {
    const u8 *record, *key, *subject;
    u64 record_size, key_size, subject_size;
    const Mac *subject_mac;
} Prepared;

typedef struct {
    Mac commitment, key, subject, public;
} Macs;

static int is_public(const Plan *plan, const u8 *p, int64_t size)
{
    if (!plan->public_key || !plan->automaton)
        return plan->public_key != NULL;
    unsigned state = 1;
    for (int64_t i = 0; i < size && state; i++)
        state = plan->automaton[256 * state + p[i]];
    return plan->accepts[state];
}

/* Writes row `row` into the buffer of `size` bytes at `room_at`; DONE or ODD. */
static int prepare(const Plan *plan, const Macs *macs, int64_t row, u8 *room_at, int64_t size, Prepared *made)
{
    Room room = {room_at, room_at + size};
    Value key[64], subject = {NULL, 0, 0};
    const Field *key_field[64];
    int keys = 0;
    made->record = room.next;
    for (int64_t at = 0; at < plan->width; at++) {
        const Field *field = plan->fields + at;
        int64_t bit = field->first + row;
        Value value = {field->data + field->offsets[row], field->offsets[row + 1] - field->offsets[row], 0};
        if (field->valid && !(field->valid[bit >> 3] >> (bit & 7) & 1))
            value.size = 0;
        /* Every byte may take six, a second copy in capitals, a third in the key; a number may gain its fraction, a time its form. */
        if (room.forms - room.next < field->before_size + field->key_before_size + 14 * value.size + 256)
            return ODD;
        memcpy(room.next, field->before, (size_t)field->before_size);
        room.next += field->before_size;
        if (!value.size) {
            if (field->key_before)
                return ODD;
            memcpy(room.next, "null", 4);
            room.next += 4;
            continue;
        }
        if (normal(plan, field, &value, &room) != DONE)
            return ODD;
        room.next = written(value, room.next);
        if (field->key_before) {
            if (keys == 64)
                return ODD;
            key_field[keys] = field, key[keys++] = value;
        }
        if (at == plan->subject)
            subject = value;
    }
    memcpy(room.next, "}}", 2);
    room.next += 2;
    made->record_size = (u64)(room.next - made->record);
    made->key = room.next;
    for (int i = 0; i < keys; i++) {
        if (room.forms - room.next < key_field[i]->key_before_size + 6 * key[i].size + 8)
            return ODD;
        memcpy(room.next, key_field[i]->key_before, (size_t)key_field[i]->key_before_size);
        room.next = written(key[i], room.next + key_field[i]->key_before_size);
    }
    memcpy(room.next, "}}", 2);
    made->key_size = (u64)(room.next + 2 - made->key);
    made->subject = subject.data;
    made->subject_size = (u64)subject.size;
    made->subject_mac = subject.data && is_public(plan, subject.data, subject.size) ? &macs->public : &macs->subject;
    return DONE;
}

static void hash_one(Engine run, const Macs *macs, const Prepared *it, u8 *entry)
{
    u8 both[64], tag[32] = {0};
    finish(run, (Message){FIRST, 0, it->record, it->record_size, both + 32});
    mac_of(run, &macs->commitment, both + 32, 32, both);
    finish(run, (Message){FIRST, 0, both, 64, entry + 32});
    if (it->subject)
        mac_of(run, it->subject_mac, it->subject, it->subject_size, tag);
    memcpy(entry, tag, 16);
    mac_of(run, &macs->key, it->key, it->key_size, tag);
    memcpy(entry + 16, tag, 16);
}

static void hash_two(Engine run, const Macs *macs, const Prepared *a, u8 *entry_a, const Prepared *b, u8 *entry_b)
{
    u8 one[64], two[64], tag_a[32] = {0}, tag_b[32] = {0};
    finish_two(run, (Message){FIRST, 0, a->record, a->record_size, one + 32}, (Message){FIRST, 0, b->record, b->record_size, two + 32});
    mac_of_two(run, &macs->commitment, one + 32, 32, one, &macs->commitment, two + 32, 32, two);
    finish_two(run, (Message){FIRST, 0, one, 64, entry_a + 32}, (Message){FIRST, 0, two, 64, entry_b + 32});
    if (a->subject && b->subject)
        mac_of_two(run, a->subject_mac, a->subject, a->subject_size, tag_a, b->subject_mac, b->subject, b->subject_size, tag_b);
    else if (a->subject)
        mac_of(run, a->subject_mac, a->subject, a->subject_size, tag_a);
    else if (b->subject)
        mac_of(run, b->subject_mac, b->subject, b->subject_size, tag_b);
    memcpy(entry_a, tag_a, 16);
    memcpy(entry_b, tag_b, 16);
    mac_of_two(run, &macs->key, a->key, a->key_size, tag_a, &macs->key, b->key, b->key_size, tag_b);
    memcpy(entry_a + 16, tag_a, 16);
    memcpy(entry_b + 16, tag_b, 16);
}

/* The entry of each row whose `state` is DONE, 64 bytes at entries + 64 * row; sets it to ODD for rows that are left to the reference.
 * `room` has `size` bytes. */
DZ_API void dz_entries(const Plan *plan, int64_t count, u8 *state, u8 *entries, u8 *room, int64_t size, int portable)
{
    Engine run = engine_of(portable);
    Macs macs = {keyed(run, plan->commitment_key), keyed(run, plan->key_key), keyed(run, plan->subject_key),
                 keyed(run, plan->public_key ? plan->public_key : plan->subject_key)};
    Prepared made[2];
    int64_t rows[2], waiting = 0;
    for (int64_t row = 0; row < count; row++) {
        if (state[row] != DONE)
            continue;
        state[row] = (u8)prepare(plan, &macs, row, room + waiting * (size / 2), size / 2, &made[waiting]);
        if (state[row] != DONE)
            continue;
        rows[waiting++] = row;
        if (waiting == 2) {
            hash_two(run, &macs, &made[0], entries + 64 * rows[0], &made[1], entries + 64 * rows[1]);
            waiting = 0;
        }
    }
    if (waiting)
        hash_one(run, &macs, &made[0], entries + 64 * rows[0]);
}
