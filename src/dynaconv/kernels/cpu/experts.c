/* Convolution by every expert, for maps so small that mixing a kernel costs more than using it.
 *
 *     y[b] = sum_k routing[b, k] * (x[b] convolved with bank[k])
 *
 * Each expert is one matrix product per tap, whose rows are the pixels of all examples. Only pixels that the tap reads
 * inside the map are rows, so nothing is multiplied with padding: a 3x3 kernel on a 2x2 map has 16 products, not 36.
 * A block of an expert is packed while it is in the cache, and used once; neither mixed kernels nor the experts' outputs
 * are written to memory. Maps are (batch, pixels, channels) float32, the bank is (experts, outputs, inputs, taps).
 */
#include "convolve.h"
#include "transpose.h"

#define GROUP_PIXELS 1024 /* pixels of the examples that are computed together: their sums stay in the L2 cache */
#define PACKED_ROWS 640   /* rows (channels at taps) of an expert that are packed at a time: 160 KB */
#define GRADIENT_ROWS 320 /* rows of an expert's gradient that are computed at a time: 80 KB */
#define LINE 16           /* columns that are transposed together: more would fall into the same sets of the cache */

/* Pixel `out` of example `example` reads pixel `in` through a tap; numbers count from the first example of a group. */
typedef struct {
    int32_t in, out, example;
} Use;

/* What all threads read. */
typedef struct {
    Dense g;
    int64_t group;  /* examples of a group */
    int64_t used;   /* number of taps that read a pixel inside the map */
    int64_t *taps;  /* (used): which taps */
    int64_t *count; /* (used): the uses of a tap in one example */
    Use *uses;      /* (used, group * pixels_out), example by example */
} Job;

static int make_job(const Convolution *convolution, int threads, int64_t columns, Job *job)
{
    *job = (Job){0};
    if (make_dense(convolution, 0, &job->g) != DONE) return NO_MEMORY;
    const Dense *g = &job->g;
    const Positions *positions = &g->positions;
    int64_t pixels = g->pixels_in > g->pixels_out ? g->pixels_in : g->pixels_out, parts = ceil_div(columns, PAIR);
    job->group = minimum(GROUP_PIXELS / pixels, ceil_div(g->batch, ceil_div(threads, parts)));
    if (job->group < 1) job->group = 1;
    int64_t uses = g->taps * job->group * g->pixels_out;
    job->taps = allocate(2 * g->taps * sizeof *job->taps + uses * sizeof *job->uses);
    if (!job->taps) return NO_MEMORY;
    job->count = job->taps + g->taps, job->uses = (Use *)(job->count + g->taps);
    for (int64_t tap = 0; tap < g->taps; tap++) {
        Use *first = job->uses + job->used * job->group * g->pixels_out, *use = first;
        for (int32_t b = 0; b < job->group; b++)
            for (int32_t p = 0; p < g->pixels_out; p++) {
                int64_t in = p;
                if (!positions->same) {
                    int64_t y = p / positions->width, x = p % positions->width;
                    int32_t row = positions->rows[y * positions->taps_y + tap / positions->taps_x];
                    int32_t column = positions->columns[x * positions->taps_x + tap % positions->taps_x];
                    if ((row | column) < 0) continue;
                    in = (int64_t)row + column;
                }
                *use++ = (Use){(int32_t)(b * g->pixels_in + in), (int32_t)(b * g->pixels_out + p), b};
            }
        if (use > first) job->taps[job->used] = tap, job->count[job->used++] = (use - first) / job->group;
    }
    return DONE;
}

static void free_job(Job *job)
{
    free(job->g.positions.rows);
    free(job->taps);
}

INLINE const Use *uses_of(const Job *job, int64_t u) { return job->uses + u * job->group * job->g.pixels_out; }

/* Channels of a block with at most `limit` rows; all blocks of one convolution have about the same size. */
static int64_t channels_of(int64_t channels, int64_t taps, int64_t limit)
{
    int64_t most = limit / taps < 1 ? 1 : limit / taps;
    return ceil_div(channels, ceil_div(channels, most));
}

/* Columns column.. of a map (pixels, channels), to (pixels, PAIR) with zeros behind the last column. */
static void gather_columns(int64_t pixels, int64_t channels, int64_t column, const float *map, float *to)
{
    int64_t columns = minimum(PAIR, channels - column);
    for (int64_t p = 0; p < pixels; p++, to += PAIR) {
        memcpy(to, map + p * channels + column, columns * sizeof *to);
        if (columns < PAIR) memset(to + columns, 0, (PAIR - columns) * sizeof *to);
    }
}

