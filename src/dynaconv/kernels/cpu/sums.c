/* The sums over space that a router reads. */
#include "kernels.h"

#define BLOCK 64 /* pixels whose sum is taken before it is added, so that long sums do not lose digits */

INLINE void sum_columns(int n, int64_t count, int64_t channels, const float *x, float *sums)
{
    float sum[16] = {0};
    for (int64_t p = 0; p < count; p++)
        for (int i = 0; i < n; i++) sum[i] += x[p * channels + i];
    for (int i = 0; i < n; i++) sums[i] += sum[i];
}

/* sums (batch, channels) += x over pixels. */
void channel_sums(int64_t batch, int64_t pixels, int64_t channels, int64_t slabs, int threads, float *sums, const float *x)
{
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t job = 0; job < batch * slabs; job++) {
        int64_t b = job / slabs, first, last;
        slab(channels, slabs, job % slabs, &first, &last);
        const float *map = x + b * pixels * channels;
        float *own = sums + b * channels;
        for (int64_t p = 0; p < pixels; p += BLOCK, map += BLOCK * channels) {
            int64_t count = pixels - p < BLOCK ? pixels - p : BLOCK, c = first;
            for (; last - c >= 16; c += 16) sum_columns(16, count, channels, map + c, own + c);
            if (c < last) sum_columns((int)(last - c), count, channels, map + c, own + c);
        }
    }
}
