#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fdn_error.h"
#include "cli/cli.h"

/* ---- helpers -----------------------------------------------------------------------------------------------------------------------
 */

static const char *explain(int rc)
{
    switch (rc) {
    case FDN_EFOREIGN:
        return "not a flag file";
    case FDN_EVERSION:
        return "a flag file of a format that this version does not read";
    case FDN_ECORRUPT:
        return "damaged: a checksum or an invariant does not hold";
    case FDN_EOWNER:
        return "the file or its folder belongs to another user";
    case FDN_EMODE:
        return "the file or its folder can be written by group or others";
    case FDN_EFAULTED:
        return "truncated or overwritten while in use";
    case FDN_EUNKNOWN:
        return "unknown";
    case FDN_EROLLEDBACK:
        return "the group is rolled back; rearm it first";
    case FDN_ESTALE:
        return "not the group's current epoch";
    case FDN_ENOTROLLEDBACK:
        return "the group is not rolled back";
    case FDN_EREADONLY:
        return "the file is mapped for reading only";
    default:
        return rc > 0 ? strerror(rc) : fdn_error_name(rc);
    }
}

/* Failures of the file, as opposed to refusals of what was asked for. */
static int exit_code(int rc)
{
    switch (rc) {
    case FDN_EUNKNOWN:
    case FDN_EROLLEDBACK:
    case FDN_ESTALE:
    case FDN_ENOTROLLEDBACK:
        return CLI_REFUSED;
    default:
        return CLI_FILE;
    }
}

/* `kind` is "flag" or "group": what `what` names. */
static int failed(const cli_options *o, const char *kind, const char *what, int rc)
{
    char word[32];
    if (rc != FDN_EUNKNOWN)
        return cli_fail(o, exit_code(rc), fdn_error_name(rc), "%s: %s", what, explain(rc));
    snprintf(word, sizeof word, "unknown_%s", kind);
    return cli_fail(o, CLI_REFUSED, word, "%s: no such %s in this file", what, kind);
}

static int open_file(const cli_options *o, unsigned mode, fdn_flags **f)
{
    int rc = fdn_flags_open(f, o->file, mode);
    if (rc == 0)
        return CLI_DONE;
    cli_fail(o, CLI_FILE, fdn_error_name(rc), "%s: %s", o->file, explain(rc));
    return CLI_FILE;
}

/* Who did it, as it is noted in the file. */
static void who_am_i(char *buf, size_t size)
{
    const struct passwd *user = getpwuid(geteuid());
    if (user)
        snprintf(buf, size, "%.20s (foundation-flags)", user->pw_name);
    else
        snprintf(buf, size, "uid %u (foundation-flags)", (unsigned)geteuid());
}

static const char *state_of(const fdn_flag_group *g)
{
    return g->rolled_back ? "rolled_back" : "armed";
}

typedef struct {
    fdn_flag_info flag;
    fdn_flag_group group;
} row;

static int read_row(fdn_flags *f, uint32_t index, row *r)
{
    int rc = fdn_flags_at(f, index, &r->flag);
    return rc == 0 ? fdn_flags_group_at(f, r->flag.group, &r->group) : rc;
}

static json_t *row_json(const row *r)
{
    return json_pack("{s:s, s:o, s:s, s:s, s:I}", "flag", r->flag.name, "value", cli_value_json(r->flag.value), "group", r->group.name,
                     "state", state_of(&r->group), "epoch", (json_int_t)r->group.epoch);
}

/* ---- commands ----------------------------------------------------------------------------------------------------------------------
 */

static int list_flags(const cli_options *o, fdn_flags *f)
{
    json_t *all = o->json ? json_array() : NULL;
    uint32_t count = fdn_flags_count(f);
    for (uint32_t i = 0; i < count; i++) {
        row r;
        char buf[8];
        int rc = read_row(f, i, &r);
        if (rc != 0) {
            json_decref(all);
            return failed(o, "flag", o->file, rc);
        }
        if (o->json)
            json_array_append_new(all, row_json(&r));
        else
            printf("%s\t%s\t%s\t%s\t%llu\n", r.flag.name, cli_value_text(r.flag.value, buf), r.group.name, state_of(&r.group),
                   (unsigned long long)r.group.epoch);
    }
    return cli_print(o, all, "%s", "");
}

static int run_list(const cli_options *o, int argc, char **argv)
{
    fdn_flags *f = NULL;
    int rc = open_file(o, FDN_FLAGS_READ_ONLY, &f);
    if (rc == CLI_DONE)
        rc = list_flags(o, f);
    fdn_flags_close(f);
    return rc;
}

static int run_get(const cli_options *o, int argc, char **argv)
{
    fdn_flags *f = NULL;
    uint32_t index = 0;
    row r;
    char buf[8];
    int rc = open_file(o, FDN_FLAGS_READ_ONLY, &f);
    if (rc != CLI_DONE)
        return rc;
    rc = fdn_flags_find(f, argv[0], &index);
    if (rc == 0)
        rc = read_row(f, index, &r);
    if (rc != 0)
        rc = failed(o, "flag", argv[0], rc);
    else
        rc = cli_print(o, row_json(&r), "%s\n", cli_value_text(r.flag.value, buf));
    fdn_flags_close(f);
    return rc;
}

static int run_set(const cli_options *o, int argc, char **argv)
{
    fdn_flags *f = NULL;
    fdn_flag_value value;
    char buf[8];
    if (!cli_value_parse(argv[1], &value))
        return cli_fail(o, CLI_USAGE, "usage", "set %s: the value is true, false or a percentage from 0%% to 100%%, not '%s'", argv[0],
                        argv[1]);
    int rc = open_file(o, 0, &f);
    if (rc != CLI_DONE)
        return rc;
    rc = fdn_flags_set(f, argv[0], value);
    if (rc == 0)
        rc = fdn_flags_sync(f);
    if (rc != 0)
        rc = failed(o, "flag", argv[0], rc);
    else
        rc = cli_print(o, json_pack("{s:s, s:o}", "flag", argv[0], "value", cli_value_json(value)), "%s\t%s\n", argv[0],
                       cli_value_text(value, buf));
    fdn_flags_close(f);
    return rc;
}

