/* The routers of the two papers: sums over space, and the routing weights from them. */
#include <math.h>

#include "kernels.h"

#define BLOCK 64 /* pixels per partial sum, which keeps the rounding error of long sums small */

INLINE void sum_columns(int n, int64_t count, int64_t channels, const float *x, float *sums)
{
    float sum[16] = {0};
    for (int64_t p = 0; p < count; p++)
        for (int i = 0; i < n; i++) sum[i] += x[p * channels + i];
    for (int i = 0; i < n; i++) sums[i] += sum[i];
}

/* sums (batch, channels) += x (batch, pixels, channels) over pixels. */
int dynaconv_channel_sums(int64_t batch, int64_t pixels, int64_t channels, int64_t slabs, int threads, float *sums,
                          const float *x)
{
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t job = 0; job < batch * slabs; job++) {
        int64_t b = job / slabs, first, last;
        slab(channels, slabs, job % slabs, &first, &last);
        const float *map = x + b * pixels * channels;
        float *own = sums + b * channels;
        for (int64_t p = 0; p < pixels; p += BLOCK, map += BLOCK * channels) {
            int64_t count = minimum(BLOCK, pixels - p), c = first;
            for (; last - c >= 16; c += 16) sum_columns(16, count, channels, map + c, own + c);
            if (c < last) sum_columns((int)(last - c), count, channels, map + c, own + c);
        }
    }
    return DONE;
}

INLINE float dot(int64_t n, const float *a, const float *b)
{
    vec part = {0};
    int64_t i = 0;
    for (; n - i >= WIDTH; i += WIDTH) part += *(vec *)(a + i) * *(vec *)(b + i);
    float sum = horizontal_sum(part);
    for (; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* One example: out = act(F relu(H (scale * sums) + h) + f), act = softmax or sigmoid; hidden = 0: no hidden layer. */
static void route_one(int64_t channels, int64_t hidden, int64_t experts, int softmax, float scale, const float *sums,
                      const float *H, const float *h, const float *F, const float *f, float *layer, float *out)
{
    for (int64_t j = 0; j < hidden; j++) {
        float z = scale * dot(channels, sums, H + j * channels) + (h ? h[j] : 0);
        layer[j] = z < 0 ? 0 : z;
    }
    float most = -INFINITY, total = 0;
    for (int64_t k = 0; k < experts; k++) {
        out[k] = hidden ? dot(hidden, layer, F + k * hidden) : scale * dot(channels, sums, F + k * channels);
        if (f) out[k] += f[k];
        if (out[k] > most) most = out[k];
    }
    for (int64_t k = 0; k < experts; k++) {
        out[k] = softmax ? expf(out[k] - most) : 1 / (1 + expf(-out[k]));
        total += out[k];
    }
    for (int64_t k = 0; softmax && k < experts; k++) out[k] /= total;
}

/* sums (batch, channels), H (hidden, channels), F (experts, hidden or channels), out (batch, experts). */
int dynaconv_route(int64_t batch, int64_t channels, int64_t hidden, int64_t experts, int softmax, float scale,
                   const float *sums, const float *H, const float *h, const float *F, const float *f, float *out)
{
    float *layer = allocate(hidden * sizeof *layer);
    if (!layer) return NO_MEMORY;
    for (int64_t b = 0; b < batch; b++)
        route_one(channels, hidden, experts, softmax, scale, sums + b * channels, H, h, F, f, layer, out + b * experts);
    free(layer);
    return DONE;
}
