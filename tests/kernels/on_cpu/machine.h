// Runs a kernel of CUDA C++ on a CPU: the blocks of a cluster together, a fiber a thread, in random
// order.  What the hardware does beside its threads (copies, products) happens at a random time
// between when it is asked for and when somebody waits for it.
//
// Every block has an OS thread, so that `__shared__` can be `thread_local`; one runs at a time.

#include <ucontext.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace machine {

constexpr int WARP = 32, MEMORY = 232448, STACK = 96 * 1024;
constexpr uint32_t ORIGIN = 1 << 22;  // of addresses in shared memory; the block is in bits 24 on

struct Barrier { int count, pending, bytes; bool phase; };

// So many threads wait for each other; some that are a round ahead may already come again.
struct Meeting {
  int here = 0;
  uint32_t round = 0;
  bool arrive(int threads) {  // whether this was the last one
    if (++here < threads) return false;
    here = 0;
    round++;
    return true;
  }
};

struct Warp : Meeting { uint32_t values[2][WARP]; };

// A product of a warpgroup: complete when all 128 threads have asked for it.
struct Asked {
  float* d;
  std::vector<float> before;  // none: what the product before this one leaves
  uint32_t a[4];
  const uint32_t* registers;  // where these are
};
struct Product {
  int columns;
  bool registers, terms_first, more;
  uint64_t a, b;
  int asked = 0;
  Asked of[128];
};
struct Warpgroup { std::deque<std::unique_ptr<Product>> waiting; uint64_t done = 0; };

struct Copy { uint32_t to; const void* from; };
struct Copies { std::vector<Copy> all; uint32_t barrier = 0; };  // to arrive at when they are there
enum Seen : uint8_t { SEEN, UNFENCED, ANNOUNCED_ONLY };  // by products, of what threads copied

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[STACK]};
  std::function<bool()> ready;
  bool ended = false;
  int index = 0;
  uint64_t products = 0;               // asked for so far
  std::vector<uint64_t> groups;        // of products: how many there were at each commit
  std::vector<Copy> copies;            // not yet in a group
  std::deque<Copies> copying;
  std::vector<uint32_t> unfenced;      // where it wrote since its last fence
};

struct Block {
  int rank = 0;
  uint32_t index = 0;
  unsigned char* memory = nullptr;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<Warpgroup> groups;
  std::map<uint32_t, Barrier> barriers;
  std::map<int, Meeting> meetings;
  std::vector<Seen> seen;              // by 16 bytes
  std::vector<uint32_t> announced;     // where copies are that anybody's fence lets products see
  ucontext_t home;
  Fiber* now = nullptr;
  int favoured = -1, turns = 0;        // a warpgroup that runs alone, and for how long
};

struct Cluster {
  std::vector<Block> blocks;
  Meeting meeting;
  std::vector<std::function<void()>> events;  // of the copy engine, in any order
  std::minstd_rand random;
  std::mutex mutex;
  std::condition_variable turned;
  size_t turn = 0, idle = 0;           // idle: turns without progress
  std::string error;
  uint32_t blocks_in_grid = 0;
};

inline Cluster* cluster;
inline thread_local Block* block;

struct Stop {};                        // a fiber leaves after an error elsewhere

[[noreturn]] inline void fail(const std::string& what) {
  if (cluster->error.empty())
    cluster->error = "block " + std::to_string(block->index) + ", thread " +
        std::to_string(block->now ? block->now->index : -1) + ": " + what;
  if (block->now) {
    block->now->ended = true;
    swapcontext(&block->now->context, &block->home);
  }
  throw Stop();
}

inline bool chance(int of) { return cluster->random() / 7 % of == 0; }

inline void until(std::function<bool()> ready) {
  Fiber* f = block->now;
  f->ready = std::move(ready);
  swapcontext(&f->context, &block->home);
}

inline unsigned char* at(uint32_t address) {
  Block& b = cluster->blocks.at(address >> 24);
  return b.memory + ((int64_t)(address & 0xFFFFFF) - ORIGIN);
}

inline Barrier& barrier_at(uint32_t address) {
  auto& all = cluster->blocks.at(address >> 24).barriers;
  const auto found = all.find(address & 0xFFFFFF);
  if (found == all.end()) fail("no barrier there");
  return found->second;
}

inline void settle(Barrier& b) {
  if (b.pending || b.bytes) return;
  b.phase = !b.phase;
  b.pending = b.count;
}

