/* Convolution over channels_last maps, every example with its own kernel, which is mixed block by block into the cache,
 * multiplied there, and never written out.
 *
 * Maps are (batch, pixels, channels) float32. Which input pixels an output pixel reads stands in small tables (Positions of
 * convolve.h), so that stride, padding, dilation and the gradient of the input are one loop.
 */
#include "micro_kernel.h"
#include "mix_block.h"

#define MIXED 131072 /* numbers of mixed kernels that are kept at a time: half of the second cache */
#define LIMIT 256    /* rows of a block of a large kernel */
#define PIXELS 2048  /* unfinished pixels of a pair that stay in the cache */
#define MOST_PAIRS 64
#define STRETCH 48   /* pixels that are computed in all channels before the next ones */

/* How the work is cut. A small kernel is mixed whole, so that a stretch of pixels is written in all its channels. Of a
 * large one a pair of panels is mixed block by block, for a group of examples whose unfinished pixels stay in the cache. */
typedef struct {
    int64_t pairs, limit, together, group, splits;
} Cut;

static Cut cut_of(const Dense *g, int threads)
{
    int64_t rows = rows_of(g), pairs = pairs_of(g), kernel = rows * pairs * PAIR;
    if (kernel <= MIXED && pairs <= MOST_PAIRS) {
        int64_t together = smaller(smaller(TOGETHER, MIXED / kernel), parts_of(g->batch, threads));
        int64_t jobs = parts_of(g->batch, together);
        return (Cut){pairs, rows, together, together, jobs < threads ? parts_of(threads, jobs) : 1};
    }
    int64_t fit = PIXELS / g->pixels_out / TOGETHER * TOGETHER, group = smaller(g->batch, fit > 0 ? fit : 1);
    return (Cut){1, LIMIT, smaller(TOGETHER, group), group, 1};
}

/* What a thread works in: one allocation. */
typedef struct {
    float *mixed;   /* (together, pairs, limit, PAIR) */
    float *weights; /* (together, experts, PAIR) */
    float *partial; /* (group, pixels_out, PAIR) */
    float *zeros;   /* (inputs) */
} Workspace;

/* `mixed` is NULL where there is no memory; to be freed by free(mixed). */
static Workspace make_workspace(const Dense *g, const Cut *cut)
{
    int64_t mixed = lines(cut->together * cut->pairs * cut->limit * PAIR), weights = lines(cut->together * g->experts * PAIR);
    int64_t partial = cut->limit < rows_of(g) ? cut->group * g->pixels_out * PAIR : 0;
    float *start = allocate((mixed + weights + partial + g->inputs) * sizeof *start);
    if (!start) return (Workspace){0};
    Workspace made = {start, start + mixed, start + mixed + weights, start + mixed + weights + partial};
    memset(made.zeros, 0, g->inputs * sizeof *start);
    return made;
}

/* What is to be done: the arguments of `run`. */
typedef struct {
    const Dense *g;
    const Bank *bank;
    const float *routing, *x;
    const Epilogue *epilogue;
    float *y, *sums; /* sums: (splits, batch, outputs) or NULL */
} Task;

/* A share of the work: examples b0..b1, pairs pair0..pair1, one of the splits of the pixels. */
typedef struct {
    int64_t b0, b1, pair0, pair1, split;
} Share;

/* Stretch by stretch, so that sums over many pixels do not lose digits. */
static void hand_sums(PairJob *job, float *sums)
{
    for (int64_t c = 0; c < job->columns; c++) sums[job->column + c] += job->sums[c];
    memset(job->sums, 0, sizeof job->sums);
}

/* One example, all its pairs of the share; its mixed kernels are number `place` in the workspace. */
static void one_example(const Task *task, const Cut *cut, const Share *share, const Workspace *workspace, int64_t b,
                        int64_t place, Block block, int first, int last)
{
    const Dense *g = task->g;
    PairJob jobs[MOST_PAIRS];
    int64_t pairs = share->pair1 - share->pair0;
    const float *bias = task->epilogue->bias ? task->epilogue->bias + b * task->epilogue->bias_step : 0;
    for (int64_t i = 0; i < pairs; i++) {
        int64_t pair = share->pair0 + i, column = pair * PAIR;
        jobs[i] = (PairJob){g, block, first, last, groups_of(g, pair), column, columns_of(g, pair),
                          task->x + b * g->pixels_in * g->inputs,
                          workspace->mixed + (place * cut->pairs + i) * cut->limit * PAIR, workspace->zeros,
                          workspace->partial + (b - share->b0) * g->pixels_out * PAIR,
                          task->y + b * g->pixels_out * g->outputs, task->epilogue, {0}, {0}};
        if (bias) memcpy(jobs[i].bias, bias + column, jobs[i].columns * sizeof *bias);
    }
    int64_t end = g->pixels_out * (share->split + 1) / cut->splits, count;
    float *sums = last && task->sums ? task->sums + (share->split * g->batch + b) * g->outputs : 0;
    for (int64_t p = g->pixels_out * share->split / cut->splits; p < end; p += count) {
        count = smaller(STRETCH, end - p);
        for (int64_t i = 0; i < pairs; i++) {
            compute(jobs + i, p, p + count);
            if (sums) hand_sums(jobs + i, sums);
        }
    }
}

