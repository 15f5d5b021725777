/* The epilogue: bias, activation and sums over space, applied to an output while it is in the cache. */
#ifndef EPILOGUE_H
#define EPILOGUE_H

#include "vectors.h"

enum { CLAMP, SILU, HARDSWISH };

/* y = activation(y + bias), sums += y over pixels; bias and sums may be NULL. */
typedef struct {
    const float *bias;  /* (batch, channels), or (channels) for all examples */
    int64_t bias_step;  /* channels, or 0 */
    int64_t activation; /* CLAMP, SILU or HARDSWISH */
    float low, high;    /* of a clamp */
    float *sums;        /* (batch, channels) */
} Epilogue;

INLINE vec blend(ivec condition, vec yes, vec no) { return (vec)((condition & (ivec)yes) | (~condition & (ivec)no)); }

/* Clamp to `low`..`high`. NaN stays NaN, because min and max return their second operand if one of them is NaN. */
INLINE vec clamp(vec value, float low, float high)
{
    vec none = {0}, least = none + low, most = none + high;
#if WIDTH == 16
    return (vec)_mm512_min_ps((__m512)most, _mm512_max_ps((__m512)least, (__m512)value));
#elif WIDTH == 8
    return (vec)_mm256_min_ps((__m256)most, _mm256_max_ps((__m256)least, (__m256)value));
#elif defined(__SSE2__)
    return (vec)_mm_min_ps((__m128)most, _mm_max_ps((__m128)least, (__m128)value));
#else
    value = blend(value < least, least, value);
    return blend(value > most, most, value);
#endif
}

/* e to the power of x, to about the last digit, for x of -87 to 88: x = n ln 2 + r, |r| <= ln 2 / 2, and the polynomial of
 * the Cephes library for r. */
INLINE vec exponential(vec x)
{
    const float shift = 12582912; /* 1.5 * 2^23: what is added to it is rounded to a whole number, in the lowest bits */
    vec shifted = x * 1.44269504088896341f + shift, n = shifted - shift;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec sum = r * 1.9875691500e-4f + 1.3981999507e-3f;
    sum = sum * r + 8.3334519073e-3f;
    sum = sum * r + 4.1665795894e-2f;
    sum = sum * r + 1.6666665459e-1f;
    sum = sum * r + 5.0000001201e-1f;
    return (sum * r * r + r + 1) * (vec)(((ivec)shifted << 23) + (127 << 23));
}

INLINE vec activate(const Epilogue *epilogue, vec value)
{
    if (epilogue->activation == SILU) return value / (1 + exponential(clamp(-value, -87, 88)));
    if (epilogue->activation == HARDSWISH) return value * clamp(value + 3, 0, 6) / 6;
    return clamp(value, epilogue->low, epilogue->high);
}

INLINE Epilogue epilogue_of_example(const Epilogue *epilogue, int64_t b, int64_t channels)
{
    Epilogue own = *epilogue;
    if (own.bias) own.bias += b * own.bias_step;
    if (own.sums) own.sums += b * channels;
    return own;
}

/* For the WIDTH channels from `c` on, of `count` pixels of one example. */
INLINE void finish_vector(int64_t count, int64_t channels, int64_t c, const Epilogue *epilogue, float *y)
{
    vec none = {0}, sum = none, bias = epilogue->bias ? *(vec *)(epilogue->bias + c) : none;
    for (int64_t p = 0; p < count; p++) {
        vec *pixel = (vec *)(y + p * channels + c), value = activate(epilogue, *pixel + bias);
        *pixel = value;
        sum += value;
    }
    if (epilogue->sums) *(vec *)(epilogue->sums + c) += sum;
}

/* The same for one channel. */
INLINE void finish_channel(int64_t count, int64_t channels, int64_t c, const Epilogue *epilogue, float *y)
{
    float sum = 0, bias = epilogue->bias ? epilogue->bias[c] : 0;
    for (int64_t p = 0; p < count; p++) {
        vec value = (vec){0} + (y[p * channels + c] + bias);
        y[p * channels + c] = activate(epilogue, value)[0];
        sum += y[p * channels + c];
    }
    if (epilogue->sums) epilogue->sums[c] += sum;
}

/* For channels first..last of `count` pixels of one example. */
INLINE void finish_pixels(int64_t count, int64_t channels, int64_t first, int64_t last, const Epilogue *epilogue, float *y)
{
    int64_t c = first;
    for (; last - c >= WIDTH; c += WIDTH) finish_vector(count, channels, c, epilogue, y);
    for (; c < last; c++) finish_channel(count, channels, c, epilogue, y);
}

#endif
