/* Convolution over channels_last maps, every example with its own kernel. A kernel is mixed block by block; each block is
 * multiplied while it is in the cache and never written to memory.
 *
 * Maps are (batch, pixels, channels) float32. Small tables (Positions in convolve.h) hold which input pixels an output
 * pixel reads, so one loop serves every stride, padding and dilation, and the gradient of the input too.
 */
#include "micro_kernel.h"
#include "mix_block.h"

#define MIXED_NUMBERS 131072 /* numbers of mixed kernels at a time: half of the L2 cache */
#define BLOCK_ROWS 256    /* rows of a block of a large kernel */
#define CACHED_PIXELS 2048  /* pixels of a pair whose partial sums stay in the cache */
#define MOST_PAIRS 64
#define STRIP 48   /* consecutive pixels that are computed in all channels before the next ones */

/* How the work is partitioned. A small kernel is mixed as a whole, so that all channels of a strip of pixels are written
 * together. A large kernel is mixed block by block, for one pair of panels and a group of examples at a time; the partial
 * sums of that group stay in the cache. */
typedef struct {
    int64_t pairs, limit, together, group, splits;
} Partition;

static Partition partition_of(const Dense *g, int threads)
{
    int64_t rows = rows_of(g), pairs = pairs_of(g), kernel = rows * pairs * PAIR;
    if (kernel <= MIXED_NUMBERS && pairs <= MOST_PAIRS) {
        int64_t together = minimum(minimum(EXAMPLES_AT_ONCE, MIXED_NUMBERS / kernel), ceil_div(g->batch, threads));
        int64_t jobs = ceil_div(g->batch, together);
        return (Partition){pairs, rows, together, together, jobs < threads ? ceil_div(threads, jobs) : 1};
    }
    int64_t fit = CACHED_PIXELS / g->pixels_out / EXAMPLES_AT_ONCE * EXAMPLES_AT_ONCE;
    int64_t group = minimum(g->batch, fit > 0 ? fit : 1);
    return (Partition){1, BLOCK_ROWS, minimum(EXAMPLES_AT_ONCE, group), group, 1};
}

/* The workspace of a thread: one allocation. */
typedef struct {
    float *mixed;   /* (together, pairs, limit, PAIR) */
    float *weights; /* (together, experts, PAIR) */
    float *partial; /* (group, pixels_out, PAIR) */
    float *zeros;   /* (inputs) */
} Workspace;

/* `mixed` is NULL if the allocation fails; free it by free(mixed). */
static Workspace make_workspace(const Dense *g, const Partition *partition)
{
    int64_t mixed = whole_lines(partition->together * partition->pairs * partition->limit * PAIR);
    int64_t weights = whole_lines(partition->together * g->experts * PAIR);
    int64_t partial = partition->limit < rows_of(g) ? partition->group * g->pixels_out * PAIR : 0;
    float *start = allocate((mixed + weights + partial + g->inputs) * sizeof *start);
    if (!start) return (Workspace){0};
    Workspace made = {start, start + mixed, start + mixed + weights, start + mixed + weights + partial};
    memset(made.zeros, 0, g->inputs * sizeof *start);
    return made;
}

/* The arguments of `run`. */
typedef struct {
    const Dense *g;
    const Bank *bank;
    const float *routing, *x;
    const Epilogue *epilogue;
    float *y, *sums; /* sums: (splits, batch, outputs) or NULL */
} Task;

/* One unit of work for a thread: examples b0..b1, pairs pair0..pair1, one of the splits of the pixels. */
typedef struct {
    int64_t b0, b1, pair0, pair1, split;
} WorkItem;

/* Add the sums of one strip to the total. Summing strip by strip keeps the rounding error of long sums small. */
static void add_sums(PairJob *job, float *sums)
{
    for (int64_t c = 0; c < job->columns; c++) sums[job->column + c] += job->sums[c];
    memset(job->sums, 0, sizeof job->sums);
}

