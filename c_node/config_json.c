/* The JSON form of the configuration: jansson parses; line and column of a wrong key are found again in the text. */
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/fdn_alloc.h"
#include "c_node/config.h"
#include "c_node/node.h"
#include "c_node/spec.h"

struct source {
    const char *name, *text;
    size_t len;
    struct fdn_config_error *e;
};

/* Line and column of the n-th (from 0) place where "word" stands as a JSON string; the beginning where there is none. */
static void locate(const struct source *src, const char *word, unsigned nth, unsigned *line, unsigned *column)
{
    size_t n = strlen(word);
    *line = *column = 1;
    for (size_t i = 0; i + n + 2 <= src->len; i++) {
        if (src->text[i] == '"' && memcmp(src->text + i + 1, word, n) == 0 && src->text[i + 1 + n] == '"' && nth-- == 0)
            return;
        if (src->text[i] == '\n') {
            ++*line;
            *column = 1;
        } else {
            ++*column;
        }
    }
    *line = *column = 1;
}

static bool wrong(const struct source *src, const char *word, unsigned nth, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static bool wrong(const struct source *src, const char *word, unsigned nth, const char *format, ...)
{
    unsigned line, column;
    va_list args;
    locate(src, word, nth, &line, &column);
    int n = snprintf(src->e->text, sizeof src->e->text, "%s:%u:%u: ", src->name, line, column);
    va_start(args, format);
    vsnprintf(src->e->text + n, sizeof src->e->text - (size_t)n, format, args);
    va_end(args);
    return false;
}

/* One scalar of JSON as a term: strings become atoms. */
static bool put_scalar(ei_x_buff *x, const json_t *v)
{
    if (json_is_string(v))
        return json_string_length(v) <= FDN_ATOM_BYTES && fdn_etf_put_atom(x, json_string_value(v));
    if (json_is_integer(v))
        return ei_x_encode_longlong(x, json_integer_value(v)) == 0;
    if (json_is_boolean(v))
        return fdn_etf_put_atom(x, json_is_true(v) ? "true" : "false");
    return false;
}

/* An object of scalars, arrays of scalars and objects one deep: what a watch is made of. */
static bool put_object(ei_x_buff *x, json_t *object, const char *skip, int depth)
{
    const char *key;
    json_t *value, *item;
    size_t size = json_object_size(object) - (skip && json_object_get(object, skip) ? 1 : 0), i;
    if (depth > 3 || ei_x_encode_map_header(x, (long)size) != 0)
        return false;
    json_object_foreach(object, key, value)
    {
        if (skip && strcmp(key, skip) == 0)
            continue;
        if (strlen(key) > FDN_ATOM_BYTES || !fdn_etf_put_atom(x, key))
            return false;
        if (json_is_object(value)) {
            if (!put_object(x, value, NULL, depth + 1))
                return false;
        } else if (json_is_array(value)) {
            bool pair = strcmp(key, "failures") == 0;
            long n = (long)json_array_size(value);
            if ((pair ? ei_x_encode_tuple_header(x, n) : n > 0 ? ei_x_encode_list_header(x, n) : 0) != 0)
                return false;
            json_array_foreach(value, i, item)
            {
                if (!put_scalar(x, item))
                    return false;
            }
            if (!pair && ei_x_encode_empty_list(x) != 0)
                return false;
        } else if (!put_scalar(x, value)) {
            return false;
        }
    }
    return true;
}

static bool add_watch(struct fdn_config *c, const struct source *src, json_t *watch, unsigned index)
{
    struct fdn_spec spec;
    struct fdn_badarg bad;
    char given[128];
    ei_x_buff x = {.buff = NULL};
    const char *id = json_string_value(json_object_get(watch, "id"));
    bool ok = false;
    if (!id || !*id || strlen(id) > 200)
        return wrong(src, "watches", 0, "watch %u: \"id\" is missing or no text of 1 to 200 bytes", index + 1);
    if (ei_x_new(&x) != 0 || !fdn_etf_put_atom(&x, id))
        goto memory;
    size_t id_len = (size_t)x.index;
    if (!put_object(&x, watch, "id", 0)) {
        wrong(src, id, 0, "watch \"%s\": a value of a kind that no watch has", id);
        goto done;
    }
    struct fdn_etf map = {(uint8_t *)x.buff + id_len, (size_t)x.index - id_len};
    if (!fdn_spec_parse(map, &spec, &bad)) {
        if (bad.key)
            snprintf(given, sizeof given, "%s", bad.key);
        else
            fdn_etf_print(bad.given, given, sizeof given);
        wrong(src, strcmp(bad.reason, "missing") == 0 ? id : given, 0, "watch \"%s\": %s: %s", id, given, bad.reason);
        goto done;
    }
    if (spec.node.n == 0) {
        wrong(src, id, 0, "watch \"%s\": node: missing", id);
        goto done;
    }
    struct fdn_config_watch *grown = fdn_realloc(c->watches, (c->watch_count + 1) * sizeof *grown);
    if (!grown)
        goto memory;
    c->watches = grown;
    uint8_t *bytes = fdn_malloc((size_t)x.index);
    if (!bytes)
        goto memory;
    memcpy(bytes, x.buff, (size_t)x.index);
    grown[c->watch_count++] = (struct fdn_config_watch){bytes, {bytes, id_len}, {bytes + id_len, (size_t)x.index - id_len}};
    ok = true;
    goto done;
memory:
    wrong(src, "watches", 0, "out of memory");
done:
    if (x.buff)
        ei_x_free(&x);
    return ok;
}

static bool node_name(const struct source *src, const char *key, json_t *v, char out[FDN_NODE_NAME_MAX + 1])
{
    const char *text = json_string_value(v);
    if (!text || !fdn_node_valid(text))
        return wrong(src, text ? text : key, 0, "\"%s\" is not a node name of the form name@host", text ? text : key);
    strcpy(out, text);
    return true;
}

static bool copy_text(const struct source *src, const char *key, json_t *v, char **out)
{
    const char *text = json_string_value(v);
    if (!text || !*text || strlen(text) != json_string_length(v))
        return wrong(src, key, 0, "\"%s\" is not a path", key);
    if (*out)
        return true; /* set by the VM */
    if (!(*out = fdn_malloc(strlen(text) + 1)))
        return wrong(src, key, 0, "out of memory");
    strcpy(*out, text);
    return true;
}

static bool read_nodes(struct fdn_config *c, const struct source *src, json_t *v)
{
    size_t i;
    json_t *item;
    if (!json_is_array(v) || json_array_size(v) == 0 || json_array_size(v) > FDN_CONFIG_NODES)
        return wrong(src, "nodes", 0, "\"nodes\" is not a list of 1 to %d node names", FDN_CONFIG_NODES);
    if (c->node_count > 0)
        return true;
    if (!(c->nodes = fdn_calloc(json_array_size(v), sizeof *c->nodes)))
        return wrong(src, "nodes", 0, "out of memory");
    json_array_foreach(v, i, item)
    {
        if (!node_name(src, "nodes", item, c->nodes[i]))
            return false;
        c->node_count++;
    }
    return true;
}

static bool read_watches(struct fdn_config *c, const struct source *src, json_t *v)
{
    size_t i;
    json_t *item;
    if (!json_is_array(v))
        return wrong(src, "watches", 0, "\"watches\" is not a list");
    json_array_foreach(v, i, item)
    {
        if (!json_is_object(item))
            return wrong(src, "watches", 0, "watch %u is not an object", (unsigned)i + 1);
        if (!add_watch(c, src, item, (unsigned)i))
            return false;
    }
    return true;
}

static bool read_key(struct fdn_config *c, const struct source *src, const char *key, json_t *v, char **cookie_file)
{
    char own[FDN_NODE_NAME_MAX + 1];
    if (strcmp(key, "node") == 0) {
        if (!node_name(src, key, v, own))
            return false;
        if (!c->node[0])
            strcpy(c->node, own);
        return true;
    }
    if (strcmp(key, "nodes") == 0)
        return read_nodes(c, src, v);
    if (strcmp(key, "cookie_file") == 0)
        return copy_text(src, key, v, cookie_file);
    if (strcmp(key, "flags_file") == 0)
        return copy_text(src, key, v, &c->flags_file);
    if (strcmp(key, "audit_file") == 0)
        return copy_text(src, key, v, &c->audit_file);
    if (strcmp(key, "tick_ms") == 0) {
        if (!json_is_integer(v) || json_integer_value(v) < 1000 || json_integer_value(v) > 24 * 3600 * 1000)
            return wrong(src, key, 0, "\"tick_ms\" is not a number of milliseconds from 1000 to a day");
        c->tick_ms = (uint64_t)json_integer_value(v);
        return true;
    }
    if (strcmp(key, "watches") == 0)
        return read_watches(c, src, v);
    return wrong(src, key, 0, "unknown key \"%s\"", key);
}

bool fdn_config_read_json(struct fdn_config *c, const char *name, const char *text, size_t len, char **cookie_file,
                          struct fdn_config_error *e)
{
    struct source src = {name, text, len, e};
    json_error_t error;
    const char *key;
    json_t *value;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        snprintf(e->text, sizeof e->text, "%s:%d:%d: %s", name, error.line, error.column, error.text);
        return false;
    }
    bool ok = json_is_object(root);
    if (!ok)
        snprintf(e->text, sizeof e->text, "%s:1:1: not an object", name);
    json_object_foreach(root, key, value)
    {
        if (ok)
            ok = read_key(c, &src, key, value, cookie_file);
    }
    json_decref(root);
    return ok;
}
