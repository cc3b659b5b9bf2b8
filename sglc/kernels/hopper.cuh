// What kernels for Hopper share; `hopper_source.py` puts it before them.

typedef unsigned int u32;
typedef unsigned long long u64;
struct alignas(64) Map { char bytes[128]; };

#define DEVICE __device__ __forceinline__
#define INFINITE __uint_as_float(0x7F800000u)

// Rows of 128 bytes in the 128-byte swizzle, groups of 8 rows one behind the other (PTX ISA,
// "Matrix descriptor format"); its address counts units of 16 bytes.
DEVICE u64 descriptor(u32 at) {
  return (u64)((at & 0x3FFFF) >> 4) | (1ull << 16) | (64ull << 32) | (1ull << 62);
}

// The same where terms are rows and columns of the result lie side by side: 64 of them in a row, the
// next 64 so many bytes further.
DEVICE u64 descriptor_terms_first(u32 at, u32 further) {
  return (u64)((at & 0x3FFFF) >> 4) | (u64)(further / 16) << 16 | (64ull << 32) | (1ull << 62);
}

// Of lanes t = 0 .. 3 each has v[b] for four b; afterwards v[i] is what lane i had in v[t].
DEVICE void transpose(u32 (&v)[4], int t) {
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
