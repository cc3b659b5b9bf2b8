// The functions of `hopper_ptx.cuh` on `machine.h`: what the PTX ISA says that they do.

using machine::block;
using machine::cluster;
using machine::until;

DEVICE u32 shared(const void* p) {
  return (u32)block->rank << 24 |
      (u32)(machine::ORIGIN + ((const unsigned char*)p - block->memory));
}

DEVICE void init_barrier(u32 barrier, u32 count) {
  if (barrier % 8) machine::fail("a barrier at a bad place");
  block->barriers[barrier & 0xFFFFFF] = {(int)count, (int)count, 0, false};
}
DEVICE void barriers_are_made() {}

DEVICE void wait(u32 barrier, u32 phase) {
  machine::Barrier* b = &machine::barrier_at(barrier);
  until([b, phase] { return b->phase != (bool)phase; });
}

DEVICE void expect(u32 barrier, u32 bytes) {
  machine::barrier_at(barrier).bytes += bytes;
  machine::arrive_at(barrier);
}

DEVICE u32 remote(u32 address, u32 rank) { return (address & 0xFFFFFF) | rank << 24; }
DEVICE void arrive(u32 barrier, u32 rank) { machine::arrive_at(remote(barrier, rank)); }
DEVICE void arrive_here(u32 barrier) { machine::arrive_at(barrier); }
DEVICE u32 cluster_rank() { return block->rank; }

inline void meet_at(machine::Meeting& m, int threads) {
  const u32 round = m.round;
  if (!m.arrive(threads)) until([&m, round] { return m.round != round; });
}
DEVICE void meet() {
  meet_at(cluster->meeting, (int)(cluster->blocks.size() * block->fibers.size()));
}
DEVICE void meet_some(u32 id, u32 threads) { meet_at(block->meetings[id], threads); }

DEVICE void come_some(u32 id, u32 threads) { block->meetings[id].arrive(threads); }
DEVICE void meet_all() { meet_at(block->meetings[0], (int)block->fibers.size()); }

DEVICE float4 load_remote(u32 from) {
  float4 v;
  std::memcpy(&v, machine::at(from), 16);
  return v;
}

template <int N> DEVICE void fewer_registers() {}
template <int N> DEVICE void more_registers() {}
DEVICE void let_next_begin() {}
DEVICE void wait_for_last() {}
DEVICE u64 evict_first() { return 0; }
DEVICE u64 evict_last() { return 0; }

struct Matrix { const unsigned char* data; u64 rows, columns, box_rows, box_columns; };

// The copy engine: what is outside of the matrix is zero, and counts.
template <bool MANY>
DEVICE void load(const Map* map, u32 to, u32 barrier, int column, int row, unsigned short mask,
                 u64) {
  Matrix m;
  std::memcpy(&m, map, sizeof m);
  if (!MANY) mask = 1 << block->rank;
  cluster->events.push_back([=] {
    for (u32 rank = 0; rank < cluster->blocks.size(); rank++) {
      if (!(mask >> rank & 1)) continue;
      unsigned char* base = cluster->blocks[rank].memory;
      for (u64 r = 0; r < m.box_rows; r++)
        for (u64 c = 0; c < m.box_columns; c++) {
          const u64 from_row = row + r, from_column = column + c;
          const bool there = from_row < m.rows && from_column < m.columns;
          const u32 place = (to & 0xFFFFFF) - machine::ORIGIN + r * 128 + c * 2;
          unsigned char* at = base + machine::swizzled(place);
          if (there) std::memcpy(at, m.data + (from_row * m.columns + from_column) * 2, 2);
          else std::memset(at, 0, 2);
        }
      machine::Barrier& b = machine::barrier_at(remote(barrier, rank));
      b.bytes -= m.box_rows * m.box_columns * 2;
      machine::settle(b);
    }
  });
}

