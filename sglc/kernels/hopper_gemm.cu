// x W^T on Hopper; see hopper_gemm_cuda.py, which compiles this with
//   FORM         what becomes of the sums: PLAIN, WIDE (float32), RESIDUAL (added to what is in
//                `out`), SILU or GELU: act(x G^T) * (x U^T), where W is G and U one above the other,
//                ROPE: rotated queries into `out`, rotated keys and values into the pool
//   DIM          of a head, for ROPE
//   COUNT        sums of squares that a row of x is still to be scaled by; 0 for none
//   BLOCK        columns of a sum of squares of what is written; 0 for none
//   COLS         of a tile of 128 rows of x: rows of W (of G and U together)
//   CM           tiles of x that a cluster multiplies with one tile of W, 1 or 2
//   CK           blocks that share the columns of a tile's x and W, 1 or 2
//   STAGES       of the pipeline
// and with `mma`, d += a b^T for 64 rows of a and COLS of b, 16 columns.

#define PLAIN 0
#define WIDE 1
#define RESIDUAL 2
#define SILU 3
#define GELU 4
#define ROPE 5

constexpr int SPAN = 64;             // columns of a stage: 128 bytes, one row of the swizzle
constexpr int ROWS = 128;            // of a tile, 64 of them a warpgroup's
constexpr int X_BYTES = ROWS * SPAN * 2, W_BYTES = COLS * SPAN * 2;
constexpr int STAGE = X_BYTES + W_BYTES;
constexpr bool GATED = FORM == SILU || FORM == GELU;
// In how many parts a tile of W is read.  Of a head, 16 columns of the first half and 16 of the
// second lie side by side in a tile, so that a thread has both numbers of a pair.
constexpr int PARTS = FORM == ROPE ? COLS / 16 : GATED || CM > 1 ? 2 : 1;
constexpr int OUTS = GATED ? COLS / 2 : COLS;   // columns of the result
constexpr int PAIRS = OUTS / 8;
constexpr int QUADS = PAIRS / 4;
constexpr int LOWERS = 2 / CK;       // rows of a thread's that it finishes
constexpr int WIDTH = (COUNT + 15) / 16 * 16;   // numbers a row of `squares`
#ifndef BAND
#define BAND 8                       // groups of rows whose x stays in the second-level cache
#endif

DEVICE float gate(float g, float u) {
  // (1 + tanh(z)) / 2 is 1 / (1 + exp(-2 z)); z = sqrt(2 / pi) (g + 0.044715 g^3)
  const float z = FORM == GELU ? 1.5957691216057308f * g * (1.0f + 0.044715f * g * g) : g;
  return __fdividef(g, 1.0f + __expf(-z)) * u;
}

#if FORM == WIDE
typedef float Out;
#else
typedef unsigned short Out;
#endif

// from: the first row of x that is read; row: the first one that is written.
struct Tile { int from, row, column; };

// The row of W where part `p` of a tile begins.
DEVICE int weight_row(int column, int p, int outs) {
#if FORM == ROPE
  const int part = column / 16 + p, group = part / 2;
  return group / (DIM / 32) * DIM + part % 2 * (DIM / 2) + group % (DIM / 32) * 16;
#else
  return column + p * (GATED ? outs : COLS / PARTS);
#endif
}

// Which tile of x and of the weight are a cluster's: all weights for a band of rows at a time.
// Where the rows end, a tile begins earlier instead of reading on, and what few rows leave free of
// a tile is left as it is: rows that are not there take the copy engine longer than others.
DEVICE Tile tile_of(int group, int groups_of_rows, int groups_of_columns, int m, int rows) {
  const int band = group / (BAND * groups_of_columns) * BAND;
  const int here = min(BAND, groups_of_rows - band), in = group - band * groups_of_columns;
  const int row = ((band + in % here) * CM + m) * ROWS;
  return {min(row, max(rows - ROWS, 0)), row, in / here * OUTS};
}

