/* The gradients of the dense convolution with respect to its bank and to its routing weights; see convolve.c.
 *
 * The gradient of one example's kernel, (rows, outputs), is computed block by block and used while it is in the cache:
 *     bank_gradient[k] += routing[b, k] * kernel_gradient[b],   routing_gradient[b, k] += <bank[k], kernel_gradient[b]>
 */
#include "convolve.h"

#define PAIRS 2         /* pairs of panels for which the input is gathered once */
#define ROWS_AT_ONCE 16 /* rows of a kernel's gradient that are added to the bank's gradient at a time */
#define CHUNK 64        /* pixels that are multiplied at a time: they fit into the L1 cache */

/* One entry of a tap's kernel map: the output pixel `out` reads the input pixel `in` through this tap. */
typedef struct {
    int32_t in, out;
} MapEntry;

/* The workspace of a thread: one allocation. */
typedef struct {
    MapEntry *entries; /* (taps of a block, pixels_out) */
    int64_t *counts;   /* (taps of a block): the number of entries of each tap */
    float *x;          /* (groups of TILE_ROWS channels, CHUNK, TILE_ROWS): input of the entries, padded with zeros */
    float *y;          /* (CHUNK, PAIR) */
    float *kernel;     /* (EXAMPLES_AT_ONCE, PAIRS, rows of a block, PAIR): gradients; the rows of a tap are padded */
    float *dots;       /* (EXAMPLES_AT_ONCE, experts, WIDTH): parts of the routing gradient */
    int64_t step;      /* stride of the pairs in `kernel` */
} Workspace;

/* Rows of a block. The gradients of a few examples' kernels stay in the L2 cache. With few pixels they may use less of it,
 * because then the bank and its gradient pass through the cache more often. */
static int64_t limit_of(const Dense *g)
{
    return (g->pixels_out < 128 ? 384 : 576) / minimum(PAIRS, pairs_of(g));
}

INLINE int64_t padded(int64_t channels) { return ceil_div(channels, TILE_ROWS) * TILE_ROWS; }

/* `kernel` is NULL if the allocation fails; free it by free(kernel). */
static Workspace make_workspace(const Dense *g)
{
    int64_t channels = minimum(g->inputs, limit_of(g)), taps = minimum(g->taps, limit_of(g) / channels);
    int64_t step = taps * padded(channels) * PAIR, kernel = EXAMPLES_AT_ONCE * PAIRS * step, y = CHUNK * PAIR;
    int64_t x = whole_lines(CHUNK * padded(channels)), counts = whole_lines(taps * 2);
    int64_t dots = whole_lines(EXAMPLES_AT_ONCE * g->experts * WIDTH);
    int64_t entries = taps * g->pixels_out * 2;
    float *start = allocate((kernel + y + x + dots + counts + entries) * sizeof *start);
    if (!start) return (Workspace){0};
    float *after = start + kernel + y + x + dots;
    return (Workspace){(MapEntry *)(after + counts), (int64_t *)after, start + kernel + y, start + kernel, start,
                       start + kernel + y + x, step};
}

static void find_kernel_map(const Dense *g, const Block *block, const Workspace *workspace)
{
    const Positions *positions = &g->positions;
    for (int64_t t = 0; t < block->taps; t++) {
        MapEntry *entry = workspace->entries + t * g->pixels_out;
        int64_t ky = positions->same ? 0 : (block->tap + t) / positions->taps_x, y = 0, x = 0;
        int64_t kx = positions->same ? 0 : (block->tap + t) % positions->taps_x;
        for (int32_t p = 0; p < g->pixels_out; p++) {
            if (positions->same) {
                *entry++ = (MapEntry){p, p};
                continue;
            }
            int32_t row = positions->rows[y * positions->taps_y + ky];
            int32_t column = positions->columns[x * positions->taps_x + kx];
            if ((row | column) >= 0) *entry++ = (MapEntry){row + column, p};
            if (++x == positions->width) x = 0, y++;
        }
        workspace->counts[t] = entry - (workspace->entries + t * g->pixels_out);
    }
}

