/* Activations that follow a convolution in the same pass. */
#ifndef ACTIVATION_H
#define ACTIVATION_H

enum { CLAMP, SILU, HARDSWISH };

INLINE vec choose(ivec condition, vec yes, vec no) { return (vec)((condition & (ivec)yes) | (~condition & (ivec)no)); }

/* Every number between `low` and `high`; NaN stays NaN. */
INLINE vec clamp(vec value, float low, float high)
{
    vec none = {0}, least = none + low, most = none + high;
#ifdef __AVX512F__
    return (vec)_mm512_min_ps((__m512)most, _mm512_max_ps((__m512)least, (__m512)value));
#else
    value = choose(value < least, least, value);
    return choose(value > most, most, value);
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

INLINE vec activate(int64_t curve, vec value, float low, float high)
{
    if (curve == SILU) return value / (1 + exponential(clamp(-value, -87, 88)));
    if (curve == HARDSWISH) return value * clamp(value + 3, 0, 6) / 6;
    return clamp(value, low, high);
}

#endif