extern "C" __global__ void __cluster_dims__(CM * CK, 1, 1) __launch_bounds__(384, 1)
hopper_gemm(const __grid_constant__ Map x_map, const __grid_constant__ Map w_map, Out* out,
            int rows, int outs, int steps, int groups_of_rows, int groups_of_columns,
            const float* squares, float per_column, float eps, float* sums, int width
#if FORM == ROPE
            , const long long* positions, const long long* slots, const float* table, Out* pool,
            int queries
#endif
            ) {
  extern __shared__ __align__(1024) unsigned char memory[];
  __shared__ __align__(8) u64 full_[STAGES], empty_[STAGES];
  const u32 base = shared(memory), full = shared(full_), empty = shared(empty_);
  const u32 rank = cluster_rank();
  const int m = rank % CM, part = rank / CM;
  const int cluster = blockIdx.x / (CM * CK), clusters = gridDim.x / (CM * CK);
  const int groups = groups_of_rows * groups_of_columns;
  const int team = threadIdx.x / 128;
  const int start = steps * part / CK;
  steps = steps * (part + 1) / CK - start;

  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; s++) {
      init_barrier(full + 8 * s, 1);
      init_barrier(empty + 8 * s, 2 * CM);
    }
    barriers_are_made();
  }
  meet();
  let_next_begin();

  if (team == 0) {  // one thread loads
    fewer_registers<40>();
    if (threadIdx.x == 0) {
      u64 once = evict_first();
      const u64 often = evict_last();
      if (groups_of_rows > 1) once = often;
      const unsigned short across = ((1 << CM) - 1) << (CM * part);
      u32 at = 0, phase = 1;
      for (int group = cluster; group < groups; group += clusters) {
        const Tile tile = tile_of(group, groups_of_rows, groups_of_columns, m, rows);
        auto weights = [&](int step, u32 s) {
          const u32 barrier = full + 8 * s, to = base + s * STAGE + X_BYTES;
          expect(barrier, W_BYTES + min(rows, ROWS) * SPAN * 2);
#pragma unroll
          for (int p = 0; p < PARTS; p++)
            if (CM == 1 || p % CM == m)
              load<(CM > 1)>(&w_map, to + p * (W_BYTES / PARTS), barrier, (start + step) * SPAN,
                             weight_row(tile.column, p, outs), across, once);
        };
        auto inputs = [&](int step, u32 s) {
          load<false>(&x_map, base + s * STAGE, full + 8 * s, (start + step) * SPAN, tile.from, 0,
                      often);
        };
        int step = 0;
        if (group == cluster) {  // weights come while the kernel before this one ends
          const int early = min(STAGES, steps);
          for (int s = 0; s < early; s++) weights(s, s);
          wait_for_last();
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
    more_registers<232>();
    const int mine = threadIdx.x % 128, t = mine % 4;
    const u32 peer = mine + CM * part;  // to which block this thread says that a stage is free
    const u64 x_at = descriptor(base + (team - 1) * 64 * SPAN * 2);
    const u64 w_at = descriptor(base + X_BYTES);
    float acc[COLS / 2];
    u32 at = 0, phase = 0;
    wait_for_last();
    for (int group = cluster; group < groups; group += clusters) {
      const Tile tile = tile_of(group, groups_of_rows, groups_of_columns, m, rows);
      // This thread's rows: `top` and, where it finishes two, `top` + 8.
      const int top = tile.from + (team - 1) * 64 + mine / 32 * 16 + mine % 32 / 4
          + (CK > 1 ? part * 8 : 0);
      auto written = [&](int row) { return row >= tile.row && row < rows; };
      // What is wanted at the end is asked for now.
      [[maybe_unused]] uint4 old[FORM == RESIDUAL ? LOWERS * QUADS : 1];
      if (FORM == RESIDUAL)
#pragma unroll
        for (int i = 0; i < LOWERS * QUADS; i++) {
          const int row = top + i / QUADS * 8, column = tile.column + (i % QUADS * 4 + t) * 8;
          old[i] = make_uint4(0, 0, 0, 0);
          if (written(row) && column < outs)
            old[i] = *reinterpret_cast<const uint4*>(out + (u64)row * outs + column);
        }
#if FORM == ROPE
      // By which angles pairs are turned, the same ones in each head.
      constexpr int ANGLES = (COLS % DIM ? COLS : DIM) / 16;
      float2 cosine[LOWERS][ANGLES], sine[LOWERS][ANGLES];
      long long slot[LOWERS];
#pragma unroll
      for (int lower = 0; lower < LOWERS; lower++) {
        const int row = top + lower * 8;
        const bool there = written(row);
        const float* angles = table + (there ? positions[row] : 0) * DIM + 2 * t;
        slot[lower] = there ? slots[row] : -1;
#pragma unroll
        for (int i = 0; i < ANGLES; i++) {
          const float* of = angles + weight_row(tile.column, i / 2 * 2, outs) % DIM + i % 2 * 8;
          cosine[lower][i] = *reinterpret_cast<const float2*>(of);
          sine[lower][i] = *reinterpret_cast<const float2*>(of + DIM / 2);
        }
      }
#endif
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
        products_begin();
#pragma unroll
        for (int k = 0; k < SPAN / 16; k++) mma(acc, x + k * 2, w + k * 2, step | k);
        products_commit();
        products_wait<1>();
        if (step && mine < CM) arrive(empty + 8 * before, peer);
        before = at;
        if (++at == STAGES) { at = 0; phase ^= 1; }
      }
      products_wait<0>();
#pragma unroll
      for (int i = 0; i < COLS / 2; i++) hold(acc[i]);
      if (mine < CM) arrive(empty + 8 * before, peer);

      if (CK > 1) {  // each block gives the other its sums for half of the rows
        meet_some(1, 256);
        const int all = threadIdx.x - 128;
#pragma unroll
        for (int j = 0; j < COLS / 8; j += 2) {
          const float* v = acc + 4 * j;
          reinterpret_cast<float4*>(memory)[j / 2 * 256 + all] = part
              ? make_float4(v[0], v[1], v[4], v[5]) : make_float4(v[2], v[3], v[6], v[7]);
        }
        meet();
        const u32 there = remote(base + all * 16, rank ^ CM);
#pragma unroll
        for (int j = 0; j < COLS / 8; j += 2) {
          float* v = acc + 4 * j;
          const float4 g = load_remote(there + j / 2 * 4096);
          v[0] = (part ? v[2] : v[0]) + g.x; v[1] = (part ? v[3] : v[1]) + g.y;
          v[4] = (part ? v[6] : v[4]) + g.z; v[5] = (part ? v[7] : v[5]) + g.w;
        }
      }

#pragma unroll
      for (int lower = 0; lower < LOWERS; lower++) {
        const int row = top + lower * 8;
        const int limit = written(row) ? outs : 0;
        [[maybe_unused]] Out* to = out + (u64)row * outs;
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
              hold_value(f[k]);  // not before this place
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
#elif FORM == ROPE
#pragma unroll
        for (int j = 0; j < PAIRS; j += 4) {
          // Values are not.
          const bool turned = weight_row(tile.column, j / 2, outs) < queries + (outs - queries) / 2;
          u32 v[4];
#pragma unroll
          for (int i = 0; i < 2; i++) {
            const int pair = (j / 2 + i) % ANGLES;
            const float2 c = turned ? cosine[lower][pair] : make_float2(1, 1);
            const float2 n = turned ? sine[lower][pair] : make_float2(0, 0);
            const float *a = s + 4 * (j + i), *b = a + 8;  // the first half's, the second half's
            const float a0 = a[0] * scale, a1 = a[1] * scale, b0 = b[0] * scale, b1 = b[1] * scale;
            v[i] = both(a0 * c.x - b0 * n.x, a1 * c.y - b1 * n.y);
            v[i + 2] = both(b0 * c.x + a0 * n.x, b1 * c.y + a1 * n.y);
          }
          transpose(v, t);
          const int column = weight_row(tile.column, j / 2 + t / 2, outs) + t % 2 * 8;
          const int key = column - queries;
          Out* at = key < 0 ? out + (u64)row * queries + column
              : pool + slot[lower] * (outs - queries) + key;
          if (column < limit && (key < 0 || slot[lower] >= 0))
            *reinterpret_cast<uint4*>(at) = make_uint4(v[0], v[1], v[2], v[3]);
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
