/* What this folder computes, and what it is told of the sizes; each file says the rest. */
#ifndef KERNELS_H
#define KERNELS_H

#include "common.h"

/* A dense convolution: convolve.c. */
typedef struct {
    int64_t batch, experts, inputs, outputs, taps, pixels_in, pixels_out;
    const int32_t *reads;  /* (pixels_out, taps): the input pixel, or -1 outside; NULL: the same pixel */
    const int32_t *writes; /* (pixels_out): the output pixel, in the order of computing; NULL: in order */
} Convolution;

/* How the numbers of a bank are stored. */
enum { FLOAT32, BFLOAT16, INT8 };

typedef struct {
    int64_t kind;
    const void *numbers;
    const float *scale; /* of an int8 bank, else NULL */
} Bank;

/* A depthwise convolution: depthwise.c. */
typedef struct {
    int64_t batch, channels, height, width, out_height, out_width, kernel_height, kernel_width;
    int64_t stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x;
} Geometry;

void convolve(const Convolution *g, const Bank *bank, int threads, const float *routing, const Follow *follow,
              const float *x, float *y);
void convolve_gradient(const Convolution *g, int threads, const float *bank, const float *routing, const float *x,
                       const float *y, float *gradient, float *routing_gradient);
void depthwise(const Geometry *g, int64_t slabs, int threads, const Follow *follow, float *x, float *w, float *y);
void depthwise_input_gradient(const Geometry *g, int64_t slabs, int threads, float *x, float *w, float *y);
void depthwise_kernel_gradient(const Geometry *g, int64_t slabs, int threads, float *x, float *w, float *y);
void channel_sums(int64_t batch, int64_t pixels, int64_t channels, int64_t slabs, int threads, float *sums, const float *x);
void route(int64_t batch, int64_t channels, int64_t hidden, int64_t experts, int softmax, float scale,
           const float *sums, const float *H, const float *h, const float *F, const float *f, float *scratch, float *out);
void mix(int kind, int64_t batch, int64_t experts, int64_t rows, int64_t columns, int by_column, int threads,
         const float *routing, const void *bank, const float *scale, float *out);

#endif
