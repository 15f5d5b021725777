#!/bin/sh
# Build libdynaconv_operators.so (the operators of this project for programs without Python) and the program run, with
# torch's headers and libraries and this project's C files of the Python environment: ./build.sh [FOLDER].
# CC, CXX, PYTHON and ARCH (-march=...) choose others.
set -eu
here=$(dirname "$0") out=${1:-.} python=${PYTHON:-python} arch=${ARCH:--march=native}
root() { "$python" -c "import importlib.util as i; print(i.find_spec('$1').submodule_search_locations[0])"; }
torch=$(root torch) kernels=$(root dynaconv)/kernels/cpu
mkdir -p "$out"
objects=$(mktemp -d)
trap 'rm -r "$objects"' EXIT
for source in "$kernels"/*.c; do
    "${CC:-cc}" -std=gnu11 -O3 -ffp-contract=fast -fvisibility=hidden -fPIC -fopenmp "$arch" -c "$source" \
        -o "$objects/$(basename "$source" .c).o"
done
compile() {
    "${CXX:-c++}" -std=c++20 -O2 -fopenmp "$arch" -I"$torch/include" -I"$torch/include/torch/csrc/api/include" "$@" \
        -L"$torch/lib" -Wl,-rpath,"$torch/lib" -Wl,--no-as-needed -ltorch -ltorch_cpu -lc10
}
compile -shared -fPIC "$kernels/torch_operator.cpp" "$objects"/*.o -o "$out/libdynaconv_operators.so"
compile "$here/run.cpp" -o "$out/run" -L"$out" -Wl,-rpath,'$ORIGIN' -Wl,--no-as-needed -ldynaconv_operators
