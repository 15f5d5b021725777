/* A frozen layer in one call: its router, the mixing, the convolution and its epilogue. */
#include "kernels.h"

/* routing (batch, experts) from the sums of x over space. If `sums` is NULL, they are computed here, into `own`. */
static int find_routing(const Layer *layer, int64_t batch, int64_t slabs, int threads, const float *sums, const float *x,
                        float *own, float *routing)
{
    const Convolution *g = &layer->convolution;
    int64_t pixels = g->height * g->width;
    if (!sums) {
        memset(own, 0, batch * g->inputs * sizeof *own);
        dynaconv_channel_sums(batch, pixels, g->inputs, slabs, threads, own, x);
    }
    return dynaconv_route(batch, g->inputs, layer->hidden, g->experts, (int)layer->softmax, 1.0f / (float)pixels,
                          sums ? sums : own, layer->hidden_weight, layer->hidden_bias, layer->fc_weight, layer->fc_bias,
                          routing);
}

/* out (batch, outputs): the mixed biases plus the common bias. */
static void mix_biases(const Layer *layer, int64_t batch, const float *routing, float *out)
{
    int64_t outputs = layer->convolution.outputs, experts = layer->convolution.experts;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t c = 0; c < outputs; c++) {
            float sum = layer->bias ? layer->bias[c] : 0;
            for (int64_t k = 0; k < experts; k++) sum += routing[b * experts + k] * layer->biases[k * outputs + c];
            out[b * outputs + c] = sum;
        }
}

/* The convolution; `taps` (batch, taps, channels) is the workspace for the mixed kernels of a depthwise layer. */
static int run(const Layer *layer, const Convolution *g, int64_t slabs, int threads, const float *routing,
               const Epilogue *epilogue, float *taps, float *x, float *y)
{
    const Bank *bank = &layer->bank;
    if (!layer->depthwise) return dynaconv_convolve(g, bank, threads, routing, epilogue, x, y);
    dynaconv_mix((int)bank->kind, g->batch, g->experts, g->kernel_height * g->kernel_width, g->inputs, bank->scale != 0,
                 threads, routing, bank->numbers, bank->scale, taps);
    return dynaconv_depthwise(g, slabs, threads, epilogue, x, taps, y);
}

/* sums_out (batch, outputs) becomes the output's sums over space. Where `routed` is set, `given` (batch, experts) is the
 * routing; else the router runs, from sums_in (batch, channels), or NULL. */
int dynaconv_frozen_layer(const Layer *layer, int64_t batch, int64_t slabs, int threads, int routed, const float *given,
                          const float *sums_in, float *x, float *y, float *sums_out)
{
    Convolution g = layer->convolution;
    g.batch = batch;
    int64_t routing = whole_lines(batch * g.experts), biases = whole_lines(batch * g.outputs);
    int64_t sums = whole_lines(batch * g.inputs);
    int64_t taps = layer->depthwise ? batch * g.kernel_height * g.kernel_width * g.inputs : 0;
    float *own = allocate((routing + biases + sums + taps) * sizeof *own);
    if (!own) return NO_MEMORY;
    float *mixed = own + routing;
    int status = DONE;
    if (!routed) status = find_routing(layer, batch, slabs, threads, sums_in, x, mixed + biases, own);
    const float *weights = routed ? given : own;
    if (layer->biases && status == DONE) mix_biases(layer, batch, weights, mixed);
    Epilogue epilogue = {layer->biases ? mixed : layer->bias, layer->biases ? g.outputs : 0, layer->activation, layer->low,
                         layer->high, sums_out};
    memset(sums_out, 0, batch * g.outputs * sizeof *sums_out);
    if (status == DONE) status = run(layer, &g, slabs, threads, weights, &epilogue, mixed + biases + sums, x, y);
    free(own);
    return status;
}
