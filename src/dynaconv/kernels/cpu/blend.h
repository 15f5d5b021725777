/* A block of a bank, mixed for a few examples. */
#include "convolve.h"

INLINE vec widened(int kind, const void *numbers, int64_t index)
{
    typedef uint16_t half __attribute__((vector_size(32), aligned(2), may_alias));
    typedef int8_t byte __attribute__((vector_size(16), aligned(1), may_alias));
    if (kind == FLOAT32) return *(const vec *)((const float *)numbers + index);
#ifdef __AVX512F__ /* gcc would take the bytes one by one */
    if (kind == INT8)
        return (vec)_mm512_cvtepi32_ps(
            _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i_u *)((const int8_t *)numbers + index))));
#endif
    if (kind == INT8) return __builtin_convertvector(*(const byte *)((const int8_t *)numbers + index), vec);
    return (vec)(__builtin_convertvector(*(const half *)((const uint16_t *)numbers + index), ivec) << 16);
}

/* The weight of every expert in every channel of a pair: the routing weight, times the channel's scale. */
INLINE void weigh(const Convolution *g, const Bank *bank, const float *routing, int64_t pair, float *weights)
{
    for (int64_t k = 0; k < g->experts; k++)
        for (int64_t c = 0; c < PAIR; c++) {
            int64_t panel = pair * 2 + c / PANEL;
            int scaled = bank->scale && panel < panels_of(g);
            float scale = scaled ? bank->scale[(k * panels_of(g) + panel) * PANEL + c % PANEL] : 1;
            weights[k * PAIR + c] = routing[k] * scale;
        }
}

/* to[e] (rows, 16 * vectors) = sum_k weights[e][k] * bank[k]; `start` is the first number of the pair's first panel. */
INLINE void blend_rows(int kind, int vectors, int examples, const Convolution *g, const void *bank, int64_t start,
                       int64_t rows, const float *weights, int64_t step, float *to)
{
    int64_t panel = rows_of(g) * PANEL, expert = panels_of(g) * panel;
    for (int64_t row = 0; row < rows; row++, start += PANEL, to += vectors * 16) {
        vec total[TOGETHER][PAIR / 16];
        for (int e = 0; e < examples; e++)
            for (int v = 0; v < vectors; v++) total[e][v] = (vec){0};
        for (int64_t k = 0; k < g->experts; k++)
            for (int v = 0; v < vectors; v++) {
                vec one = widened(kind, bank, start + k * expert + v / 2 * panel + v % 2 * 16);
                for (int e = 0; e < examples; e++)
                    total[e][v] += one * ((const vec *)(weights + (e * g->experts + k) * PAIR))[v];
            }
        for (int e = 0; e < examples; e++)
            for (int v = 0; v < vectors; v++) ((vec *)(to + e * step))[v] = total[e][v];
    }
}

/* For up to TOGETHER examples; `weights` (examples, experts, PAIR), `to` has room for `step` numbers of each. */
INLINE void blend(const Convolution *g, const Bank *bank, const Block *block, int64_t pair, int64_t examples,
                  const float *weights, int64_t step, float *to)
{
    int64_t rows = count_rows(block), start = (pair * 2 * rows_of(g) + first_row(g, block)) * PANEL;
    int together = examples == TOGETHER ? TOGETHER : 1, vectors = vectors_of(g, pair);
#define BLEND(kind, examples) \
    EACH_WIDTH(vectors, blend_rows(kind, V, examples, g, bank->numbers, start, rows, weights, step, to))
    for (int64_t e = 0; e < examples; e += together, weights += together * g->experts * PAIR, to += together * step) {
        if (bank->kind == FLOAT32 && together == 1) BLEND(FLOAT32, 1)
        else if (bank->kind == FLOAT32) BLEND(FLOAT32, TOGETHER)
        else if (bank->kind == BFLOAT16 && together == 1) BLEND(BFLOAT16, 1)
        else if (bank->kind == BFLOAT16) BLEND(BFLOAT16, TOGETHER)
        else if (together == 1) BLEND(INT8, 1)
        else BLEND(INT8, TOGETHER)
    }
#undef BLEND
}
