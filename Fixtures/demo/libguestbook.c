// The guestbook's protocol, with the hole that `fother demo` closes. Built twice: as it was, and with -DFIXED.
//
//   HELLO name     sign in                      NOTE text     leave a private note
//   MINE           read back one's own note     COUNT         requests answered in this session
//   ECHO n text    send back n bytes of text    <- n is the client's claim, and the first version believes it
//
// Everything the protocol needs lies in one desk, so what a wrong length reaches is other guests' notes, and never
// memory outside the desk: the leak is real, repeatable and contained.
#include "guestbook.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    unsigned long answered;
    char taken[GB_GUESTS_MAX];
    char line[GB_LINE_MAX];                  // the request being answered
    char notes[GB_GUESTS_MAX][GB_NOTE_MAX];  // private, one row a guest
} desk;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static size_t say(char *reply, size_t room, const char *text) {
    return (size_t)snprintf(reply, room, "%s\n", text);
}

// A handler gets what follows the verb: `length` bytes at `text`, inside desk.line and zero-terminated.
static size_t hello(struct gb_session *s, const char *text, size_t length, char *reply, size_t room) {
    for (int seat = 0; seat < GB_GUESTS_MAX && s->seat < 0; seat++)
        if (!desk.taken[seat]) {
            desk.taken[seat] = 1;
            s->seat = seat;
        }
    if (s->seat < 0 || length >= GB_NAME_MAX) return say(reply, room, "ERR no seat for you");
    memcpy(s->name, text, length);
    s->name[length] = 0;
    desk.answered++;
    return (size_t)snprintf(reply, room, "OK welcome, %s\n", s->name);
}

static size_t note(struct gb_session *s, const char *text, size_t length, char *reply, size_t room) {
    if (s->seat < 0) return say(reply, room, "ERR say HELLO first");
    if (length >= GB_NOTE_MAX) return say(reply, room, "ERR too long a note");
    memset(desk.notes[s->seat], 0, GB_NOTE_MAX);
    memcpy(desk.notes[s->seat], text, length);
    desk.answered++;
    return say(reply, room, "OK noted, and nobody else will read it");
}

static size_t mine(struct gb_session *s, const char *text, size_t length, char *reply, size_t room) {
    (void)text, (void)length;
    if (s->seat < 0) return say(reply, room, "ERR say HELLO first");
    desk.answered++;
    return (size_t)snprintf(reply, room, "OK %s\n", desk.notes[s->seat]);
}

static size_t count(struct gb_session *s, const char *text, size_t length, char *reply, size_t room) {
    (void)text, (void)length;
    desk.answered++;
    return (size_t)snprintf(reply, room, "OK %u\n", s->requests);
}

#ifdef FIXED
// How many bytes the client really sent after the number.
static __attribute__((noinline)) long sent(const char *from, const char *text, size_t length) {
    long there = (long)(text + length - from);
    return there < 0 ? 0 : there;
}
#endif

static size_t echo(struct gb_session *s, const char *text, size_t length, char *reply, size_t room) {
    char *from;
    long claimed = strtol(text, &from, 10);
    (void)s;
    if (from == text || from == text + length) return say(reply, room, "ERR echo what?");
    if (*from == ' ') from++;
#ifdef FIXED
    if (claimed > sent(from, text, length)) return say(reply, room, "ERR you ask for more than you sent");
#endif
    // Inside the desk whatever the client claims, as the notes lie behind the line: this demonstration leaks, but does
    // not crash.
    if (claimed < 0 || claimed > (long)sizeof desk.notes || (size_t)claimed + 32 > room)
        return say(reply, room, "ERR out of paper");
    size_t n = (size_t)snprintf(reply, room, "OK %ld ", claimed);
    memcpy(reply + n, from, (size_t)claimed);
    reply[n + (size_t)claimed] = '\n';
    desk.answered++;
    return n + (size_t)claimed + 1;
}

static const struct {
    const char *verb;
    size_t (*answer)(struct gb_session *, const char *, size_t, char *, size_t);
} verbs[] = {{"HELLO ", hello}, {"NOTE ", note}, {"MINE", mine}, {"COUNT", count}, {"ECHO ", echo}};

void gb_open(struct gb_session *s) {
    memset(s, 0, sizeof *s);
    s->seat = -1;
}

void gb_close(struct gb_session *s) {
    pthread_mutex_lock(&lock);
    if (s->seat >= 0) {
        memset(desk.notes[s->seat], 0, GB_NOTE_MAX);
        desk.taken[s->seat] = 0;
    }
    pthread_mutex_unlock(&lock);
}

size_t gb_answer(struct gb_session *s, const char *line, size_t length, char *reply, size_t room) {
    size_t n = 0;
    if (length >= GB_LINE_MAX) return say(reply, room, "ERR too long");
    pthread_mutex_lock(&lock);
    memset(desk.line, 0, sizeof desk.line);
    memcpy(desk.line, line, length);
    s->requests++;
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs && !n; i++) {
        size_t verb = strlen(verbs[i].verb);
        if (length >= verb && !memcmp(desk.line, verbs[i].verb, verb))
            n = verbs[i].answer(s, desk.line + verb, length - verb, reply, room);
    }
    pthread_mutex_unlock(&lock);
    return n ? n : say(reply, room, "ERR what?");
}
