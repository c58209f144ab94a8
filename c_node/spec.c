#include "c_node/spec.h"

#include <string.h>

static bool refuse(struct fdn_badarg *why, const char *key, const char *reason)
{
    *why = (struct fdn_badarg){.key = key, .reason = reason};
    return false;
}

static bool in_range(struct fdn_etf v, uint64_t low, uint64_t high, uint64_t *out)
{
    int64_t n;
    if (!fdn_etf_int(v, &n) || n < 0 || (uint64_t)n < low || (uint64_t)n > high)
        return false;
    *out = (uint64_t)n;
    return true;
}

static bool parse_probe(struct fdn_etf map, struct fdn_policy_conf *conf, struct fdn_badarg *why)
{
    struct fdn_etf k, v;
    uint64_t misses = 3;
    struct fdn_etf_iter it = fdn_etf_map(map);
    if (!it.ok)
        return refuse(why, "probe", "not_a_map");
    conf->probe_every_ms = 1000;
    conf->probe_timeout_ms = 1000;
    while (fdn_etf_next(&it, &k) && fdn_etf_next(&it, &v)) {
        if (fdn_etf_is_atom(k, "every")) {
            if (!in_range(v, 1, FDN_POLICY_MAX_MS, &conf->probe_every_ms))
                return refuse(why, "every", "not_milliseconds");
        } else if (fdn_etf_is_atom(k, "timeout")) {
            if (!in_range(v, 1, FDN_POLICY_MAX_MS, &conf->probe_timeout_ms))
                return refuse(why, "timeout", "not_milliseconds");
        } else if (fdn_etf_is_atom(k, "misses")) {
            if (!in_range(v, 1, 1000, &misses))
                return refuse(why, "misses", "not_a_count");
        } else {
            *why = (struct fdn_badarg){.given = k, .reason = "unknown"};
            return false;
        }
    }
    conf->probe_misses = (uint32_t)misses;
    return true;
}

static bool parse_failures(struct fdn_etf v, struct fdn_policy_conf *conf, struct fdn_badarg *why)
{
    struct fdn_etf pair[2];
    uint64_t k;
    if (!fdn_etf_tuple(v, 2, pair) || !in_range(pair[0], 1, FDN_POLICY_MAX_FAILURES, &k) ||
        !in_range(pair[1], 1, FDN_POLICY_MAX_MS, &conf->window_ms))
        return refuse(why, "failures", "not_count_and_milliseconds");
    conf->failures = (uint32_t)k;
    return true;
}

static bool parse_policy(struct fdn_etf map, struct fdn_policy_conf *conf, struct fdn_badarg *why)
{
    static const char *const later[] = {"metrics", "severity", "signature"};
    struct fdn_etf k, v;
    struct fdn_etf_iter it = fdn_etf_map(map);
    if (!it.ok)
        return refuse(why, "policy", "not_a_map");
    while (fdn_etf_next(&it, &k) && fdn_etf_next(&it, &v)) {
        if (fdn_etf_is_atom(k, "failures")) {
            if (!parse_failures(v, conf, why))
                return false;
        } else if (fdn_etf_is_atom(k, "down_after")) {
            if (!in_range(v, 0, FDN_POLICY_MAX_MS, &conf->down_after_ms))
                return refuse(why, "down_after", "not_milliseconds");
            conf->outages = true;
        } else if (fdn_etf_is_atom(k, "grace")) {
            if (!in_range(v, 0, FDN_POLICY_MAX_MS, &conf->grace_ms))
                return refuse(why, "grace", "not_milliseconds");
        } else if (fdn_etf_is_atom(k, "cooldown")) {
            if (!in_range(v, 0, FDN_POLICY_MAX_MS, &conf->cooldown_ms))
                return refuse(why, "cooldown", "not_milliseconds");
        } else if (fdn_etf_is_atom(k, "dry_run")) {
            if (!fdn_etf_bool(v, &conf->dry_run))
                return refuse(why, "dry_run", "not_a_boolean");
        } else if (fdn_etf_is_atom(k, "abnormal_only")) {
            if (!fdn_etf_bool(v, &conf->abnormal_only))
                return refuse(why, "abnormal_only", "not_a_boolean");
        } else if (fdn_etf_is_atom(k, "probe")) {
            if (!parse_probe(v, conf, why))
                return false;
        } else {
            *why = (struct fdn_badarg){.given = k, .reason = "unknown"};
            for (size_t i = 0; i < sizeof later / sizeof *later; i++)
                if (fdn_etf_is_atom(k, later[i]))
                    why->reason = "not_supported";
            return false;
        }
    }
    return true;
}

static bool parse_groups(struct fdn_etf v, struct fdn_spec *spec, struct fdn_badarg *why)
{
    char name[FDN_ATOM_BYTES + 1];
    struct fdn_etf g;
    spec->group_count = 0;
    if (fdn_etf_atom(v, name)) {
        spec->groups[spec->group_count++] = v;
        return true;
    }
    struct fdn_etf_iter it = fdn_etf_list(v);
    if (!it.ok || it.left == 0)
        return refuse(why, "group", "not_an_atom_or_list");
    if (it.left > FDN_SPEC_GROUPS)
        return refuse(why, "group", "too_many");
    while (fdn_etf_next(&it, &g)) {
        if (!fdn_etf_atom(g, name))
            return refuse(why, "group", "not_an_atom_or_list");
        spec->groups[spec->group_count++] = g;
    }
    return true;
}

bool fdn_spec_parse(struct fdn_etf map, struct fdn_spec *spec, struct fdn_badarg *why)
{
    char text[FDN_ATOM_BYTES + 1], name[FDN_ATOM_BYTES + 1];
    struct fdn_etf k, v, policy = {NULL, 0};
    struct fdn_etf_iter it = fdn_etf_map(map);
    *spec = (struct fdn_spec){.group_count = 0};
    if (!it.ok)
        return refuse(why, "spec", "not_a_map");
    while (fdn_etf_next(&it, &k) && fdn_etf_next(&it, &v)) {
        if (fdn_etf_is_atom(k, "process")) {
            if (!fdn_etf_is_pid(v) && !fdn_etf_atom(v, text))
                return refuse(why, "process", "not_an_atom_or_pid");
            spec->process = v;
        } else if (fdn_etf_is_atom(k, "node")) {
            if (!fdn_etf_atom(v, text))
                return refuse(why, "node", "not_an_atom");
            spec->node = v;
        } else if (fdn_etf_is_atom(k, "group")) {
            if (!parse_groups(v, spec, why))
                return false;
        } else if (fdn_etf_is_atom(k, "policy")) {
            policy = v;
        } else {
            *why = (struct fdn_badarg){.given = k, .reason = "unknown"};
            return false;
        }
    }
    if (spec->group_count == 0)
        return refuse(why, "group", "missing");
    if (fdn_etf_is_pid(spec->process)) {
        /* A pid knows its node; a different one given beside it is a mistake of the caller. */
        if (!fdn_etf_node(spec->process, text) || (spec->node.n > 0 && fdn_etf_atom(spec->node, name) && strcmp(text, name) != 0))
            return refuse(why, "node", "not_the_node_of_the_pid");
    }
    fdn_policy_defaults(&spec->policy, spec->process.n == 0);
    return policy.n == 0 || parse_policy(policy, &spec->policy, why);
}
