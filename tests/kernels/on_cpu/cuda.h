// What CUDA C++ has beyond C++, as far as kernels here use it, on `machine.h`.

#include <cmath>

#include "machine.h"

#define __global__
#define __device__
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __shared__ thread_local
#define __align__(bytes) __attribute__((aligned(bytes)))

using std::max;
using std::min;

struct uint2 { uint32_t x, y; };
struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct Place { uint32_t x; };
#define threadIdx (Place{(uint32_t)machine::block->now->index})
#define blockIdx (Place{machine::block->index})
#define gridDim (Place{machine::cluster->blocks_in_grid})

inline uint32_t __float_as_uint(float v) { uint32_t r; std::memcpy(&r, &v, 4); return r; }
inline float __uint_as_float(uint32_t v) { float r; std::memcpy(&r, &v, 4); return r; }
inline float __expf(float v) { return std::exp(v); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __log2f(float v) { return std::log2(v); }
inline float rsqrtf(float v) { return 1.0f / std::sqrt(v); }

// The values of all lanes of a warp, when all have come.
inline const uint32_t* of_warp(uint32_t value) {
  machine::Warp& w = machine::block->warps[machine::block->now->index / machine::WARP];
  const uint32_t round = w.round;
  uint32_t* values = w.values[round % 2];
  values[machine::block->now->index % machine::WARP] = value;
  if (!w.arrive(machine::WARP)) machine::until([&w, round] { return w.round != round; });
  return values;
}

inline void __syncwarp() { of_warp(0); }

template <class T> T __shfl_xor_sync(uint32_t, T value, int by) {
  static_assert(sizeof(T) == 4);
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits = of_warp(bits)[machine::block->now->index % machine::WARP ^ by];
  std::memcpy(&value, &bits, 4);
  return value;
}

template <class T> T __shfl_sync(uint32_t, T value, int lane) {
  static_assert(sizeof(T) == 4);
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits = of_warp(bits)[lane % machine::WARP];
  std::memcpy(&value, &bits, 4);
  return value;
}
