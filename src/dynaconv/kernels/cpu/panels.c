/* Banks from torch's layout to panels (convolve.h), and back. */
#include "convolve.h"

#define RUN 16 /* channels that are carried at a time */

/* Where a bank (experts, columns, channels, taps) lies; either the columns or the channels, with all their taps, lie
 * side by side: their step is the number of taps. */
typedef struct {
    int64_t experts, columns, channels, taps, expert_step, column_step, channel_step;
} Lie;

/* Some channels of one panel, by way of `room` (PANEL, RUN * taps): a panel's columns are apart by a power of two in most
 * networks, so that reading across them would find one set of the cache only. */
INLINE void carry_run(int back, const Lie *lie, int64_t columns, int64_t first, float *bank, float *panel, float *room)
{
    int64_t count = smaller(RUN, lie->channels - first), run = count * lie->taps;
    for (int64_t column = 0; !back && column < PANEL; column++) {
        if (column < columns) memcpy(room + column * run, bank + column * lie->column_step, run * sizeof *room);
        else memset(room + column * run, 0, run * sizeof *room);
    }
    for (int64_t t = 0; t < lie->taps; t++)
        for (int64_t c = 0; c < count; c++) {
            float *row = panel + (t * lie->channels + first + c) * PANEL, *at = room + c * lie->taps + t;
            for (int64_t column = 0; column < PANEL; column++) {
                if (back) at[column * run] = row[column];
                else row[column] = at[column * run];
            }
        }
    for (int64_t column = 0; back && column < columns; column++)
        memcpy(bank + column * lie->column_step, room + column * run, run * sizeof *room);
}

/* One panel where the columns lie side by side. */
static void carry_columns(const Lie *lie, int64_t columns, const float *bank, float *panel)
{
    for (int64_t c = 0; c < lie->channels; c++)
        for (int64_t t = 0; t < lie->taps; t++) {
            const float *from = bank + c * lie->channel_step + t;
            float *row = panel + (t * lie->channels + c) * PANEL;
            for (int64_t column = 0; column < PANEL; column++) row[column] = column < columns ? from[column * lie->taps] : 0;
        }
}

/* `back`: from the panels, where the channels lie side by side. */
void panels(int back, const Lie *lie, int threads, float *bank, float *packed)
{
    int64_t count = parts_of(lie->columns, PANEL), size = lie->taps * lie->channels * PANEL;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *room = malloc(PANEL * RUN * lie->taps * sizeof *room);
#pragma omp for
        for (int64_t index = 0; index < lie->experts * count; index++) {
            int64_t first = index % count * PANEL, columns = smaller(PANEL, lie->columns - first);
            float *own = bank + index / count * lie->expert_step + first * lie->column_step, *panel = packed + index * size;
            if (lie->channel_step != lie->taps) carry_columns(lie, columns, own, panel);
            for (int64_t c = 0; lie->channel_step == lie->taps && c < lie->channels; c += RUN) {
                if (back) carry_run(1, lie, columns, c, own + c * lie->taps, panel, room);
                else carry_run(0, lie, columns, c, own + c * lie->taps, panel, room);
            }
        }
        free(room);
    }
}
