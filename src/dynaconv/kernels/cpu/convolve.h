/* Shared by the files of the dense convolution: its sizes, the pixels it reads, the layout of a packed bank, its blocks.
 *
 * A packed bank is (experts, panels, rows, 32). A panel has 32 output channels; a row is one input channel at one tap
 * (row = tap * inputs + channel). The last panel is padded with zeros. Two panels, a pair, are computed together.
 */
#ifndef CONVOLVE_H
#define CONVOLVE_H

#include "kernels.h"

#define PANEL 32
#define PAIR 64
#define GROUP 16 /* columns of a pair that are computed or skipped together */
#define GROUP_VECTORS (GROUP / WIDTH)
#define EXAMPLES_AT_ONCE 4 /* examples whose kernels are mixed while a block is read once */

/* A tile has TILE_ROWS rows (pixels) by TILE_VECTORS vectors of columns: its sums and one vector of weights per column
 * vector fit into the registers, with at least one left. */
#define TILE_VECTORS (REGISTERS == 32 ? 4 : 2)
#define TILE_ROWS 6

/* For every pixel of the map that is written and every tap, the pixel of the map that is read: rows + columns, unless one
 * of them is OUTSIDE. If both steps are 1, pixels are computed row by row. Else pixels with the same remainders (row
 * modulo step_y, column modulo step_x) follow each other, because they need the same taps. */
typedef struct {
    int same; /* every pixel reads the pixel at its own position only: there are no tables */
    int64_t height, width, taps_y, taps_x, step_y, step_x;
    int32_t *rows;    /* (height, taps_y): row * width of the map that is read */
    int32_t *columns; /* (width, taps_x) */
} Positions;

#define OUTSIDE (-1)

/* A dense convolution. For the gradient of the input, the map that is read is the upstream gradient. */
typedef struct {
    int64_t batch, experts, inputs, outputs, taps, pixels_in, pixels_out;
    Positions positions;
} Dense;

/* One dimension of the tables: `count` positions of the map that is written, `extent` positions of the map that is read. */
INLINE void fill_positions(int backward, int64_t count, int64_t taps, int64_t extent, int64_t stride, int64_t pad,
                           int64_t dilation, int64_t scale, int32_t *table)
{
    for (int64_t i = 0; i < count; i++)
        for (int64_t t = 0; t < taps; t++) {
            int64_t at = backward ? i + pad - t * dilation : i * stride - pad + t * dilation;
            int between = backward && at % stride != 0;
            if (backward && !between) at /= stride;
            *table++ = at < 0 || at >= extent || between ? OUTSIDE : (int32_t)(at * scale);
        }
}

/* Set sizes and tables; free them by free(positions.rows). NO_MEMORY if the tables cannot be allocated. */
INLINE int make_dense(const Convolution *g, int backward, Dense *made)
{
    int64_t taps = g->kernel_height * g->kernel_width, in = g->height * g->width, out = g->out_height * g->out_width;
    *made = (Dense){g->batch, g->experts, g->inputs, g->outputs, taps, in, out, {0}};
    if (backward) *made = (Dense){g->batch, g->experts, g->outputs, g->inputs, taps, out, in, {0}};
    Positions *p = &made->positions;
    p->same = taps == 1 && g->stride_y == 1 && g->stride_x == 1 && g->pad_y == 0 && g->pad_x == 0;
    p->step_y = backward ? g->stride_y : 1, p->step_x = backward ? g->stride_x : 1;
    if (p->same) return DONE;
    p->height = backward ? g->height : g->out_height, p->width = backward ? g->width : g->out_width;
    p->taps_y = g->kernel_height, p->taps_x = g->kernel_width;
    p->rows = allocate((p->height * p->taps_y + p->width * p->taps_x) * sizeof *p->rows);
    if (!p->rows) return NO_MEMORY;
    p->columns = p->rows + p->height * p->taps_y;
    int64_t height = backward ? g->out_height : g->height, width = backward ? g->out_width : g->width;
    fill_positions(backward, p->height, p->taps_y, height, g->stride_y, g->pad_y, g->dilation_y, width, p->rows);
    fill_positions(backward, p->width, p->taps_x, width, g->stride_x, g->pad_x, g->dilation_x, 1, p->columns);
    return DONE;
}

/* Some rows of a bank: whole taps, or some channels of one tap. */
typedef struct {
    int64_t tap, taps, channel, channels;
} Block;

INLINE int64_t panels_of(const Dense *g) { return ceil_div(g->outputs, PANEL); }
INLINE int64_t pairs_of(const Dense *g) { return ceil_div(g->outputs, PAIR); }
INLINE int64_t rows_of(const Dense *g) { return g->taps * g->inputs; }

/* The number of columns, and of groups of columns, in a pair of panels. */
INLINE int64_t columns_of(const Dense *g, int64_t pair) { return minimum(PAIR, g->outputs - pair * PAIR); }
INLINE int groups_of(const Dense *g, int64_t pair) { return (int)ceil_div(columns_of(g, pair), GROUP); }

/* Offset of vector `v` of a pair from the start of a row of its first panel; `panel` is the stride of the panels. */
INLINE int64_t vector_offset(int v, int64_t panel) { return v / (PANEL / WIDTH) * panel + v % (PANEL / WIDTH) * WIDTH; }

/* The block of at most `limit` rows that begins with a channel at a tap. */
INLINE Block block_at(const Dense *g, int64_t tap, int64_t channel, int64_t limit)
{
    if (g->inputs > limit) return (Block){tap, 1, channel, minimum(limit, g->inputs - channel)};
    return (Block){tap, minimum(limit / g->inputs, g->taps - tap), 0, g->inputs};
}

/* Goes on to the next block; 0 after the last. */
INLINE int next_block(const Dense *g, Block *block, int64_t limit)
{
    int64_t channel = block->channel + block->channels, tap = block->tap;
    if (channel == g->inputs) channel = 0, tap += block->taps;
    if (tap == g->taps) return 0;
    *block = block_at(g, tap, channel, limit);
    return 1;
}

INLINE int64_t first_row(const Dense *g, const Block *block) { return block->tap * g->inputs + block->channel; }
INLINE int64_t count_rows(const Block *block) { return block->taps * block->channels; }

/* Do a call with the number of groups as the compile-time constant G, so that loops over the groups are unrolled. */
#define EACH_WIDTH(groups, call) \
    switch (groups) { \
    case 1: { enum { G = 1 }; call; break; } \
    case 2: { enum { G = 2 }; call; break; } \
    case 3: { enum { G = 3 }; call; break; } \
    default: { enum { G = 4 }; call; } \
    }

#endif
