/* Depthwise convolution of every example with its own kernel, and its two gradients; see depthwise.py.
 *
 * Arrays are contiguous float32: maps (batch, height, width, channels), kernels (batch, taps, channels). The three passes
 * run over the same pairs of an input and an output pixel, row by row and tap by tap, so that the weights of a tap stay in
 * registers and an output row in the L1 cache. They differ in one line of the micro-kernel only.
 */
#include "kernels.h"

enum { FORWARD, INPUT_GRADIENT, KERNEL_GRADIENT };

/* Most taps and most vectors of channels that the micro-kernel takes at once: their weights fit into the registers. */
#define WIDEST 5
#define MOST_VECTORS (REGISTERS == 32 ? 4 : 2)

/* The micro-kernel: `width` neighbouring taps over `count` output pixels for which all these taps are inside the input.
 * w_step is the stride of the taps in w, t_step that of the pixels they read in x. pass, vectors and width are constants
 * after inlining, so that the weights stay in registers. */
INLINE void micro_kernel(int pass, int vectors, int width, int64_t count, int64_t x_step, int64_t t_step, int64_t w_step,
                         int64_t y_step, float *x, float *w, float *y)
{
    vec weights[WIDEST][MOST_VECTORS];
#pragma GCC unroll 5
    for (int t = 0; t < width; t++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) weights[t][v] = ((vec *)(w + t * w_step))[v];
    for (int64_t i = 0; i < count; i++, x += x_step, y += y_step)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            vec output = ((vec *)y)[v];
#pragma GCC unroll 5
            for (int t = 0; t < width; t++) {
                vec *input = (vec *)(x + t * t_step) + v;
                if (pass == FORWARD) output += *input * weights[t][v];
                else if (pass == INPUT_GRADIENT) *input += output * weights[t][v];
                else weights[t][v] += *input * output;
            }
            if (pass == FORWARD) ((vec *)y)[v] = output;
        }
#pragma GCC unroll 5
    for (int t = 0; pass == KERNEL_GRADIENT && t < width; t++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) ((vec *)(w + t * w_step))[v] = weights[t][v];
}

/* One tap, for the few channels that do not fill a vector. */
INLINE void micro_kernel_narrow(int pass, int64_t n, int64_t count, int64_t x_step, int64_t y_step, float *x, float *w,
                                float *y)
{
    for (int64_t i = 0; i < count; i++, x += x_step, y += y_step)
        for (int64_t c = 0; c < n; c++) {
            if (pass == FORWARD) y[c] += x[c] * w[c];
            else if (pass == INPUT_GRADIENT) x[c] += y[c] * w[c];
            else w[c] += x[c] * y[c];
        }
}

static int64_t first_multiple(int64_t numerator, int64_t step) /* the least i >= 0 with i * step >= numerator */
{
    return numerator <= 0 ? 0 : (numerator + step - 1) / step;
}

/* Output columns whose tap kx falls inside the input: first <= ox < last. */
static void columns_inside(const Convolution *g, int64_t kx, int64_t *first, int64_t *last)
{
    int64_t shift = kx * g->dilation_x - g->pad_x; /* input column = output column * stride + shift */
    *first = first_multiple(-shift, g->stride_x);
    *last = first_multiple(g->width - shift, g->stride_x);
    if (*last > g->out_width) *last = g->out_width;
    if (*first > *last) *first = *last;
}

/* Taps kx..kx+width-1 of one row of the kernel, over output columns first..last, for which they all are inside the input.
 * For WIDTH * vectors channels, or for n < WIDTH channels if vectors is 0. */
INLINE void tap_row(int pass, int vectors, int width, int64_t n, const Convolution *g, int64_t kx, int64_t first,
                    int64_t last, float *x, float *w, float *y)
{
    int64_t channels = g->inputs, x_step = g->stride_x * channels;
    x += (first * g->stride_x + kx * g->dilation_x - g->pad_x) * channels;
    w += kx * channels;
    y += first * channels;
    if (last <= first) return;
    int64_t t_step = g->dilation_x * channels;
    if (vectors) micro_kernel(pass, vectors, width, last - first, x_step, t_step, channels, channels, x, w, y);
    else micro_kernel_narrow(pass, n, last - first, x_step, channels, x, w, y);
}