/* One of the two products: the output (`reduced` are the input channels, the columns output channels), or the gradient of
 * the input (`backward`: the other way round). */
typedef struct {
    const Job *job;
    int backward, threads;
    int64_t reduced, columns, pixels_from, pixels_to, column_step, channel_step; /* steps in the bank */
    const float *bank, *routing, *from;
    const float *bias; /* (batch, columns) or NULL */
    const float *x;    /* backward: the input, whose product with its gradient is the gradient of the routing */
    float *to;         /* NULL if only the gradient of the routing is needed */
    float *parts;      /* (pairs of panels, batch, experts): parts of the gradient of the routing */
} Product;

/* The workspace of a thread: one allocation. */
typedef struct {
    float *packed;  /* (used taps, channels, width) */
    float *partial; /* (pixels of a group, PAIR) */
    float *own;     /* (pixels of a group, PAIR): backward: columns of x */
    float *dots;    /* (group, experts, WIDTH) */
} Workspace;

/* `packed` is NULL if the allocation fails; free it by free(packed). */
static Workspace make_workspace(const Product *product)
{
    const Job *job = product->job;
    int64_t pixels = job->group * product->pixels_to * PAIR, own = product->backward ? pixels : 0;
    int64_t packed = channels_of(product->reduced, job->g.taps, PACKED_ROWS) * job->used * PAIR;
    int64_t dots = product->backward ? job->group * job->g.experts * WIDTH : 0;
    float *start = allocate((packed + pixels + own + dots) * sizeof *start);
    if (!start) return (Workspace){0};
    return (Workspace){start, start + packed, start + packed + pixels, start + packed + pixels + own};
}

/* Pack a block of one expert, (columns, channels, taps) with any strides, to (used taps, channels, width). */
static void pack_block(const Product *product, const float *bank, int64_t columns, int64_t channels, int64_t width, float *to)
{
    const Job *job = product->job;
    int64_t taps = job->g.taps, column_step = product->column_step, channel_step = product->channel_step, next;
    if (!job->used) return; /* every pixel reads padding: there is no room to pack into */
    if (columns < width) memset(to, 0, job->used * channels * width * sizeof *to);
    for (int64_t column = 0; column < columns; column = next) {
        next = minimum(column + LINE, columns);
        const float *from = bank + column * column_step;
        if (taps == 1 && column_step != 1) {
            transpose(next - column, channels, from, column_step, to + column, width);
            continue;
        }
        for (int64_t c = 0; c < channels; c++, from += channel_step) {
            float *start = to + c * width + column;
            if (taps > 1 && job->used == taps) {
                transpose(next - column, taps, from, column_step, start, channels * width);
                continue;
            }
            for (int64_t u = 0; u < job->used; u++)
                for (int64_t i = 0; i < next - column; i++)
                    start[u * channels * width + i] = from[i * column_step + job->taps[u]];
        }
    }
}

/* The micro-kernel: up to TILE_ROWS rows of a tap by `vectors` vectors of columns. The sums over the channels of a block stay
 * in registers; times the routing weight they are added to `partial`. Backward, their products with `own` are added to
 * `dots`, (examples, WIDTH) with stride `dot_step`. */
INLINE void multiply_rows(int backward, int vectors, int width, const Product *product, const Use *use, int count,
                          int64_t channels, const float *from, const float *w, const float *routing, float *partial,
                          const float *own, float *dots)
{
    const int64_t experts = product->job->g.experts, step = product->reduced;
    const float *x[TILE_ROWS];
    vec total[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < TILE_ROWS; r++) {
        const Use *one = use + (r < count ? r : count - 1);
        x[r] = from + (backward ? one->out : one->in) * step;
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) total[r][v] = (vec){0};
    }
    for (int64_t c = 0; c < channels; c++, w += width) {
        vec weight[TILE_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) weight[v] = ((const vec *)w)[v];
#pragma GCC unroll 6
        for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) total[r][v] += x[r][c] * weight[v];
    }
#pragma GCC unroll 6
    for (int r = 0; r < TILE_ROWS; r++) {
        if (r >= count) break;
        int64_t at = (int64_t)(backward ? use[r].in : use[r].out) * PAIR;
        float share = routing[use[r].example * experts];
        vec *to = (vec *)(partial + at), dot = {0};
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            to[v] += share * total[r][v];
            if (backward) dot += ((const vec *)(own + at))[v] * total[r][v];
        }
        if (backward) *(vec *)(dots + use[r].example * experts * WIDTH) += dot;
    }
}

