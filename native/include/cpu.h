// Which kernels this CPU can run.
#pragma once

#include <string>

#include "kernels.h"

namespace freehold {

// The named set, or for "" what FREEHOLD_ISA names, or else the best this CPU runs. Throws
// std::invalid_argument for one that is unknown or not to be had here.
const Kernels& choose_kernels(const std::string& isa);
std::string available_isas();  // "avx512_vnni, avx2, scalar": best first

}  // namespace freehold
