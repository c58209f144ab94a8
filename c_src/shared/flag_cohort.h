/*
 * flag_cohort.h - which cohort an id belongs to: exactly erlang:phash2({Flag, Id}, 100), for the ids whose hash is simple.
 *
 * phash2 folds a term into 32 bits with the mixing step of Jenkins' hash of 1996 ("lookup2"). The tuple and the flag come first, so
 * their part is computed once a flag (the seed, from the atom's own hash erlang:phash2(Flag, 1 bsl 32)); then the id is folded in.
 * phash2 is documented to give the same value in every version of Erlang; a caller compares some vectors with the real one all the
 * same before it trusts these functions.
 *
 * Source: Bob Jenkins, "Hash functions", Dr. Dobb's Journal, September 1997; the order of folding is that of phash2.
 */
#ifndef FDN_FLAG_COHORT_H
#define FDN_FLAG_COHORT_H

#include <stddef.h>
#include <stdint.h>

#define FDN_FLAG_COHORTS 100u

/* The hash state after {Flag, of the tuple {Flag, Id}. */
uint32_t fdn_flag_cohort_seed(uint32_t atom_hash);

/* The hash of the whole tuple: erlang:phash2({Flag, Id}, 1 bsl 32). The cohort is that modulo FDN_FLAG_COHORTS. */
uint32_t fdn_flag_cohort_int(uint32_t seed, int64_t id);
uint32_t fdn_flag_cohort_bytes(uint32_t seed, const uint8_t *id, size_t len);

#endif
