#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"

int cli_flush(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return CLI_DONE;
    perror("foundation-flags: standard output");
    return CLI_FILE;
}

static int print_json(json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    json_decref(value);
    if (text == NULL) {
        fputs("foundation-flags: out of memory\n", stderr);
        return CLI_FILE;
    }
    puts(text);
    free(text);
    return cli_flush();
}

int cli_print(const cli_options *o, json_t *value, const char *format, ...)
{
    if (o->json)
        return print_json(value);
    json_decref(value);
    va_list args;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    return cli_flush();
}

int cli_fail(const cli_options *o, int exit_code, const char *word, const char *format, ...)
{
    char message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (!o->json) {
        fprintf(stderr, "foundation-flags: %s\n", message);
        return exit_code;
    }
    json_t *text = json_string(message);
    if (text == NULL) /* a path or an argument that is no UTF-8 */
        text = json_string(word);
    int rc = print_json(json_pack("{s:s, s:o}", "error", word, "message", text));
    return rc == CLI_DONE ? exit_code : rc;
}

const char *cli_value_text(fdn_flag_value value, char buf[8])
{
    if ((value & FDN_FLAG_KIND_MASK) != FDN_FLAG_PERCENTAGE)
        return value == FDN_FLAG_TRUE ? "true" : "false";
    snprintf(buf, 8, "%u%%", (unsigned)(value & FDN_FLAG_PERCENT_MASK));
    return buf;
}

json_t *cli_value_json(fdn_flag_value value)
{
    if ((value & FDN_FLAG_KIND_MASK) == FDN_FLAG_PERCENTAGE)
        return json_pack("{s:i}", "percentage", value & FDN_FLAG_PERCENT_MASK);
    return json_boolean(value == FDN_FLAG_TRUE);
}

bool cli_value_parse(const char *text, fdn_flag_value *value)
{
    size_t digits = strspn(text, "0123456789");
    if (strcmp(text, "true") == 0)
        *value = FDN_FLAG_TRUE;
    else if (strcmp(text, "false") == 0)
        *value = FDN_FLAG_FALSE;
    else if (digits >= 1 && digits <= 3 && strcmp(text + digits, "%") == 0 && strtoul(text, NULL, 10) <= 100)
        *value = (fdn_flag_value)(FDN_FLAG_PERCENTAGE | strtoul(text, NULL, 10));
    else
        return false;
    return true;
}