/* All rows of a tap. */
INLINE void multiply_tap(int backward, int groups, const Product *product, const Use *use, int64_t count, int64_t channels,
                         const float *from, const float *w, const float *routing, const Workspace *workspace, float *dots)
{
    int vectors = groups * GROUP_VECTORS;
    for (int64_t i = 0; i < count; i += TILE_ROWS)
        for (int v = 0; v < vectors; v += TILE_VECTORS)
            multiply_rows(backward, vectors < TILE_VECTORS ? vectors : TILE_VECTORS, groups * GROUP, product, use + i,
                          (int)minimum(TILE_ROWS, count - i), channels, from, w + v * WIDTH, routing,
                          workspace->partial + v * WIDTH, workspace->own + v * WIDTH, dots);
}

/* The sums of all experts in `workspace->partial`, for `columns` columns from `column` on of `examples` examples from b0 on. */
INLINE void add_experts(int backward, int groups, const Product *product, int64_t column, int64_t columns, int64_t b0,
                        int64_t examples, const Workspace *workspace)
{
    const Job *job = product->job;
    const Dense *g = &job->g;
    int64_t block = channels_of(product->reduced, g->taps, PACKED_ROWS), width = groups * GROUP, channels;
    const float *from = product->from + b0 * product->pixels_from * product->reduced;
    for (int64_t k = 0; k < g->experts; k++)
        for (int64_t c = 0; c < product->reduced; c += channels) {
            channels = minimum(block, product->reduced - c);
            const float *bank = product->bank + k * g->outputs * g->inputs * g->taps;
            pack_block(product, bank + column * product->column_step + c * product->channel_step, columns, channels, width,
                       workspace->packed);
            for (int64_t u = 0; u < job->used; u++)
                multiply_tap(backward, groups, product, uses_of(job, u), job->count[u] * examples, channels, from + c,
                             workspace->packed + u * channels * width, product->routing + b0 * g->experts + k, workspace,
                             workspace->dots + k * WIDTH);
        }
}

/* One pair of panels (64 columns) for the examples b0..b0+examples. */
static void one_part(const Product *product, int64_t pair, int64_t b0, int64_t examples, const Workspace *workspace)
{
    const Dense *g = &product->job->g;
    int64_t column = pair * PAIR, columns = minimum(PAIR, product->columns - column), pixels = product->pixels_to;
    int64_t first = b0 * pixels * product->columns;
    int groups = (int)ceil_div(columns, GROUP);
    memset(workspace->partial, 0, examples * pixels * PAIR * sizeof *workspace->partial);
    for (int64_t p = 0; product->bias && p < examples * pixels; p++)
        memcpy(workspace->partial + p * PAIR, product->bias + (b0 + p / pixels) * product->columns + column,
               columns * sizeof *product->bias);
    if (product->backward) {
        gather_columns(examples * pixels, product->columns, column, product->x + first, workspace->own);
        memset(workspace->dots, 0, examples * g->experts * WIDTH * sizeof *workspace->dots);
        EACH_WIDTH(groups, add_experts(1, G, product, column, columns, b0, examples, workspace))
    } else {
        EACH_WIDTH(groups, add_experts(0, G, product, column, columns, b0, examples, workspace))
    }
    for (int64_t p = 0; product->to && p < examples * pixels; p++)
        memcpy(product->to + first + p * product->columns + column, workspace->partial + p * PAIR,
               columns * sizeof *product->to);
    for (int64_t i = 0; product->backward && i < examples * g->experts; i++)
        product->parts[(pair * g->batch + b0) * g->experts + i] = horizontal_sum(*(vec *)(workspace->dots + i * WIDTH));
}

static int run(const Product *product)
{
    const Job *job = product->job;
    int64_t groups = ceil_div(job->g.batch, job->group), pairs = ceil_div(product->columns, PAIR);
    int status = DONE, threads = product->threads;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Workspace workspace = make_workspace(product);
#pragma omp for schedule(dynamic)
        for (int64_t index = 0; index < pairs * groups; index++) {
            int64_t b0 = index % groups * job->group;
            if (workspace.packed)
                one_part(product, index / groups, b0, minimum(job->group, job->g.batch - b0), &workspace);
        }
        if (!workspace.packed) {
#pragma omp atomic write
            status = NO_MEMORY;
        }
        free(workspace.packed);
    }
    return status;
}

