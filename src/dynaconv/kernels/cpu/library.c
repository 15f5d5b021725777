/* Facts about the library (instruction set, sizes of structures), and memory allocation. */
#include "kernels.h"

#ifdef DYNACONV_FAILING_MALLOC /* for tests: how many more allocations succeed */
EXPORT int64_t dynaconv_allocations_left = INT64_MAX;
#endif

void *allocate(int64_t bytes)
{
#ifdef DYNACONV_FAILING_MALLOC
    if (__atomic_fetch_sub(&dynaconv_allocations_left, 1, __ATOMIC_SEQ_CST) <= 0) return 0;
#endif
    if (bytes < 0 || bytes > INT64_MAX - 64) return 0;
    return aligned_alloc(64, (size_t)((bytes + 64) / 64 * 64));
}

/* What the library was compiled for. */
EXPORT const char *dynaconv_instruction_set(void);
const char *dynaconv_instruction_set(void) { return INSTRUCTION_SET; }

/* Size of structure number `index`, in the order of arguments.py. Python compares it with the size of its own structure. */
EXPORT int64_t dynaconv_struct_size(int index);
int64_t dynaconv_struct_size(int index)
{
    const int64_t sizes[] = {sizeof(Convolution), sizeof(Bank), sizeof(Epilogue), sizeof(BankStrides), sizeof(Layer)};
    return index < 0 || index >= (int)(sizeof sizes / sizeof *sizes) ? -1 : sizes[index];
}
