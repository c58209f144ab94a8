/* explore.c - see explore.h. */
#include "test/model/explore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 4
#define STACK 16384
#define WORDS 64
#define LOCKS 4
#define BUFFERED 3
#define PARTS 8
#define DEPTH 4096

/* ---- coroutines ------------------------------------------------------------------------------------------------------------------ */

/* Put the callee's registers on the stack, leave its pointer in *from, and go on where `to` was left. */
void explore_switch(char **from, char *to);
#if defined(__x86_64__)
#define SAVED 7 /* words that explore_switch finds on a stack, the return address last */
#define ABOVE 1 /* words above them, so that functions find the stack aligned as they expect */
__asm__(".text\n.globl explore_switch\n.type explore_switch, @function\nexplore_switch:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
        ".size explore_switch, .-explore_switch\n");
#elif defined(__aarch64__)
#define SAVED 20
#define ABOVE 2
__asm__(".text\n.globl explore_switch\n.type explore_switch, %function\nexplore_switch:\n"
        "sub sp, sp, #160\nstp x19, x20, [sp]\nstp x21, x22, [sp, #16]\nstp x23, x24, [sp, #32]\nstp x25, x26, [sp, #48]\n"
        "stp x27, x28, [sp, #64]\nstp d8, d9, [sp, #80]\nstp d10, d11, [sp, #96]\nstp d12, d13, [sp, #112]\nstp d14, d15, [sp, #128]\n"
        "stp x29, x30, [sp, #144]\nmov x9, sp\nstr x9, [x0]\nmov sp, x1\n"
        "ldp x19, x20, [sp]\nldp x21, x22, [sp, #16]\nldp x23, x24, [sp, #32]\nldp x25, x26, [sp, #48]\nldp x27, x28, [sp, #64]\n"
        "ldp d8, d9, [sp, #80]\nldp d10, d11, [sp, #96]\nldp d12, d13, [sp, #112]\nldp d14, d15, [sp, #128]\nldp x29, x30, [sp, #144]\n"
        "add sp, sp, #160\nret\n.size explore_switch, .-explore_switch\n");
#else
#error "explore: no switch of stacks for this processor"
#endif

typedef enum { READY, LOCKING, WAITING, CHOOSING, ENDED } condition;

typedef struct {
    char *sp;
    const void *mutex; /* LOCKING */
    uint32_t choices;  /* CHOOSING: among how many; then which */
    uint32_t buffered;
    struct {
        volatile void *word;
        uint64_t value;
    } buffer[BUFFERED];
    uint8_t is;   /* a condition */
    bool noticed; /* another thread has changed something since this one waited */
    uint8_t pad[6];
} thread;

/* What belongs to the state besides the parts of the program, the words and the stacks. No padding: it is hashed. */
static struct {
    uint64_t threads;
    thread thread[THREADS];
    const void *held[LOCKS];
} all;

static _Alignas(64) char stacks[THREADS][STACK];
static struct {
    void (*body)(uintptr_t);
    uintptr_t argument;
} starts[THREADS];
static char *explorer; /* its stack pointer, while a thread runs */
static int running = -1;

static void pause_as(condition is)
{
    all.thread[running].is = (uint8_t)is;
    explore_switch(&all.thread[running].sp, explorer);
}

static void start(void)
{
    starts[running].body(starts[running].argument);
    for (;;)
        pause_as(ENDED);
}

void explore_thread(void (*body)(uintptr_t), uintptr_t argument)
{
    unsigned i = (unsigned)all.threads++;
    starts[i].body = body;
    starts[i].argument = argument;
    uintptr_t *sp = (uintptr_t *)(void *)(stacks[i] + STACK) - ABOVE - SAVED;
    memset(sp, 0, sizeof(uintptr_t) * (SAVED + ABOVE));
    sp[SAVED - 1] = (uintptr_t)start; /* x86-64: the return address; aarch64: x30 */
    all.thread[i].sp = (char *)sp;
}

/* ---- the words that are ever written --------------------------------------------------------------------------------------------- */

