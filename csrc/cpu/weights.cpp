// GradVac (Wang et al., ICLR 2021, Algorithm 1) and PCGrad on Gramians. g'_i = c_i J, so that |g'_i|^2 = c_i M c_i^T
// and g'_i . g_j = (c_i M)_j; the update is (sum_i c_i) J. float64 throughout.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "gradsim/kernels.h"
#include "gradsim/parallel.h"

namespace gradsim::cpu {

namespace {

constexpr double kNegligible = 64;  // |g'_i|^2 below this many rounding errors of its own sum counts as zero

// One corrected gradient: its coefficients, and what the visits need of them.
struct Corrected {
  const double* M;
  const double* norm;  // [T], |g_j|
  int64_t T;
  double* c;       // [T]
  double* cM;      // [T]
  double squared;  // |g'_i|^2
  bool zero;

  void start(int64_t i) {
    for (int64_t j = 0; j < T; ++j) c[j] = 0, cM[j] = M[i * T + j];
    c[i] = 1;
    squared = M[i * T + i];
    zero = !(squared > 0);
  }

  void add(double a, int64_t j, double eps) {
    c[j] += a;
    double sum = 0, scale = 0;
    for (int64_t k = 0; k < T; ++k) {
      cM[k] += a * M[j * T + k];
      sum += c[k] * cM[k];
      scale += std::abs(c[k]) * norm[k];
    }
    squared = sum;
    zero = !(squared > kNegligible * eps * scale * scale);  // nothing but the rounding error of M is left
  }
};

}  // namespace

void gradvac_weights(const double* M, int64_t T, const int64_t* order, const Surgery& surgery, double* target,
                     double* weights, int64_t* corrections, double* scratch) {
  bool finite = true;
  for (int64_t p = 0; p < T * T; ++p) finite = finite && std::isfinite(M[p]);
  std::fill_n(weights, T, finite ? 0.0 : std::numeric_limits<double>::quiet_NaN());
  if (corrections) std::fill_n(corrections, T, int64_t{0});
  if (!finite) return;
  double* norm = scratch + 2 * T;
  for (int64_t j = 0; j < T; ++j) norm[j] = std::sqrt(std::max(M[j * T + j], 0.0));
  Corrected g{M, norm, T, scratch, scratch + T, 0, true};
  for (int64_t i = 0; i < T; ++i) {
    g.start(i);
    const bool chosen = !surgery.vaccinate || surgery.vaccinate[i];
    for (int64_t s = 0; chosen && s < T - 1; ++s) {
      const int64_t j = order[i * (T - 1) + s];
      if (g.zero || !(norm[j] > 0)) continue;  // cosine undefined: nothing is corrected, the target stays
      const double length = std::sqrt(g.squared);
      const double phi = std::min(1.0, std::max(-1.0, g.cM[j] / (length * norm[j])));
      double& phi_hat = target[i * T + j];
      const double wanted = std::min(phi_hat, surgery.max_target);
      if (phi < wanted) {
        const double sine = std::sqrt(1 - wanted * wanted);
        g.add(length * (wanted * std::sqrt(1 - phi * phi) - phi * sine) / (norm[j] * sine), j, surgery.eps);
        if (corrections) ++corrections[i];
      }
      phi_hat = (1 - surgery.beta) * phi_hat + surgery.beta * phi;
    }
    for (int64_t j = 0; j < T; ++j) weights[j] += g.c[j];
  }
}

void gradvac_weights(const double* M, int64_t groups, int64_t T, const int64_t* order, const Surgery& surgery,
                     double* target, double* weights, int64_t* corrections) {
  const int64_t together = std::max<int64_t>(1, 16384 / (T * T));  // groups an item: worth waking a thread for
  for_each_item((groups + together - 1) / together, [T] { return std::vector<double>(3 * T); },
                [&](int64_t item, std::vector<double>& scratch) {
                  for (int64_t k = item * together; k < std::min(groups, (item + 1) * together); ++k)
                    gradvac_weights(M + k * T * T, T, order + k * T * (T - 1), surgery, target + k * T * T,
                                    weights + k * T, corrections ? corrections + k * T : nullptr, scratch.data());
                });
}

}  // namespace gradsim::cpu
