/*
 * nif_atoms.h - every atom the NIFs use, in one list.
 *
 * Atoms are made once, when a library is loaded, and live in its priv data: fdn_lib->atoms.NAME. Error words are not here; they are
 * made from fdn_error_name on the cold path. `true` and `false` are macros of <stdbool.h>, so these two stand in nif_common.h, as
 * atoms.true_ and atoms.false_.
 */
#ifndef FDN_NIF_ATOMS_H
#define FDN_NIF_ATOMS_H

#define FDN_ATOMS(X)                                                                                                                   \
    /* everywhere */                                                                                                                   \
    X(ok)                                                                                                                              \
    X(error)                                                                                                                           \
    X(undefined)                                                                                                                       \
    X(badarg)                                                                                                                          \
    X(bytes)                                                                                                                           \
    /* flags */                                                                                                                        \
    X(percentage)                                                                                                                      \
    X(foundation_flags_file)                                                                                                           \
    X(unknown_flag)                                                                                                                    \
    X(unknown_group)                                                                                                                   \
    X(opened)                                                                                                                          \
    X(done)                                                                                                                            \
    /* limiter */                                                                                                                      \
    X(allow)                                                                                                                           \
    X(deny)                                                                                                                            \
    X(evict)                                                                                                                           \
    X(gcra)                                                                                                                            \
    X(fixed_window)                                                                                                                    \
    X(sliding_window)                                                                                                                  \
    X(precise)                                                                                                                         \
    X(coarse)                                                                                                                          \
    X(manual)                                                                                                                          \
    X(algorithm)                                                                                                                       \
    X(limit)                                                                                                                           \
    X(period)                                                                                                                          \
    X(burst)                                                                                                                           \
    X(capacity)                                                                                                                        \
    X(on_full)                                                                                                                         \
    X(clock)                                                                                                                           \
    X(clock_in_use)                                                                                                                    \
    X(now)                                                                                                                             \
    X(owner)                                                                                                                           \
    X(live)                                                                                                                            \
    X(slots)                                                                                                                           \
    X(allowed)                                                                                                                         \
    X(denied)                                                                                                                          \
    X(full)                                                                                                                            \
    X(evicted)                                                                                                                         \
    X(created)                                                                                                                         \
    X(attached)                                                                                                                        \
    X(persist)                                                                                                                         \
    X(faulted)                                                                                                                         \
    X(disk_bytes)                                                                                                                      \
    X(already_started)                                                                                                                 \
    X(scope)                                                                                                                           \
    X(local)                                                                                                                           \
    X(cluster)                                                                                                                         \
    X(cluster_strict)                                                                                                                  \
    X(preset)                                                                                                                          \
    X(granted)                                                                                                                         \
    X(name)                                                                                                                            \
    X(telemetry)                                                                                                                       \
    X(entry)                                                                                                                           \
    X(expired)                                                                                                                         \
    X(refunded)                                                                                                                        \
    /* snapshot */                                                                                                                     \
    X(foundation_saved)                                                                                                                \
    X(conflict)                                                                                                                        \
    X(absent)                                                                                                                          \
    X(not_found)                                                                                                                       \
    X(put)                                                                                                                             \
    X(update)                                                                                                                          \
    X(delete)                                                                                                                          \
    X(expect)                                                                                                                          \
    X(read_only)                                                                                                                       \
    X(async)                                                                                                                           \
    X(sync)                                                                                                                            \
    X(interval)

#endif
