// What only Hopper (compute capability 9.0) has: each function is one instruction of the PTX ISA, or
// a few.  Shared memory is addressed by u32.  KIND is "bf16" or "f16", BF16 1 or 0.  Kernels have no
// assembly elsewhere, so that tests can run them on a CPU with other functions of these names.

DEVICE u32 shared(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// Barriers, and blocks of a cluster.

DEVICE void init_barrier(u32 barrier, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" :: "r"(barrier), "r"(count));
}

// Afterwards the copy engine and other blocks may use the barriers.
DEVICE void barriers_are_made() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

DEVICE void wait(u32 barrier, u32 phase) {
  asm volatile(
      "{\n.reg .pred p;\nagain:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
      "@p bra done;\nbra again;\ndone:\n}" :: "r"(barrier), "r"(phase) : "memory");
}

// This thread arrives, and so many bytes are to come.
DEVICE void expect(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
               :: "r"(barrier), "r"(bytes) : "memory");
}

// At the barrier of block `rank`.  Without a scope wider than the block's: the fences of those take
// longer than a stage.
DEVICE void arrive(u32 barrier, u32 rank) {
  asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
               "mbarrier.arrive.shared::cluster.b64 _, [there];\n}"
               :: "r"(barrier), "r"(rank) : "memory");
}

DEVICE void arrive_here(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" :: "r"(barrier) : "memory");
}

DEVICE u32 cluster_rank() {
  u32 rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// All threads of the cluster.
DEVICE void meet() {
  asm volatile("barrier.cluster.arrive.release;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire;" ::: "memory");
}

// All threads of the block.
DEVICE void meet_all() { asm volatile("bar.sync 0;" ::: "memory"); }

// So many of them.
DEVICE void meet_some(u32 id, u32 threads) {
  asm volatile("bar.sync %0, %1;" :: "r"(id), "r"(threads) : "memory");
}

// The same, for one that does not wait.
DEVICE void come_some(u32 id, u32 threads) {
  asm volatile("bar.arrive %0, %1;" :: "r"(id), "r"(threads) : "memory");
}

// Where an address of this block is in block `rank`.
DEVICE u32 remote(u32 address, u32 rank) {
  u32 there;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}

DEVICE float4 load_remote(u32 from) {
  float4 v;
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(from) : "memory");
  return v;
}

template <int N> DEVICE void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(N));
}
template <int N> DEVICE void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(N));
}

// Kernels launched one behind the other (programmatic dependent launch).

DEVICE void let_next_begin() { asm volatile("griddepcontrol.launch_dependents;"); }
DEVICE void wait_for_last() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// Copies into shared memory.

DEVICE u64 evict_first() {
  u64 policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
DEVICE u64 evict_last() {
  u64 policy;
  asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// One box of a matrix into this block's memory, or into that of the blocks in `mask`.
template <bool MANY>
DEVICE void load(const Map* map, u32 to, u32 barrier, int column, int row, unsigned short mask,
                 u64 policy) {
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

// 16 bytes by this thread.
DEVICE void copy_16(u32 to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(to), "l"(from) : "memory");
}
DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until at most N groups of this thread's copies are under way.
template <int N> DEVICE void copies_wait() {
  asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
}

// This thread arrives at a barrier when all its copies until now are there.
DEVICE void copies_announce(u32 barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" :: "r"(barrier) : "memory");
}

// Products that this thread asks for later, or others that it tells, read what was copied.
DEVICE void copies_are_seen() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Products of warpgroups.

DEVICE void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Until at most N groups of products are under way.
template <int N> DEVICE void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" :: "n"(N) : "memory");
}

// Nothing that uses a value is moved before this place.
DEVICE void hold(float& value) { asm volatile("" : "+f"(value) :: "memory"); }
DEVICE void hold_value(float& value) { asm volatile("" : "+f"(value)); }

// Numbers.

DEVICE float power_of_2(float v) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(v));
  return r;
}

// Two in 16 bits in a word.

DEVICE u32 both(float low, float high) {
  u32 r;
  asm("cvt.rn." KIND "x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

DEVICE float low(u32 v) {
#if BF16
  return __uint_as_float(v << 16);
#else
  float r;
  asm("{\n.reg .f16 l, h;\nmov.b32 {l, h}, %1;\ncvt.f32.f16 %0, l;\n}" : "=f"(r) : "r"(v));
  return r;
#endif
}
DEVICE float high(u32 v) {
#if BF16
  return __uint_as_float(v & 0xFFFF0000u);
#else
  return low(v >> 16);
#endif
}
