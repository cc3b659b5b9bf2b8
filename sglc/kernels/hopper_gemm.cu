// x W^T on Hopper; see hopper_gemm_cuda.py, which compiles this with
//   KIND, BF16   "bf16" and 1, or "f16" and 0
//   FORM         what becomes of the sums: PLAIN, WIDE (float32), RESIDUAL (added to what is in
//                `out`), SILU or GELU: act(x G^T) * (x U^T), where W is G and U one above the other
//   COUNT        sums of squares that a row of x is still to be scaled by; 0 for none
//   BLOCK        columns of a sum of squares of what is written; 0 for none
//   COLS         of a tile of 128 rows of x: rows of W (of G and U together)
//   CM           tiles of x that a cluster multiplies with one tile of W, 1 or 2
//   CK           blocks that share the columns of a tile's x and W, 1 or 2
//   STAGES       of the pipeline
// and with `mma`, D += A B^T for 64 rows of A and COLS of B, 16 columns.

#define PLAIN 0
#define WIDE 1
#define RESIDUAL 2
#define SILU 3
#define GELU 4

typedef unsigned int u32;
typedef unsigned long long u64;
struct alignas(64) Map { char bytes[128]; };

constexpr int SPAN = 64;             // columns of a stage: 128 bytes, one row of the swizzle
constexpr int ROWS = 128;            // of a tile, 64 of them a warpgroup's
constexpr int X_BYTES = ROWS * SPAN * 2, W_BYTES = COLS * SPAN * 2;
constexpr int STAGE = X_BYTES + W_BYTES;
constexpr bool GATED = FORM == SILU || FORM == GELU;
constexpr int PARTS = GATED || CM > 1 ? 2 : 1;  // in which a tile of W is read
constexpr int OUTS = GATED ? COLS / 2 : COLS;   // columns of the result
constexpr int PAIRS = OUTS / 8;
constexpr int QUADS = PAIRS / 4;
constexpr int LOWERS = 2 / CK;       // rows of a thread's that it finishes
constexpr int WIDTH = (COUNT + 15) / 16 * 16;   // numbers a row of `squares`
#ifndef BAND
#define BAND 8                       // groups of rows whose x stays in the second-level cache
#endif

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
  // (1 + tanh(z)) / 2 is 1 / (1 + exp(-2 z)); z = sqrt(2 / pi) (g + 0.044715 g^3)
  const float z = FORM == GELU ? 1.5957691216057308f * g * (1.0f + 0.044715f * g * g) : g;
  return __fdividef(g, 1.0f + __expf(-z)) * u;
}

