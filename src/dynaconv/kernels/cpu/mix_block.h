/* Mix one block of a bank for a few examples. */
#include "convolve.h"

/* WIDTH numbers of a bank, as float32. */
INLINE vec load_as_float(int kind, const void *numbers, int64_t index)
{
    typedef uint16_t half __attribute__((vector_size(2 * WIDTH), aligned(2), may_alias));
    typedef int8_t byte __attribute__((vector_size(WIDTH), aligned(1), may_alias));
    if (kind == FLOAT32) return *(const vec *)((const float *)numbers + index);
    const int8_t *bytes = (const int8_t *)numbers + index;
    const uint16_t *halves = (const uint16_t *)numbers + index;
#if WIDTH == 16 /* for a generic conversion gcc would load the bytes one by one */
    if (kind == INT8) return (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i_u *)bytes)));
#elif WIDTH == 8
    if (kind == INT8) return (vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i_u *)bytes)));
    return (vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i_u *)halves)), 16);
#endif
    if (kind == INT8) return __builtin_convertvector(*(const byte *)bytes, vec);
    return (vec)(__builtin_convertvector(*(const half *)halves, ivec) << 16);
}

/* The weight of every expert in every column of a pair: the routing weight, times the column's scale. */
INLINE void column_weights(const Dense *g, const Bank *bank, const float *routing, int64_t pair, float *weights)
{
    for (int64_t k = 0; k < g->experts; k++)
        for (int64_t c = 0; c < PAIR; c++) {
            int64_t panel = pair * 2 + c / PANEL;
            int scaled = bank->scale && panel < panels_of(g);
            float scale = scaled ? bank->scale[(k * panels_of(g) + panel) * PANEL + c % PANEL] : 1;
            weights[k * PAIR + c] = routing[k] * scale;
        }
}

/* For `vectors` vectors of a row, from vector `first` on: to[e] = sum_k weights[e][k] * bank[k]. */
INLINE void mix_vectors(int kind, int first, int vectors, int examples, const Dense *g, const void *bank, int64_t start,
                        int64_t panel, const float *weights, int64_t step, float *to)
{
    vec total[EXAMPLES_AT_ONCE][TILE_VECTORS];
#pragma GCC unroll 4
    for (int e = 0; e < examples; e++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) total[e][v] = (vec){0};
    for (int64_t k = 0; k < g->experts; k++, start += panels_of(g) * panel)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            vec one = load_as_float(kind, bank, start + vector_offset(first + v, panel));
#pragma GCC unroll 4
            for (int e = 0; e < examples; e++)
                total[e][v] += one * ((const vec *)(weights + (e * g->experts + k) * PAIR))[first + v];
        }
#pragma GCC unroll 4
    for (int e = 0; e < examples; e++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) ((vec *)(to + e * step))[first + v] = total[e][v];
}

/* to[e] (rows, 16 * groups); `start` is the first number of the pair's first panel. */
INLINE void mix_rows(int kind, int groups, int examples, const Dense *g, const void *bank, int64_t start, int64_t rows,
                     const float *weights, int64_t step, float *to)
{
    int64_t panel = rows_of(g) * PANEL;
    int vectors = groups * GROUP_VECTORS;
    for (int64_t row = 0; row < rows; row++, start += PANEL, to += groups * GROUP)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v += TILE_VECTORS)
            mix_vectors(kind, v, vectors < TILE_VECTORS ? vectors : TILE_VECTORS, examples, g, bank, start, panel, weights,
                        step, to);
}

/* For up to EXAMPLES_AT_ONCE examples; `weights` (examples, experts, PAIR); `step` is the stride of the examples in `to`. */
INLINE void mix_block(const Dense *g, const Bank *bank, const Block *block, int64_t pair, int64_t examples,
                      const float *weights, int64_t step, float *to)
{
    int64_t rows = count_rows(block), start = (pair * 2 * rows_of(g) + first_row(g, block)) * PANEL;
    int together = examples == EXAMPLES_AT_ONCE ? EXAMPLES_AT_ONCE : 1, groups = groups_of(g, pair);
#define MIX(kind, examples) \
    EACH_WIDTH(groups, mix_rows(kind, G, examples, g, bank->numbers, start, rows, weights, step, to))
    for (int64_t e = 0; e < examples; e += together, weights += together * g->experts * PAIR, to += together * step) {
        if (bank->kind == FLOAT32 && together == 1) MIX(FLOAT32, 1)
        else if (bank->kind == FLOAT32) MIX(FLOAT32, EXAMPLES_AT_ONCE)
        else if (bank->kind == BFLOAT16 && together == 1) MIX(BFLOAT16, 1)
        else if (bank->kind == BFLOAT16) MIX(BFLOAT16, EXAMPLES_AT_ONCE)
        else if (together == 1) MIX(INT8, 1)
        else MIX(INT8, EXAMPLES_AT_ONCE)
    }
#undef MIX
}
