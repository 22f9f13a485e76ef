// A search through many words, in the widest steps that the processor has: see clinux_files.h.
#include "clinux.h"
#include <immintrin.h>

__attribute__((target("avx2"))) static size_t find_wide(const uint64_t *words, size_t i, size_t count, uint64_t low, uint64_t span) {
    // Unsigned comparison by the signed one there is: both sides are moved by half the range.
    const uint64_t middle = (uint64_t)1 << 63;
    const __m256i half = _mm256_set1_epi64x((long long)middle), most = _mm256_set1_epi64x((long long)(span ^ middle));
    const __m256i start = _mm256_set1_epi64x((long long)low);
    for (; i + 16 <= count; i += 16) {
        __m256i all = _mm256_set1_epi64x(-1);
        for (int k = 0; k < 16; k += 4) {
            __m256i x = _mm256_loadu_si256((const __m256i *)(const void *)(words + i + k));
            x = _mm256_xor_si256(_mm256_sub_epi64(x, start), half);
            all = _mm256_and_si256(all, _mm256_cmpgt_epi64(x, most));
        }
        if (_mm256_movemask_epi8(all) != -1) break;
    }
    return i;
}

size_t fother_first_between(const uint64_t *words, size_t from, size_t count, uint64_t low, uint64_t span) {
    size_t i = from;
    if (__builtin_cpu_supports("avx2")) i = find_wide(words, i, count, low, span);
    for (; i < count; i++)
        if (words[i] - low <= span) return i;
    return count;
}
