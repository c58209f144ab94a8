/* A trip: the file first, then the audit line, then the nodes; and what stands in its way does not stop it. */
#include <check.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fdn_alloc.h"
#include "base/fdn_error.h"
#include "c_node/sentinel.h"
#include "test/c/support.h"

#define PEER "peer@localhost"

static struct fdn_sentinel *s;
static struct fdn_flags *witness;
static char dir[128], flags_path[160];
static int peer_fd;

/* What the sink saw, and how the world was when the audit line came. */
static char lines[8192];
static bool off_at_audit, told_at_audit;
static int audits;

static bool rolled_back(const char *group)
{
    uint64_t epoch;
    bool is;
    ck_assert_int_eq(fdn_flags_group_state(witness, group, &epoch, &is), 0);
    return is;
}

static bool told(void)
{
    struct pollfd fd = {.fd = peer_fd, .events = POLLIN};
    return poll(&fd, 1, 0) == 1;
}

static bool sink(enum fdn_log_level level, const char *event, const char *detail, void *arg)
{
    size_t n = strlen(lines);
    snprintf(lines + n, sizeof lines - n, "%s %s\n", event, detail);
    if (strcmp(event, "audit") == 0) {
        audits++;
        off_at_audit = rolled_back("g");
        told_at_audit = told();
    }
    return true;
}

static char *copy(const char *text)
{
    char *p = fdn_malloc(strlen(text) + 1);
    ck_assert_ptr_nonnull(p);
    strcpy(p, text);
    return p;
}

static void setup_with(const char *audit_file)
{
    struct fdn_config conf;
    int pair[2];
    signal(SIGPIPE, SIG_IGN);
    lines[0] = 0;
    audits = 0;
    support_tmpdir(dir, sizeof dir);
    support_path(flags_path, sizeof flags_path, dir, "flags");
    ck_assert_int_eq(fdn_flags_open(&witness, flags_path, FDN_FLAGS_CREATE), 0);
    ck_assert_int_eq(fdn_flags_declare(witness, "f", "g", true, 1, NULL), 0);
    ck_assert_int_eq(fdn_flags_declare(witness, "f2", "g2", true, 1, NULL), 0);

    fdn_config_init(&conf);
    strcpy(conf.node, "us@localhost");
    strcpy(conf.cookie, "cookie");
    conf.nodes = fdn_calloc(1, sizeof *conf.nodes);
    if (!conf.nodes)
        abort();
    strcpy(conf.nodes[0], PEER);
    conf.node_count = 1;
    conf.flags_file = copy(flags_path);
    conf.audit_file = audit_file ? copy(audit_file) : NULL;
    s = fdn_calloc(1, sizeof *s);
    s->log.sink = sink;
    ck_assert_int_eq(fdn_sentinel_init(s, &conf), 0);
    /* A node that is up, with us at the other end. */
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    s->nodes[0]->fd = pair[0];
    s->nodes[0]->state = FDN_NODE_UP;
    peer_fd = pair[1];
}

static void setup(void)
{
    setup_with(NULL);
}

static void teardown(void)
{
    close(peer_fd);
    fdn_sentinel_free(s);
    fdn_free(s);
    fdn_flags_close(witness);
    support_rmtree(dir);
}

/* {foundation_sentinel, rolled_back, Group, Epoch, Reason, Uuid} to foundation_flags. */
static void expect_message(const char *group, uint64_t epoch, const char *reason)
{
    uint8_t bytes[1024];
    struct fdn_etf e[6];
    const uint8_t *text;
    size_t len;
    int64_t n;
    ck_assert_int_eq(read(peer_fd, bytes, 4), 4);
    size_t size = (size_t)bytes[2] << 8 | bytes[3];
    ck_assert_int_eq(read(peer_fd, bytes, size), (ssize_t)size);
    struct fdn_frame f = {bytes, size, size};
    struct fdn_control c = fdn_control_parse(&f);
    ck_assert_int_eq(c.kind, FDN_CTL_REG_SEND);
    ck_assert(fdn_etf_is_atom(c.to, "foundation_flags") && fdn_etf_equal(c.from, s->self));
    ck_assert(fdn_etf_tuple(c.message, 6, e));
    ck_assert(fdn_etf_is_atom(e[0], "foundation_sentinel") && fdn_etf_is_atom(e[1], "rolled_back"));
    ck_assert(fdn_etf_is_atom(e[2], group));
    ck_assert(fdn_etf_int(e[3], &n) && (uint64_t)n == epoch);
    ck_assert(fdn_etf_binary(e[4], &text, &len) && len == strlen(reason) && memcmp(text, reason, len) == 0);
    uint8_t uuid[16];
    fdn_flags_uuid(witness, uuid);
    ck_assert(fdn_etf_binary(e[5], &text, &len) && len == 16 && memcmp(text, uuid, 16) == 0);
}