__device__ __forceinline__ u32 both(float low, float high) {
  u32 r;
  asm("cvt.rn." KIND "x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

// The two values of `both`.
__device__ __forceinline__ float low(u32 v) {
#if BF16
  return __uint_as_float(v << 16);
#else
  float r;
  asm("{\n.reg .f16 l, h;\nmov.b32 {l, h}, %1;\ncvt.f32.f16 %0, l;\n}" : "=f"(r) : "r"(v));
  return r;
#endif
}
__device__ __forceinline__ float high(u32 v) {
#if BF16
  return __uint_as_float(v & 0xFFFF0000u);
#else
  return low(v >> 16);
#endif
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

#if FORM == WIDE
typedef float Out;
#else
typedef unsigned short Out;
#endif

// from: the first row of x that is read; row: the first one that is written.
struct Tile { int from, row, column; };

// Which tile of x and of the weight are a cluster's: all weights for a band of rows at a time.
// Where the rows end, a tile begins earlier instead of reading on, and what few rows leave free of
// a tile is left as it is: rows that are not there take the copy engine longer than others.
__device__ __forceinline__ Tile tile_of(int group, int groups_of_rows, int groups_of_columns,
                                        int m, int rows) {
  const int band = group / (BAND * groups_of_columns) * BAND;
  const int here = min(BAND, groups_of_rows - band), in = group - band * groups_of_columns;
  const int row = ((band + in % here) * CM + m) * ROWS;
  return {min(row, max(rows - ROWS, 0)), row, in / here * OUTS};
}

extern "C" __global__ void __cluster_dims__(CM * CK, 1, 1) __launch_bounds__(384, 1)
hopper_gemm(const __grid_constant__ Map x_map, const __grid_constant__ Map w_map, Out* out,
            int rows, int outs, int steps, int groups_of_rows, int groups_of_columns,
            const float* squares, float per_column, float eps, float* sums, int width) {
  extern __shared__ __align__(1024) unsigned char memory[];
  __shared__ __align__(8) u64 full_[STAGES], empty_[STAGES];
  const u32 base = shared(memory), full = shared(full_), empty = shared(empty_);
  u32 rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  const int m = rank % CM, part = rank / CM;
  const int cluster = blockIdx.x / (CM * CK), clusters = gridDim.x / (CM * CK);
  const int groups = groups_of_rows * groups_of_columns;
  const int team = threadIdx.x / 128;
  const int start = steps * part / CK;
  steps = steps * (part + 1) / CK - start;

  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; s++) {
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" :: "r"(full + 8 * s));
      asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(empty + 8 * s), "r"(2 * CM));
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
      const unsigned short across = ((1 << CM) - 1) << (CM * part);
      u32 at = 0, phase = 1;
      for (int group = cluster; group < groups; group += clusters) {
        const Tile tile = tile_of(group, groups_of_rows, groups_of_columns, m, rows);
        auto weights = [&](int step, u32 s) {
          const u32 barrier = full + 8 * s, to = base + s * STAGE + X_BYTES;
          asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                       :: "r"(barrier), "r"(W_BYTES + min(rows, ROWS) * SPAN * 2) : "memory");
#pragma unroll
          for (int p = 0; p < PARTS; p++)
            if (CM == 1 || p == m)
              load<(CM > 1)>(&w_map, to + p * (W_BYTES / PARTS), barrier, (start + step) * SPAN,
                             tile.column + p * (GATED ? outs : COLS / PARTS), across, once);
        };
        auto inputs = [&](int step, u32 s) {
          load<false>(&x_map, base + s * STAGE, full + 8 * s, (start + step) * SPAN, tile.from, 0,
                      often);
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
    if (CK > 1) meet();  // as the others do when they exchange
  } else {  // two warpgroups multiply
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    const int mine = threadIdx.x % 128, t = mine % 4;
    const u32 peer = mine + CM * part;  // to which block this thread says that a stage is free
    const u64 x_at = descriptor(base + (team - 1) * 64 * SPAN * 2);
    const u64 w_at = descriptor(base + X_BYTES);
    float acc[COLS / 2];
    u32 at = 0, phase = 0;
    asm volatile("griddepcontrol.wait;" ::: "memory");
    for (int group = cluster; group < groups; group += clusters) {
      const Tile tile = tile_of(group, groups_of_rows, groups_of_columns, m, rows);
      // This thread's rows: `top` and, where it finishes two, `top` + 8.
      const int top = tile.from + (team - 1) * 64 + mine / 32 * 16 + mine % 32 / 4
          + (CK > 1 ? part * 8 : 0);
      auto written = [&](int row) { return row >= tile.row && row < rows; };
      // What is wanted at the end is asked for now.
      uint4 old[FORM == RESIDUAL ? LOWERS * QUADS : 1];
      if (FORM == RESIDUAL)
#pragma unroll
        for (int i = 0; i < LOWERS * QUADS; i++) {
          const int row = top + i / QUADS * 8, column = tile.column + (i % QUADS * 4 + t) * 8;
          old[i] = make_uint4(0, 0, 0, 0);
          if (written(row) && column < outs)
            old[i] = *reinterpret_cast<const uint4*>(out + (u64)row * outs + column);
        }
      float4 found[LOWERS][COUNT ? WIDTH / 16 : 1];
      if (COUNT)
#pragma unroll
        for (int lower = 0; lower < LOWERS; lower++)
#pragma unroll
          for (int i = 0; i < WIDTH / 16; i++) {
            const int row = top + lower * 8;
            found[lower][i] = make_float4(0, 0, 0, 0);
            if (written(row))
              found[lower][i] = reinterpret_cast<const float4*>(squares + (u64)row * WIDTH)
                  [i * 4 + t];
          }
      u32 before = 0;
      for (int step = 0; step < steps; step++) {
        wait(full + 8 * at, phase);
        const u64 x = x_at + at * (STAGE / 16), w = w_at + at * (STAGE / 16);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (int k = 0; k < SPAN / 16; k++) mma(acc, x + k * 2, w + k * 2, step | k);
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
        if (step && mine < CM) arrive(empty + 8 * before, peer);
        before = at;
        if (++at == STAGES) { at = 0; phase ^= 1; }
      }
      asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
      for (int i = 0; i < COLS / 2; i++) asm volatile("" : "+f"(acc[i]) :: "memory");
      if (mine < CM) arrive(empty + 8 * before, peer);

      if (CK > 1) {  // each block gives the other its sums for half of the rows
        asm volatile("bar.sync 1, 256;" ::: "memory");
        const int all = threadIdx.x - 128;
#pragma unroll
        for (int j = 0; j < COLS / 8; j += 2) {
          const float* v = acc + 4 * j;
          reinterpret_cast<float4*>(memory)[j / 2 * 256 + all] = part
              ? make_float4(v[0], v[1], v[4], v[5]) : make_float4(v[2], v[3], v[6], v[7]);
        }
        meet();
        u32 there;
        asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                     : "=r"(there) : "r"(base + all * 16), "r"(rank ^ CM));
#pragma unroll
        for (int j = 0; j < COLS / 8; j += 2) {
          float* v = acc + 4 * j;
          float4 g;
          asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
              : "=f"(g.x), "=f"(g.y), "=f"(g.z), "=f"(g.w) : "r"(there + j / 2 * 4096) : "memory");
          v[0] = (part ? v[2] : v[0]) + g.x; v[1] = (part ? v[3] : v[1]) + g.y;
          v[4] = (part ? v[6] : v[4]) + g.z; v[5] = (part ? v[7] : v[5]) + g.w;
        }
      }

#pragma unroll
      for (int lower = 0; lower < LOWERS; lower++) {
        const int row = top + lower * 8;
        const int limit = written(row) ? outs : 0;
        Out* to = out + (u64)row * outs;
        const float* s = acc + 2 * lower;
        float scale = 1.0f;
        if (COUNT) {  // 1 / sqrt(mean of squares + eps); lanes t = 0 .. 3 have a quarter each
          float sum = 0;
#pragma unroll
          for (int i = 0; i < WIDTH / 16; i++) {
            float f[4] = {found[lower][i].x, found[lower][i].y, found[lower][i].z,
                          found[lower][i].w};
#pragma unroll
            for (int k = 0; k < 4; k++) {
              asm volatile("" : "+f"(f[k]));  // not before this place
              if (COUNT == WIDTH || (i * 4 + t) * 4 + k < COUNT) sum += f[k];
            }
          }
          sum += __shfl_xor_sync(~0u, sum, 1);
          sum += __shfl_xor_sync(~0u, sum, 2);
          scale = rsqrtf(sum * per_column + eps);
        }
#if FORM == WIDE
#pragma unroll
        for (int j = 0; j < PAIRS; j++) {
          const int column = tile.column + j * 8 + 2 * t;
          if (column < limit)
            *reinterpret_cast<float2*>(to + column) = make_float2(s[4 * j] * scale,
                                                                  s[4 * j + 1] * scale);
        }
#else
        float square = 0;
        // Of blocks of 8 columns each lane has two; of four blocks together, one of them.
#pragma unroll
        for (int j = 0; j < PAIRS; j += 4) {
          u32 v[4];
          if (FORM == RESIDUAL) {
            const uint4 o = old[lower * QUADS + j / 4];
            v[0] = o.x; v[1] = o.y; v[2] = o.z; v[3] = o.w;
            transpose(v, t);
          }
#pragma unroll
          for (int i = 0; i < 4; i++) {
            if (j + i >= PAIRS) continue;
            const float a = s[4 * (j + i)] * scale, b = s[4 * (j + i) + 1] * scale;
            if (GATED) {
              const float* up = s + 4 * (j + i) + (GATED ? 4 * PAIRS : 0);
              v[i] = both(gate(a, up[0] * scale), gate(b, up[1] * scale));
            } else if (FORM == RESIDUAL) {
              v[i] = both(a + low(v[i]), b + high(v[i]));
            } else {
              v[i] = both(a, b);
            }
            if (BLOCK) square += low(v[i]) * low(v[i]) + high(v[i]) * high(v[i]);
          }
          if (j + 4 <= PAIRS) {
            const int column = tile.column + (j + t) * 8;
            transpose(v, t);
            if (column < limit)
              *reinterpret_cast<uint4*>(to + column) = make_uint4(v[0], v[1], v[2], v[3]);
            if (BLOCK && (j + 4) % (BLOCK ? BLOCK / 8 : 1) == 0) {
              square += __shfl_xor_sync(~0u, square, 1);
              square += __shfl_xor_sync(~0u, square, 2);
              const int block = (tile.column + (j + 4) * 8) / (BLOCK ? BLOCK : 1) - 1;
              if (t == 0 && limit && block < width) sums[(u64)row * width + block] = square;
              square = 0;
            }
          } else {
#pragma unroll
            for (int i = 0; i < PAIRS % 4; i++) {
              const int column = tile.column + (j + i) * 8 + 2 * t;
              if (column < limit) *reinterpret_cast<u32*>(to + column) = v[i];
            }
          }
        }
#endif
      }
    }
  }
  meet();  // nobody leaves while others may still write here
}
