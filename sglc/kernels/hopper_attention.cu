// Attention of wide units on Hopper; see hopper_attention_cuda.py, which compiles this with
//   DIM       of a head, 64 or 128
//   HEADS     KV heads
//   GROUP     query heads of each
//   KEYS      of a block, 64 or 128
//   STAGES    blocks of keys or values in shared memory
//   IN_TURN   whether the two warpgroups ask for their products in turn
//   ANNOUNCED whether copies announce themselves when they are there, and who multiplies fences; else
//             who copies waits, fences and announces
// and with `score`, d = a b^T for 64 rows of queries, and `weigh`, d += a b, with KEYS of b's rows.
//
// One warpgroup copies keys and values, as the table says where they are; two multiply, 64 rows of
// queries each, which stay in registers.  While a block's scores become weights, the block before
// it is weighed (FlashAttention-3, Shah et al., 2024).

constexpr int UNIT = 16;                        // integers a unit
constexpr int HALF = KEYS * 128;                // bytes of 64 columns of a block
constexpr int BLOCK = DIM / 64 * HALF;
constexpr int STRIDE = 2 * HEADS * DIM;         // numbers of a slot
constexpr int LAG = 2;                          // blocks that one copies before waiting for them
static_assert(STAGES >= LAG + 3, "threads would wait for each other");

// What is asked of this block of threads: units times heads, in rounds of which every other one
// runs backwards, so that blocks have about the same work (longest units come first).
struct Work {
  const int *units, *unit;
  int items, round, item, head;

