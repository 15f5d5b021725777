/* What the files of the dense convolution share: its sizes, how a bank lies, and in what blocks it is worked through.
 *
 * A bank is (experts, panels, rows, 32): a panel is 32 output channels, a row one input channel at one tap (taps
 * outside, channels inside); the last panel is filled up with zeros. Two panels, a pair, are computed together.
 */
#ifndef CONVOLVE_H
#define CONVOLVE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

#define PANEL 32
#define PAIR 64
#define TOGETHER 4 /* examples that are mixed from one reading of a block */
#ifdef __AVX512F__
#define AT_ONCE 4 /* vectors of a tile: with its pixels or rows they must leave registers free */
#else
#define AT_ONCE 1
#endif

/* Some rows of a bank: whole taps, or some channels of one tap. */
typedef struct {
    int64_t tap, taps, channel, channels;
} Block;

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t parts_of(int64_t whole, int64_t part) { return (whole + part - 1) / part; }
INLINE int64_t panels_of(const Convolution *g) { return parts_of(g->outputs, PANEL); }
INLINE int64_t pairs_of(const Convolution *g) { return parts_of(g->outputs, PAIR); }
INLINE int64_t rows_of(const Convolution *g) { return g->taps * g->inputs; }

/* Channels, and vectors of 16 of them, that a pair of panels holds. */
INLINE int64_t columns_of(const Convolution *g, int64_t pair) { return smaller(PAIR, g->outputs - pair * PAIR); }
INLINE int vectors_of(const Convolution *g, int64_t pair) { return (int)parts_of(columns_of(g, pair), 16); }

/* The block of at most `limit` rows that begins with a channel at a tap. */
INLINE Block block_at(const Convolution *g, int64_t tap, int64_t channel, int64_t limit)
{
    if (g->inputs > limit) return (Block){tap, 1, channel, smaller(limit, g->inputs - channel)};
    return (Block){tap, smaller(limit / g->inputs, g->taps - tap), 0, g->inputs};
}

/* Goes on to the next block; 0 after the last. */
INLINE int next_block(const Convolution *g, Block *block, int64_t limit)
{
    int64_t channel = block->channel + block->channels, tap = block->tap;
    if (channel == g->inputs) channel = 0, tap += block->taps;
    if (tap == g->taps) return 0;
    *block = block_at(g, tap, channel, limit);
    return 1;
}

INLINE int64_t first_row(const Convolution *g, const Block *block) { return block->tap * g->inputs + block->channel; }
INLINE int64_t count_rows(const Block *block) { return block->taps * block->channels; }

/* A call with the number of vectors as a constant, so that a loop over them is unrolled: clang and gcc take V for one. */
#define EACH_WIDTH(vectors, call) \
    switch (vectors) { \
    case 1: { enum { V = 1 }; call; break; } \
    case 2: { enum { V = 2 }; call; break; } \
    case 3: { enum { V = 3 }; call; break; } \
    default: { enum { V = 4 }; call; } \
    }

#endif