DEVICE void copy_16(u32 to, const void* from) {
  if (to % 16 || (u64)from % 16) machine::fail("a copy of 16 bytes that are not aligned");
  block->now->copies.push_back({to, from});
}
DEVICE void copies_commit() {
  block->now->copying.push_back({std::move(block->now->copies)});
  block->now->copies.clear();
}
DEVICE void copies_announce(u32 barrier) {
  copies_commit();
  block->now->copying.back().barrier = barrier;
}
template <int N> DEVICE void copies_wait() {
  while (block->now->copying.size() > N) machine::finish(*block, *block->now);
}
DEVICE void copies_are_seen() {
  machine::fence(*block, *block->now);
}

DEVICE void products_begin() {}
DEVICE void products_commit() { block->now->groups.push_back(block->now->products); }

template <int N> DEVICE void products_wait() {
  machine::Fiber& f = *block->now;
  const u64 until_here = f.groups.size() > N ? f.groups[f.groups.size() - 1 - N] : 0;
  machine::Warpgroup* g = &block->groups[f.index / 128];
  until([g, until_here] {
    while (g->done < until_here && machine::advance(*g)) {}
    return g->done >= until_here;
  });
}

// This thread's part of a product; until one is made its sums are NaN.
inline void ask(int columns, bool terms_first, float* d, u64 a_at, const u32* a, u64 b, bool more) {
  machine::Fiber& f = *block->now;
  machine::Warpgroup& g = block->groups[f.index / 128];
  const u64 place = f.products++ - g.done;
  if (place == g.waiting.size()) {
    g.waiting.push_back(std::make_unique<machine::Product>());
    machine::Product& p = *g.waiting.back();
    p.columns = columns, p.terms_first = terms_first, p.registers = a, p.more = more;
    p.a = a_at, p.b = b;
  }
  machine::Product& p = *g.waiting[place];
  if (p.columns != columns || p.b != b || p.a != a_at || p.more != more)
    machine::fail("threads of a warpgroup ask for different products");
  machine::Asked& mine = p.of[f.index % 128];
  mine.d = d;
  mine.registers = a;
  if (a) std::copy(a, a + 4, mine.a);
  // What a product under way adds to is not known yet.
  bool chained = false;
  for (u64 i = 0; i < place; i++) chained |= g.waiting[i]->of[f.index % 128].d == d;
  if (!chained) {
    mine.before.assign(d, d + columns / 2);
    std::fill(d, d + columns / 2, NAN);
  }
  p.asked++;
}

DEVICE void hold(float&) {}
DEVICE void hold_value(float&) {}

DEVICE float power_of_2(float v) { return std::exp2(v); }

// Numbers in 16 bits, rounded to nearest, ties to even.
#if BF16
inline uint16_t bits(float v) {
  const u32 b = __float_as_uint(v);
  return std::isnan(v) ? 0x7FFF : (b + 0x7FFF + (b >> 16 & 1)) >> 16;
}
inline float machine::number(uint16_t b) { return __uint_as_float((u32)b << 16); }
#else
inline uint16_t bits(float v) {
  const u32 b = __float_as_uint(v), sign = b >> 16 & 0x8000, size = b & 0x7FFFFFFF;
  if (size > 0x7F800000) return 0x7FFF;
  if (size >= 0x477FF000) return sign | 0x7C00;
  if (size < 0x38800000) return sign | (u32)std::nearbyint(__uint_as_float(size) * 16777216.0f);
  return sign | ((size + 0xFFF + (size >> 13 & 1)) >> 13) - 0x1C000;
}
inline float machine::number(uint16_t b) {
  const u32 size = b & 0x7FFF, sign = (u32)(b & 0x8000) << 16;
  if (size >= 0x7C00) return __uint_as_float(sign | 0x7F800000 | (size & 0x3FF) << 13);
  const float v = size < 0x400 ? size / 16777216.0f : __uint_as_float((size << 13) + 0x38000000);
  return sign ? -v : v;
}
#endif

DEVICE u32 both(float low, float high) { return bits(low) | (u32)bits(high) << 16; }
DEVICE float low(u32 v) { return machine::number(v & 0xFFFF); }
DEVICE float high(u32 v) { return machine::number(v >> 16); }
