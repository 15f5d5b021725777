/* The gradients of the dense convolution in its bank and in its routing weights; see convolve.c.
 *
 * An example's gradient of a kernel, (rows, outputs), is computed block by block and used while it is in the cache:
 *     bank_gradient[k] += routing[b, k] * kernel_gradient[b],   routing_gradient[b, k] += <bank[k], kernel_gradient[b]>
 */
#include "convolve.h"

#define ROWS 6   /* of a tile */
#define PAIRS 2  /* pairs of panels that are computed from one gathering of the input */
#define SHARED 16 /* rows whose gradients are shared out at a time */
#define CHUNK 64 /* pixels that are multiplied at a time, from the first cache */

/* An input and an output pixel that a tap joins. */
typedef struct {
    int32_t in, out;
} Join;

typedef struct {
    Join *joins;   /* (taps of a block, pixels_out) */
    int64_t *many; /* (taps of a block): how many of them there are */
    float *x;      /* (groups of ROWS channels, CHUNK, ROWS): what a tap joins, filled up with zeros */
    float *y;      /* (CHUNK, PAIR) */
    float *kernel; /* (TOGETHER, PAIRS, rows of a block, PAIR): its gradient; every tap's rows are whole groups */
    float *dots;   /* (TOGETHER, experts, 16): parts of the routing gradient */
    int64_t step;  /* numbers of one pair in `kernel` */
} Room;

/* Rows of a block: gradients of a few examples' kernels stay in the second cache, less of it where there are few pixels,
 * for the bank and its gradient pass through it then all the time. */
static int64_t limit_of(const Convolution *g)
{
    return (g->pixels_out < 128 ? 384 : 576) / smaller(PAIRS, pairs_of(g));
}

INLINE int64_t filled(int64_t channels) { return parts_of(channels, ROWS) * ROWS; }

static Room room_for(const Convolution *g)
{
    int64_t channels = smaller(g->inputs, limit_of(g)), taps = smaller(g->taps, limit_of(g) / channels);
    int64_t one = sizeof(float);
    int64_t step = taps * filled(channels) * PAIR;
    return (Room){malloc(sizeof(Join) * taps * g->pixels_out), malloc(sizeof(int64_t) * taps),
                  malloc(one * CHUNK * filled(channels)), malloc(one * CHUNK * PAIR), malloc(one * TOGETHER * PAIRS * step),
                  malloc(one * TOGETHER * g->experts * 16), step};
}

static void leave(const Room *room)
{
    free(room->joins), free(room->many), free(room->x), free(room->y), free(room->kernel), free(room->dots);
}

static void find_joins(const Convolution *g, const Block *block, const Room *room)
{
    for (int64_t t = 0; t < block->taps; t++) {
        Join *join = room->joins + t * g->pixels_out;
        for (int32_t p = 0; p < g->pixels_out; p++) {
            int32_t in = g->reads ? g->reads[p * g->taps + block->tap + t] : p;
            if (in >= 0) *join++ = (Join){in, p};
        }
        room->many[t] = join - (room->joins + t * g->pixels_out);
    }
}

/* What `many` joins read of an example, group after group of its channels. */
static void gather_x(const Convolution *g, const Block *block, const Join *join, int64_t many, const float *x, float *to)
{
    int64_t whole = block->channels / ROWS * ROWS;
    for (int64_t j = 0; j < many; j++, to += ROWS) {
        const float *from = x + join[j].in * g->inputs + block->channel;
        float *last = to + whole * many;
        for (int64_t c = 0; c < whole; c += ROWS) memcpy(to + c * many, from + c, ROWS * sizeof *to);
        for (int64_t r = 0; whole < block->channels && r < ROWS; r++)
            last[r] = whole + r < block->channels ? from[whole + r] : 0;
    }
}

/* Their upstream gradients, of `columns` channels from `column` on. */
INLINE void gather_y(int vectors, const Convolution *g, int64_t column, int64_t columns, const Join *join, int64_t many,
                     const float *y, float *to)
{
    int full = columns == vectors * 16;
    for (int64_t j = 0; j < many; j++, to += vectors * 16) {
        const float *from = y + join[j].out * g->outputs + column;
        for (int v = 0; v < vectors - !full; v++) ((vec *)to)[v] = ((const vec *)from)[v];
        for (int64_t c = (vectors - 1) * 16; !full && c < vectors * 16; c++) to[c] = c < columns ? from[c] : 0;
    }
}

