/* A frozen layer in one call: its router, the mixing, the convolution, and what follows it. */
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

typedef struct {
    int64_t depthwise; /* which of the two convolutions */
    Convolution dense;
    Geometry geometry;
    Bank bank;          /* dense: convolve.h; depthwise: (experts, taps, channels), scale (experts, 1, channels) */
    const float *bias;  /* (outputs) or NULL */
    const float *biases; /* (experts, outputs) or NULL: mixed and added to it */
    int64_t curve; /* the activation: activation.h */
    float low, high;
    int64_t channels, pixels, hidden, softmax; /* the router's input, its hidden layer (0: none), and its activation */
    const float *H, *h, *F, *f;
} Layer;

/* routing (batch, experts) from the sums of x over space, which are taken here where they are not handed in. */
static void find_routing(const Layer *layer, int64_t batch, int64_t slabs, int threads, const float *sums, const float *x,
                         float *routing)
{
    float *own = sums ? 0 : calloc(batch * layer->channels, sizeof *own), *scratch = malloc((layer->hidden + 1) * sizeof *own);
    if (!sums) channel_sums(batch, layer->pixels, layer->channels, slabs, threads, own, x);
    route(batch, layer->channels, layer->hidden, layer->dense.experts, (int)layer->softmax, 1.0f / (float)layer->pixels,
          sums ? sums : own, layer->H, layer->h, layer->F, layer->f, scratch, routing);
    free(own), free(scratch);
}

/* (batch, outputs): the biases mixed, and the common one added. */
static float *mix_biases(const Layer *layer, int64_t batch, const float *routing)
{
    int64_t outputs = layer->dense.outputs, experts = layer->dense.experts;
    float *out = malloc(batch * outputs * sizeof *out);
    for (int64_t b = 0; b < batch; b++)
        for (int64_t c = 0; c < outputs; c++) {
            float sum = layer->bias ? layer->bias[c] : 0;
            for (int64_t k = 0; k < experts; k++) sum += routing[b * experts + k] * layer->biases[k * outputs + c];
            out[b * outputs + c] = sum;
        }
    return out;
}

static void run_depthwise(const Layer *layer, int64_t batch, int64_t slabs, int threads, const float *routing,
                          const Follow *follow, float *x, float *y)
{
    Geometry g = layer->geometry;
    int64_t rows = g.kernel_height * g.kernel_width;
    float *taps = malloc(batch * rows * g.channels * sizeof *taps);
    g.batch = batch;
    mix((int)layer->bank.kind, batch, layer->dense.experts, rows, g.channels, layer->bank.scale != 0, threads, routing,
        layer->bank.numbers, layer->bank.scale, taps);
    depthwise(&g, slabs, threads, follow, x, taps, y);
    free(taps);
}

/* sums_out (batch, outputs) becomes the output's sums over space. `given` (batch, experts) is the routing, or NULL: then
 * the router runs, from sums_in (batch, channels), or NULL. */
void frozen_layer(const Layer *layer, int64_t batch, int64_t slabs, int threads, const float *given, const float *sums_in,
                  float *x, float *y, float *sums_out)
{
    float *routing = given ? 0 : malloc(batch * layer->dense.experts * sizeof *routing), *biases = 0;
    if (!given) find_routing(layer, batch, slabs, threads, sums_in, x, routing);
    const float *weights = given ? given : routing;
    if (layer->biases) biases = mix_biases(layer, batch, weights);
    Follow follow = {biases ? biases : layer->bias, biases ? layer->dense.outputs : 0, layer->curve, layer->low,
                     layer->high, sums_out};
    memset(sums_out, 0, batch * layer->dense.outputs * sizeof *sums_out);
    if (layer->depthwise) {
        run_depthwise(layer, batch, slabs, threads, weights, &follow, x, y);
    } else {
        Convolution g = layer->dense;
        g.batch = batch;
        convolve(&g, &layer->bank, threads, weights, &follow, x, y);
    }
    free(routing), free(biases);
}
