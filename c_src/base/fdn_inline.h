/* fdn_inline.h - where the compiler's judgement of size is not the one wanted. */
#ifndef FDN_INLINE_H
#define FDN_INLINE_H

/* A general form that is compiled anew, with its arguments known, at each of its few places on a hot path. */
#define FDN_INLINE inline __attribute__((always_inline))

/* What stays out of a hot path, so that it has the registers. */
#define FDN_NOINLINE __attribute__((noinline))

#endif
