/*
 * A part that is nothing but a part: what nif_common does at load, upgrade and unload, made visible and made to fail on demand.
 *
 * Compiled as several libraries (FIXTURE_NAME, FIXTURE_ABI). FDN_FIXTURE_FAIL in the VM's environment names what fails; every hook adds
 * a line "<hook> <library>" to the file named by FDN_FIXTURE_LOG. The state is a number and a thread that answers one question at a
 * time with the name of the library whose code it runs.
 */
#ifndef FIXTURE_NAME /* an analyser at work */
#define FIXTURE_NAME "a"
#define FIXTURE_ABI 1
#endif

#include "nif/nif_common.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/fdn_guard.h"
#include "base/fdn_hash.h"

typedef struct fixture {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool running, stop, asked;
    const char *answer;
    long number;
} fixture;

static bool told_to_fail(const char *what)
{
    char value[32];
    size_t size = sizeof value;
    return enif_getenv("FDN_FIXTURE_FAIL", value, &size) == 0 && strcmp(value, what) == 0;
}

static void note(const char *hook)
{
    char path[512], line[64];
    size_t size = sizeof path;
    if (enif_getenv("FDN_FIXTURE_LOG", path, &size) != 0)
        return;
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    int n = snprintf(line, sizeof line, "%s %s\n", hook, FIXTURE_NAME);
    if (write(fd, line, (size_t)n) != n)
        abort(); /* a test without its log would pass for the wrong reason */
    close(fd);
}

/*
 * These stand in place of the real ones, for this library only: nif_common calls what it is linked with.
 */
int fdn_hash_init(void)
{
    return told_to_fail("random_source") ? -1 : 0;
}

int fdn_guard_init(void)
{
    return told_to_fail("sigbus_guard") ? -1 : 0;
}

void *enif_alloc(size_t size)
{
    void *(*real)(size_t) = NULL;
    *(void **)&real = dlsym(RTLD_DEFAULT, "enif_alloc");
    return real == NULL || told_to_fail("enomem") ? NULL : real(size);
}

static void *answer_questions(void *arg)
{
    fixture *f = arg;
    pthread_mutex_lock(&f->lock);
    while (!f->stop) {
        if (f->asked) {
            f->asked = false;
            f->answer = FIXTURE_NAME;
            pthread_cond_broadcast(&f->changed);
        } else {
            pthread_cond_wait(&f->changed, &f->lock);
        }
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

static int open_types(ErlNifEnv *env, fdn_lib *lib)
{
    if (told_to_fail("resource_types"))
        return -1;
    ErlNifResourceFlags flags = ERL_NIF_RT_CREATE | ERL_NIF_RT_TAKEOVER;
    lib->types[0] = enif_open_resource_type(env, NULL, "fixture", NULL, flags, NULL);
    return lib->types[0] ? 0 : -1;
}

static int create(fdn_lib *lib, void **state)
{
    fixture *f = told_to_fail("state") ? NULL : enif_alloc(sizeof *f);
    if (f == NULL)
        return -1;
    memset(f, 0, sizeof *f);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    note("create");
    *state = f;
    return 0;
}

static int resume(void *state)
{
    fixture *f = state;
    /* Only library b, so that an upgrade a -> b fails and a starts its threads again. */
    if (told_to_fail("threads") || (told_to_fail("threads_b") && strcmp(FIXTURE_NAME, "b") == 0))
        return -1;
    f->stop = false;
    if (pthread_create(&f->thread, NULL, answer_questions, f) != 0)
        return -1;
    f->running = true;
    note("resume");
    return 0;
}

static void pause_threads(void *state)
{
    fixture *f = state;
    if (!f->running)
        return;
    pthread_mutex_lock(&f->lock);
    f->stop = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->thread, NULL);
    f->running = false;
    note("pause");
}

static void destroy(void *state)
{
    fixture *f = state;
    note("destroy");
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
    enif_free(f);
}

static const fdn_part part = {
    .name = "fixture",
    .abi = FIXTURE_ABI,
    .open_types = open_types,
    .create = create,
    .pause = pause_threads,
    .resume = resume,
    .destroy = destroy,
};

/* add(N) -> the sum so far. */
static ERL_NIF_TERM add(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    fixture *f = fdn_lib_of(env)->state;
    long n;
    if (!enif_get_long(env, argv[0], &n))
        return fdn_raise_badarg(env, "n", "not_an_integer");
    f->number += n;
    return enif_make_long(env, f->number);
}

/* library() -> the name of the library whose code this call runs. */
static ERL_NIF_TERM library(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    return enif_make_atom(env, FIXTURE_NAME);
}

/* ask() -> the name of the library whose code the thread runs; no_answer when there is none. */
static ERL_NIF_TERM ask(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
    fixture *f = fdn_lib_of(env)->state;
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 10;
    pthread_mutex_lock(&f->lock);
    f->answer = NULL;
    f->asked = true;
    pthread_cond_broadcast(&f->changed);
    int rc = 0;
    while (f->answer == NULL && rc == 0)
        rc = pthread_cond_timedwait(&f->changed, &f->lock, &until);
    const char *answer = f->answer ? f->answer : "no_answer";
    pthread_mutex_unlock(&f->lock);
    return enif_make_atom(env, answer);
}

static ErlNifFunc functions[] = {
    {"add", 1, add, 0},
    {"library", 0, library, 0},
    {"ask", 0, ask, ERL_NIF_DIRTY_JOB_IO_BOUND},
};

FDN_NIF_INIT(foundation_fixture, functions, &part)
