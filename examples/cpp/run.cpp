// Run a network that `dynaconv export --to aoti` compiled, without Python.
//
//     run network.pt2 images.bin 2 3 224 224 outputs.bin
//
// images.bin has float32 numbers, (batch, channels, height, width). Written are the numbers of the first output
// (logits of a classifier); printed are its shape and for every image the place of its largest number.
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <ATen/ATen.h>

#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <vector>

static at::Tensor read(const char *path, const std::vector<int64_t> &shape) {
    at::Tensor made = at::empty(shape, at::kFloat);
    std::ifstream file(path, std::ios::binary);
    auto bytes = static_cast<std::streamsize>(made.nbytes());
    TORCH_CHECK(file.read(static_cast<char *>(made.data_ptr()), bytes) && file.peek() == EOF, path,
                " cannot be read, or is not as long as images of shape ", made.sizes());
    return made;
}

int main(int count, char **words) {
    if (count != 8) {
        std::cerr << "usage: " << words[0] << " network.pt2 images.bin BATCH CHANNELS HEIGHT WIDTH outputs.bin\n";
        return 2;
    }
    try {
        c10::InferenceMode without_gradients;
        std::vector<int64_t> shape;
        for (int place = 3; place < 7; place++) shape.push_back(std::atoll(words[place]));
        torch::inductor::AOTIModelPackageLoader network(words[1]);
        std::cout << network.get_metadata().at("dynaconv") << "\n";  // name, task, classes, preprocessing ... in JSON
        at::Tensor first = network.run({read(words[2], shape)}).at(0).contiguous();
        std::ofstream(words[7], std::ios::binary)
            .write(static_cast<char *>(first.data_ptr()), static_cast<std::streamsize>(first.nbytes()));
        std::cout << first.sizes() << "\n" << first.flatten(1).argmax(1) << "\n";
    } catch (const std::exception &error) {
        std::cerr << words[1] << ": " << error.what() << "\n";
        return 1;
    }
}
