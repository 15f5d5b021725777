/* Vectors as wide as the processor's registers, memory, and the range of channels that is a thread's. */
#ifndef VECTORS_H
#define VECTORS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* WIDTH: float32 numbers of a register; REGISTERS: how many of them the sums of a tile may fill. A vector of more than a
 * register would live in memory: gcc works on it piece by piece and writes every piece back. */
#if defined(__AVX512F__)
#include <immintrin.h>
#define INSTRUCTION_SET "avx512"
#define WIDTH 16
#define REGISTERS 32
#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define INSTRUCTION_SET "avx2"
#define WIDTH 8
#define REGISTERS 16
#elif defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>
#define INSTRUCTION_SET "neon"
#define WIDTH 4
#define REGISTERS 32
#else
#ifdef __SSE2__
#include <emmintrin.h>
#endif
#define INSTRUCTION_SET "baseline"
#define WIDTH 4
#define REGISTERS 16
#endif

/* Arrays of torch are aligned to 4 bytes at least. */
typedef float vec __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias)); /* a comparison of two vec */

#define INLINE static inline __attribute__((always_inline))

/* The library's own functions are hidden, so that no other library's function of the same name takes their place; those
 * that Python calls have the prefix dynaconv_ and are bound to this library. */
#if defined(__ELF__)
#define EXPORT __attribute__((visibility("protected")))
#else
#define EXPORT __attribute__((visibility("default")))
#endif

/* What the exported functions return. */
enum { DONE, NO_MEMORY };

/* Memory that begins at a cache line, or NULL where there is none; for free(). */
void *allocate(int64_t bytes);

/* `numbers` rounded up to whole cache lines: arrays that share one allocation begin at cache lines. */
INLINE int64_t lines(int64_t numbers) { return (numbers + 15) / 16 * 16; }

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t parts_of(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

INLINE float sum_of(vec value)
{
    float sum = 0;
    for (int v = 0; v < WIDTH; v++) sum += value[v];
    return sum;
}

/* Range number `index` of `slabs` equal ranges of the channels; limits are multiples of 64 but the last. */
INLINE void slab(int64_t channels, int64_t slabs, int64_t index, int64_t *first, int64_t *last)
{
    int64_t chunks = parts_of(channels, 64);
    *first = chunks * index / slabs * 64;
    *last = smaller(chunks * (index + 1) / slabs * 64, channels);
}

#endif
