// The operator dynaconv::frozen_layer for programs without Python that run a network which AOTInductor compiled.
//
// In Python dynaconv/inference/operator.py registers it; a C++ program is linked with this file and with the C files of
// this folder (examples/cpp). Both check every tensor before C reads it, for C checks nothing.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <optional>
#include <tuple>

extern "C" {
#include "kernels.h"
}

namespace {

using at::IntArrayRef;
using at::Tensor;
using Optional = std::optional<Tensor>;
constexpr int64_t PANEL = 32;                                       // output channels of a panel of a packed bank
constexpr int64_t MOST = std::numeric_limits<int32_t>::max();       // C counts pixels in 32 bits

const void *data_of(const char *name, const Tensor &tensor, at::ScalarType dtype, std::initializer_list<int64_t> shape) {
    TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, name, " is ", tensor.scalar_type(), "; expected ", dtype);
    TORCH_CHECK_VALUE(tensor.is_cpu() && tensor.is_contiguous() && !tensor.is_neg() && tensor.sizes() == IntArrayRef(shape),
                      name, " has shape ", tensor.sizes(), "; expected ", IntArrayRef(shape), ", contiguous, on the CPU");
    return tensor.const_data_ptr();
}

const float *floats(const char *name, const Optional &tensor, std::initializer_list<int64_t> shape) {
    if (!tensor.has_value()) return nullptr;
    return static_cast<const float *>(data_of(name, *tensor, at::kFloat, shape));
}

Convolution convolution_of(const Tensor &x, int64_t experts, IntArrayRef kernel, IntArrayRef stride, IntArrayRef padding,
                           IntArrayRef dilation) {
    Convolution g = {};
    g.experts = experts, g.inputs = x.size(1), g.outputs = kernel[0], g.height = x.size(2), g.width = x.size(3);
    g.kernel_height = kernel[2], g.kernel_width = kernel[3];
    g.stride_y = stride[0], g.stride_x = stride[1], g.pad_y = padding[0], g.pad_x = padding[1];
    g.dilation_y = dilation[0], g.dilation_x = dilation[1];
    for (int64_t size : {g.experts, g.inputs, g.outputs, g.kernel_height, g.kernel_width, g.stride_y, g.stride_x,
                         g.dilation_y, g.dilation_x})
        TORCH_CHECK_VALUE(size >= 1 && size <= MOST, "a size of the layer is ", size, "; expected 1 to ", MOST);
    TORCH_CHECK_VALUE(g.pad_y >= 0 && g.pad_x >= 0 && std::max(g.pad_y, g.pad_x) <= MOST, "padding is ", padding);
    g.out_height = (g.height + 2 * g.pad_y - g.dilation_y * (g.kernel_height - 1) - 1) / g.stride_y + 1;
    g.out_width = (g.width + 2 * g.pad_x - g.dilation_x * (g.kernel_width - 1) - 1) / g.stride_x + 1;
    bool fits = g.height + 2 * g.pad_y > g.dilation_y * (g.kernel_height - 1) &&
                g.width + 2 * g.pad_x > g.dilation_x * (g.kernel_width - 1);
    TORCH_CHECK_VALUE(fits, "the kernel ", kernel, " does not fit into the padded input of ", x.sizes());
    TORCH_CHECK_VALUE(g.height * g.width <= MOST && g.out_height * g.out_width <= MOST, "the map is too large: ", x.sizes());
    return g;
}

Bank bank_of(const Tensor &bank, const Optional &scale, const Convolution &g, bool depthwise) {
    int64_t taps = g.kernel_height * g.kernel_width, panels = (g.outputs + PANEL - 1) / PANEL;
    at::ScalarType dtype = bank.scalar_type();
    TORCH_CHECK_TYPE(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kChar, "the bank is ", dtype,
                     "; expected float32, bfloat16 or int8");
    TORCH_CHECK_VALUE((dtype == at::kChar) == scale.has_value(), "a bank in int8, and no other, has a scale");
    Bank made = {dtype == at::kFloat ? FLOAT32 : dtype == at::kBFloat16 ? BFLOAT16 : INT8, nullptr, nullptr};
    if (depthwise) {
        made.numbers = data_of("bank", bank, dtype, {g.experts, taps, g.inputs});
        made.scale = floats("scale", scale, {g.experts, 1, g.inputs});
    } else {
        made.numbers = data_of("bank", bank, dtype, {g.experts, panels, taps * g.inputs, PANEL});
        made.scale = floats("scale", scale, {g.experts, panels, 1, PANEL});
    }
    return made;
}

int64_t number_of(c10::string_view activation) {
    if (activation == "silu") return SILU;
    if (activation == "hardswish") return HARDSWISH;
    TORCH_CHECK_VALUE(activation == "clamp", "activation is ", activation, "; expected clamp, silu or hardswish");
    return CLAMP;
}

