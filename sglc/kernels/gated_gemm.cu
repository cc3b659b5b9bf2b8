// silu(x G^T) * (x U^T) on Hopper; see gated_gemm_cuda.py, which compiles this with
//   KIND         "bf16" or "f16"
//   ROWS, COLS   of a tile: rows of x (128 or 256), and of G and U together
//   CM, CN       blocks of a cluster: tiles of x (1 or 2), tiles of G and U
//   STAGES       of the pipeline, and GELU for the other activation
// and with `mma`, D += A B^T for 64 rows of A and COLS of B, 16 columns.

typedef unsigned int u32;
typedef unsigned long long u64;
struct alignas(64) Map { char bytes[128]; };

constexpr int SPAN = 64;             // columns of a stage: 128 bytes, one row of the swizzle
constexpr int BLOCKS = ROWS / 128;   // of 64 rows, a warpgroup
constexpr int X_BYTES = ROWS * SPAN * 2, W_BYTES = COLS * SPAN * 2;
constexpr int STAGE = X_BYTES + W_BYTES;
constexpr int PEERS = CM + CN - 1;   // blocks that a stage comes from, and goes to
constexpr int HALF = COLS / 2;       // columns of the result
constexpr int PAIRS = HALF / 8;
constexpr int BAND = 8;              // groups of rows whose x stays in the second-level cache

__device__ __forceinline__ u32 shared(const void* p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ void wait(u32 barrier, u32 phase) {
  asm volatile(
      "{\n.reg .pred p;\nagain:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
      "@p bra done;\nbra again;\ndone:\n}" :: "r"(barrier), "r"(phase) : "memory");
}

// Without a scope wider than the block's: the fences of those take longer than a stage.
__device__ __forceinline__ void arrive(u32 barrier, u32 rank) {
  asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
               "mbarrier.arrive.shared::cluster.b64 _, [there];\n}"
               :: "r"(barrier), "r"(rank) : "memory");
}

// One box of a matrix into this block's memory, or into that of the blocks in `mask`.
template <bool MANY>
__device__ __forceinline__ void load(const Map* map, u32 to, u32 barrier, int column, int row,
                                     unsigned short mask, u64 policy) {
  if (MANY)
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".multicast::cluster.L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5, %6;"
        :: "r"(to), "l"(map), "r"(barrier), "r"(column), "r"(row), "h"(mask), "l"(policy)
        : "memory");
  else
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5;"
        :: "r"(to), "l"(map), "r"(barrier), "r"(column), "r"(row), "l"(policy) : "memory");
}

// Rows of 128 bytes in the 128-byte swizzle, groups of 8 rows one behind the other (PTX ISA,
// "Matrix descriptor format"); its address counts units of 16 bytes.
__device__ __forceinline__ u64 descriptor(u32 at) {
  return (u64)((at & 0x3FFFF) >> 4) | (1ull << 16) | (64ull << 32) | (1ull << 62);
}