/* All taps over one output row. */
INLINE void row(int pass, int vectors, int64_t n, const Convolution *g, int64_t oy, float *x, float *w, float *y)
{
    int64_t width = g->kernel_width, left, right, first, last; /* left..right: columns for which every tap is inside */
    columns_inside(g, 0, &left, &last);
    columns_inside(g, width - 1, &first, &right);
    int together = vectors && right > left && (width == 3 || width == 5) && pass != INPUT_GRADIENT;
    for (int64_t ky = 0; ky < g->kernel_height; ky++) {
        int64_t iy = oy * g->stride_y - g->pad_y + ky * g->dilation_y;
        if (iy < 0 || iy >= g->height) continue;
        float *xs = x + iy * g->width * g->inputs, *ws = w + ky * width * g->inputs;
        if (together && width == 3) tap_row(pass, vectors, 3, n, g, 0, left, right, xs, ws, y);
        if (together && width == 5) tap_row(pass, vectors, 5, n, g, 0, left, right, xs, ws, y);
        for (int64_t kx = 0; kx < width; kx++) {
            columns_inside(g, kx, &first, &last);
            tap_row(pass, vectors, 1, n, g, kx, first, together ? left : last, xs, ws, y);
            if (together) tap_row(pass, vectors, 1, n, g, kx, right, last, xs, ws, y);
        }
    }
}

/* Channels first..last of `count` pixels become 0. */
INLINE void zero_channels(int64_t count, int64_t channels, int64_t first, int64_t last, float *y)
{
    for (int64_t i = 0; i < count; i++, y += channels) memset(y + first, 0, (last - first) * sizeof *y);
}

INLINE void rows(int pass, const Convolution *g, int64_t first, int64_t last, const Epilogue *epilogue, float *x, float *w,
                 float *y)
{
    for (int64_t oy = 0; oy < g->out_height; oy++, y += g->out_width * g->inputs) {
        if (pass == FORWARD) zero_channels(g->out_width, g->inputs, first, last, y);
        int64_t c = first;
        for (; MOST_VECTORS == 4 && last - c >= 4 * WIDTH; c += 4 * WIDTH) row(pass, 4, 0, g, oy, x + c, w + c, y + c);
        for (; last - c >= 2 * WIDTH; c += 2 * WIDTH) row(pass, 2, 0, g, oy, x + c, w + c, y + c);
        for (; last - c >= WIDTH; c += WIDTH) row(pass, 1, 0, g, oy, x + c, w + c, y + c);
        if (c < last) row(pass, 0, last - c, g, oy, x + c, w + c, y + c);
        if (pass == FORWARD && epilogue) finish_pixels(g->out_width, g->inputs, first, last, epilogue, y);
    }
}

/* Examples, and the `slabs` ranges of channels of each example, are independent jobs. */
static void run(int pass, const Convolution *g, int64_t slabs, int threads, const Epilogue *epilogue, float *x, float *w,
                float *y)
{
    int64_t input = g->height * g->width, output = g->out_height * g->out_width;
    int64_t taps = g->kernel_height * g->kernel_width, width = g->inputs;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (int64_t job = 0; job < g->batch * slabs; job++) {
        int64_t b = job / slabs, first, last;
        slab(width, slabs, job % slabs, &first, &last);
        float *own_x = x + b * input * width, *own_w = w + b * taps * width, *own_y = y + b * output * width;
        if (pass == INPUT_GRADIENT) {
            zero_channels(input, width, first, last, own_x);
            rows(INPUT_GRADIENT, g, first, last, 0, own_x, own_w, own_y);
        } else if (pass == KERNEL_GRADIENT) {
            zero_channels(taps, width, first, last, own_w);
            rows(KERNEL_GRADIENT, g, first, last, 0, own_x, own_w, own_y);
        } else if (epilogue) {
            Epilogue own = epilogue_of_example(epilogue, b, width);
            rows(FORWARD, g, first, last, &own, own_x, own_w, own_y);
        } else {
            rows(FORWARD, g, first, last, 0, own_x, own_w, own_y);
        }
    }
}

/* `epilogue` may be NULL. Adds to its sums, so set them to zero first. */
int dynaconv_depthwise(const Convolution *g, int64_t slabs, int threads, const Epilogue *epilogue, float *x, float *w,
                       float *y)
{
    run(FORWARD, g, slabs, threads, epilogue, x, w, y);
    return DONE;
}

int dynaconv_depthwise_input_gradient(const Convolution *g, int64_t slabs, int threads, float *x, float *w, float *y)
{
    run(INPUT_GRADIENT, g, slabs, threads, 0, x, w, y);
    return DONE;
}

int dynaconv_depthwise_kernel_gradient(const Convolution *g, int64_t slabs, int threads, float *x, float *w, float *y)
{
    run(KERNEL_GRADIENT, g, slabs, threads, 0, x, w, y);
    return DONE;
}
