// What the guestbook service and its library agree on.
#ifndef GUESTBOOK_H
#define GUESTBOOK_H

#include <stddef.h>

#define GB_NAME_MAX 32
#define GB_LINE_MAX 128
#define GB_GUESTS_MAX 8
#define GB_NOTE_MAX 64

// One visit: lives as long as the connection.
struct gb_session {
    char name[GB_NAME_MAX];
    int seat;           // row in the library's table of notes; -1 before HELLO
    unsigned requests;  // answered in this session
};

void gb_open(struct gb_session *s);
void gb_close(struct gb_session *s);
// Answers one request line (without its newline). Writes at most `room` bytes to `reply`, returns how many.
size_t gb_answer(struct gb_session *s, const char *line, size_t length, char *reply, size_t room);

#endif
