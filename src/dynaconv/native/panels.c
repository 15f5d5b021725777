/* Banks from torch's layout to panels (convolve.h), and back. */
#include "convolve.h"

#define RUN 16 /* channels that are carried at a time: reads and writes stay in the first cache */

/* Where a bank (experts, columns, channels, taps), in any order, lies. */
typedef struct {
    int64_t experts, columns, channels, taps, expert_step, column_step, channel_step;
} Lie;

/* One panel; `back`: from the panel. */
INLINE void carry(int back, const Lie *lie, int64_t first, float *bank, float *panel)
{
    int64_t columns = smaller(PANEL, lie->columns - first);
    for (int64_t c = 0; c < lie->channels; c += RUN)
        for (int64_t channel = c; channel < smaller(c + RUN, lie->channels); channel++)
            for (int64_t column = 0; column < (back ? columns : PANEL); column++)
                for (int64_t t = 0; t < lie->taps; t++) {
                    float *in = panel + (t * lie->channels + channel) * PANEL + column;
                    float *out = bank + (first + column) * lie->column_step + channel * lie->channel_step + t;
                    if (back) *out = *in;
                    else *in = column < columns ? *out : 0;
                }
}

void panels(int back, const Lie *lie, int threads, float *bank, float *packed)
{
    int64_t count = parts_of(lie->columns, PANEL), size = lie->taps * lie->channels * PANEL;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t index = 0; index < lie->experts * count; index++) {
        float *from = bank + index / count * lie->expert_step, *to = packed + index * size;
        if (back) carry(1, lie, index % count * PANEL, from, to);
        else carry(0, lie, index % count * PANEL, from, to);
    }
}