static struct {
    volatile void *address;
    size_t bytes;
    uint64_t first; /* its value before anything was written */
} words[WORDS];
static unsigned word_count;
static bool word_is_new; /* what was explored so far did not know it */

static uint64_t word_value(const volatile void *p, size_t bytes)
{
    uint64_t value = 0;
    memcpy(&value, (const void *)p, bytes);
    return value;
}

static bool is_written(const volatile void *p)
{
    for (unsigned i = 0; i < word_count; i++) {
        if (words[i].address == p)
            return true;
    }
    return false;
}

static void will_be_written(const volatile void *p, size_t bytes)
{
    if (is_written(p))
        return;
    if (word_count == WORDS) {
        fprintf(stderr, "explore: too many words\n");
        exit(2);
    }
    words[word_count].address = (volatile void *)p;
    words[word_count].bytes = bytes;
    words[word_count++].first = word_value(p, bytes);
    word_is_new = true;
}

/* ---- the shim -------------------------------------------------------------------------------------------------------------------- */

static void empty_buffer(unsigned i, unsigned keep)
{
    thread *t = &all.thread[i];
    while (t->buffered > keep) {
        size_t bytes = 8;
        for (unsigned w = 0; w < word_count; w++) {
            if (words[w].address == t->buffer[0].word)
                bytes = words[w].bytes;
        }
        memcpy((void *)t->buffer[0].word, &t->buffer[0].value, bytes);
        memmove(&t->buffer[0], &t->buffer[1], sizeof t->buffer[0] * (BUFFERED - 1));
        memset(&t->buffer[BUFFERED - 1], 0, sizeof t->buffer[0]);
        t->buffered--;
        for (unsigned j = 0; j < all.threads; j++)
            all.thread[j].noticed = all.thread[j].noticed || j != i;
    }
}

void explore_before(const volatile void *word, size_t bytes, explore_access access)
{
    if (running < 0)
        return;
    if (access != EXPLORE_LOAD)
        will_be_written(word, bytes);
    if (!is_written(word))
        return;
    pause_as(READY);
    if (access != EXPLORE_LOAD)
        empty_buffer((unsigned)running, 0);
}

void explore_changed(void)
{
    for (unsigned i = 0; running >= 0 && i < all.threads; i++)
        all.thread[i].noticed = all.thread[i].noticed || (int)i != running;
}

void explore_store_later(volatile void *word, size_t bytes, uint64_t value)
{
    if (running < 0) {
        memcpy((void *)word, &value, bytes);
        return;
    }
    will_be_written(word, bytes);
    pause_as(READY);
    thread *t = &all.thread[running];
    if (t->buffered == BUFFERED)
        empty_buffer((unsigned)running, BUFFERED - 1);
    t->buffer[t->buffered].word = word;
    t->buffer[t->buffered++].value = value;
}

static int lock_of(const void *mutex)
{
    int i = 0;
    while (i < LOCKS - 1 && all.held[i] != mutex)
        i++;
    return all.held[i] == mutex ? i : -1;
}

void explore_lock(const void *mutex)
{
    if (running < 0)
        return;
    all.thread[running].mutex = mutex;
    pause_as(LOCKING);
    all.thread[running].mutex = NULL;
    empty_buffer((unsigned)running, 0);
    int i = lock_of(NULL);
    all.held[i] = mutex;
}

void explore_unlock(const void *mutex)
{
    if (running < 0)
        return;
    pause_as(READY);
    all.held[lock_of(mutex)] = NULL;
}

void explore_wait(void)
{
    if (running < 0)
        return;
    pause_as(WAITING);
    all.thread[running].noticed = false;
}

void explore_membarrier(void)
{
    for (unsigned i = 0; running >= 0 && i < all.threads; i++) {
        if (all.thread[i].buffered == 0)
            continue;
        pause_as(READY);
        empty_buffer(i, 0);
    }
}

void explore_pass(void)
{
    pause_as(READY);
}

