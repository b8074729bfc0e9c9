// This instruction set's entries of the kernel table.

#include "kernels.h"

#define CONCAT_(a, b) a##b
#define CONCAT(a, b) CONCAT_(a, b)

namespace freehold {
namespace ISA {
void linear(const Weight&, const Rows&, const float*, float*, int64_t, int64_t, int64_t);
void quantize_row(const float*, int64_t, int64_t, int64_t, int8_t*, float*, int32_t*);
void round_row(const float*, int64_t, int64_t, uint16_t*);
void rms_norm(const float*, const float*, float, int64_t, float*);
void silu_and_mul(const float*, int64_t, float*);
void rope(const float*, const float*, const float*, int64_t, int64_t, bool, float*);
void matvec_float32(const float*, const float*, int64_t, int64_t, float*);
double exp_row(const float*, int64_t, double, double, double*);
void attend(const Attention&, int64_t, int64_t, float*);
}  // namespace ISA

extern const Kernels CONCAT(kernels_, ISA);
const Kernels CONCAT(kernels_, ISA) = {
    .name = ISA_NAME,
    .linear = ISA::linear,
    .quantize_row = ISA::quantize_row,
    .round_row = ISA::round_row,
    .rms_norm = ISA::rms_norm,
    .silu_and_mul = ISA::silu_and_mul,
    .rope = ISA::rope,
    .matvec_float32 = ISA::matvec_float32,
    .exp_row = ISA::exp_row,
    .attend = ISA::attend,
};
}  // namespace freehold
