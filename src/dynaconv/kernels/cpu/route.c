/* The two papers' routers, from the sums that pooling leaves to routing weights. */
#include <math.h>

#include "kernels.h"

INLINE float dot(int64_t n, const float *a, const float *b)
{
    vec part = {0};
    int64_t i = 0;
    for (; n - i >= 16; i += 16) part += *(vec *)(a + i) * *(vec *)(b + i);
    float sum = 0;
    for (int v = 0; v < 16; v++) sum += part[v];
    for (; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* One example: out = act(F relu(H (scale * sums) + h) + f), act = softmax or sigmoid; hidden = 0: no hidden layer. */
static void route_one(int64_t channels, int64_t hidden, int64_t experts, int softmax, float scale, const float *sums,
                      const float *H, const float *h, const float *F, const float *f, float *scratch, float *out)
{
    for (int64_t j = 0; j < hidden; j++) {
        float z = scale * dot(channels, sums, H + j * channels) + (h ? h[j] : 0);
        scratch[j] = z < 0 ? 0 : z;
    }
    float most = -INFINITY, total = 0;
    for (int64_t k = 0; k < experts; k++) {
        out[k] = hidden ? dot(hidden, scratch, F + k * hidden) : scale * dot(channels, sums, F + k * channels);
        if (f) out[k] += f[k];
        if (out[k] > most) most = out[k];
    }
    for (int64_t k = 0; k < experts; k++) {
        out[k] = softmax ? expf(out[k] - most) : 1 / (1 + expf(-out[k]));
        total += out[k];
    }
    for (int64_t k = 0; softmax && k < experts; k++) out[k] /= total;
}

/* sums (batch, channels), H (hidden, channels), F (experts, hidden or channels), scratch (hidden), out (batch, experts). */
void route(int64_t batch, int64_t channels, int64_t hidden, int64_t experts, int softmax, float scale,
           const float *sums, const float *H, const float *h, const float *F, const float *f, float *scratch, float *out)
{
    for (int64_t b = 0; b < batch; b++)
        route_one(channels, hidden, experts, softmax, scale, sums + b * channels, H, h, F, f, scratch, out + b * experts);
}