static void do_share(const Task *task, const Cut *cut, const Share *share, const Workspace *workspace)
{
    const Dense *g = task->g;
    Block next = block_at(g, 0, 0, cut->limit);
    int64_t kernel = cut->limit * PAIR, n;
    for (int first = 1, more = 1; more; first = 0) {
        Block block = next;
        more = next_block(g, &next, cut->limit);
        for (int64_t b = share->b0; b < share->b1; b += n) {
            n = smaller(cut->together, share->b1 - b);
            for (int64_t pair = share->pair0; pair < share->pair1; pair++) {
                for (int64_t e = 0; e < n; e++)
                    weigh(g, task->bank, task->routing + (b + e) * g->experts, pair,
                          workspace->weights + e * g->experts * PAIR);
                mix_block(g, task->bank, &block, pair, n, workspace->weights, cut->pairs * kernel,
                      workspace->mixed + (pair - share->pair0) * kernel);
            }
            for (int64_t e = 0; e < n; e++) one_example(task, cut, share, workspace, b + e, e, block, first, !more);
        }
    }
}

/* `epilogue` is not NULL. */
static int run(const Dense *g, const Bank *bank, int threads, const float *routing, const Epilogue *epilogue, const float *x,
               float *y)
{
    Cut cut = cut_of(g, threads);
    int64_t groups = parts_of(g->batch, cut.group), parts = parts_of(pairs_of(g), cut.pairs), size = g->batch * g->outputs;
    int apart = epilogue->sums && cut.splits > 1, status = DONE; /* threads that share an example do not add to the same sums */
    float *sums = apart ? allocate(cut.splits * size * sizeof *sums) : epilogue->sums;
    if (apart && !sums) return NO_MEMORY;
    if (apart) memset(sums, 0, cut.splits * size * sizeof *sums);
    Task task = {g, bank, routing, x, epilogue, y, sums};
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Workspace workspace = make_workspace(g, &cut);
#pragma omp for schedule(dynamic)
        for (int64_t index = 0; index < groups * parts * cut.splits; index++) {
            int64_t b = index / parts / cut.splits * cut.group, pair = index / cut.splits % parts * cut.pairs;
            Share share = {b, smaller(b + cut.group, g->batch), pair, smaller(pair + cut.pairs, pairs_of(g)),
                           index % cut.splits};
            if (workspace.mixed) do_share(&task, &cut, &share, &workspace);
        }
        if (!workspace.mixed) {
#pragma omp atomic write
            status = NO_MEMORY;
        }
        free(workspace.mixed);
    }
    for (int64_t i = 0; apart && i < cut.splits * size; i++) epilogue->sums[i % size] += sums[i];
    if (apart) free(sums);
    return status;
}

/* y = activation(convolution + bias); epilogue->sums are added to: zero them first. `epilogue` is not NULL. */
int dynaconv_convolve(const Convolution *g, const Bank *bank, int threads, const float *routing, const Epilogue *epilogue,
                      const float *x, float *y)
{
    Dense dense;
    int status = make_dense(g, 0, &dense);
    if (status == DONE) status = run(&dense, bank, threads, routing, epilogue, x, y);
    free(dense.positions.rows);
    return status;
}

/* x, the gradient of the input, from that of the output; the bank is packed with its inputs as columns. */
int dynaconv_convolve_input_gradient(const Convolution *g, const Bank *bank, int threads, const float *routing,
                                     const float *y, float *x)
{
    Epilogue nothing = {0, 0, CLAMP, -__builtin_inff(), __builtin_inff(), 0};
    Dense dense;
    int status = make_dense(g, 1, &dense);
    if (status == DONE) status = run(&dense, bank, threads, routing, &nothing, y, x);
    free(dense.positions.rows);
    return status;
}
