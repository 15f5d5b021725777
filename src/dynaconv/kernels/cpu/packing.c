/* Other layouts: pack banks from torch's layout into panels (convolve.h) and unpack them; transpose maps. */
#include "convolve.h"
#include "transpose.h"

#define COLUMNS 16 /* columns that are transposed together: in most networks their stride in the bank is a power of two, and
                    * more of them would fall into the same sets of the cache */

#define RUN 256    /* numbers of one column that are written at a time */
#define AHEAD 32   /* channels that are prefetched ahead: the processor follows fewer streams than there are columns */

/* Columns first.. of a panel, whose columns and channels have any strides in the bank but for their taps. */
static void pack_columns(const BankStrides *strides, int64_t columns, const float *bank, float *panel)
{
    int64_t taps = strides->taps, step = strides->channels * PANEL;
    if (taps == 1 && strides->channel_step == 1) {
        transpose(columns, strides->channels, bank, strides->column_step, panel, PANEL);
        return;
    }
    for (int64_t c = 0; c < strides->channels; c++) {
        const float *from = bank + c * strides->channel_step;
        for (int64_t i = 0; i < columns; i++) __builtin_prefetch(from + i * strides->column_step + AHEAD * taps);
        if (taps == 1 && strides->column_step == 1) memcpy(panel + c * PANEL, from, columns * sizeof *panel);
        else transpose(columns, taps, from, strides->column_step, panel + c * PANEL, step);
    }
}

/* The same back, for a bank whose channels (with their taps) are contiguous. Some channels at a time go through a buffer, so
 * that the bank is written in long runs. */
static void unpack_columns(const BankStrides *strides, int64_t columns, float *bank, const float *panel)
{
    float buffer[COLUMNS * RUN];
    int64_t taps = strides->taps, step = strides->channels * PANEL, count;
    if (taps == 1) {
        transpose(strides->channels, columns, panel, PANEL, bank, strides->column_step);
        return;
    }
    for (int64_t c = 0; c < strides->channels; c += count, bank += count * taps) {
        count = minimum(RUN / taps, strides->channels - c);
        if (count == 0) { /* a kernel of more than RUN taps */
            transpose(taps, columns, panel + c * PANEL, step, bank, strides->column_step);
            count = 1;
            continue;
        }
        for (int64_t i = 0; i < count; i++) transpose(taps, columns, panel + (c + i) * PANEL, step, buffer + i * taps, RUN);
        for (int64_t column = 0; column < columns; column++)
            memcpy(bank + column * strides->column_step, buffer + column * RUN, count * taps * sizeof *bank);
    }
}

/* Pack, or unpack if `back` is set. */
static void repack(int back, const BankStrides *strides, int threads, float *bank, float *packed)
{
    int64_t count = ceil_div(strides->columns, PANEL), size = strides->taps * strides->channels * PANEL;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t index = 0; index < strides->experts * count; index++) {
        int64_t first = index % count * PANEL, columns = minimum(PANEL, strides->columns - first);
        float *own = bank + index / count * strides->expert_step + first * strides->column_step, *panel = packed + index * size;
        if (!back && columns < PANEL) memset(panel, 0, size * sizeof *panel);
        for (int64_t c = 0; c < columns; c += COLUMNS) {
            int64_t together = minimum(COLUMNS, columns - c);
            if (back) unpack_columns(strides, together, own + c * strides->column_step, panel + c);
            else pack_columns(strides, together, own + c * strides->column_step, panel + c);
        }
    }
}

/* bank -> packed. */
int dynaconv_pack(const BankStrides *strides, int threads, float *bank, float *packed)
{
    repack(0, strides, threads, bank, packed);
    return DONE;
}

/* packed -> bank, whose channels (with their taps) are contiguous. */
int dynaconv_unpack(const BankStrides *strides, int threads, float *bank, float *packed)
{
    repack(1, strides, threads, bank, packed);
    return DONE;
}

/* to (batch, columns, rows) = from (batch, rows, columns): contiguous maps to channels_last, and back. */
int dynaconv_transpose(int64_t batch, int64_t rows, int64_t columns, int threads, const float *from, float *to)
{
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t b = 0; b < batch; b++)
        for (int64_t r = 0; r < rows; r += COLUMNS)
            for (int64_t c = 0; c < columns; c += COLUMNS) {
                const float *start = from + (b * rows + r) * columns + c;
                transpose(minimum(COLUMNS, rows - r), minimum(COLUMNS, columns - c), start, columns,
                          to + (b * columns + c) * rows + r, rows);
            }
    return DONE;
}
