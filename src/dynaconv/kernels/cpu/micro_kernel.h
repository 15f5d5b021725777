/* The product of one example's pixels and a mixed block, tile by tile; the sums of a tile stay in registers. */
#include "convolve.h"

#define MOST_ROWS 12
/* Pixels of a tile: more if there are few vectors, because registers are free then. */
#define ROWS_FOR(vectors) ((vectors) <= 2 && REGISTERS == 32 ? MOST_ROWS : TILE_ROWS)

/* One example and one pair of panels. */
typedef struct {
    const Dense *g;
    Block block;
    int first, last; /* whether this is the first block, and the last */
    int groups;
    int64_t column, columns;
    const float *x, *mixed, *zeros; /* (pixels, inputs), (rows, 16 * groups), (inputs) */
    float *partial, *y;             /* (pixels, PAIR), (pixels, outputs) */
    const Epilogue *epilogue;       /* its activation is used; bias and sums are copied here: */
    float bias[PAIR], sums[PAIR];
} PairJob;

/* The pixels of a tile. If `count` is less than the height of the tile, the last pixel is repeated. */
typedef struct {
    int64_t first; /* index of the first pixel; the others follow it unless `written` is used */
    int count;
    int64_t written[MOST_ROWS];                          /* positions of the pixels if they are not consecutive */
    const int32_t *rows[MOST_ROWS], *columns[MOST_ROWS]; /* their entries in the tables, if there are tables */
} Tile;

/* y and x of pixel number p in the order of Positions. */
INLINE void find_pixel(const Positions *positions, int64_t p, int64_t *y, int64_t *x)
{
    int64_t corner_y = 0, corner_x = 0, width = positions->width, step_y = positions->step_y, step_x = positions->step_x;
    while (step_y != 1 || step_x != 1) {
        int64_t count = ceil_div(positions->height - corner_y, step_y) * ceil_div(width - corner_x, step_x);
        if (p < count) break;
        p -= count;
        if (++corner_x == minimum(step_x, width)) corner_x = 0, corner_y++;
    }
    uint32_t wide = (uint32_t)ceil_div(width - corner_x, step_x);
    *y = corner_y + (uint32_t)p / wide * step_y;
    *x = corner_x + (uint32_t)p % wide * step_x;
}

/* Advance y and x to the next pixel in the order of Positions. */
INLINE void next_pixel(const Positions *positions, int64_t *y, int64_t *x)
{
    *x += positions->step_x;
    if (*x < positions->width) return;
    *x %= positions->step_x, *y += positions->step_y;
    if (*y < positions->height) return;
    *y %= positions->step_y, *x += 1;
    if (*x == minimum(positions->step_x, positions->width)) *x = 0, *y += 1;
}

INLINE int in_order(const Positions *positions) { return positions->step_y == 1 && positions->step_x == 1; }

/* Fill the tile from pixel (y, x) on, and advance y and x to the first pixel after it. */
INLINE void find_tile(int pixels, const Positions *positions, int64_t *y, int64_t *x, Tile *tile)
{
    if (positions->same) return;
    for (int r = 0; r < pixels; r++) {
        if (r < tile->count) {
            tile->written[r] = *y * positions->width + *x;
            tile->rows[r] = positions->rows + *y * positions->taps_y;
            tile->columns[r] = positions->columns + *x * positions->taps_x;
            next_pixel(positions, y, x);
        } else {
            tile->rows[r] = tile->rows[r - 1], tile->columns[r] = tile->columns[r - 1];
        }
    }
}

/* The input channels that a pixel reads at a tap; `zeros` if the tap is outside the map. */
INLINE const float *input_of(const PairJob *job, int same, const Tile *tile, int r, int64_t ky, int64_t kx)
{
    if (same) return job->x + (tile->first + minimum(r, tile->count - 1)) * job->g->inputs + job->block.channel;
    int32_t row = tile->rows[r][ky], column = tile->columns[r][kx];
    if ((row | column) < 0) return job->zeros;
    return job->x + ((int64_t)row + column) * job->g->inputs + job->block.channel;
}

/* y = activation(from + bias) for the pixels of a tile, and sums += y; `from` is (count, PAIR). `full` is a compile-time
 * constant: all columns are stored, so every vector can stay in a register. */
