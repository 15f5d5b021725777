/* Pack banks from torch's layout into panels (convolve.h), and unpack them. */
#include "convolve.h"

#define CHANNELS 16 /* channels that are repacked at a time */

/* Some channels of one panel, through `buffer` (PANEL, CHANNELS * taps). In most networks the stride of the columns in the
 * bank is a power of two, so that without the buffer all columns would map to the same cache set. */
INLINE void repack_channels(int back, const BankStrides *strides, int64_t columns, int64_t first, float *bank, float *panel,
                            float *buffer)
{
    int64_t count = minimum(CHANNELS, strides->channels - first), run = count * strides->taps;
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

/* Pack one panel of a bank whose columns (with their taps) are the contiguous dimension. */
static void pack_columns(const BankStrides *strides, int64_t columns, const float *bank, float *panel)
{
    for (int64_t c = 0; c < strides->channels; c++)
        for (int64_t t = 0; t < strides->taps; t++) {
            const float *from = bank + c * strides->channel_step + t;
            float *row = panel + (t * strides->channels + c) * PANEL;
            for (int64_t column = 0; column < PANEL; column++)
                row[column] = column < columns ? from[column * strides->taps] : 0;
        }
}

/* Pack, or unpack if `back` is set. Unpacking needs a bank whose channels (with their taps) are contiguous. */
static int repack(int back, const BankStrides *strides, int threads, float *bank, float *packed)
{
    int64_t count = ceil_div(strides->columns, PANEL), size = strides->taps * strides->channels * PANEL;
    int status = DONE;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *buffer = allocate(PANEL * CHANNELS * strides->taps * sizeof *buffer);
#pragma omp for
        for (int64_t index = 0; index < strides->experts * count; index++) {
            int64_t first = index % count * PANEL, columns = minimum(PANEL, strides->columns - first);
            float *own = bank + index / count * strides->expert_step + first * strides->column_step;
            float *panel = packed + index * size;
            if (strides->channel_step != strides->taps) pack_columns(strides, columns, own, panel);
            for (int64_t c = 0; buffer && strides->channel_step == strides->taps && c < strides->channels; c += CHANNELS)
                if (back) repack_channels(1, strides, columns, c, own + c * strides->taps, panel, buffer); /* constants */
                else repack_channels(0, strides, columns, c, own + c * strides->taps, panel, buffer);
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
    return repack(0, strides, threads, bank, packed);
}

/* packed -> bank, whose channels (with their taps) are contiguous. */
int dynaconv_unpack(const BankStrides *strides, int threads, float *bank, float *packed)
{
    return repack(1, strides, threads, bank, packed);
}