/* y (batch, pixels, outputs) = sum_k routing[b, k] * conv(x, bank[k]) + bias[b]; bias (batch, outputs) or NULL. */
int dynaconv_experts(const Convolution *g, int threads, const float *bank, const float *routing, const float *bias,
                     const float *x, float *y)
{
    Job job;
    int64_t taps = g->kernel_height * g->kernel_width;
    int status = make_job(g, threads, g->outputs, &job);
    Product product = {&job,          0,    threads, g->inputs, g->outputs, job.g.pixels_in, job.g.pixels_out,
                       g->inputs * taps, taps, bank,    routing,   x,          bias,            0, y, 0};
    if (status == DONE) status = run(&product);
    free_job(&job);
    return status;
}

/* From the upstream gradient y: the gradients of the input (x_gradient, or NULL) and of the routing. */
int dynaconv_experts_input_gradient(const Convolution *g, int threads, const float *bank, const float *routing,
                                    const float *x, const float *y, float *x_gradient, float *routing_gradient)
{
    Job job;
    int64_t taps = g->kernel_height * g->kernel_width, weights = g->batch * g->experts, pairs = ceil_div(g->inputs, PAIR);
    int status = make_job(g, threads, g->inputs, &job);
    float *parts = status == DONE ? allocate(pairs * weights * sizeof *parts) : 0;
    if (!parts) status = NO_MEMORY;
    Product product = {&job, 1,    threads,          g->outputs, g->inputs, job.g.pixels_out, job.g.pixels_in,
                       taps, g->inputs * taps, bank, routing,   y,         0,                x, x_gradient, parts};
    if (status == DONE) status = run(&product);
    for (int64_t i = 0; status == DONE && i < weights; i++) {
        double sum = 0;
        for (int64_t pair = 0; pair < pairs; pair++) sum += parts[pair * weights + i];
        routing_gradient[i] = (float)sum;
    }
    free(parts);
    free_job(&job);
    return status;
}

/* The gradient of the bank: gradient[k] = sum over uses of routing[b, k] * x^T y. */
typedef struct {
    const Job *job;
    int64_t block; /* input channels that are computed at a time */
    const float *routing, *x, *y;
    float *gradient;
} BankGradient;

/* The workspace of a thread: one allocation. */
typedef struct {
    float *x;      /* (groups of TILE_ROWS channels, pixels of a group, TILE_ROWS), padded with zeros */
    float *y;      /* (pixels of a group, PAIR) */
    float *scaled; /* (pixels of a group, PAIR): y times the routing weights of one expert */
    float *kernel; /* (taps, channels padded to TILE_ROWS, width) */
} GradientSpace;

INLINE int64_t padded(int64_t channels) { return ceil_div(channels, TILE_ROWS) * TILE_ROWS; }

/* `x` is NULL if the allocation fails; free it by free(x). */
static GradientSpace make_gradient_space(const BankGradient *task)
{
    const Job *job = task->job;
    int64_t x = whole_lines(padded(task->block) * job->group * job->g.pixels_in), y = job->group * job->g.pixels_out * PAIR;
    int64_t kernel = job->g.taps * padded(task->block) * PAIR;
    float *start = allocate((x + 2 * y + kernel) * sizeof *start);
    if (!start) return (GradientSpace){0};
    return (GradientSpace){start, start + x, start + x + y, start + x + 2 * y};
}

static void gather_x(const Dense *g, int64_t pixels, int64_t channel, int64_t channels, const float *x, float *to)
{
    for (int64_t c = 0; c < channels; c += TILE_ROWS)
        for (int64_t p = 0; p < pixels; p++, to += TILE_ROWS)
            for (int64_t r = 0; r < TILE_ROWS; r++) to[r] = c + r < channels ? x[p * g->inputs + channel + c + r] : 0;
}

/* y times the routing weight of one expert. */
static void scale(const Dense *g, int64_t examples, const float *routing, const float *y, float *to)
{
    for (int64_t b = 0; b < examples; b++, routing += g->experts)
        for (int64_t i = 0; i < g->pixels_out * PAIR; i++) *to++ = *routing * *y++;
}

/* The micro-kernel: kernel (TILE_ROWS, width) = the sum over uses of x^T y, for `vectors` vectors of columns. */
INLINE void multiply_uses(int vectors, int width, const Use *use, int64_t count, const float *x, const float *y, float *kernel)
{
    vec total[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) total[r][v] = (vec){0};
    for (; count > 0; count--, use++) {
        const vec *upstream = (const vec *)(y + (int64_t)use->out * PAIR);
        const float *input = x + (int64_t)use->in * TILE_ROWS;
        vec column[TILE_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) column[v] = upstream[v];
#pragma GCC unroll 6
        for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) total[r][v] += input[r] * column[v];
    }
