/* Drives libhtp and turns what it calls back into one stream of events; decides nothing. libhtp 0.5.40 or newer. */
#ifndef FOTHER_CHTP_H
#define FOTHER_CHTP_H

#include <stddef.h>
#include <stdint.h>

/* What an event says. `a` and `b` point into memory that lives only during the call. */
enum {
  CHTP_REQUEST_START = 1,
  CHTP_REQUEST_LINE,        /* a: the line without its end */
  CHTP_REQUEST_METHOD,      /* a */
  CHTP_REQUEST_URI,         /* a: as sent */
  CHTP_REQUEST_PATH,        /* a: decoded and normalised as the server profile does */
  CHTP_REQUEST_QUERY,       /* a: as sent */
  CHTP_REQUEST_PROTOCOL,    /* a */
  CHTP_REQUEST_HEADER_DATA, /* a: header bytes as sent */
  CHTP_REQUEST_HEADER,      /* a: name, b: value; repeated ones joined */
  CHTP_REQUEST_HOST,        /* a: host name without port */
  CHTP_REQUEST_HEADERS,     /* all headers are there */
  CHTP_REQUEST_BODY,        /* a: de-chunked, decompressed */
  CHTP_REQUEST_DONE,
  CHTP_RESPONSE_START,
  CHTP_RESPONSE_LINE,
  CHTP_RESPONSE_STATUS,
  CHTP_RESPONSE_MESSAGE,
  CHTP_RESPONSE_PROTOCOL,
  CHTP_RESPONSE_HEADER_DATA,
  CHTP_RESPONSE_HEADER,
  CHTP_RESPONSE_HEADERS,
  CHTP_RESPONSE_BODY,
  CHTP_RESPONSE_DONE,
  CHTP_NO_LINE_PROTOCOL,    /* the request is HTTP/0.9: a line without a version */
};

/* Server profiles. */
enum { CHTP_GENERIC = 0, CHTP_APACHE = 1, CHTP_IIS = 2, CHTP_NGINX = 3 };

/* What feeding data came to. */
enum { CHTP_OK = 0, CHTP_ERROR = -1, CHTP_TUNNEL = -2, CHTP_OTHER = -3 };

typedef struct chtp_config chtp_config;
typedef struct chtp_connection chtp_connection;
typedef void (*chtp_sink)(void *context, int event, const uint8_t *a, size_t a_length, const uint8_t *b, size_t b_length);

/* NULL when memory is short. The configuration outlives its connections. */
chtp_config *chtp_config_create(int profile, size_t header_limit, chtp_sink sink);
void chtp_config_destroy(chtp_config *config);

chtp_connection *chtp_connection_create(chtp_config *config);
void chtp_connection_destroy(chtp_connection *connection);

/* Feed bytes; events go to `context`. With `requests_only`, each request is released when it is done. */
int chtp_request_data(chtp_connection *connection, void *context, const void *data, size_t length, int requests_only);
int chtp_response_data(chtp_connection *connection, void *context, const void *data, size_t length);
/* The sender has finished: bodies without a length end here. */
void chtp_close(chtp_connection *connection, void *context);
/* The request direction alone has finished. */
void chtp_close_requests(chtp_connection *connection, void *context);

/* When a request is done: where it ended, from the beginning of the piece that is being read. */
int64_t chtp_request_end(const chtp_connection *connection);

/* When a head is there: where its request will end, counted alike; -1 where only the body's framing tells. */
int64_t chtp_expected_end(const chtp_connection *connection);

/* Whether nothing of a request has been read that is not done: another connection may use the parser then. */
int chtp_is_at_rest(const chtp_connection *connection);
/* Makes a parser at rest ready for another connection. 0, or CHTP_ERROR when memory is short. */
int chtp_reuse(chtp_connection *connection);

/* Flags of libhtp (HTP_REQUEST_SMUGGLING and others) that the last complete header block raised. */
uint64_t chtp_last_flags(const chtp_connection *connection);
#define CHTP_FLAG_INVALID_TRANSFER_ENCODING 0x400ull
#define CHTP_FLAG_INVALID_CONTENT_LENGTH 0x200000000ull
#define CHTP_FLAG_SMUGGLING 0x100ull

#endif
