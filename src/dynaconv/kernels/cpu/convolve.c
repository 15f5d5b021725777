/* Convolution over channels_last maps, every example with its own kernel, which is mixed block by block into the cache,
 * multiplied there, and never written out.
 *
 * Maps are (batch, pixels, channels) float32. Which input pixels an output pixel reads is a table, so that stride,
 * padding, dilation and the gradient of the input are one loop.
 */
#include "blend.h"
#include "tile.h"

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

static Cut cut_of(const Convolution *g, int threads)
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

/* What a thread works in. */
typedef struct {
    float *mixed;   /* (together, pairs, limit, PAIR) */
    float *weights; /* (together, experts, PAIR) */
    float *partial; /* (group, pixels_out, PAIR) */
    float *nothing; /* (inputs), zeros */
} Room;

static Room room_for(const Convolution *g, const Cut *cut)
{
    size_t one = sizeof(float), kernel = cut->pairs * cut->limit * PAIR;
    int64_t partial = cut->limit < rows_of(g) ? cut->group * g->pixels_out * PAIR : 0;
    return (Room){malloc(one * cut->together * kernel), malloc(one * cut->together * g->experts * PAIR),
                  malloc(one * partial), calloc(g->inputs, one)};
}

static void leave(const Room *room) { free(room->mixed), free(room->weights), free(room->partial), free(room->nothing); }

/* What is to be done: the arguments of `convolve`. */
typedef struct {
    const Convolution *g;
    const Bank *bank;
    const float *routing, *x;
    const Follow *follow;
    float *y, *sums; /* sums: (splits, batch, outputs) or NULL */
} Task;

/* A share of the work: examples b0..b1, pairs pair0..pair1, one of the splits of the pixels. */
typedef struct {
    int64_t b0, b1, pair0, pair1, split;
} Share;

/* Stretch by stretch, so that sums over many pixels do not lose digits. */
static void hand_sums(Work *work, float *sums)
{
    for (int64_t c = 0; c < work->columns; c++) sums[work->column + c] += work->sums[c];
    memset(work->sums, 0, sizeof work->sums);
}

/* One example, all its pairs of the share; its mixed kernels are number `place` in the room. */
static void one_example(const Task *task, const Cut *cut, const Share *share, const Room *room, int64_t b, int64_t place,
                        Block block, int first, int last)
{
    const Convolution *g = task->g;
    Work works[MOST_PAIRS];
    int64_t pairs = share->pair1 - share->pair0;
    const float *bias = task->follow->bias ? task->follow->bias + b * task->follow->bias_step : 0;
    for (int64_t i = 0; i < pairs; i++) {
        int64_t pair = share->pair0 + i, column = pair * PAIR;
        works[i] = (Work){g, block, first, last, vectors_of(g, pair), column, columns_of(g, pair),
                          task->x + b * g->pixels_in * g->inputs,
                          room->mixed + (place * cut->pairs + i) * cut->limit * PAIR, room->nothing,
                          room->partial + (b - share->b0) * g->pixels_out * PAIR,
                          task->y + b * g->pixels_out * g->outputs, task->follow, {0}, {0}};
        if (bias) memcpy(works[i].bias, bias + column, works[i].columns * sizeof *bias);
    }
    int64_t end = g->pixels_out * (share->split + 1) / cut->splits, count;
    float *sums = last && task->sums ? task->sums + (share->split * g->batch + b) * g->outputs : 0;
    for (int64_t p = g->pixels_out * share->split / cut->splits; p < end; p += count) {
        count = smaller(STRETCH, end - p);
        for (int64_t i = 0; i < pairs; i++) {
            compute(works + i, p, p + count);
            if (sums) hand_sums(works + i, sums);
        }
    }
}

static void do_share(const Task *task, const Cut *cut, const Share *share, const Room *room)
{
    const Convolution *g = task->g;
    Block next = block_at(g, 0, 0, cut->limit);
    int64_t kernel = cut->limit * PAIR, n;
    for (int first = 1, more = 1; more; first = 0) {
        Block block = next;
        more = next_block(g, &next, cut->limit);
        for (int64_t b = share->b0; b < share->b1; b += n) {
            n = smaller(cut->together, share->b1 - b);
            for (int64_t pair = share->pair0; pair < share->pair1; pair++) {
                for (int64_t e = 0; e < n; e++)
                    weigh(g, task->bank, task->routing + (b + e) * g->experts, pair, room->weights + e * g->experts * PAIR);
                blend(g, task->bank, &block, pair, n, room->weights, cut->pairs * kernel,
                      room->mixed + (pair - share->pair0) * kernel);
            }
            for (int64_t e = 0; e < n; e++) one_example(task, cut, share, room, b + e, e, block, first, !more);
        }
    }
}

/* y = activate(convolution + bias); follow->sums are added to: zero them first. `follow` is not NULL. */
void convolve(const Convolution *g, const Bank *bank, int threads, const float *routing, const Follow *follow,
              const float *x, float *y)
{
    Cut cut = cut_of(g, threads);
    int64_t groups = parts_of(g->batch, cut.group), parts = parts_of(pairs_of(g), cut.pairs), size = g->batch * g->outputs;
    int apart = follow->sums && cut.splits > 1; /* threads that share an example do not add to the same sums */
    Task task = {g, bank, routing, x, follow, y, apart ? calloc(cut.splits * size, sizeof(float)) : follow->sums};
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Room room = room_for(g, &cut);
#pragma omp for schedule(dynamic)
        for (int64_t index = 0; index < groups * parts * cut.splits; index++) {
            int64_t b = index / parts / cut.splits * cut.group, pair = index / cut.splits % parts * cut.pairs;
            Share share = {b, smaller(b + cut.group, g->batch), pair, smaller(pair + cut.pairs, pairs_of(g)),
                           index % cut.splits};
            do_share(&task, &cut, &share, &room);
        }
        leave(&room);
    }
    for (int64_t i = 0; apart && i < cut.splits * size; i++) follow->sums[i % size] += task.sums[i];
    if (apart) free(task.sums);
}