// y[b] = activation(conv(x[b], sum_k routing[b, k] * bank[k]) + bias[b]) in channels_last, and its sums over space.
std::tuple<Tensor, Tensor> frozen_layer(
    const Tensor &given, const Optional &sums, const Optional &routing, const Tensor &bank, const Optional &scale,
    const Optional &bias, const Optional &biases, const Optional &hidden_weight, const Optional &hidden_bias,
    const Optional &fc_weight, const Optional &fc_bias, IntArrayRef kernel_shape, IntArrayRef stride, IntArrayRef padding,
    IntArrayRef dilation, int64_t groups, bool softmax, c10::string_view activation, std::optional<double> low,
    std::optional<double> high) {
    TORCH_CHECK_TYPE(given.scalar_type() == at::kFloat && given.is_cpu(), "x is ", given.scalar_type(),
                     "; expected float32 on the CPU");
    TORCH_CHECK_VALUE(given.dim() == 4 && kernel_shape.size() == 4 && bank.dim() >= 3, "x has shape ", given.sizes(),
                      " and the kernel ", kernel_shape, "; expected (B, C, H, W) and (out, in/groups, height, width)");
    bool depthwise = groups > 1;
    TORCH_CHECK_VALUE(kernel_shape[1] * groups == given.size(1) && (!depthwise || kernel_shape[1] == 1), "x has ",
                      given.size(1), " channels, the kernel ", kernel_shape, " and ", groups, " groups");
    TORCH_CHECK_VALUE(!depthwise || kernel_shape[0] == given.size(1), "a depthwise layer has as many channels out as in");
    Tensor x = given.resolve_neg().contiguous(at::MemoryFormat::ChannelsLast);
    int64_t batch = x.size(0);
    Layer layer = {};
    layer.depthwise = depthwise;
    layer.convolution = convolution_of(x, bank.size(0), kernel_shape, stride, padding, dilation);
    const Convolution &g = layer.convolution;
    layer.bank = bank_of(bank, scale, g, depthwise);
    layer.bias = floats("bias", bias, {g.outputs});
    layer.biases = floats("biases", biases, {g.experts, g.outputs});
    layer.activation = number_of(activation);
    layer.low = static_cast<float>(low.value_or(-std::numeric_limits<double>::infinity()));
    layer.high = static_cast<float>(high.value_or(std::numeric_limits<double>::infinity()));
    TORCH_CHECK_VALUE(routing.has_value() || fc_weight.has_value(), "neither routing weights nor a router were given");
    if (fc_weight.has_value()) {
        layer.hidden = hidden_weight.has_value() ? hidden_weight->size(0) : 0;
        layer.softmax = softmax;
        layer.hidden_weight = floats("hidden_weight", hidden_weight, {layer.hidden, g.inputs});
        layer.hidden_bias = floats("hidden_bias", hidden_bias, {layer.hidden});
        layer.fc_weight = floats("fc_weight", fc_weight, {g.experts, layer.hidden ? layer.hidden : g.inputs});
        layer.fc_bias = floats("fc_bias", fc_bias, {g.experts});
    }
    Optional weights = routing.has_value() ? Optional(routing->to(at::kFloat).contiguous().resolve_neg()) : routing;
    const float *routed = floats("routing", weights, {batch, g.experts}), *known = floats("sums", sums, {batch, g.inputs});
    Tensor y = at::empty({batch, g.out_height, g.out_width, g.outputs}, x.options().memory_format(c10::nullopt));
    Tensor y_sums = at::empty({batch, g.outputs}, y.options());
    if (batch) {
        int64_t threads = at::get_num_threads();  // a few examples are split into ranges of channels: arguments.py
        int64_t slabs = batch >= threads ? 1 : std::min((threads + batch - 1) / batch, (g.inputs + 63) / 64);
        int status = dynaconv_frozen_layer(&layer, batch, slabs, static_cast<int>(threads), routing.has_value(), routed,
                                           known, static_cast<float *>(x.data_ptr()), static_cast<float *>(y.data_ptr()),
                                           static_cast<float *>(y_sums.data_ptr()));
        TORCH_CHECK_WITH(OutOfMemoryError, status == 0, "dynaconv_frozen_layer found no memory for its workspace");
    }
    return {y.permute({0, 3, 1, 2}), y_sums};
}

}  // namespace

// As in dynaconv/inference/operator.py.
TORCH_LIBRARY_FRAGMENT(dynaconv, library) {
    library.def(
        "frozen_layer(Tensor x, Tensor? sums, Tensor? routing, Tensor bank, Tensor? scale, Tensor? bias, Tensor? biases, "
        "Tensor? hidden_weight, Tensor? hidden_bias, Tensor? fc_weight, Tensor? fc_bias, int[] kernel_shape, "
        "int[2] stride, int[2] padding, int[2] dilation, int groups, bool softmax, str activation, float? low, "
        "float? high) -> (Tensor, Tensor)");
    library.impl("frozen_layer", torch::dispatch(c10::DispatchKey::CPU, TORCH_FN(frozen_layer)));
}
