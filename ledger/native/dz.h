/* What all C files of this folder share. No Python.h: loaded with ctypes. Lengths and offsets come from Arrow arrays that were made in this
 * process; whoever calls answers for them. */
#ifndef DZ_H
#define DZ_H

#include <stdint.h>
#include <string.h>

/* A function that Python may call; all others stay inside the library. */
#define DZ_API __attribute__((visibility("default")))

typedef uint32_t u32;
typedef uint64_t u64;
typedef uint8_t u8;

/* The inside of a JSON string (RFC 8785 section 3.2.2.2), up to six bytes for one; what comes after it. */
u8 *dz_escaped(const u8 *data, int64_t size, u8 *out);

/* utf8.c */
int dz_is_utf8(const u8 *data, int64_t size);

#endif
