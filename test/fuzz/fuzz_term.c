/* Any bytes as a term: the checker's verdict, and everything that may be done with what it lets pass. */
#include <stdlib.h>
#include <string.h>

#include "c_node/spec.h"

#define REQUIRE(x)                                                                                                                     \
    if (!(x))                                                                                                                          \
        abort();

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[FDN_ATOM_BYTES + 1], print[64];
    const uint8_t *bytes;
    size_t len, elements = 0;
    int64_t number;
    bool flag;
    struct fdn_etf x;
    long n = fdn_etf_skip(data, size);
    REQUIRE(n <= (long)size);
    if (n <= 0)
        return 0;
    /* What passed passes again, alone, and no shorter beginning does. */
    struct fdn_etf t = {data, (size_t)n};
    REQUIRE(fdn_etf_skip(data, (size_t)n) == n);
    REQUIRE(fdn_etf_skip(data, (size_t)n - 1) < 0);
    fdn_etf_print(t, print, sizeof print);
    REQUIRE(strlen(print) < sizeof print);
    (void)fdn_etf_atom(t, text);
    (void)fdn_etf_int(t, &number);
    (void)fdn_etf_bool(t, &flag);
    (void)fdn_etf_binary(t, &bytes, &len);
    (void)fdn_etf_node(t, text);
    (void)fdn_etf_map_get(t, "group", &x);
    for (struct fdn_etf_iter it = fdn_etf_list(t); fdn_etf_next(&it, &x);)
        elements += x.n;
    for (struct fdn_etf_iter it = fdn_etf_map(t); fdn_etf_next(&it, &x);)
        elements += x.n;
    REQUIRE(elements <= t.n);
    if (fdn_etf_is_ref(t)) {
        erlang_ref ref;
        int index = 0;
        (void)ei_decode_ref((const char *)t.p, &index, &ref);
        REQUIRE((size_t)index <= t.n);
    }
    struct fdn_spec spec;
    struct fdn_badarg why;
    if (fdn_spec_parse(t, &spec, &why)) {
        REQUIRE(spec.group_count >= 1 && spec.group_count <= FDN_SPEC_GROUPS);
        REQUIRE(spec.policy.failures >= 1 && spec.policy.failures <= FDN_POLICY_MAX_FAILURES);
    } else {
        REQUIRE(why.reason && (why.key || why.given.n > 0));
    }
    return 0;
}