/* Gather the input of `length` entries of one example, by groups of TILE_ROWS channels. */
static void gather_x(const Dense *g, const Block *block, const MapEntry *entry, int64_t length, const float *x, float *to)
{
    int64_t whole = block->channels / TILE_ROWS * TILE_ROWS;
    for (int64_t j = 0; j < length; j++, to += TILE_ROWS) {
        const float *from = x + entry[j].in * g->inputs + block->channel;
        float *last = to + whole * length;
        for (int64_t c = 0; c < whole; c += TILE_ROWS) memcpy(to + c * length, from + c, TILE_ROWS * sizeof *to);
        for (int64_t r = 0; whole < block->channels && r < TILE_ROWS; r++)
            last[r] = whole + r < block->channels ? from[whole + r] : 0;
    }
}

/* Gather the upstream gradients of these entries, for `columns` channels from `column` on. */
INLINE void gather_y(int groups, const Dense *g, int64_t column, int64_t columns, const MapEntry *entry, int64_t length,
                     const float *y, float *to)
{
    int vectors = groups * GROUP_VECTORS;
    int64_t whole = columns / WIDTH;
    for (int64_t j = 0; j < length; j++, to += groups * GROUP) {
        const float *from = y + entry[j].out * g->outputs + column;
#pragma GCC unroll 16
        for (int v = 0; v < vectors; v++)
            if (v < whole) ((vec *)to)[v] = ((const vec *)from)[v];
        for (int64_t c = whole * WIDTH; c < groups * GROUP; c++) to[c] = c < columns ? from[c] : 0;
    }
}

/* The micro-kernel: kernel (TILE_ROWS, width) += x^T y, with x (length, TILE_ROWS) and y (length, width), for `vectors`
 * vectors of columns. If `begin` is set, the old value of kernel is not read: kernel = x^T y. */
INLINE void multiply(int vectors, int width, int begin, int64_t length, const float *x, const float *y, float *kernel)
{
    vec total[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) total[r][v] = begin ? (vec){0} : ((vec *)(kernel + r * width))[v];
    for (; length > 0; length--, x += TILE_ROWS, y += width) {
        vec upstream[TILE_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) upstream[v] = ((const vec *)y)[v];
#pragma GCC unroll 6
        for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) total[r][v] += x[r] * upstream[v];
    }
#pragma GCC unroll 6
    for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) ((vec *)(kernel + r * width))[v] = total[r][v];
}

INLINE void multiply_all(int groups, int begin, int64_t channels, int64_t length, const Workspace *workspace, float *kernel)
{
    int width = groups * GROUP, vectors = groups * GROUP_VECTORS;
    for (int64_t c = 0; c < channels; c += TILE_ROWS)
        for (int v = 0; v < vectors; v += TILE_VECTORS)
            multiply(vectors < TILE_VECTORS ? vectors : TILE_VECTORS, width, begin, length, workspace->x + c * length,
                     workspace->y + v * WIDTH, kernel + c * width + v * WIDTH);
}

/* The gradients of a block of one example's kernel, for `pairs` pairs; x and y are that example's. */
static void one_example(const Dense *g, const Block *block, int64_t pair, int64_t pairs, const Workspace *workspace,
                        const float *x, const float *y, float *kernel)
{
    for (int64_t t = 0; t < block->taps; t++)
        for (int64_t j = 0; j == 0 || j < workspace->counts[t]; j += CHUNK) { /* once at least: it initialises the sum */
            const MapEntry *entry = workspace->entries + t * g->pixels_out + j;
            int64_t length = minimum(CHUNK, workspace->counts[t] - j);
            gather_x(g, block, entry, length, x, workspace->x);
            for (int64_t i = 0; i < pairs; i++) {
                int64_t columns = columns_of(g, pair + i);
                int groups = groups_of(g, pair + i);
                float *own = kernel + i * workspace->step + t * padded(block->channels) * groups * GROUP;
                EACH_WIDTH(groups, gather_y(G, g, (pair + i) * PAIR, columns, entry, length, y, workspace->y))
                EACH_WIDTH(groups, multiply_all(G, j == 0, block->channels, length, workspace, own))
            }
        }
}