/* kernel (ROWS, width) += the sum over `many` pixels of x (many, ROWS) times y (many, width), for `vectors` vectors; where
 * `begin` is set, kernel = that sum. */
INLINE void tile(int vectors, int width, int begin, int64_t many, const float *x, const float *y, float *kernel)
{
    vec total[ROWS][AT_ONCE];
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) total[r][v] = begin ? (vec){0} : ((vec *)(kernel + r * width))[v];
    for (; many > 0; many--, x += ROWS, y += width) {
        vec upstream[AT_ONCE];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) upstream[v] = ((const vec *)y)[v];
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) total[r][v] += x[r] * upstream[v];
    }
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) ((vec *)(kernel + r * width))[v] = total[r][v];
}

INLINE void tiles(int vectors, int begin, int64_t channels, int64_t many, const Room *room, float *kernel)
{
    int width = vectors * 16;
    for (int64_t c = 0; c < channels; c += ROWS)
        for (int v = 0; v < vectors; v += AT_ONCE)
            tile(vectors < AT_ONCE ? vectors : AT_ONCE, width, begin, many, room->x + c * many, room->y + v * 16,
                 kernel + c * width + v * 16);
}

/* The gradients of a block of one example's kernel, for `pairs` pairs; x and y are that example's. */
static void one_example(const Convolution *g, const Block *block, int64_t pair, int64_t pairs, const Room *room,
                        const float *x, const float *y, float *kernel)
{
    for (int64_t t = 0; t < block->taps; t++)
        for (int64_t j = 0; j == 0 || j < room->many[t]; j += CHUNK) { /* once at least, as it begins the sum */
            const Join *join = room->joins + t * g->pixels_out + j;
            int64_t many = smaller(CHUNK, room->many[t] - j);
            gather_x(g, block, join, many, x, room->x);
            for (int64_t i = 0; i < pairs; i++) {
                int64_t columns = columns_of(g, pair + i);
                int vectors = vectors_of(g, pair + i);
                float *own = kernel + i * room->step + t * filled(block->channels) * vectors * 16;
                EACH_WIDTH(vectors, gather_y(V, g, (pair + i) * PAIR, columns, join, many, y, room->y))
                EACH_WIDTH(vectors, tiles(V, j == 0, block->channels, many, room, own))
            }
        }
}

/* One expert's share of `rows` rows of a kernel's gradient: gradient += routing * kernel, dots += bank * kernel, for
 * `examples` examples, whose kernels lie `step` numbers apart and whose routing weights lie g->experts apart. */
INLINE void share_rows(int vectors, int examples, int begin, int64_t experts, int64_t rows, int64_t panel, const float *bank,
                       const float *routing, const float *kernel, int64_t step, float *gradient, float *dots)
{
    vec dot[TOGETHER];
    float weight[TOGETHER];
    for (int e = 0; e < examples; e++) dot[e] = *(vec *)(dots + e * experts * 16), weight[e] = routing[e * experts];
    for (int64_t row = 0; row < rows; row++, kernel += vectors * 16, bank += PANEL, gradient += PANEL)
        for (int v = 0; v < vectors; v++) {
            int64_t at = v / 2 * panel + v % 2 * 16;
            vec total = begin ? (vec){0} : *(vec *)(gradient + at), expert = *(const vec *)(bank + at);
            for (int e = 0; e < examples; e++) {
                vec one = *(const vec *)(kernel + e * step + v * 16);
                total += weight[e] * one;
                dot[e] += expert * one;
            }
            *(vec *)(gradient + at) = total;
        }
    for (int e = 0; e < examples; e++) *(vec *)(dots + e * experts * 16) = dot[e];
}

/* What the gradients of a block give to those of the bank and of the routing weights, some rows at a time, which all
 * experts then find in the first cache; room->dots becomes the routing gradient's part. */
INLINE void share_out(int vectors, int examples, int begin, const Convolution *g, const Block *block, int64_t pair,
                      const float *bank, const float *routing, const float *kernel, int64_t step, const Room *room,
                      float *gradient)
{
    int64_t panel = rows_of(g) * PANEL, expert = panels_of(g) * panel, count;
    int64_t start = pair * 2 * panel + first_row(g, block) * PANEL;
    memset(room->dots, 0, sizeof *room->dots * examples * g->experts * 16);
    for (int64_t t = 0; t < block->taps; t++)
        for (int64_t c = 0; c < block->channels; c += count) {
            count = smaller(SHARED, block->channels - c);
            int64_t at = start + (t * block->channels + c) * PANEL, from = (t * filled(block->channels) + c) * vectors * 16;
            for (int64_t k = 0; k < g->experts; k++)
                share_rows(vectors, examples, begin, g->experts, count, panel, bank + k * expert + at, routing + k,
                           kernel + from, step, gradient + k * expert + at, room->dots + k * 16);
        }
}