unsigned explore_choose(unsigned n)
{
    all.thread[running].choices = n;
    pause_as(CHOOSING);
    unsigned which = all.thread[running].choices;
    all.thread[running].choices = 0;
    return which;
}

/* ---- states ---------------------------------------------------------------------------------------------------------------------- */

static struct {
    void *memory;
    size_t bytes;
} parts[PARTS];
static unsigned part_count;

void explore_state(void *memory, size_t bytes)
{
    parts[part_count].memory = memory;
    parts[part_count++].bytes = bytes;
}

/* A state, written one after the other: `all`, the words, the parts, the used ends of the stacks. */
typedef struct {
    char *bytes;
    size_t used, room;
    unsigned words;
    uint64_t next; /* the transition to try */
} state;

static void put(state *s, const void *p, size_t n)
{
    if (s->used + n > s->room) {
        s->room = 2 * (s->used + n);
        s->bytes = realloc(s->bytes, s->room);
        if (s->bytes == NULL) {
            fprintf(stderr, "explore: no memory\n");
            exit(2);
        }
    }
    memcpy(s->bytes + s->used, p, n);
    s->used += n;
}

static void save(state *s, unsigned count)
{
    s->used = 0;
    s->words = count;
    s->next = 0;
    put(s, &all, sizeof all);
    for (unsigned i = 0; i < count; i++) {
        uint64_t value = word_value(words[i].address, words[i].bytes);
        put(s, &value, sizeof value);
    }
    for (unsigned i = 0; i < part_count; i++)
        put(s, parts[i].memory, parts[i].bytes);
    for (unsigned i = 0; i < all.threads; i++) {
        if (all.thread[i].is != ENDED)
            put(s, all.thread[i].sp, (size_t)(stacks[i] + STACK - all.thread[i].sp));
    }
}

static void restore(const state *s)
{
    const char *p = s->bytes;
    memcpy(&all, p, sizeof all);
    p += sizeof all;
    for (unsigned i = 0; i < s->words; i++, p += sizeof(uint64_t))
        memcpy((void *)words[i].address, p, words[i].bytes);
    for (unsigned i = 0; i < part_count; i++) {
        memcpy(parts[i].memory, p, parts[i].bytes);
        p += parts[i].bytes;
    }
    for (unsigned i = 0; i < all.threads; i++) {
        size_t n = (size_t)(stacks[i] + STACK - all.thread[i].sp);
        if (all.thread[i].is != ENDED) {
            memcpy(all.thread[i].sp, p, n);
            p += n;
        }
    }
}

typedef struct {
    uint64_t a, b;
} print;

static print print_of(const state *s)
{
    print h = {0x9e3779b97f4a7c15ULL, 0xc2b2ae3d27d4eb4fULL};
    for (size_t i = 0; i < s->used; i += 8) {
        uint64_t w = 0;
        memcpy(&w, s->bytes + i, s->used - i < 8 ? s->used - i : 8);
        h.a = (h.a ^ w) * 0xff51afd7ed558ccdULL;
        h.a ^= h.a >> 32;
        h.b = (h.b + w) * 0xc4ceb9fe1a85ec53ULL;
        h.b ^= h.b >> 29;
    }
    h.a += h.a == 0;
    return h;
}

static print *seen;
static size_t seen_count, seen_room;

static bool insert(print h)
{
    size_t at = h.a & (seen_room - 1);
    for (; seen[at].a != 0; at = (at + 1) & (seen_room - 1)) {
        if (seen[at].a == h.a && seen[at].b == h.b)
            return false;
    }
    seen[at] = h;
    return true;
}

/* Whether this state is new. */
static bool is_new(const state *s)
{
    if (2 * (seen_count + 1) > seen_room) {
        print *old = seen;
        size_t old_room = seen_room;
        seen_room = seen_room ? 2 * seen_room : 1 << 16;
        seen = calloc(seen_room, sizeof *seen);
        if (seen == NULL) {
            fprintf(stderr, "explore: no memory\n");
            exit(2);
        }
        for (size_t i = 0; old != NULL && i < old_room; i++) {
            if (old[i].a != 0)
                insert(old[i]);
        }
        free(old);
    }
    bool new = insert(print_of(s));
    seen_count += new;
    return new;
}

