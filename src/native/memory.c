// memcmp, bcmp, memcpy and memmove for musl. Its memcmp compares a byte at a time, and on x86-64 its memcpy and memmove are a `rep movsq`,
// which takes some thirty cycles before the first byte; a database in B-trees does little else. On other machines musl's copies are good,
// and only the comparisons are replaced.
//
// Every function reads and writes exactly the bytes that it was given. Short copies are two loads and two stores that overlap.

#include <stddef.h>
#include <stdint.h>

#ifdef INSTEAD_OF_LIBC
#define NAME(name) name
#else
#define NAME(name) stockgate_##name
#endif

typedef unsigned char byte;

// A load or store of any alignment: the compiler makes one instruction of each.
#define UNALIGNED(type, name)                                                                                          \
    typedef struct __attribute__((packed, may_alias)) { type value; } at_##name;                                       \
    static inline type load_##name(const byte *from) { return ((const at_##name *)from)->value; }                      \
    static inline void store_##name(byte *to, type value) { ((at_##name *)to)->value = value; }

UNALIGNED(uint16_t, 2)
UNALIGNED(uint32_t, 4)
UNALIGNED(uint64_t, 8)

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define FIRST_BYTE_HIGHEST(value) __builtin_bswap64(value)
#else
#define FIRST_BYTE_HIGHEST(value) (value)
#endif

static inline int order(uint64_t left, uint64_t right) {
    left = FIRST_BYTE_HIGHEST(left);
    right = FIRST_BYTE_HIGHEST(right);
    return (left > right) - (left < right);
}

int NAME(memcmp)(const void *left, const void *right, size_t bytes) {
    const byte *a = left, *b = right;
    if (bytes < 8) {
        for (; bytes; a++, b++, bytes--) {
            if (*a != *b) return *a < *b ? -1 : 1;
        }
        return 0;
    }
    const byte *last = a + bytes - 8;
    for (; a < last; a += 8, b += 8) {
        uint64_t x = load_8(a), y = load_8(b);
        if (x != y) return order(x, y);
    }
    // the last eight bytes, some of which may be known to be equal
    b -= a - last;
    return order(load_8(last), load_8(b));
}

int NAME(bcmp)(const void *left, const void *right, size_t bytes) { return NAME(memcmp)(left, right, bytes); }

#if defined(__x86_64__)
#include <emmintrin.h>

static inline __m128i load_16(const byte *from) { return _mm_loadu_si128((const __m128i_u *)from); }
static inline void store_16(byte *to, __m128i value) { _mm_storeu_si128((__m128i_u *)to, value); }

// At most 32 bytes: all of them are loaded before the first is stored, so they may overlap.
static inline void copy_short(byte *to, const byte *from, size_t bytes) {
    if (bytes >= 16) {
        __m128i head = load_16(from), tail = load_16(from + bytes - 16);
        store_16(to, head);
        store_16(to + bytes - 16, tail);
    } else if (bytes >= 8) {
        uint64_t head = load_8(from), tail = load_8(from + bytes - 8);
        store_8(to, head);
        store_8(to + bytes - 8, tail);
    } else if (bytes >= 4) {
        uint32_t head = load_4(from), tail = load_4(from + bytes - 4);
        store_4(to, head);
        store_4(to + bytes - 4, tail);
    } else if (bytes >= 2) {
        uint16_t head = load_2(from), tail = load_2(from + bytes - 2);
        store_2(to, head);
        store_2(to + bytes - 2, tail);
    } else if (bytes) {
        *to = *from;
    }
}

// From the front, more than 32 bytes. Right when `to` is below `from`, or they do not overlap.
static inline void copy_forward(byte *to, const byte *from, size_t bytes) {
    __m128i tail_1 = load_16(from + bytes - 32), tail_2 = load_16(from + bytes - 16);
    byte *end = to + bytes - 32;
    for (; to < end; to += 32, from += 32) {
        __m128i x = load_16(from), y = load_16(from + 16);
        store_16(to, x);
        store_16(to + 16, y);
    }
    store_16(end, tail_1);
    store_16(end + 16, tail_2);
}

// From the back, more than 32 bytes. Right when `to` is above `from`.
static inline void copy_backward(byte *to, const byte *from, size_t bytes) {
    __m128i head_1 = load_16(from), head_2 = load_16(from + 16);
    size_t left = bytes;
    for (; left > 32; left -= 32) {
        __m128i x = load_16(from + left - 32), y = load_16(from + left - 16);
        store_16(to + left - 32, x);
        store_16(to + left - 16, y);
    }
    store_16(to, head_1);
    store_16(to + 16, head_2);
}

void *NAME(memcpy)(void *restrict to, const void *restrict from, size_t bytes) {
    if (bytes <= 32) {
        copy_short(to, from, bytes);
    } else if (bytes < 2048) {
        copy_forward(to, from, bytes);
    } else {
        void *dest = to;
        __asm__ volatile("rep movsb" : "+D"(dest), "+S"(from), "+c"(bytes) : : "memory");
    }
    return to;
}

void *NAME(memmove)(void *to, const void *from, size_t bytes) {
    if (bytes <= 32) {
        copy_short(to, from, bytes);
    } else if ((uintptr_t)to - (uintptr_t)from >= bytes) {
        copy_forward(to, from, bytes);
    } else {
        copy_backward(to, from, bytes);
    }
    return to;
}
#endif
