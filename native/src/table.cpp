// This instruction set's entries of the kernel table.

#include "kernels.h"

#define CONCAT_(a, b) a##b
#define CONCAT(a, b) CONCAT_(a, b)

namespace freehold {
namespace ISA {

float greatest_magnitude(const float*, int64_t);
void quantize(const float*, int64_t, float, float, float, int8_t*);
void prepare(const float* const*, int64_t, const Weight&, const BlockTarget&);
void matmul_float32(const Product&, int64_t, int64_t);
void matmul_bf16(const Product&, int64_t, int64_t);
void matmul_int8(const Product&, int64_t, int64_t);
void matmul_int4(const Product&, int64_t, int64_t);
void matmul_int8_tiles(const Product&, int64_t, int64_t);
void matmul_int4_tiles(const Product&, int64_t, int64_t);
void matvec_float32(const float*, const float*, int64_t, int64_t, float*);
void add_scaled(const float*, float, int64_t, float*);
void rms_norm(const float*, const float*, float, int64_t, float*);
void silu_and_mul(const float*, int64_t, float*);
void rope(const float*, const float*, const float*, int64_t, int64_t, bool, float*);
void to_bf16(const float*, int64_t, uint16_t*);
void grouped_attention(const Attention&, const Partial&);
void latent_attention(const Attention&, const Partial&);
void merge(const Partial&, const Partial&, int64_t, int64_t);
double exp_row(const float*, int64_t, double, double, double*);
int64_t multiply_rounds(Format, int64_t);
uint64_t fold(const uint64_t*, int64_t);

}  // namespace ISA

extern const Kernels CONCAT(kernels_, ISA);
const Kernels CONCAT(kernels_, ISA) = {
    .name = ISA_NAME,
    .greatest_magnitude = ISA::greatest_magnitude,
    .quantize = ISA::quantize,
    .prepare = ISA::prepare,
#ifdef ISA_HAS_TILES
    .matmul = {ISA::matmul_float32, ISA::matmul_bf16, ISA::matmul_int8_tiles,
               ISA::matmul_int4_tiles},
#else
    .matmul = {ISA::matmul_float32, ISA::matmul_bf16, ISA::matmul_int8, ISA::matmul_int4},
#endif
    .matvec_float32 = ISA::matvec_float32,
    .add_scaled = ISA::add_scaled,
    .rms_norm = ISA::rms_norm,
    .silu_and_mul = ISA::silu_and_mul,
    .rope = ISA::rope,
    .to_bf16 = ISA::to_bf16,
    .grouped_attention = ISA::grouped_attention,
    .latent_attention = ISA::latent_attention,
    .merge = ISA::merge,
    .exp_row = ISA::exp_row,
    .multiply_rounds = ISA::multiply_rounds,
    .fold = ISA::fold,
};

}  // namespace freehold
