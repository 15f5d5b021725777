/* Pixels of one example times a mixed block, tile by tile; a tile's sums stay in registers. */
#include "convolve.h"

#define WIDE 6                        /* pixels of a tile of AT_ONCE vectors, */
#define NARROW (AT_ONCE == 1 ? 6 : 12) /* and where there are one or two */

/* One example and one pair of panels. */
typedef struct {
    const Convolution *g;
    Block block;
    int first, last; /* whether no block came before, and none comes after */
    int vectors;
    int64_t column, columns;
    const float *x, *mixed, *nothing; /* (pixels, inputs), (rows, 16 * vectors), zeros */
    float *partial, *y;               /* (pixels, PAIR), (pixels, outputs) */
    const Follow *follow;             /* its activation; bias and sums are these: */
    float bias[PAIR], sums[PAIR];
} Work;

INLINE float *output_of(const Work *work, int64_t pixel)
{
    const Convolution *g = work->g;
    return work->y + (g->writes ? g->writes[pixel] : pixel) * g->outputs + work->column;
}

/* Where a pixel's numbers at a tap begin; `nothing` where the tap falls outside. */
INLINE const float *input_of(const Work *work, int64_t pixel, int64_t tap)
{
    const Convolution *g = work->g;
    int64_t at = g->reads ? g->reads[pixel * g->taps + tap] : pixel;
    return at < 0 ? work->nothing : work->x + at * g->inputs + work->block.channel;
}

/* y = activate(from + bias) for `count` pixels from number p on, and sums += y; `from` is (count, PAIR). */
INLINE void finish_tile(int vectors, Work *work, int64_t p, int count, const float *from)
{
    vec sum[PAIR / 16], bias[PAIR / 16];
    int full = work->columns == vectors * 16;
    const Follow *follow = work->follow;
    for (int v = 0; v < vectors; v++) sum[v] = ((vec *)work->sums)[v], bias[v] = ((vec *)work->bias)[v];
    for (int r = 0; r < count; r++, from += PAIR) {
        float *y = output_of(work, p + r);
        for (int v = 0; v < vectors; v++) {
            vec value = ((const vec *)from)[v] + bias[v];
            value = activate(follow->curve, value, follow->low, follow->high);
            sum[v] += value;
            if (full || v < vectors - 1) ((vec *)y)[v] = value;
            else memcpy(y + v * 16, &value, (work->columns - v * 16) * sizeof *y);
        }
    }
    for (int v = 0; v < vectors; v++) ((vec *)work->sums)[v] = sum[v];
}

/* `pixels` pixels from number p on, of which `count` are wanted, by `vectors` vectors of channels; w is (rows, width).
 * The sums over the block are added to `from` (NULL: zeros) and written `to`, both (pixels, PAIR). */
INLINE void multiply(int pixels, int vectors, int width, const Work *work, int64_t p, int count, const float *w,
                     const float *from, float *to)
{
    const Block block = work->block;
    vec total[NARROW][AT_ONCE];
#pragma GCC unroll 14
    for (int r = 0; r < pixels; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            total[r][v] = from && r < count ? ((const vec *)(from + r * PAIR))[v] : (vec){0};
    for (int64_t t = block.tap; t < block.tap + block.taps; t++) {
        const float *x[NARROW];
        int outside = 1;
#pragma GCC unroll 14
        for (int r = 0; r < pixels; r++) {
            x[r] = input_of(work, p + (r < count ? r : count - 1), t);
            outside &= x[r] == work->nothing;
        }
        if (outside) {
            w += block.channels * width;
            continue;
        }
        for (int64_t c = 0; c < block.channels; c++, w += width) {
            vec weight[AT_ONCE];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) weight[v] = ((const vec *)w)[v];
#pragma GCC unroll 14
            for (int r = 0; r < pixels; r++)
#pragma GCC unroll 4
                for (int v = 0; v < vectors; v++) total[r][v] += x[r][c] * weight[v];
        }
    }
#pragma GCC unroll 14
    for (int r = 0; r < pixels; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            if (r < count) ((vec *)(to + r * PAIR))[v] = total[r][v];
}

INLINE void tile(int pixels, int vectors, Work *work, int64_t p, int count)
{
    float own[NARROW * PAIR], *partial = work->partial + p * PAIR, *to = work->last ? own : partial;
    if (work->last) /* the lines to be written are fetched while the tile is computed: a third of a wide map's time */
        for (int r = 0; r < count; r++)
            for (int v = 0; v < vectors; v++) __builtin_prefetch(output_of(work, p + r) + v * 16, 1);
    for (int v = 0; v < vectors; v += AT_ONCE)
        multiply(pixels, vectors < AT_ONCE ? vectors : AT_ONCE, vectors * 16, work, p, count, work->mixed + v * 16,
                 work->first ? 0 : partial + v * 16, to + v * 16);
    if (work->last) finish_tile(vectors, work, p, count, own);
}

INLINE void tiles(int pixels, int vectors, Work *work, int64_t p, int64_t last)
{
    for (; last - p > 2; p += pixels) tile(pixels, vectors, work, p, (int)smaller(pixels, last - p));
    for (; p < last; p++) tile(1, vectors, work, p, 1);
}

/* Pixels first..last. */
static void compute(Work *work, int64_t first, int64_t last)
{
    EACH_WIDTH(work->vectors, tiles(V < 3 ? NARROW : WIDE, V, work, first, last))
}