INLINE void finish_tile(int groups, int full, PairJob *job, const Tile *tile, const float *from)
{
    int vectors = groups * GROUP_VECTORS;
    const int64_t outputs = job->g->outputs, ordered = in_order(&job->g->positions); /* copied: y might alias *job */
    const int64_t whole = job->columns / WIDTH, rest = job->columns % WIDTH;
    float *start = job->y + job->column;
    const Epilogue epilogue = *job->epilogue;
    vec sum[PAIR / WIDTH], bias[PAIR / WIDTH];
#pragma GCC unroll 16
    for (int v = 0; v < vectors; v++) sum[v] = ((vec *)job->sums)[v], bias[v] = ((vec *)job->bias)[v];
    for (int r = 0; r < tile->count; r++, from += PAIR) {
        float *y = start + (ordered ? tile->first + r : tile->written[r]) * outputs;
#pragma GCC unroll 16
        for (int v = 0; v < vectors; v++) {
            vec value = activate(&epilogue, ((const vec *)from)[v] + bias[v]);
            sum[v] += value;
            if (full || v < whole) {
                ((vec *)y)[v] = value;
            } else if (v == whole) {
                float last[WIDTH];
                *(vec *)last = value;
                memcpy(y + v * WIDTH, last, rest * sizeof *y);
            }
        }
    }
#pragma GCC unroll 16
    for (int v = 0; v < vectors; v++) ((vec *)job->sums)[v] = sum[v];
}

/* The micro-kernel: the pixels of a tile by `vectors` vectors of columns; w is (rows, width). The sums over the block are
 * added to `from` (NULL means zeros) and stored to `to`, both (pixels, PAIR). */
INLINE void multiply(int pixels, int vectors, int width, const PairJob *job, const Tile *tile, const float *w,
                     const float *from, float *to)
{
    const Block block = job->block;
    const int count = tile->count, same = job->g->positions.same;
    vec total[MOST_ROWS][TILE_VECTORS];
#pragma GCC unroll 14
    for (int r = 0; r < pixels; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            total[r][v] = from && r < count ? ((const vec *)(from + r * PAIR))[v] : (vec){0};
    int64_t taps_x = job->g->positions.taps_x, ky = 0, kx = 0;
    if (block.tap) ky = block.tap / taps_x, kx = block.tap % taps_x;
    for (int64_t t = 0; t < block.taps; t++) {
        const float *x[MOST_ROWS];
        int outside = 1;
#pragma GCC unroll 14
        for (int r = 0; r < pixels; r++) {
            x[r] = input_of(job, same, tile, r, ky, kx);
            outside &= x[r] == job->zeros;
        }
        if (++kx == taps_x) kx = 0, ky++;
        if (outside) {
            w += block.channels * width;
            continue;
        }
        for (int64_t c = 0; c < block.channels; c++, w += width) {
            vec weight[TILE_VECTORS];
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

/* Compute `count` pixels from number p on; y and x are the position of the first and are advanced past the last. */
INLINE void compute_tile(int pixels, int groups, PairJob *job, int64_t p, int count, int64_t *y, int64_t *x)
{
    float own[MOST_ROWS * PAIR], *partial = job->partial + p * PAIR, *to = job->last ? own : partial;
    int vectors = groups * GROUP_VECTORS;
    Tile tile;
    tile.first = p, tile.count = count;
    find_tile(pixels, &job->g->positions, y, x, &tile);
    if (job->last) { /* prefetch the output while the tile is computed: this saves a third of the time of a wide map */
        const int64_t outputs = job->g->outputs, ordered = in_order(&job->g->positions);
        for (int r = 0; r < count; r++) {
            const float *start = job->y + (ordered ? p + r : tile.written[r]) * outputs + job->column;
            for (int i = 0; i < groups; i++) __builtin_prefetch(start + i * GROUP, 1);
        }
    }
    for (int v = 0; v < vectors; v += TILE_VECTORS)
        multiply(pixels, vectors < TILE_VECTORS ? vectors : TILE_VECTORS, groups * GROUP, job, &tile,
                 job->mixed + v * WIDTH, job->first ? 0 : partial + v * WIDTH, to + v * WIDTH);
    if (job->last && job->columns == groups * GROUP) finish_tile(groups, 1, job, &tile, own);
    else if (job->last) finish_tile(groups, 0, job, &tile, own);
}

INLINE void compute_tiles(int pixels, int groups, PairJob *job, int64_t p, int64_t last)
{
    int64_t y = 0, x = 0;
    if (!job->g->positions.same) find_pixel(&job->g->positions, p, &y, &x);
    for (; last - p > 2; p += pixels) compute_tile(pixels, groups, job, p, (int)minimum(pixels, last - p), &y, &x);
    for (; p < last; p++) compute_tile(1, groups, job, p, 1, &y, &x);
}

/* Pixels first..last, in the order of Positions. */
static void compute(PairJob *job, int64_t first, int64_t last)
{
    EACH_WIDTH(job->groups, compute_tiles(ROWS_FOR(G * GROUP_VECTORS), G, job, first, last))
}
