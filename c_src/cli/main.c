/* foundation-flags: see cli.h. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fdn_file.h"
#include "cli/cli.h"

static void help(FILE *to)
{
    fputs("usage: foundation-flags [--file PATH] [--json] COMMAND\n\n", to);
    for (const cli_command *c = cli_commands; c->name; c++)
        if (c->help) {
            char usage[80];
            snprintf(usage, sizeof usage, "%s %s", c->name, c->arguments);
            fprintf(to, "  %-30s %s\n", usage, c->help);
        }
    fputs("\n"
          "  --file PATH   the flag file; else the environment's FOUNDATION_FLAGS_FILE\n"
          "  --json        JSON on standard output, one value a line; errors as {\"error\": WORD, \"message\": TEXT}\n"
          "  --help --version\n\n"
          "Exit status: 0 done, 1 refused or unknown, 2 usage, 3 the file cannot be used.\n",
          to);
}

static int usage(void)
{
    fputs("Try 'foundation-flags --help'.\n", stderr);
    return CLI_USAGE;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"file", required_argument, NULL, 'f'},
        {"json", no_argument, NULL, 'j'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    cli_options o = {getenv("FOUNDATION_FLAGS_FILE"), false};
    int c;
    if (fdn_file_hold_standard() != 0)
        return CLI_FILE;
    while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
        switch (c) {
        case 'f':
            o.file = optarg;
            break;
        case 'j':
            o.json = true;
            break;
        case 'h':
            help(stdout);
            return cli_flush();
        case 'v':
            puts("foundation-flags " FDN_VERSION);
            return cli_flush();
        default:
            return usage();
        }
    }
    if (optind == argc) {
        help(stderr);
        return CLI_USAGE;
    }
    const char *name = argv[optind];
    int given = argc - optind - 1;
    const cli_command *command = cli_commands;
    while (command->name && strcmp(command->name, name) != 0)
        command++;
    if (command->name == NULL)
        return cli_fail(&o, CLI_USAGE, "usage", "no command '%s'; try 'foundation-flags --help'", name);
    if (given < command->min || given > command->max)
        return cli_fail(&o, CLI_USAGE, "usage", "usage: foundation-flags %s %s", command->name, command->arguments);
    if (command->help && (o.file == NULL || *o.file == '\0'))
        return cli_fail(&o, CLI_USAGE, "usage", "which file? Give --file PATH or set FOUNDATION_FLAGS_FILE");
    return command->run(&o, given, argv + optind + 1);
}