#pragma GCC unroll 6
    for (int r = 0; r < TILE_ROWS; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) ((vec *)(kernel + r * width))[v] = total[r][v];
}

/* Write a block of an expert's gradient, or add it if the examples of another group were there before. */
static void unpack_block(const Dense *g, int64_t columns, int64_t channels, int64_t width, const float *kernel, int add,
                         float *to)
{
    int64_t step = padded(channels) * width, output = g->inputs * g->taps, next;
    for (int64_t column = 0; column < columns; column = next) {
        next = minimum(column + LINE, columns);
        float *start = to + column * output;
        if (g->taps == 1 && !add) {
            transpose(channels, next - column, kernel + column, width, start, output);
            continue;
        }
        for (int64_t c = 0; c < channels; c++, start += g->taps) {
            const float *from = kernel + c * width + column;
            if (!add) transpose(g->taps, next - column, from, step, start, output);
            for (int64_t i = 0; add && i < next - column; i++)
                for (int64_t t = 0; t < g->taps; t++) start[i * output + t] += from[t * step + i];
        }
    }
}

/* All experts' gradients for some channels and one pair of panels. */
INLINE void one_gradient(int groups, const BankGradient *task, int64_t pair, int64_t channel, const GradientSpace *space)
{
    const Job *job = task->job;
    const Dense *g = &job->g;
    int vectors = groups * GROUP_VECTORS, width = groups * GROUP;
    int64_t channels = minimum(task->block, g->inputs - channel), tap = padded(channels) * width, examples;
    memset(space->kernel, 0, g->taps * tap * sizeof *space->kernel); /* taps without uses stay zero */
    for (int64_t b = 0; b < g->batch; b += examples) {
        examples = minimum(job->group, g->batch - b);
        int64_t pixels = examples * g->pixels_in;
        gather_x(g, pixels, channel, channels, task->x + b * g->pixels_in * g->inputs, space->x);
        gather_columns(examples * g->pixels_out, g->outputs, pair * PAIR, task->y + b * g->pixels_out * g->outputs, space->y);
        for (int64_t k = 0; k < g->experts; k++) {
            scale(g, examples, task->routing + b * g->experts + k, space->y, space->scaled);
            for (int64_t u = 0; u < job->used; u++)
                for (int64_t c = 0; c < channels; c += TILE_ROWS)
                    for (int v = 0; v < vectors; v += TILE_VECTORS)
                        multiply_uses(vectors < TILE_VECTORS ? vectors : TILE_VECTORS, width, uses_of(job, u),
                                      job->count[u] * examples, space->x + c * pixels, space->scaled + v * WIDTH,
                                      space->kernel + job->taps[u] * tap + c * width + v * WIDTH);
            float *to = task->gradient + ((k * g->outputs + pair * PAIR) * g->inputs + channel) * g->taps;
            unpack_block(g, columns_of(g, pair), channels, width, space->kernel, b > 0, to);
        }
    }
}

/* gradient (experts, outputs, inputs, taps) of the bank, from the input x and the upstream gradient y. */
int dynaconv_experts_bank_gradient(const Convolution *g, int threads, const float *routing, const float *x, const float *y,
                                   float *gradient)
{
    Job job;
    int status = make_job(g, 1, g->outputs, &job);
    BankGradient task = {&job, status == DONE ? channels_of(g->inputs, job.g.taps, GRADIENT_ROWS) : 1, routing, x, y, gradient};
    int64_t blocks = ceil_div(g->inputs, task.block), pairs = ceil_div(g->outputs, PAIR);
    const int ready = status == DONE;
#pragma omp parallel num_threads(threads) if (threads > 1 && ready)
    {
        GradientSpace space = ready ? make_gradient_space(&task) : (GradientSpace){0};
#pragma omp for schedule(dynamic)
        for (int64_t index = 0; index < pairs * blocks; index++) {
            int64_t pair = index / blocks, channel = index % blocks * task.block;
            if (space.x) EACH_WIDTH(groups_of(&job.g, pair), one_gradient(G, &task, pair, channel, &space))
        }
        if (!space.x) {
#pragma omp atomic write
            status = NO_MEMORY;
        }
        free(space.x);
    }
    free_job(&job);
    return status;
}