/* For one expert and `rows` rows of a kernel's gradient: gradient += routing * kernel, dots += bank * kernel, summed over
 * `examples` examples. The stride of their kernels is `step`, that of their routing weights `experts`. */
INLINE void accumulate_rows(int groups, int examples, int begin, int64_t experts, int64_t rows, int64_t panel,
                            const float *bank, const float *routing, const float *kernel, int64_t step, float *gradient,
                            float *dots)
{
    vec dot[EXAMPLES_AT_ONCE];
    float weight[EXAMPLES_AT_ONCE];
    for (int e = 0; e < examples; e++) dot[e] = *(vec *)(dots + e * experts * WIDTH), weight[e] = routing[e * experts];
    for (int64_t row = 0; row < rows; row++, kernel += groups * GROUP, bank += PANEL, gradient += PANEL)
        for (int v = 0; v < groups * GROUP_VECTORS; v++) {
            int64_t at = vector_offset(v, panel);
            vec total = begin ? (vec){0} : *(vec *)(gradient + at), expert = *(const vec *)(bank + at);
#pragma GCC unroll 4
            for (int e = 0; e < examples; e++) {
                vec one = *(const vec *)(kernel + e * step + v * WIDTH);
                total += weight[e] * one;
                dot[e] += expert * one;
            }
            *(vec *)(gradient + at) = total;
        }
    for (int e = 0; e < examples; e++) *(vec *)(dots + e * experts * WIDTH) = dot[e];
}

/* Add the gradients of a block to those of the bank, and write their part of the routing gradient to workspace->dots. A
 * few rows at a time, so that they stay in the L1 cache for all experts. */
INLINE void accumulate(int groups, int examples, int begin, const Dense *g, const Block *block, int64_t pair,
                       const float *bank, const float *routing, const float *kernel, int64_t step,
                       const Workspace *workspace, float *gradient)
{
    int64_t panel = rows_of(g) * PANEL, expert = panels_of(g) * panel, count;
    int64_t start = pair * 2 * panel + first_row(g, block) * PANEL;
    memset(workspace->dots, 0, sizeof *workspace->dots * examples * g->experts * WIDTH);
    for (int64_t t = 0; t < block->taps; t++)
        for (int64_t c = 0; c < block->channels; c += count) {
            count = minimum(ROWS_AT_ONCE, block->channels - c);
            int64_t at = start + (t * block->channels + c) * PANEL;
            int64_t from = (t * padded(block->channels) + c) * groups * GROUP;
            for (int64_t k = 0; k < g->experts; k++)
                accumulate_rows(groups, examples, begin, g->experts, count, panel, bank + k * expert + at, routing + k,
                                kernel + from, step, gradient + k * expert + at, workspace->dots + k * WIDTH);
        }
}

/* The arguments of `run`. */
typedef struct {
    const Dense *g;
    const float *bank, *routing, *x, *y;
} Task;

/* Examples b0..b1 and `pairs` pairs; routing_gradient is (batch, experts). */
static void one_block(const Task *task, const Block *block, int64_t pair, int64_t pairs, const Workspace *workspace,
                      int64_t b0, int64_t b1, float *gradient, float *routing_gradient)
{
    const Dense *g = task->g;
    int64_t together, step = pairs * workspace->step;
    find_kernel_map(g, block, workspace);
    for (int64_t b = b0; b < b1; b += together) {
        together = b1 - b >= EXAMPLES_AT_ONCE ? EXAMPLES_AT_ONCE : 1;
        for (int64_t e = 0; e < together; e++)
            one_example(g, block, pair, pairs, workspace, task->x + (b + e) * g->pixels_in * g->inputs,
                        task->y + (b + e) * g->pixels_out * g->outputs, workspace->kernel + e * step);
        const float *own = task->routing + b * g->experts;
#define ACCUMULATE(examples) \
    EACH_WIDTH(groups_of(g, pair + i), accumulate(G, examples, b == b0, g, block, pair + i, task->bank, own, \
                                                  workspace->kernel + i * workspace->step, step, workspace, gradient))
        for (int64_t i = 0; i < pairs; i++) {
            if (together == 1) ACCUMULATE(1)
            else ACCUMULATE(EXAMPLES_AT_ONCE)
            for (int64_t n = 0; n < together * g->experts; n++)
                routing_gradient[b * g->experts + n] += horizontal_sum(*(vec *)(workspace->dots + n * WIDTH));
        }
    }
}

