#include "c_node/policy.h"

#include "base/fdn_alloc.h"
#include "base/fdn_error.h"

void fdn_policy_defaults(struct fdn_policy_conf *conf, bool of_node)
{
    *conf = (struct fdn_policy_conf){
        .failures = of_node ? 1 : 3,
        .window_ms = of_node ? 60000 : 10000,
        .outages = of_node,
        .down_after_ms = 10000,
        .abnormal_only = true,
    };
}

int fdn_policy_init(struct fdn_policy *p, const struct fdn_policy_conf *conf, uint64_t now)
{
    *p = (struct fdn_policy){
        .conf = *conf,
        .times = fdn_calloc(conf->failures, sizeof *p->times),
        .grace_until = now + conf->grace_ms,
        .lost_at = FDN_NEVER,
        .probe_next = FDN_NEVER,
        .probe_deadline = FDN_NEVER,
    };
    return p->times ? 0 : FDN_ENOMEM;
}

void fdn_policy_free(struct fdn_policy *p)
{
    fdn_free(p->times);
    p->times = NULL;
}

static enum fdn_verdict trip(struct fdn_policy *p, uint64_t now)
{
    p->count = 0;
    p->quiet_until = now + p->conf.cooldown_ms;
    p->trips++;
    return p->conf.dry_run ? FDN_TRIP_DRY : FDN_TRIP;
}

static bool suspended(const struct fdn_policy *p, uint64_t now)
{
    return now < p->grace_until || now < p->quiet_until;
}

static enum fdn_verdict failure(struct fdn_policy *p, uint64_t now)
{
    const uint32_t k = p->conf.failures;
    p->total_failures++;
    if (suspended(p, now))
        return FDN_QUIET;
    if (p->count == k)
        p->oldest = (p->oldest + 1) % k, p->count--;
    p->times[(p->oldest + p->count++) % k] = now;
    if (p->count == k && now - p->times[p->oldest] < p->conf.window_ms)
        return trip(p, now);
    return FDN_COUNTED;
}

enum fdn_verdict fdn_policy_exit(struct fdn_policy *p, bool abnormal, uint64_t now)
{
    return abnormal || !p->conf.abnormal_only ? failure(p, now) : FDN_QUIET;
}

void fdn_policy_found(struct fdn_policy *p, uint64_t now)
{
    p->lost_at = FDN_NEVER;
    p->outage = false;
    p->missed = 0;
    p->hung = false;
    p->probe_deadline = FDN_NEVER;
    p->probe_next = p->conf.probe_misses ? now : FDN_NEVER;
    if (p->grace_until < now + p->conf.grace_ms)
        p->grace_until = now + p->conf.grace_ms;
}

void fdn_policy_lost(struct fdn_policy *p, uint64_t now)
{
    if (p->lost_at == FDN_NEVER)
        p->lost_at = now;
    p->probe_next = p->probe_deadline = FDN_NEVER;
}

enum fdn_verdict fdn_policy_dead(struct fdn_policy *p, uint64_t now)
{
    fdn_policy_lost(p, now);
    if (!p->conf.outages || p->outage)
        return FDN_QUIET;
    p->outage = true;
    return failure(p, now);
}

void fdn_policy_alive(struct fdn_policy *p, uint64_t now)
{
    if (p->probe_deadline == FDN_NEVER)
        return;
    p->probe_deadline = FDN_NEVER;
    p->missed = 0;
    p->hung = false;
    uint64_t next = p->probe_sent + p->conf.probe_every_ms;
    p->probe_next = next > now ? next : now;
}

static uint64_t outage_due(const struct fdn_policy *p)
{
    return p->conf.outages && !p->outage && p->lost_at != FDN_NEVER ? p->lost_at + p->conf.down_after_ms : FDN_NEVER;
}

uint64_t fdn_policy_due(const struct fdn_policy *p)
{
    uint64_t due = outage_due(p);
    if (p->probe_next < due)
        due = p->probe_next;
    return p->probe_deadline < due ? p->probe_deadline : due;
}

enum fdn_verdict fdn_policy_tick(struct fdn_policy *p, uint64_t now, bool *probe)
{
    enum fdn_verdict verdict = FDN_QUIET;
    *probe = false;
    if (outage_due(p) <= now)
        return fdn_policy_dead(p, now);
    if (p->probe_deadline <= now) {
        /* The next one goes out at once; only after an answer is there a pause. */
        p->probe_deadline = FDN_NEVER;
        p->probe_next = now;
        if (++p->missed >= p->conf.probe_misses && !p->hung) {
            p->hung = true;
            p->total_failures++;
            if (!suspended(p, now))
                verdict = trip(p, now);
        }
    }
    if (p->probe_next <= now) {
        *probe = true;
        p->probe_next = FDN_NEVER;
        p->probe_sent = now;
        p->probe_deadline = now + p->conf.probe_timeout_ms;
    }
    return verdict;
}

void fdn_policy_resume(struct fdn_policy *p, uint64_t now)
{
    if (p->lost_at != FDN_NEVER)
        p->lost_at = now;
    if (p->probe_deadline != FDN_NEVER)
        p->probe_deadline = now + p->conf.probe_timeout_ms;
    p->missed = 0;
}

uint32_t fdn_policy_recent(const struct fdn_policy *p, uint64_t now)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < p->count; i++)
        n += now - p->times[(p->oldest + i) % p->conf.failures] < p->conf.window_ms;
    return n;
}
