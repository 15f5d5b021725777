/* Mix the kernels of every example from a frozen bank. A bfloat16 or int8 bank is converted to float32 in registers, so
 * only half or a quarter of the bytes are read. */
#include "kernels.h"

INLINE float to_float(int kind, const void *bank, int64_t index)
{
    if (kind == INT8) return ((const int8_t *)bank)[index];
    if (kind == FLOAT32) return ((const float *)bank)[index];
    uint32_t bits = (uint32_t)((const uint16_t *)bank)[index] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
/* Add four experts in one pass, so that their sum stays in a register: out (+)= sum_e weight_e * scale_e * bank_e. */
INLINE void mix_four(int kind, int by_column, int add, int64_t n, const float *weight, const int64_t *start,
                     const void *bank, const float *const *scale, float *restrict out)
{
#define TERM(e) ((by_column ? weight[e] * scale[e][i] : weight[e]) * to_float(kind, bank, start[e] + i))
    if (add)
        for (int64_t i = 0; i < n; i++) out[i] += TERM(0) + TERM(1) + TERM(2) + TERM(3);
    else
        for (int64_t i = 0; i < n; i++) out[i] = TERM(0) + TERM(1) + TERM(2) + TERM(3);
#undef TERM
}

/* Numbers first..first+n of one example's kernel. If fewer than four experts are left, the last one is repeated with
 * weight 0. */
INLINE void mix_span(int kind, int64_t experts, int64_t size, int64_t first, int64_t n, const float *routing,
                     const float *row_scale, int64_t rows, const float *column_scale, const void *bank, float *out)
{
    for (int64_t k = 0; k < experts; k += 4) {
        float weight[4];
        int64_t start[4];
        const float *scale[4];
        for (int e = 0; e < 4; e++) {
            int64_t expert = k + e < experts ? k + e : experts - 1;
            weight[e] = k + e < experts ? routing[expert] : 0;
            if (row_scale) weight[e] *= row_scale[expert * rows];
            start[e] = expert * size + first;
            scale[e] = column_scale ? column_scale + expert * n : 0;
        }
        if (column_scale) mix_four(kind, 1, k > 0, n, weight, start, bank, scale, out + first);
        else mix_four(kind, 0, k > 0, n, weight, start, bank, scale, out + first);
    }
}

/* bank (experts, rows, columns), routing (batch, experts), out (batch, rows, columns); scale (experts, rows) or, by
 * column, (experts, columns), or NULL. */
int dynaconv_mix(int kind, int64_t batch, int64_t experts, int64_t rows, int64_t columns, int by_column, int threads,
                 const float *routing, const void *bank, const float *scale, float *out)
{
    int64_t size = rows * columns, span = scale ? columns : 2048;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t first = 0; first < size; first += span) /* a span of the bank stays in the cache for all examples */
        for (int64_t b = 0; b < batch; b++) {
            int64_t n = size - first < span ? size - first : span;
            const float *row_scale = scale && !by_column ? scale + first / columns : 0;
            const float *column_scale = scale && by_column ? scale : 0, *own = routing + b * experts;
            float *to = out + b * size;
            /* `kind` is a constant in every branch, so the compiler makes one loop for each */
            if (kind == INT8) mix_span(INT8, experts, size, first, n, own, row_scale, rows, column_scale, bank, to);
            else if (kind == BFLOAT16) mix_span(BFLOAT16, experts, size, first, n, own, 0, rows, 0, bank, to);
            else mix_span(FLOAT32, experts, size, first, n, own, 0, rows, 0, bank, to);
        }
    return DONE;
}
