/* Banks from torch's layout to packed panels (convolve.h), and back. */
#include "convolve.h"

#define RUN 16 /* channels that are carried at a time */

/* Some channels of one panel, by way of `buffer` (PANEL, RUN * taps): a panel's columns are apart by a power of two in most
 * networks, so that reading across them would find one set of the cache only. */
INLINE void carry_run(int back, const BankStrides *strides, int64_t columns, int64_t first, float *bank, float *panel,
                      float *buffer)
{
    int64_t count = smaller(RUN, strides->channels - first), run = count * strides->taps;
    for (int64_t column = 0; !back && column < PANEL; column++) {
        if (column < columns) memcpy(buffer + column * run, bank + column * strides->column_step, run * sizeof *buffer);
        else memset(buffer + column * run, 0, run * sizeof *buffer);
    }
    for (int64_t t = 0; t < strides->taps; t++)
        for (int64_t c = 0; c < count; c++) {
            float *row = panel + (t * strides->channels + first + c) * PANEL, *at = buffer + c * strides->taps + t;
            for (int64_t column = 0; column < PANEL; column++) {
                if (back) at[column * run] = row[column];
                else row[column] = at[column * run];
            }
        }
    for (int64_t column = 0; back && column < columns; column++)
        memcpy(bank + column * strides->column_step, buffer + column * run, run * sizeof *buffer);
}

/* One panel where the columns lie side by side. */
static void carry_columns(const BankStrides *strides, int64_t columns, const float *bank, float *panel)
{
    for (int64_t c = 0; c < strides->channels; c++)
        for (int64_t t = 0; t < strides->taps; t++) {
            const float *from = bank + c * strides->channel_step + t;
            float *row = panel + (t * strides->channels + c) * PANEL;
            for (int64_t column = 0; column < PANEL; column++)
                row[column] = column < columns ? from[column * strides->taps] : 0;
        }
}

/* `back`: from the panels, where the channels lie side by side. */
static int carry(int back, const BankStrides *strides, int threads, float *bank, float *packed)
{
    int64_t count = parts_of(strides->columns, PANEL), size = strides->taps * strides->channels * PANEL;
    int status = DONE;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *buffer = allocate(PANEL * RUN * strides->taps * sizeof *buffer);
#pragma omp for
        for (int64_t index = 0; index < strides->experts * count; index++) {
            int64_t first = index % count * PANEL, columns = smaller(PANEL, strides->columns - first);
            float *own = bank + index / count * strides->expert_step + first * strides->column_step;
            float *panel = packed + index * size;
            if (strides->channel_step != strides->taps) carry_columns(strides, columns, own, panel);
            for (int64_t c = 0; buffer && strides->channel_step == strides->taps && c < strides->channels; c += RUN)
                if (back) carry_run(1, strides, columns, c, own + c * strides->taps, panel, buffer); /* a loop for each */
                else carry_run(0, strides, columns, c, own + c * strides->taps, panel, buffer);
        }
        if (!buffer) {
#pragma omp atomic write
            status = NO_MEMORY;
        }
        free(buffer);
    }
    return status;
}

/* bank -> packed. */
int dynaconv_pack(const BankStrides *strides, int threads, float *bank, float *packed)
{
    return carry(0, strides, threads, bank, packed);
}

/* packed -> bank, whose channels lie side by side. */
int dynaconv_unpack(const BankStrides *strides, int threads, float *bank, float *packed)
{
    return carry(1, strides, threads, bank, packed);
}
