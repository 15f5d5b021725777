/* SIMD vectors of the processor's register width, memory allocation, and the split of channels among threads. */
#ifndef VECTORS_H
#define VECTORS_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* WIDTH: float32 numbers in a vector register; REGISTERS: the number of vector registers. Vectors are never wider than a
 * register, because gcc would keep such a vector in memory and load and store it piece by piece. */
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

/* Internal functions have hidden visibility, so that a function of the same name in another library cannot replace them.
 * Functions that Python calls have the prefix dynaconv_ and protected visibility. */
#if defined(__ELF__)
#define EXPORT __attribute__((visibility("protected")))
#else
#define EXPORT __attribute__((visibility("default")))
#endif

/* What the exported functions return. */
enum { DONE, NO_MEMORY };

/* Memory aligned to a cache line, or NULL if the allocation fails; release it by free(). */
void *allocate(int64_t bytes);

/* `numbers` rounded up to whole cache lines, so that arrays in one allocation are aligned to cache lines. */
INLINE int64_t whole_lines(int64_t numbers) { return (numbers + 15) / 16 * 16; }

INLINE int64_t minimum(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t ceil_div(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

INLINE float horizontal_sum(vec value)
{
    float sum = 0;
    for (int v = 0; v < WIDTH; v++) sum += value[v];
    return sum;
}

/* Range number `index` of `slabs` equal ranges of the channels; limits are multiples of 64 but the last. */
INLINE void slab(int64_t channels, int64_t slabs, int64_t index, int64_t *first, int64_t *last)
{
    int64_t chunks = ceil_div(channels, 64);
    *first = chunks * index / slabs * 64;
    *last = minimum(chunks * (index + 1) / slabs * 64, channels);
}

#endif
