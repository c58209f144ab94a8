/* Any text as a configuration file: an error with a place, or a configuration. */
#include <stdlib.h>
#include <string.h>

#include "base/fdn_alloc.h"
#include "c_node/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fdn_config c;
    struct fdn_config_error e = {""};
    char *cookie_file = NULL;
    fdn_config_init(&c);
    bool ok = fdn_config_read_json(&c, "config", (const char *)data, size, &cookie_file, &e);
    if (!ok && !strchr(e.text, ':'))
        abort();
    (void)fdn_config_complete(&c, &e);
    fdn_free(cookie_file);
    fdn_config_free(&c);
    return 0;
}
