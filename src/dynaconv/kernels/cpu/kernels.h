/* The exported functions, and the structures that they take. Details are in the files that define them. */
#ifndef KERNELS_H
#define KERNELS_H

#include "epilogue.h"

/* Sizes of a convolution (convolve.c, or depthwise.c with outputs = inputs). Maps are (batch, height, width, channels),
 * contiguous. */
typedef struct {
    int64_t batch, experts, inputs, outputs, height, width, out_height, out_width, kernel_height, kernel_width;
    int64_t stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x;
} Convolution;

/* Data type of a bank. */
enum { FLOAT32, BFLOAT16, INT8 };

typedef struct {
    int64_t kind;
    const void *numbers;
    const float *scale; /* of an int8 bank, else NULL */
} Bank;

/* A frozen layer: layer.c. */
typedef struct {
    int64_t depthwise; /* which of the two convolutions */
    Convolution convolution;
    Bank bank;           /* dense: convolve.h; depthwise: (experts, taps, channels), scale (experts, 1, channels) */
    const float *bias;   /* (outputs) or NULL */
    const float *biases; /* (experts, outputs) or NULL: mixed and added to it */
    int64_t activation;  /* epilogue.h */
    float low, high;
    int64_t hidden, softmax; /* the router's hidden layer (0: none), and its activation */
    const float *hidden_weight, *hidden_bias, *fc_weight, *fc_bias;
} Layer;

/* Strides of a bank (experts, columns, channels, taps). Either the columns or the channels, each with all its taps, are
 * contiguous: their step is the number of taps. */
typedef struct {
    int64_t experts, columns, channels, taps, expert_step, column_step, channel_step;
} BankStrides;

/* All return DONE, or NO_MEMORY if a workspace cannot be allocated. */
EXPORT int dynaconv_convolve(const Convolution *g, const Bank *bank, int threads, const float *routing,
                             const Epilogue *epilogue, const float *x, float *y);
EXPORT int dynaconv_convolve_input_gradient(const Convolution *g, const Bank *bank, int threads, const float *routing,
                                            const float *y, float *x);
EXPORT int dynaconv_convolve_bank_gradient(const Convolution *g, int threads, const float *bank, const float *routing,
                                           const float *x, const float *y, float *gradient, float *routing_gradient);
EXPORT int dynaconv_experts(const Convolution *g, int threads, const float *bank, const float *routing, const float *bias,
                            const float *x, float *y);
EXPORT int dynaconv_experts_input_gradient(const Convolution *g, int threads, const float *bank, const float *routing,
                                           const float *x, const float *y, float *x_gradient, float *routing_gradient);
EXPORT int dynaconv_experts_bank_gradient(const Convolution *g, int threads, const float *routing, const float *x,
                                          const float *y, float *gradient);
EXPORT int dynaconv_depthwise(const Convolution *g, int64_t slabs, int threads, const Epilogue *epilogue, float *x, float *w,
                              float *y);
EXPORT int dynaconv_depthwise_input_gradient(const Convolution *g, int64_t slabs, int threads, float *x, float *w, float *y);
EXPORT int dynaconv_depthwise_kernel_gradient(const Convolution *g, int64_t slabs, int threads, float *x, float *w,
                                              float *y);
EXPORT int dynaconv_pack(const BankStrides *strides, int threads, float *bank, float *packed);
EXPORT int dynaconv_unpack(const BankStrides *strides, int threads, float *bank, float *packed);
EXPORT int dynaconv_transpose(int64_t batch, int64_t rows, int64_t columns, int threads, const float *from, float *to);
EXPORT int dynaconv_channel_sums(int64_t batch, int64_t pixels, int64_t channels, int64_t slabs, int threads, float *sums,
                                 const float *x);
EXPORT int dynaconv_route(int64_t batch, int64_t channels, int64_t hidden, int64_t experts, int softmax, float scale,
                          const float *sums, const float *H, const float *h, const float *F, const float *f, float *out);
EXPORT int dynaconv_mix(int kind, int64_t batch, int64_t experts, int64_t rows, int64_t columns, int by_column, int threads,
                        const float *routing, const void *bank, const float *scale, float *out);
EXPORT int dynaconv_frozen_layer(const Layer *layer, int64_t batch, int64_t slabs, int threads, int routed,
                                 const float *routing, const float *sums_in, float *x, float *y, float *sums_out);

#endif