/* All pairs of one example in this work item; `place` is the index of its mixed kernels in the workspace. */
static void compute_example(const Task *task, const Partition *partition, const WorkItem *item, const Workspace *workspace,
                            int64_t b, int64_t place, Block block, int first, int last)
{
    const Dense *g = task->g;
    PairJob jobs[MOST_PAIRS];
    int64_t pairs = item->pair1 - item->pair0;
    const float *bias = task->epilogue->bias ? task->epilogue->bias + b * task->epilogue->bias_step : 0;
    for (int64_t i = 0; i < pairs; i++) {
        int64_t pair = item->pair0 + i, column = pair * PAIR;
        jobs[i] = (PairJob){g, block, first, last, groups_of(g, pair), column, columns_of(g, pair),
                          task->x + b * g->pixels_in * g->inputs,
                          workspace->mixed + (place * partition->pairs + i) * partition->limit * PAIR, workspace->zeros,
                          workspace->partial + (b - item->b0) * g->pixels_out * PAIR,
                          task->y + b * g->pixels_out * g->outputs, task->epilogue, {0}, {0}};
        if (bias) memcpy(jobs[i].bias, bias + column, jobs[i].columns * sizeof *bias);
    }
    int64_t end = g->pixels_out * (item->split + 1) / partition->splits, count;
    float *sums = last && task->sums ? task->sums + (item->split * g->batch + b) * g->outputs : 0;
    for (int64_t p = g->pixels_out * item->split / partition->splits; p < end; p += count) {
        count = minimum(STRIP, end - p);
        for (int64_t i = 0; i < pairs; i++) {
            compute(jobs + i, p, p + count);
            if (sums) add_sums(jobs + i, sums);
        }
    }
}

static void run_item(const Task *task, const Partition *partition, const WorkItem *item, const Workspace *workspace)
{
    const Dense *g = task->g;
    Block next = block_at(g, 0, 0, partition->limit);
    int64_t kernel = partition->limit * PAIR, n;
    for (int first = 1, more = 1; more; first = 0) {
        Block block = next;
        more = next_block(g, &next, partition->limit);
        for (int64_t b = item->b0; b < item->b1; b += n) {
            n = minimum(partition->together, item->b1 - b);
            for (int64_t pair = item->pair0; pair < item->pair1; pair++) {
                for (int64_t e = 0; e < n; e++)
                    column_weights(g, task->bank, task->routing + (b + e) * g->experts, pair,
                                   workspace->weights + e * g->experts * PAIR);
                mix_block(g, task->bank, &block, pair, n, workspace->weights, partition->pairs * kernel,
                          workspace->mixed + (pair - item->pair0) * kernel);
            }
            for (int64_t e = 0; e < n; e++) compute_example(task, partition, item, workspace, b + e, e, block, first, !more);
        }
    }
}

/* `epilogue` is not NULL. */
static int run(const Dense *g, const Bank *bank, int threads, const float *routing, const Epilogue *epilogue, const float *x,
               float *y)
{
    Partition partition = partition_of(g, threads);
    int64_t groups = ceil_div(g->batch, partition.group), parts = ceil_div(pairs_of(g), partition.pairs);
    int64_t size = g->batch * g->outputs;
    int status = DONE, apart = epilogue->sums && partition.splits > 1; /* several threads share an example: sums for each */
    float *sums = apart ? allocate(partition.splits * size * sizeof *sums) : epilogue->sums;
    if (apart && !sums) return NO_MEMORY;
    if (apart) memset(sums, 0, partition.splits * size * sizeof *sums);
    Task task = {g, bank, routing, x, epilogue, y, sums};
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Workspace workspace = make_workspace(g, &partition);
#pragma omp for schedule(dynamic)
        for (int64_t index = 0; index < groups * parts * partition.splits; index++) {
            int64_t b = index / parts / partition.splits * partition.group;
            int64_t pair = index / partition.splits % parts * partition.pairs;
            WorkItem item = {b, minimum(b + partition.group, g->batch), pair, minimum(pair + partition.pairs, pairs_of(g)),
                           index % partition.splits};
            if (workspace.mixed) run_item(&task, &partition, &item, &workspace);
        }
        if (!workspace.mixed) {
#pragma omp atomic write
            status = NO_MEMORY;
        }
        free(workspace.mixed);
    }
    for (int64_t i = 0; apart && i < partition.splits * size; i++) epilogue->sums[i % size] += sums[i];
    if (apart) free(sums);
    return status;
}

/* y = activation(convolution + bias). Adds to epilogue->sums, so set them to zero first. `epilogue` is not NULL. */
int dynaconv_convolve(const Convolution *g, const Bank *bank, int threads, const float *routing, const Epilogue *epilogue,
                      const float *x, float *y)
{
    Dense dense;
    int status = make_dense(g, 0, &dense);
    if (status == DONE) status = run(&dense, bank, threads, routing, epilogue, x, y);
    free(dense.positions.rows);
    return status;
}

/* x: the gradient of the input; y: the upstream gradient. The bank is packed with the input channels as columns. */
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