/* ---- the search ------------------------------------------------------------------------------------------------------------------ */

static state path[DEPTH];
static unsigned depth, deepest;
static uint64_t transitions, ends;

_Noreturn void explore_violated(const char *what)
{
    printf("violated: %s\n", what);
    /* The transitions from the beginning, as transition() counts them. */
    for (unsigned i = 0; i <= depth; i++)
        printf("%u%s", (unsigned)(path[i].next - 1), i == depth ? "\n" : " ");
    exit(1);
}

static bool may_go_on(unsigned i)
{
    thread *t = &all.thread[i];
    if (t->is == LOCKING)
        return lock_of(t->mutex) < 0;
    return t->is == READY || (t->is == WAITING && t->noticed);
}

/*
 * Do the n-th transition of this state, counted over: the choices of a thread that has some (then nothing else: a choice concerns
 * nobody else); or for each thread, that it goes on, and that the oldest store in its buffer becomes visible. False: there is none.
 * *done: whether that one was possible.
 */
static bool transition(uint64_t n, bool *done)
{
    *done = true;
    for (unsigned i = 0; i < all.threads; i++) {
        if (all.thread[i].is == CHOOSING) {
            if (n >= all.thread[i].choices)
                return false;
            all.thread[i].choices = (uint32_t)n;
            running = (int)i;
            explore_switch(&explorer, all.thread[i].sp);
            running = -1;
            return true;
        }
    }
    unsigned i = (unsigned)(n / 2);
    if (i >= all.threads)
        return false;
    if (n % 2 == 1) {
        *done = all.thread[i].buffered != 0;
        if (*done)
            empty_buffer(i, all.thread[i].buffered - 1);
    } else {
        *done = may_go_on(i);
        if (*done) {
            running = (int)i;
            explore_switch(&explorer, all.thread[i].sp);
            running = -1;
        }
    }
    return true;
}

static void one_pass(void (*at_end)(void))
{
    depth = 0;
    while (!word_is_new) {
        state *s = &path[depth];
        bool done;
        restore(s);
        if (!transition(s->next++, &done)) {
            if (depth-- == 0)
                return;
            continue;
        }
        if (!done || word_is_new)
            continue;
        transitions++;
        if (depth + 1 == DEPTH)
            explore_violated("an end within reach");
        state *next = &path[depth + 1];
        save(next, word_count);
        if (!is_new(next))
            continue;
        bool ended = true, stuck = true;
        for (unsigned i = 0; i < all.threads; i++) {
            ended = ended && all.thread[i].is == ENDED;
            stuck = stuck && !may_go_on(i) && all.thread[i].is != CHOOSING && all.thread[i].buffered == 0;
        }
        if (stuck && !ended)
            explore_violated("somebody can go on");
        if (stuck) {
            ends++;
            at_end();
            continue;
        }
        depth++;
        deepest = depth > deepest ? depth : deepest;
    }
}

static size_t all_states;
static uint64_t all_transitions, all_ends;
static unsigned all_depth;

void explore(void (*at_end)(void))
{
    static state initial;
    word_count = 0;
    save(&initial, 0);
    do {
        word_is_new = false;
        restore(&initial);
        for (unsigned i = 0; i < word_count; i++)
            memcpy((void *)words[i].address, &words[i].first, words[i].bytes);
        save(&path[0], word_count);
        if (seen)
            memset(seen, 0, seen_room * sizeof *seen);
        seen_count = transitions = ends = 0;
        one_pass(at_end);
    } while (word_is_new);
    restore(&initial);
    all_states += seen_count;
    all_transitions += transitions;
    all_ends += ends;
    all_depth = deepest > all_depth ? deepest : all_depth;
}

void explore_summary(void)
{
    printf("%zu states, %llu transitions, depth %u, %llu ends\n", all_states, (unsigned long long)all_transitions, all_depth,
           (unsigned long long)all_ends);
}
