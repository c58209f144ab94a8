/*
 * cli.h - foundation-flags, the command line over a flag file. It needs no Erlang: it works with every VM down.
 *
 * main.c reads the command line, commands.c does what it says, output.c writes text or JSON.
 */
#ifndef FDN_CLI_H
#define FDN_CLI_H

#include <jansson.h>
#include <stdbool.h>

#include "shared/flag_map.h"

enum { CLI_DONE = 0, CLI_REFUSED = 1, CLI_USAGE = 2, CLI_FILE = 3 };

typedef struct {
    const char *file;
    bool json;
} cli_options;

typedef struct {
    const char *name;
    const char *arguments;
    int min, max; /* how many */
    int (*run)(const cli_options *o, int argc, char **argv);
    const char *help;
} cli_command;

/* The commands, ended by one without a name. */
extern const cli_command cli_commands[];

/* What was printed has arrived: CLI_DONE, or CLI_FILE where standard output does not take it, said on standard error. */
int cli_flush(void);

/* A line of text, or with --json one JSON value in one line; takes the value over. CLI_FILE where standard output takes it not. */
int cli_print(const cli_options *o, json_t *value, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* On standard error, or with --json as {"error": word, "message": text} on standard output. Returns `exit_code`. */
int cli_fail(const cli_options *o, int exit_code, const char *word, const char *format, ...) __attribute__((format(printf, 4, 5)));

/* true, false or N%. */
const char *cli_value_text(fdn_flag_value value, char buf[8]);
json_t *cli_value_json(fdn_flag_value value);
bool cli_value_parse(const char *text, fdn_flag_value *value);

#endif