__device__ __forceinline__ void meet() {
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

__device__ __forceinline__ float gate(float g, float u) {
#if GELU
  // (1 + tanh(z)) / 2 is 1 / (1 + exp(-2 z)); z = sqrt(2 / pi) (g + 0.044715 g^3)
  return __fdividef(g, 1.0f + __expf(-1.5957691216057308f * g * (1.0f + 0.044715f * g * g))) * u;
#else
  return __fdividef(g, 1.0f + __expf(-g)) * u;
#endif
}

__device__ __forceinline__ u32 both(float low, float high) {
  u32 r;
  asm("cvt.rn." KIND "x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

// Of lanes t = 0 .. 3 each has v[b] for four b; afterwards v[i] is what lane i had in v[t].
__device__ __forceinline__ void transpose(u32 (&v)[4], int t) {
#pragma unroll
  for (int by = 1; by < 4; by *= 2)
#pragma unroll
    for (int b = 0; b < 4; b++)
      if (!(b & by)) {
        const bool odd = t & by;
        const u32 got = __shfl_xor_sync(~0u, odd ? v[b] : v[b | by], by);
        if (odd) v[b] = got; else v[b | by] = got;
      }
}

struct Tile { int row, column; };

// Which tile of x and of the weight are a cluster's: all weights for a band of rows at a time.
__device__ __forceinline__ Tile tile_of(int group, int groups_of_rows, int groups_of_columns,
                                        int m, int n) {
  const int band = group / (BAND * groups_of_columns) * BAND;
  const int here = min(BAND, groups_of_rows - band), in = group - band * groups_of_columns;
  return {((band + in % here) * CM + m) * ROWS, (in / here * CN + n) * HALF};
}

extern "C" __global__ void __cluster_dims__(CM * CN, 1, 1) __launch_bounds__(384, 1)
gated_gemm(const __grid_constant__ Map x_map, const __grid_constant__ Map w_map,
           unsigned short* out, int rows, int outs, int steps, int groups_of_rows,
           int groups_of_columns) {
  extern __shared__ __align__(1024) unsigned char memory[];
  __shared__ __align__(8) u64 full_[STAGES], empty_[STAGES];
  const u32 base = shared(memory), full = shared(full_), empty = shared(empty_);
  u32 rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  const int m = rank % CM, n = rank / CM;
  const int cluster = blockIdx.x / (CM * CN), clusters = gridDim.x / (CM * CN);
  const int groups = groups_of_rows * groups_of_columns;
  const int team = threadIdx.x / 128;

  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; s++) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(full + 8 * s));
      asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(empty + 8 * s), "r"(2 * PEERS));
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  meet();
  asm volatile("griddepcontrol.launch_dependents;");

  if (team == 0) {  // one thread loads
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == 0) {
      u64 once, often;
      asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(once));
      asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(often));
      if (groups_of_rows > 1) once = often;
      unsigned short along = 0;
      for (int j = 0; j < CN; j++) along |= 1 << (m + CM * j);
      const unsigned short across = ((1 << CM) - 1) << (CM * n);
      u32 at = 0, phase = 1;
      for (int group = cluster; group < groups; group += clusters) {
        const Tile tile = tile_of(group, groups_of_rows, groups_of_columns, m, n);
        auto weights = [&](int step, u32 s) {
          const u32 barrier = full + 8 * s, to = base + s * STAGE + X_BYTES;
          asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                       :: "r"(barrier), "r"(STAGE) : "memory");
#pragma unroll
          for (int part = 0; part < 2; part++)
            if (CM == 1 || part == m)
              load<(CM > 1)>(&w_map, to + part * (W_BYTES / 2), barrier, step * SPAN,
                             part * outs + tile.column, across, once);
        };
        auto inputs = [&](int step, u32 s) {
          constexpr int SLICE = ROWS / CN;
          load<(CN > 1)>(&x_map, base + s * STAGE + n * SLICE * SPAN * 2, full + 8 * s,
                         step * SPAN, tile.row + n * SLICE, along, often);
        };
        int step = 0;
        if (group == cluster) {  // weights come while the kernel before this one ends
          const int early = min(STAGES, steps);
          for (int s = 0; s < early; s++) weights(s, s);
          asm volatile("griddepcontrol.wait;" ::: "memory");
          for (int s = 0; s < early; s++) inputs(s, s);
          step = at = early;
          if (at == STAGES) at = phase = 0;
        }
        for (; step < steps; step++) {
          wait(empty + 8 * at, phase);
          weights(step, at);
          inputs(step, at);
          if (++at == STAGES) { at = 0; phase ^= 1; }
        }
      }
    }
    __syncwarp();
  } else {  // two warpgroups multiply
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    const int mine = threadIdx.x % 128, t = mine % 4;
    // To which block of the cluster this thread says that a stage is free.
    const u32 peer = mine < CM ? mine + CM * n : m + CM * (mine - CM + (mine - CM >= n));
    const u64 x_at = descriptor(base + (team - 1) * BLOCKS * 64 * SPAN * 2);
    const u64 w_at = descriptor(base + X_BYTES);
    float acc[BLOCKS][COLS / 2];
    u32 at = 0, phase = 0;
    asm volatile("griddepcontrol.wait;" ::: "memory");
    for (int group = cluster; group < groups; group += clusters) {
      u32 before = 0;
      for (int step = 0; step < steps; step++) {
        wait(full + 8 * at, phase);
        const u64 x = x_at + at * (STAGE / 16), w = w_at + at * (STAGE / 16);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int k = 0; k < SPAN / 16; k++)
#pragma unroll
          for (int b = 0; b < BLOCKS; b++)
            mma(acc[b], x + b * 64 * SPAN * 2 / 16 + k * 2, w + k * 2, step | k);
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
        if (step && mine < PEERS) arrive(empty + 8 * before, peer);
        before = at;
        if (++at == STAGES) { at = 0; phase ^= 1; }
      }
      asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
      for (int b = 0; b < BLOCKS; b++)
#pragma unroll
        for (int i = 0; i < COLS / 2; i++) asm volatile("" : "+f"(acc[b][i]) :: "memory");
      if (mine < PEERS) arrive(empty + 8 * before, peer);

      const Tile tile = tile_of(group, groups_of_rows, groups_of_columns, m, n);
#pragma unroll
      for (int b = 0; b < BLOCKS; b++)
#pragma unroll
        for (int lower = 0; lower < 2; lower++) {
          const int row = tile.row + ((team - 1) * BLOCKS + b) * 64 + mine / 32 * 16 + lower * 8
              + mine % 32 / 4;
          unsigned short* to = out + (u64)row * outs;
          const int limit = row < rows ? outs : 0;
          // Of blocks of 8 columns each lane has two; of four blocks together, one of them.
#pragma unroll
          for (int j = 0; j < PAIRS; j += 4) {
            u32 v[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
              const int g = 4 * (j + i) + 2 * lower, u = g + 4 * PAIRS;
              if (j + i < PAIRS)
                v[i] = both(gate(acc[b][g], acc[b][u]), gate(acc[b][g + 1], acc[b][u + 1]));
            }
            if (j + 4 <= PAIRS) {
              transpose(v, t);
              const int column = tile.column + (j + t) * 8;
              if (column < limit)
                *reinterpret_cast<uint4*>(to + column) = make_uint4(v[0], v[1], v[2], v[3]);
            } else {
#pragma unroll
              for (int i = 0; i < PAIRS % 4; i++) {
                const int column = tile.column + (j + i) * 8 + 2 * t;
                if (column < limit) *reinterpret_cast<u32*>(to + column) = v[i];
              }
            }
          }
        }
    }
  }
  meet();  // nobody leaves while others may still write here
}
