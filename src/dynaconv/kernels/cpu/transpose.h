/* Transposition of small matrices, in blocks of 4 by 4 that stay in registers. */
#ifndef TRANSPOSE_H
#define TRANSPOSE_H

#include "vectors.h"

typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

#if defined(__clang__)
#define SHUFFLE(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t four_indices __attribute__((vector_size(16)));
#define SHUFFLE(a, b, i, j, k, l) __builtin_shuffle(a, b, (four_indices){i, j, k, l})
#endif

INLINE void transpose_four(const float *from, int64_t step, float *to, int64_t to_step)
{
    four a = *(const four *)from, b = *(const four *)(from + step), c = *(const four *)(from + 2 * step);
    four d = *(const four *)(from + 3 * step);
    four ab = SHUFFLE(a, b, 0, 4, 1, 5), cd = SHUFFLE(c, d, 0, 4, 1, 5);
    *(four *)to = SHUFFLE(ab, cd, 0, 1, 4, 5), *(four *)(to + to_step) = SHUFFLE(ab, cd, 2, 3, 6, 7);
    ab = SHUFFLE(a, b, 2, 6, 3, 7), cd = SHUFFLE(c, d, 2, 6, 3, 7);
    *(four *)(to + 2 * to_step) = SHUFFLE(ab, cd, 0, 1, 4, 5), *(four *)(to + 3 * to_step) = SHUFFLE(ab, cd, 2, 3, 6, 7);
}

/* to[c * to_step + r] = from[r * step + c] for `rows` by `columns` numbers. */
INLINE void transpose(int64_t rows, int64_t columns, const float *from, int64_t step, float *to, int64_t to_step)
{
    for (int64_t r = 0; r < rows; r += 4) {
        int64_t c = 0, end = minimum(r + 4, rows);
        for (; end - r == 4 && c + 4 <= columns; c += 4) transpose_four(from + r * step + c, step, to + c * to_step + r, to_step);
        for (; c < columns; c++)
            for (int64_t i = r; i < end; i++) to[c * to_step + i] = from[i * step + c];
    }
}

#endif