START_TEST(file_then_audit_then_nodes)
{
    uint64_t epoch = 0;
    ck_assert_int_eq(fdn_trip_rollback(s, "g", "why", "who", &epoch), 0);
    ck_assert_int_eq(audits, 1);
    ck_assert(off_at_audit);
    ck_assert(!told_at_audit);
    expect_message("g", epoch, "why");
    ck_assert(!rolled_back("g2"));
}
END_TEST

static struct fdn_watch *watch(const char *const *groups, int n)
{
    ei_x_buff x;
    struct fdn_badarg why;
    char text[FDN_ATOM_BYTES + 1];
    ei_x_new(&x);
    fdn_etf_put_atom(&x, "w");
    size_t id = (size_t)x.index;
    ei_x_encode_map_header(&x, 3);
    fdn_etf_put_atom(&x, "process");
    fdn_etf_put_atom(&x, "victim");
    fdn_etf_put_atom(&x, "node");
    fdn_etf_put_atom(&x, PEER);
    fdn_etf_put_atom(&x, "group");
    ei_x_encode_list_header(&x, n);
    for (int i = 0; i < n; i++)
        fdn_etf_put_atom(&x, groups[i]);
    ei_x_encode_empty_list(&x);
    struct fdn_etf id_term = {(uint8_t *)x.buff, id};
    ck_assert_int_eq(fdn_monitor_watch(s, NULL, id_term, (struct fdn_etf){(uint8_t *)x.buff + id, (size_t)x.index - id}, &why, text),
                     0);
    struct fdn_watch *w = fdn_monitor_find(s, id_term);
    ei_x_free(&x);
    return w;
}

/* The monitor that the watch sends when its node is up. */
static void drop_monitor(void)
{
    uint8_t bytes[1024];
    ck_assert_int_gt(read(peer_fd, bytes, sizeof bytes), 0);
}

/* Every group is off before the first line about any of them. */
START_TEST(all_groups_before_any_line)
{
    static const char *const groups[] = {"g2", "g"};
    struct fdn_watch *w = watch(groups, 2);
    drop_monitor();
    fdn_trip_watch(s, w, false, "boom");
    ck_assert_int_eq(audits, 2);
    ck_assert(off_at_audit && !told_at_audit);
    ck_assert(rolled_back("g") && rolled_back("g2"));
    expect_message("g2", 2, "watch w: boom");
    expect_message("g", 2, "watch w: boom");
    fdn_trip_watch(s, w, false, "boom");
    ck_assert(!told());
    ck_assert(strstr(lines, "already_rolled_back group=g "));
}
END_TEST

START_TEST(dry_run)
{
    static const char *const groups[] = {"g"};
    struct fdn_watch *w = watch(groups, 1);
    drop_monitor();
    fdn_trip_watch(s, w, true, "boom");
    ck_assert_int_eq(audits, 1);
    ck_assert(!rolled_back("g") && !told());
}
END_TEST

/* An audit that cannot be written does not stop the rollback, and is reported. */
START_TEST(full_disk)
{
    uint64_t epoch;
    setup_with("/dev/full");
    ck_assert_int_eq(fdn_trip_rollback(s, "g", "why", "who", &epoch), 0);
    ck_assert(strstr(lines, "audit_failed"));
    ck_assert_int_eq(audits, 1); /* the line is in the log instead */
    ck_assert(off_at_audit);
    expect_message("g", epoch, "why");
    ck_assert_int_eq(fdn_trip_rearm(s, "g", epoch, "who"), 0);
    ck_assert(!strstr(strstr(lines, "audit_failed") + 1, "audit_failed")); /* said once */
    teardown();
}
END_TEST

