// One visit of Algorithm 1 of GradVac (Wang et al., ICLR 2021) on scalars; PCGrad is the case of a target that stays 0.
#pragma once

#include "cuda/device.cuh"
#include "gradsim/gpu.h"

namespace gradsim::gpu {

constexpr double kNegligible = 64;  // |g'_i|^2 below this many rounding errors of its own sum counts as zero

__device__ inline bool negligible(double squared, double scale, double eps) {
  return !(squared > kNegligible * eps * scale * scale);
}

// |g'_i| as the visits need it.
struct Length {
  double value, inverse;  // of a zero g'_i: not used

  __device__ static Length of(double squared) {
    const double inverse = rsqrt(squared);
    return {squared * inverse, inverse};
  }
};

// cos(g'_i, g_j) from g'_i . g_j.
__device__ inline double cosine(double dot, const Length& length, double inverse_norm_j) {
  const double phi = dot * length.inverse * inverse_norm_j;
  return phi > 1 ? 1 : phi < -1 ? -1 : phi;
}

// The target as it is compared and aimed at; a NaN stays one, and is never missed.
__device__ inline double wanted_target(double phi_hat, double max_target) {
  return max_target < phi_hat ? max_target : phi_hat;
}

// a of g'_i += a g_j, after which cos(g'_i, g_j) = wanted. The part with the target does not wait for phi.
__device__ inline double correction(double wanted, double phi, const Length& length, double inverse_norm_j) {
  const double cotangent = wanted / sqrt(1 - wanted * wanted);
  return length.value * inverse_norm_j * (cotangent * sqrt(1 - phi * phi) - phi);
}

__device__ inline double decayed(double phi_hat, double phi, double beta) { return (1 - beta) * phi_hat + beta * phi; }

}  // namespace gradsim::gpu