inline void arrive_at(uint32_t address) {
  Barrier& b = barrier_at(address);
  if (b.pending == 0) fail("more arrivals than the barrier counts");
  b.pending--;
  settle(b);
}

// Bits 4 to 6 of an address change with bits 7 to 9 (128-byte swizzle).
inline uint32_t swizzled(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

float number(uint16_t bits);  // of the kernel's kind

inline float element(uint64_t descriptor, int row, int term, bool terms_first) {
  if (descriptor >> 62 != 1 || descriptor >> 49 & 7) fail("not the 128-byte swizzle");
  const uint32_t start = (descriptor & 0x3FFF) << 4;
  const uint32_t lead = (descriptor >> 16 & 0x3FFF) << 4, stride = (descriptor >> 32 & 0x3FFF) << 4;
  const uint32_t place = terms_first
      ? start + row / 64 * lead + row % 64 * 2 + term / 8 * stride + term % 8 * 128
      : start + row / 8 * stride + row % 8 * 128 + term * 2;
  if (place + 2 > MEMORY) fail("a product reads beyond shared memory");
  const uint32_t from = swizzled(place);
  if (block->seen[from / 16] != SEEN) fail("a product reads what threads copied without a fence");
  uint16_t bits;
  std::memcpy(&bits, block->memory + from, 2);
  return number(bits);
}

inline void multiply(Product& p) {
  static thread_local float a[64][16], b[256][16];
  for (const Asked& asked : p.of)
    if (p.registers && !std::equal(asked.a, asked.a + 4, asked.registers))
      fail("registers changed while a product read them");
  for (int r = 0; r < 64; r++)
    for (int k = 0; k < 16; k++) {
      if (!p.registers) { a[r][k] = element(p.a, r, k, false); continue; }
      const int lane = r / 16 * 32 + r % 8 * 4 + k % 8 / 2;
      const uint32_t word = p.of[lane].a[r % 16 / 8 + k / 8 * 2];
      a[r][k] = number(k % 2 ? word >> 16 : word & 0xFFFF);
    }
  for (int n = 0; n < p.columns; n++)
    for (int k = 0; k < 16; k++) b[n][k] = element(p.b, n, k, p.terms_first);
  for (int t = 0; t < 128; t++)
    for (int i = 0; i < p.columns / 2; i++) {
      const int r = t / 32 * 16 + t % 32 / 4 + (i / 2 % 2) * 8, n = i / 4 * 8 + t % 4 * 2 + i % 2;
      const Asked& asked = p.of[t];
      float sum = !p.more ? 0.0f : asked.before.empty() ? asked.d[i] : asked.before[i];
      for (int k = 0; k < 16; k++) sum += a[r][k] * b[n][k];
      p.of[t].d[i] = sum;
    }
}

// Take the next product of a warpgroup, if all its threads have asked for it.
inline bool advance(Warpgroup& g) {
  if (g.waiting.empty() || g.waiting.front()->asked < 128) return false;
  multiply(*g.waiting.front());
  g.waiting.pop_front();
  g.done++;
  return true;
}

inline void finish(Block& b, Fiber& f) {  // its oldest group of copies
  const Copies copies = std::move(f.copying.front());
  f.copying.pop_front();
  for (const Copy& c : copies.all) {
    const uint32_t to = (c.to & 0xFFFFFF) - ORIGIN;
    if (to % 16 || to + 16 > MEMORY) fail("a copy to a bad place");
    std::memcpy(b.memory + to, c.from, 16);
    b.seen[to / 16] = UNFENCED;
    f.unfenced.push_back(to / 16);
  }
  if (!copies.barrier) return;
  for (uint32_t place : f.unfenced) b.seen[place] = ANNOUNCED_ONLY;
  b.announced.insert(b.announced.end(), f.unfenced.begin(), f.unfenced.end());
  f.unfenced.clear();
  arrive_at(copies.barrier);
}

inline void fence(Block& b, Fiber& f) {
  for (uint32_t place : f.unfenced) b.seen[place] = SEEN;
  for (uint32_t place : b.announced)
    if (b.seen[place] == ANNOUNCED_ONLY) b.seen[place] = SEEN;
  f.unfenced.clear();
  b.announced.clear();
}

// Something that the hardware does beside its threads; whether there was anything.
inline bool beside(Block& b) {
  auto& events = cluster->events;
  if (!events.empty()) {
    std::swap(events[cluster->random() % events.size()], events.back());
    const auto event = std::move(events.back());
    events.pop_back();
    event();
    return true;
  }
  for (Warpgroup& g : b.groups)
    if (advance(g)) return true;
  for (Fiber& f : b.fibers)
    if (!f.copying.empty()) {
      finish(b, f);
      return true;
    }
  return false;
}

inline std::function<void()> body;

inline void begin() {
  try {
    body();
  } catch (const Stop&) {
  }
  block->now->ended = true;
  swapcontext(&block->now->context, &block->home);
}

// One turn of a block: each thread that can go on does; whether anything happened.  At times one
// warpgroup runs far ahead of the others.
inline bool turn(Block& b) {
  bool moved = false;
  const size_t n = b.fibers.size(), first = cluster->random() % n;
  if (b.turns-- <= 0) {
    b.favoured = chance(2) ? -1 : (int)(cluster->random() / 7 % b.groups.size());
    b.turns = cluster->random() / 7 % 1000;
  }
  for (size_t i = 0; i < n && cluster->error.empty(); i++) {
    Fiber& f = b.fibers[(first + i) % n];
    if (b.favoured >= 0 && f.index / 128 != b.favoured) continue;
    if (f.ended || (f.ready && !f.ready())) continue;
    f.ready = nullptr;
    b.now = &f;
    swapcontext(&b.home, &f.context);
    b.now = nullptr;
    moved = true;
    if (chance(64)) beside(b);
    if (!f.copying.empty() && chance(8)) finish(b, f);
  }
  if (!moved && b.favoured >= 0) {
    b.turns = 0;
    return true;
  }
  return moved || beside(b);
}

inline bool ended(const Block& b) {
  return std::all_of(b.fibers.begin(), b.fibers.end(), [](const Fiber& f) { return f.ended; });
}

inline void run_block(Block& b, int threads, unsigned char* memory) {
  block = &b;
  b.memory = memory;
  b.fibers = std::vector<Fiber>(threads);
  b.warps = std::vector<Warp>(threads / WARP);
  b.groups = std::vector<Warpgroup>(threads / 128);
  b.seen.assign(MEMORY / 16, SEEN);
  std::memset(memory, 0xFF, MEMORY);  // NaN
  for (int i = 0; i < threads; i++) {
    Fiber& f = b.fibers[i];
    f.index = i;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = STACK;
    f.context.uc_link = nullptr;
    makecontext(&f.context, begin, 0);
  }
  Cluster& c = *cluster;
  for (bool left = false; !left;) {
    std::unique_lock lock(c.mutex);
    c.turned.wait(lock, [&] { return c.turn == (size_t)b.rank; });
    bool moved = false;
    left = ended(b) || !c.error.empty();
    try {
      if (!left) moved = turn(b);
    } catch (const Stop&) {
    }
    c.idle = moved || left ? 0 : c.idle + 1;
    if (c.idle > 2 * c.blocks.size() && c.error.empty()) {
      std::string who;
      for (const Fiber& f : b.fibers)
        if (!f.ended && f.index % WARP == 0) who += " " + std::to_string(f.index);
      c.error = "all threads wait; of block " + std::to_string(b.index) + " for example" + who;
    }
    if (left) b.rank = -1;
    for (size_t i = 0; i < c.blocks.size(); i++) {  // to the next one that is there
      c.turn = (c.turn + 1) % c.blocks.size();
      if (c.blocks[c.turn].rank >= 0) break;
    }
    c.turned.notify_all();
  }
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** given, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_cv_t<A>*>(given[I])...);
}

// Empty, or what went wrong.
template <class... A>
std::string launch(void (*kernel)(A...), void** given, int blocks, int size, int threads,
                   unsigned seed, unsigned char* (*memory)()) {
  body = [=] { call(kernel, given, std::index_sequence_for<A...>()); };
  for (int first = 0; first < blocks; first += size) {
    Cluster c;
    c.random.seed(seed + 7919 * first);
    c.blocks_in_grid = blocks;
    c.blocks = std::vector<Block>(size);
    cluster = &c;
    std::vector<std::thread> running;
    for (int i = 0; i < size; i++) {
      c.blocks[i].rank = i;
      c.blocks[i].index = first + i;
    }
    for (int i = 0; i < size; i++)
      running.emplace_back([&, i] { run_block(c.blocks[i], threads, memory()); });
    for (auto& t : running) t.join();
    if (!c.error.empty()) return c.error;
  }
  return "";
}

}  // namespace machine