/* Somebody has put another flag file in the place of ours. */
START_TEST(replaced_file)
{
    uint64_t epoch;
    char other[160];
    struct fdn_flags *theirs;
    support_path(other, sizeof other, dir, "other");
    ck_assert_int_eq(fdn_flags_open(&theirs, other, FDN_FLAGS_CREATE), 0);
    ck_assert_int_eq(fdn_flags_declare(theirs, "f", "g", true, 1, NULL), 0);
    ck_assert_int_eq(rename(other, flags_path), 0);
    ck_assert_int_eq(fdn_trip_rollback(s, "g", "why", "who", &epoch), 0);
    fdn_flags_close(witness);
    witness = theirs;
    ck_assert(rolled_back("g"));
    ck_assert(strstr(lines, "was replaced or damaged; opened again"));
}
END_TEST

/* The same where the old file says that there is nothing left to do. */
START_TEST(replaced_after_a_rollback)
{
    static const char *const groups[] = {"g"};
    uint64_t epoch;
    char other[160];
    struct fdn_flags *theirs;
    struct fdn_watch *w = watch(groups, 1);
    ck_assert_int_eq(fdn_trip_rollback(s, "g", "why", "who", &epoch), 0);
    support_path(other, sizeof other, dir, "other");
    ck_assert_int_eq(fdn_flags_open(&theirs, other, FDN_FLAGS_CREATE), 0);
    ck_assert_int_eq(fdn_flags_declare(theirs, "f", "g", true, 1, NULL), 0);
    ck_assert_int_eq(rename(other, flags_path), 0);
    fdn_flags_close(witness);
    witness = theirs;
    fdn_trip_watch(s, w, false, "boom");
    ck_assert(rolled_back("g"));
}
END_TEST

/* A re-arm is for the file that stands there now. */
START_TEST(replaced_before_a_rearm)
{
    uint64_t epoch, epoch2;
    char other[160];
    struct fdn_flags *theirs;
    ck_assert_int_eq(fdn_trip_rollback(s, "g", "why", "who", &epoch), 0);
    support_path(other, sizeof other, dir, "other");
    ck_assert_int_eq(fdn_flags_open(&theirs, other, FDN_FLAGS_CREATE), 0);
    ck_assert_int_eq(fdn_flags_declare(theirs, "f", "g", true, 1, NULL), 0);
    ck_assert_int_eq(fdn_flags_flip(theirs, "g", "why", "who", &epoch2), 0);
    ck_assert_int_eq(rename(other, flags_path), 0);
    fdn_flags_close(witness);
    witness = theirs;
    ck_assert_int_eq(fdn_trip_rearm(s, "g", epoch2, "who"), 0);
    ck_assert(!rolled_back("g"));
}
END_TEST

START_TEST(unknown_group)
{
    uint64_t epoch;
    ck_assert_int_eq(fdn_trip_rollback(s, "nowhere", "why", "who", &epoch), FDN_EUNKNOWN);
    ck_assert_int_eq(audits, 0);
    ck_assert(!told());
}
END_TEST

/* A node that comes up is told of rollbacks in force, and not of those that were re-armed. */
START_TEST(replay)
{
    uint64_t epoch, epoch2;
    ck_assert_int_eq(fdn_trip_rollback(s, "g", "why", "who", &epoch), 0);
    ck_assert_int_eq(fdn_trip_rollback(s, "g2", "too", "who", &epoch2), 0);
    expect_message("g", epoch, "why");
    expect_message("g2", epoch2, "too");
    ck_assert_int_eq(fdn_trip_rearm(s, "g", epoch, "who"), 0);
    fdn_trip_replay(s, s->nodes[0]);
    expect_message("g2", epoch2, "too");
    ck_assert(!told());
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("trip");
    TCase *t = tcase_create("trip");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, file_then_audit_then_nodes);
    tcase_add_test(t, all_groups_before_any_line);
    tcase_add_test(t, dry_run);
    tcase_add_test(t, replaced_file);
    tcase_add_test(t, replaced_after_a_rollback);
    tcase_add_test(t, replaced_before_a_rearm);
    tcase_add_test(t, unknown_group);
    tcase_add_test(t, replay);
    suite_add_tcase(suite, t);
    TCase *own = tcase_create("own set-up");
    tcase_add_test(own, full_disk);
    suite_add_tcase(suite, own);
    return support_run(suite);
}