  DEVICE Work(const int* units, int count) : units(units), items(count * HEADS), round(-1) {
    next();
  }
  // Units of no queries are the last ones.
  DEVICE bool there() const { return item < items && unit[1] > 0; }
  DEVICE void next() {
    round++;
    item = round * gridDim.x + (round % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
    unit = units + item / HEADS * UNIT;
    head = item % HEADS;
  }
};

// A place in the ring of blocks, and the phase of its barriers.
struct Ring {
  u32 at = 0, phase = 0;
  DEVICE void next() {
    if (++at == STAGES) { at = 0; phase ^= 1; }
  }
};

extern "C" __global__ void __cluster_dims__(1, 1, 1) __launch_bounds__(384, 1)
hopper_attention(const unsigned short* q, const unsigned short* pool, const int* table,
                 unsigned short* out, unsigned short* partial, float* sums, const int* units,
                 const int* token, const int* part, const int* high, int count, float scale) {
  extern __shared__ __align__(1024) unsigned char memory[];
  __shared__ __align__(8) u64 full_[STAGES], empty_[STAGES];
  const u32 base = shared(memory), full = shared(full_), empty = shared(empty_);
  const int team = threadIdx.x / 128, lane = threadIdx.x % 32, warp = threadIdx.x % 128 / 32;

  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; s++) {
      init_barrier(full + 8 * s, 128);
      init_barrier(empty + 8 * s, 2);
    }
    barriers_are_made();
  }
  meet_all();
  wait_for_last();
  let_next_begin();

  if (team == 0) {
    fewer_registers<40>();
    constexpr int LANES = DIM / 8;              // that copy a key's 16 bytes each
    constexpr int OWN = KEYS / 4;               // keys of a warp
    const int column = lane % LANES;
    Ring ring, done;
    u32 asked = 0;
    auto give = [&] {                           // the oldest block is there
      copies_are_seen();
      arrive_here(full + 8 * done.at);
      done.next();
    };
    auto copy = [&](int slot, const unsigned short* from) {
      wait(empty + 8 * ring.at, ring.phase ^ 1);
      const u32 to = base + ring.at * BLOCK + column / 8 * HALF;
#pragma unroll
      for (int i = 0; i < OWN * LANES / 32; i++) {
        const int key = i * (32 / LANES) + lane / LANES, row = warp * OWN + key;
        const int place = __shfl_sync(~0u, slot, key);
        copy_16(to + row * 128 + ((column ^ row) % 8) * 16, from + (u64)place * STRIDE);
      }
      if (ANNOUNCED) {
        copies_announce(full + 8 * ring.at);
      } else {
        copies_commit();
        if (asked++ >= LAG) {
          copies_wait<LAG>();
          give();
        }
      }
      ring.next();
    };
    for (Work work(units, count); work.there(); work.next()) {
      const int first = work.unit[2], keys = work.unit[3];
      const unsigned short* k = pool + work.head * DIM + column * 8;
      const unsigned short* v = k + HEADS * DIM;
      // Beyond the last key it is read again: what is there is finite.
      auto slot_at = [&](int n) {
        return table[first + min(n + warp * OWN + lane % OWN, keys - 1)];
      };
      int before = 0, ahead = slot_at(0);
      for (int n = 0; n < keys; n += KEYS) {
        const int slot = ahead;
        ahead = slot_at(n + KEYS);
        copy(slot, k);
        if (n) copy(before, v);
        before = slot;
      }
      copy(before, v);
    }
    if (ANNOUNCED) copies_commit();
    copies_wait<0>();
    for (u32 left = min(asked, (u32)LAG); left > 0; left--) give();
  } else {
    more_registers<232>();
    const int mine = team - 1, t = lane % 4;
    const int top_row = mine * 64 + warp * 16 + lane / 4;  // and that + 8
    const u64 key_at = descriptor(base), value_at = descriptor_terms_first(base, HALF);
    const bool speaks = threadIdx.x % 128 == 0;
    u32 query[DIM / 16][4];
    float s[KEYS / 2], o[DIM / 2];
    u32 p[KEYS / 16][4];
    int entry[2];
    u32 row[2];
    Ring ring;

    // This thread's two rows of queries; what is beyond the last is read again and not written.
    auto find = [&](const Work& work) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        entry[i] = work.unit[0] + min((top_row + 8 * i) / GROUP, work.unit[1] - 1);
        row[i] = (token[entry[i]] * HEADS + work.head) * GROUP + (top_row + 8 * i) % GROUP;
      }
    };
    auto read = [&] {
#pragma unroll
      for (int k = 0; k < DIM / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++)
          query[k][i] = *reinterpret_cast<const u32*>(
              q + (u64)row[i % 2] * DIM + k * 16 + i / 2 * 8 + 2 * t);
    };
    auto ask_scores = [&] {
      wait(full + 8 * ring.at, ring.phase);
      if (ANNOUNCED) copies_are_seen();
      products_begin();
#pragma unroll
      for (int k = 0; k < DIM / 16; k++)
        score(s, query[k], key_at + (ring.at * BLOCK + k / 4 * HALF + k % 4 * 32) / 16, k);
      products_commit();
    };
    auto ask_values = [&](Ring& at, bool more) {
      wait(full + 8 * at.at, at.phase);
      if (ANNOUNCED) copies_are_seen();
      products_begin();
#pragma unroll
      for (int k = 0; k < KEYS / 16; k++)
        weigh(o, p[k], value_at + (at.at * BLOCK + k * 2048) / 16, more | k);
      products_commit();
    };
    auto release = [&](const Ring& at) {
      if (speaks) arrive_here(empty + 8 * at.at);
    };

    if (IN_TURN && mine == 1) come_some(2, 256);
    Work work(units, count);
    if (work.there()) {
      find(work);
      read();
    }
    while (work.there()) {
      const int keys = work.unit[3], begin = work.unit[4], free = work.unit[5];
      const int queries = work.unit[1], piece = work.unit[6];
      int sees[2], to[2];
      u32 at[2];
      float most[2], total[2];
#pragma unroll
      for (int i = 0; i < 2; i++) {
        sees[i] = min(high[entry[i]] - begin, keys);
        to[i] = part[entry[i]];
        at[i] = to[i] < 0 ? row[i] : (to[i] + piece) * (HEADS * GROUP)
            + work.head * GROUP + (top_row + 8 * i) % GROUP;
        if ((top_row + 8 * i) / GROUP >= queries) at[i] = ~0u;
        most[i] = -INFINITE;
        total[i] = 0;
      }
      Ring values;
      for (int n = 0; n < keys; n += KEYS) {
        if (IN_TURN) meet_some(2 + mine, 256);
        const Ring scores = ring;
        ask_scores();
        ring.next();
        if (n) {
          values = ring;
          ask_values(values, n > KEYS);
          ring.next();
          if (IN_TURN) come_some(3 - mine, 256);
          products_wait<1>();
        } else {
          if (IN_TURN) come_some(3 - mine, 256);
          products_wait<0>();
        }
#pragma unroll
        for (int i = 0; i < KEYS / 2; i++) hold(s[i]);
        release(scores);
        if (n + KEYS >= keys) {  // queries are not needed any more: the next unit's
          work.next();
          if (work.there()) {
            find(work);
            read();
          }
        }

        if (n + KEYS > free)
#pragma unroll
          for (int i = 0; i < KEYS / 2; i++)
            if (n + i / 4 * 8 + 2 * t + i % 2 >= sees[i / 2 % 2]) s[i] = -INFINITE;
        float fade[2];
#pragma unroll
        for (int lower = 0; lower < 2; lower++) {
          float best = s[2 * lower];
#pragma unroll
          for (int j = 0; j < KEYS / 8; j++)
            best = fmaxf(best, fmaxf(s[4 * j + 2 * lower], s[4 * j + 2 * lower + 1]));
          best = fmaxf(best, __shfl_xor_sync(~0u, best, 1));
          best = fmaxf(best, __shfl_xor_sync(~0u, best, 2));
          const float now = fmaxf(most[lower], best * scale);
          const float safe = now == -INFINITE ? 0.0f : now;
          fade[lower] = power_of_2(most[lower] - safe);
          most[lower] = now;
          float sum = 0;
#pragma unroll
          for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
              float& v = s[4 * j + 2 * lower + i];
              v = power_of_2(v * scale - safe);
              sum += v;
            }
          total[lower] = total[lower] * fade[lower] + sum;
        }
        if (n) {
          products_wait<0>();
#pragma unroll
          for (int i = 0; i < DIM / 2; i++) hold(o[i]);
          release(values);
#pragma unroll
          for (int i = 0; i < DIM / 2; i++) o[i] *= fade[i / 2 % 2];
        }
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++)
#pragma unroll
          for (int i = 0; i < 4; i++) p[k][i] = both(s[8 * k + 2 * i], s[8 * k + 2 * i + 1]);
      }
      ask_values(ring, keys > KEYS);
      products_wait<0>();
#pragma unroll
      for (int i = 0; i < DIM / 2; i++) hold(o[i]);
      release(ring);
      ring.next();

#pragma unroll
      for (int lower = 0; lower < 2; lower++) {
        float sum = total[lower];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        const float by = sum > 0 ? 1.0f / sum : 1.0f;
        const bool written = at[lower] != ~0u;
        unsigned short* into = (to[lower] < 0 ? out : partial) + (u64)at[lower] * DIM;
#pragma unroll
        for (int j = 0; j < DIM / 8; j += 4) {
          u32 v[4];
#pragma unroll
          for (int i = 0; i < 4; i++)
            v[i] = both(o[4 * (j + i) + 2 * lower] * by, o[4 * (j + i) + 2 * lower + 1] * by);
          transpose(v, t);
          if (written)
            *reinterpret_cast<uint4*>(into + (j + t) * 8) = make_uint4(v[0], v[1], v[2], v[3]);
        }
        if (written && to[lower] >= 0 && t == 0) sums[at[lower]] = most[lower] + __log2f(sum);
      }
    }
    if (IN_TURN && mine == 0) meet_some(2, 256);
  }
}
