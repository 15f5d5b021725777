/* What the kernels of this folder share. Maps are (batch, pixels, channels), dense. */
#ifndef COMMON_H
#define COMMON_H

#include <stdint.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

/* Sixteen numbers; a processor with shorter registers uses several. Arrays of torch are aligned to 4 bytes at least. */
typedef float vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(64), aligned(4), may_alias)); /* what comparing two of them answers */

#define INLINE static inline __attribute__((always_inline))

#include "activation.h"

/* Range number `index` of `slabs` equal ranges of the channels; limits are multiples of 64 but the last. */
INLINE void slab(int64_t channels, int64_t slabs, int64_t index, int64_t *first, int64_t *last)
{
    int64_t chunks = (channels + 63) / 64;
    *first = chunks * index / slabs * 64;
    *last = chunks * (index + 1) / slabs * 64;
    if (*last > channels) *last = channels;
}

/* Channels first..last of `count` pixels become 0. */
INLINE void clear(int64_t count, int64_t channels, int64_t first, int64_t last, float *y)
{
    for (int64_t i = 0; i < count; i++, y += channels)
        for (int64_t c = first; c < last; c++) y[c] = 0;
}

/* What follows a convolution: y = activate(y + bias), sums += y over pixels; bias and sums may be NULL. */
typedef struct {
    const float *bias; /* (batch, channels), or (channels) for all examples */
    int64_t bias_step; /* channels, or 0 */
    int64_t curve;     /* see activation.h */
    float low, high;   /* of a clamp */
    float *sums; /* (batch, channels) */
} Follow;

INLINE Follow of_example(const Follow *follow, int64_t b, int64_t channels)
{
    Follow own = *follow;
    if (own.bias) own.bias += b * own.bias_step;
    if (own.sums) own.sums += b * channels;
    return own;
}

/* What follows a convolution, for the 16 channels from `c` on, of `count` pixels of one example. */
INLINE void follow_vector(int64_t count, int64_t channels, int64_t c, const Follow *follow, float *y)
{
    vec none = {0}, sum = none, bias = follow->bias ? *(vec *)(follow->bias + c) : none;
    for (int64_t p = 0; p < count; p++) {
        vec *pixel = (vec *)(y + p * channels + c), value = activate(follow->curve, *pixel + bias, follow->low, follow->high);
        *pixel = value;
        sum += value;
    }
    if (follow->sums) *(vec *)(follow->sums + c) += sum;
}

/* The same for one channel. */
INLINE void follow_channel(int64_t count, int64_t channels, int64_t c, const Follow *follow, float *y)
{
    float sum = 0, bias = follow->bias ? follow->bias[c] : 0;
    for (int64_t p = 0; p < count; p++) {
        vec value = (vec){0} + (y[p * channels + c] + bias);
        y[p * channels + c] = activate(follow->curve, value, follow->low, follow->high)[0];
        sum += y[p * channels + c];
    }
    if (follow->sums) follow->sums[c] += sum;
}

INLINE void follow_pixels(int64_t count, int64_t channels, int64_t first, int64_t last, const Follow *follow, float *y)
{
    int64_t c = first;
    for (; last - c >= 16; c += 16) follow_vector(count, channels, c, follow, y);
    for (; c < last; c++) follow_channel(count, channels, c, follow, y);
}

#endif