/* Flip every group that is asked for before anything is synced or said. */
static int flip(fdn_flags *f, const char *group, const char *reason, json_t *epochs, int *first_error)
{
    char who[FDN_FLAG_WHO_MAX + 1];
    uint64_t epoch = 0;
    who_am_i(who, sizeof who);
    int rc = fdn_flags_flip(f, group, reason, who, &epoch);
    if (rc == 0)
        json_object_set_new(epochs, group, json_integer((json_int_t)epoch));
    else if (*first_error == 0)
        *first_error = rc;
    return rc;
}

static int rolled_back(const cli_options *o, const char *what, fdn_flags *f, json_t *epochs, int error)
{
    int synced = json_object_size(epochs) > 0 ? fdn_flags_sync(f) : 0;
    const char *group;
    json_t *epoch;
    int rc = CLI_DONE;
    if (!o->json) {
        json_object_foreach(epochs, group, epoch) printf("%s\trolled_back\t%lld\n", group, (long long)json_integer_value(epoch));
        rc = cli_print(o, NULL, "%s", "");
    } else if (json_object_size(epochs) > 0 || error == 0) {
        rc = cli_print(o, json_pack("{s:O, s:b}", "epochs", epochs, "synced", synced == 0), "%s", "");
    }
    if (error != 0)
        return failed(o, "group", what, error);
    if (synced != 0) {
        fprintf(stderr, "foundation-flags: %s: rolled back, in force, but not known to be on disk: %s\n", o->file, explain(synced));
        return CLI_FILE;
    }
    return rc;
}

static int run_rollback(const cli_options *o, int argc, char **argv)
{
    fdn_flags *f = NULL;
    int error = 0;
    int rc = open_file(o, 0, &f);
    if (rc != CLI_DONE)
        return rc;
    json_t *epochs = json_object();
    if (strcmp(argv[0], "--all") == 0) {
        uint32_t count = fdn_flags_group_count(f);
        for (uint32_t i = 0; i < count; i++) {
            fdn_flag_group g;
            int at = fdn_flags_group_at(f, i, &g);
            if (at == 0)
                flip(f, g.name, argv[1], epochs, &error);
            else if (error == 0)
                error = at;
        }
    } else {
        flip(f, argv[0], argv[1], epochs, &error);
    }
    rc = rolled_back(o, argv[0], f, epochs, error);
    json_decref(epochs);
    fdn_flags_close(f);
    return rc;
}

static int run_rearm(const cli_options *o, int argc, char **argv)
{
    fdn_flags *f = NULL;
    char who[FDN_FLAG_WHO_MAX + 1];
    char *end = NULL;
    errno = 0;
    unsigned long long epoch = strtoull(argv[1], &end, 10);
    if (argv[1][0] < '0' || argv[1][0] > '9' || *end != '\0' || errno != 0)
        return cli_fail(o, CLI_USAGE, "usage", "rearm %s: the epoch is a number as shown by 'list', not '%s'", argv[0], argv[1]);
    int rc = open_file(o, 0, &f);
    if (rc != CLI_DONE)
        return rc;
    who_am_i(who, sizeof who);
    rc = fdn_flags_rearm(f, argv[0], epoch, who);
    if (rc != 0)
        rc = failed(o, "group", argv[0], rc);
    else
        rc = cli_print(o, json_pack("{s:s, s:s, s:I}", "group", argv[0], "state", "armed", "epoch", (json_int_t)epoch),
                       "%s\tarmed\t%llu\n", argv[0], epoch);
    fdn_flags_close(f);
    return rc;
}

static int run_verify(const cli_options *o, int argc, char **argv)
{
    fdn_flags *f = NULL;
    int rc = open_file(o, FDN_FLAGS_READ_ONLY, &f); /* checks everything */
    if (rc != CLI_DONE)
        return rc;
    unsigned flags = fdn_flags_count(f), groups = fdn_flags_group_count(f), room = fdn_flags_capacity(f);
    rc = cli_print(o, json_pack("{s:b, s:i, s:i, s:i}", "sound", 1, "flags", (int)flags, "groups", (int)groups, "capacity", (int)room),
                   "sound: %u of %u flags in %u groups\n", flags, room, groups);
    fdn_flags_close(f);
    return rc;
}

static int not_yet(const cli_options *o, int argc, char **argv)
{
    return cli_fail(o, CLI_USAGE, "usage", "history and watch are not part of this version; list --json shows the state");
}

const cli_command cli_commands[] = {
    {"list", "", 0, 0, run_list, "every flag: name, value in force, group, armed or rolled_back, epoch"},
    {"get", "FLAG", 1, 1, run_get, "the value in force: true, false or N%"},
    {"set", "FLAG true|false|N%", 2, 2, run_set, "set a flag, for every process that has the file mapped"},
    {"rollback", "GROUP|--all REASON", 2, 2, run_rollback, "turn every flag of a group off, at once"},
    {"rearm", "GROUP EPOCH", 2, 2, run_rearm, "let the flags of a rolled-back group be set again"},
    {"verify", "", 0, 0, run_verify, "check every checksum of the file"},
    {"history", "", 0, 99, not_yet, NULL},
    {"watch", "", 0, 99, not_yet, NULL},
    {NULL, NULL, 0, 0, NULL, NULL},
};