/* What is to be done: the arguments of `convolve_gradient`. */
typedef struct {
    const Convolution *g;
    const float *bank, *routing, *x, *y;
} Task;

/* Examples b0..b1 and `pairs` pairs; routing_gradient is (batch, experts). */
static void one_block(const Task *task, const Block *block, int64_t pair, int64_t pairs, const Room *room, int64_t b0,
                      int64_t b1, float *gradient, float *routing_gradient)
{
    const Convolution *g = task->g;
    int64_t together, step = pairs * room->step;
    find_joins(g, block, room);
    for (int64_t b = b0; b < b1; b += together) {
        together = b1 - b >= TOGETHER ? TOGETHER : 1;
        for (int64_t e = 0; e < together; e++)
            one_example(g, block, pair, pairs, room, task->x + (b + e) * g->pixels_in * g->inputs,
                        task->y + (b + e) * g->pixels_out * g->outputs, room->kernel + e * step);
        const float *own = task->routing + b * g->experts;
#define SHARE_OUT(examples) \
    EACH_WIDTH(vectors_of(g, pair + i), share_out(V, examples, b == b0, g, block, pair + i, task->bank, own, \
                                                  room->kernel + i * room->step, step, room, gradient))
        for (int64_t i = 0; i < pairs; i++) {
            if (together == 1) SHARE_OUT(1)
            else SHARE_OUT(TOGETHER)
            for (int64_t n = 0; n < together * g->experts; n++)
                for (int v = 0; v < 16; v++) routing_gradient[b * g->experts + n] += room->dots[n * 16 + v];
        }
    }
}

static int64_t count_blocks(const Convolution *g)
{
    Block block = block_at(g, 0, 0, limit_of(g));
    int64_t count = 1;
    while (next_block(g, &block, limit_of(g))) count++;
    return count;
}

/* bank, gradient as in convolve.h; routing (batch, experts); y: upstream gradients, (batch, pixels_out, outputs).
 * routing_gradient is (batch, experts). g->writes is not read.
 *
 * Pairs and blocks are independent but for the routing gradient, which every job has its own of. Where there are fewer
 * of them than threads, the batch is split, and every split has its own gradient of the bank. */
void convolve_gradient(const Convolution *g, int threads, const float *bank, const float *routing, const float *x,
                       const float *y, float *gradient, float *routing_gradient)
{
    Task task = {g, bank, routing, x, y};
    int64_t blocks = count_blocks(g), parts = blocks * parts_of(pairs_of(g), PAIRS), weights = g->batch * g->experts;
    int64_t splits = parts < threads ? smaller(g->batch, parts_of(threads, parts)) : 1;
    int64_t size = g->experts * panels_of(g) * rows_of(g) * PANEL;
    float *more = splits > 1 ? malloc((splits - 1) * size * sizeof(float)) : 0;
    float *dots = calloc(parts * weights, sizeof(float));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Room room = room_for(g);
#pragma omp for schedule(dynamic)
        for (int64_t index = 0; index < parts * splits; index++) {
            int64_t part = index / splits, split = index % splits, pair = part / blocks * PAIRS;
            Block block = block_at(g, 0, 0, limit_of(g));
            for (int64_t i = 0; i < part % blocks; i++) next_block(g, &block, limit_of(g));
            one_block(&task, &block, pair, smaller(PAIRS, pairs_of(g) - pair), &room, g->batch * split / splits, g->batch * (split + 1) / splits,
                      split ? more + (split - 1) * size : gradient, dots + part * weights);
        }
        leave(&room);
    }
    for (int64_t split = 1; split < splits; split++)
        for (int64_t i = 0; i < size; i++) gradient[i] += more[(split - 1) * size + i];
    for (int64_t i = 0; i < weights; i++) {
        double sum = 0;
        for (int64_t part = 0; part < parts; part++) sum += dots[part * weights + i];
        routing_gradient[i] = (float)sum;
    }
    free(more), free(dots);
}