static int64_t count_blocks(const Dense *g)
{
    Block block = block_at(g, 0, 0, limit_of(g));
    int64_t count = 1;
    while (next_block(g, &block, limit_of(g))) count++;
    return count;
}

/* Sum the partial gradients of the jobs: those of the bank are added to the first one, those of the routing to zero. */
static void add_parts(int64_t splits, int64_t size, const float *more, float *gradient, int64_t parts, int64_t weights,
                      const float *dots, float *routing_gradient)
{
    for (int64_t split = 1; split < splits; split++)
        for (int64_t i = 0; i < size; i++) gradient[i] += more[(split - 1) * size + i];
    for (int64_t i = 0; i < weights; i++) {
        double sum = 0;
        for (int64_t part = 0; part < parts; part++) sum += dots[part * weights + i];
        routing_gradient[i] = (float)sum;
    }
}

/* Pairs and blocks are independent, except for the routing gradient, of which every job has its own part. If there are
 * fewer jobs than threads, the batch is split, and every split has its own gradient of the bank. */
static int run(const Task *task, int threads, float *gradient, float *routing_gradient)
{
    const Dense *g = task->g;
    int64_t blocks = count_blocks(g), parts = blocks * ceil_div(pairs_of(g), PAIRS), weights = g->batch * g->experts;
    int64_t splits = parts < threads ? minimum(g->batch, ceil_div(threads, parts)) : 1;
    int64_t size = g->experts * panels_of(g) * rows_of(g) * PANEL;
    float *dots = allocate((whole_lines(parts * weights) + (splits - 1) * size) * sizeof *dots);
    if (!dots) return NO_MEMORY;
    float *more = dots + whole_lines(parts * weights);
    int status = DONE;
    memset(dots, 0, parts * weights * sizeof *dots);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Workspace workspace = make_workspace(g);
#pragma omp for schedule(dynamic)
        for (int64_t index = 0; index < parts * splits; index++) {
            int64_t part = index / splits, split = index % splits, pair = part / blocks * PAIRS;
            Block block = block_at(g, 0, 0, limit_of(g));
            for (int64_t i = 0; i < part % blocks; i++) next_block(g, &block, limit_of(g));
            if (workspace.kernel)
                one_block(task, &block, pair, minimum(PAIRS, pairs_of(g) - pair), &workspace, g->batch * split / splits,
                          g->batch * (split + 1) / splits, split ? more + (split - 1) * size : gradient,
                          dots + part * weights);
        }
        if (!workspace.kernel) {
#pragma omp atomic write
            status = NO_MEMORY;
        }
        free(workspace.kernel);
    }
    if (status == DONE) add_parts(splits, size, more, gradient, parts, weights, dots, routing_gradient);
    free(dots);
    return status;
}

/* bank, gradient as in convolve.h; routing (batch, experts); y: upstream gradients, (batch, pixels_out, outputs).
 * routing_gradient is (batch, experts). */
int dynaconv_convolve_bank_gradient(const Convolution *g, int threads, const float *bank, const float *routing,
                                    const float *x, const float *y, float *gradient, float *routing_gradient)
{
    Dense dense;
    int status = make_dense(g, 0, &dense);
    Task task = {&dense, bank, routing, x, y};
    if (status == DONE) status = run(&task, threads, gradient, routing_gradient);
    free(dense.positions.rows);
    return status;
}
