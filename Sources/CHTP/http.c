/* Drives libhtp: one configuration per server profile, one connection per flow, events instead of callbacks. */
#include "chtp.h"

#include <htp/htp.h>
#include <stdlib.h>

/* Requests of one parser before it is replaced at a moment between requests: libhtp's list of requests only grows. */
#define REQUESTS_PER_PARSER 64
/* A sender that never leaves such a moment is given up on after so many. */
#define REQUESTS_WITHOUT_PAUSE 100000

/* Exported by libhtp, but not in its public header files. */
void htp_tx_destroy_incomplete(htp_tx_t *tx);

struct chtp_config {
  htp_cfg_t *htp;
  chtp_sink sink;
};

#define DONE_KEPT 128

struct chtp_connection {
  chtp_config *config;
  htp_connp_t *parser;
  void *context;
  htp_tx_t *done[DONE_KEPT];
  unsigned done_count;
  unsigned since_fresh;
  int requests_only;
  int has_responses;
  uint64_t flags;
  /* Positions among the bytes fed: the piece that is being read, the end of the head or trailer read last, the end of the last request. */
  int64_t piece;
  int64_t head_end;
  int64_t request_end;
  /* Where the request whose head was read last will end; -1: only the body tells. */
  int64_t expected_end;
};

static chtp_connection *owner(const htp_connp_t *parser) { return htp_connp_get_user_data(parser); }

static void tell(chtp_connection *c, int event, const bstr *a) {
  if (a) c->config->sink(c->context, event, bstr_ptr(a), bstr_len(a), NULL, 0);
}

static void tell_headers(chtp_connection *c, int event, const htp_table_t *table) {
  for (size_t i = 0, n = htp_table_size(table); i < n; i++) {
    htp_header_t *h = htp_table_get_index(table, i, NULL);
    if (h && h->name && h->value)
      c->config->sink(c->context, event, bstr_ptr(h->name), bstr_len(h->name), bstr_ptr(h->value), bstr_len(h->value));
  }
}

static int request_start(htp_tx_t *tx) {
  chtp_connection *c = owner(tx->connp);
  c->config->sink(c->context, CHTP_REQUEST_START, NULL, 0, NULL, 0);
  return HTP_OK;
}

static int request_line(htp_tx_t *tx) {
  chtp_connection *c = owner(tx->connp);
  tell(c, CHTP_REQUEST_LINE, tx->request_line);
  tell(c, CHTP_REQUEST_METHOD, tx->request_method);
  tell(c, CHTP_REQUEST_URI, tx->request_uri);
  tell(c, CHTP_REQUEST_PROTOCOL, tx->request_protocol);
  if (tx->parsed_uri) {
    tell(c, CHTP_REQUEST_PATH, tx->parsed_uri->path);
    tell(c, CHTP_REQUEST_QUERY, tx->parsed_uri->query);
  }
  return HTP_OK;
}

static int request_header_data(htp_tx_data_t *d) {
  chtp_connection *c = owner(d->tx->connp);
  c->config->sink(c->context, CHTP_REQUEST_HEADER_DATA, d->data, d->len, NULL, 0);
  return HTP_OK;
}

static int request_headers(htp_tx_t *tx) {
  chtp_connection *c = owner(tx->connp);
  c->flags = tx->flags;
  c->head_end = c->piece + (int64_t)htp_connp_req_data_consumed(tx->connp);
  const int has_length = tx->request_transfer_coding == HTP_CODING_IDENTITY && tx->request_content_length >= 0;
  c->expected_end = has_length ? c->head_end + tx->request_content_length : -1;
  tell_headers(c, CHTP_REQUEST_HEADER, tx->request_headers);
  /* libhtp takes the target of `CONNECT /` for a name. */
  if (tx->request_hostname && bstr_chr(tx->request_hostname, '/') < 0) tell(c, CHTP_REQUEST_HOST, tx->request_hostname);
  c->config->sink(c->context, CHTP_REQUEST_HEADERS, NULL, 0, NULL, 0);
  return HTP_OK;
}

static int request_body(htp_tx_data_t *d) {
  chtp_connection *c = owner(d->tx->connp);
  if (d->data && d->len) c->config->sink(c->context, CHTP_REQUEST_BODY, d->data, d->len, NULL, 0);
  return HTP_OK;
}

static int request_trailer(htp_tx_t *tx) {
  chtp_connection *c = owner(tx->connp);
  c->head_end = c->piece + (int64_t)htp_connp_req_data_consumed(tx->connp);
  return HTP_OK;
}

static int request_done(htp_tx_t *tx) {
  chtp_connection *c = owner(tx->connp);
  /* By now libhtp has looked at what comes next: where it stands is no help. */
  c->request_end = c->head_end + (tx->request_transfer_coding == HTP_CODING_IDENTITY ? tx->request_content_length : 0);
  /* Only now it is known: a line without a version may still be followed by headers. */
  if (tx->is_protocol_0_9) c->config->sink(c->context, CHTP_NO_LINE_PROTOCOL, NULL, 0, NULL, 0);
  c->config->sink(c->context, CHTP_REQUEST_DONE, NULL, 0, NULL, 0);
  if (c->requests_only && c->done_count < DONE_KEPT) c->done[c->done_count++] = tx;
  c->since_fresh++;
  return HTP_OK;
}

static int response_start(htp_tx_t *tx) {
  chtp_connection *c = owner(tx->connp);
  c->config->sink(c->context, CHTP_RESPONSE_START, NULL, 0, NULL, 0);
  return HTP_OK;
}

static int response_line(htp_tx_t *tx) {
  chtp_connection *c = owner(tx->connp);
  tell(c, CHTP_RESPONSE_LINE, tx->response_line);
  tell(c, CHTP_RESPONSE_STATUS, tx->response_status);
  tell(c, CHTP_RESPONSE_MESSAGE, tx->response_message);
  tell(c, CHTP_RESPONSE_PROTOCOL, tx->response_protocol);
  return HTP_OK;
}

static int response_header_data(htp_tx_data_t *d) {
  chtp_connection *c = owner(d->tx->connp);
  c->config->sink(c->context, CHTP_RESPONSE_HEADER_DATA, d->data, d->len, NULL, 0);
  return HTP_OK;
}

static int response_headers(htp_tx_t *tx) {
  chtp_connection *c = owner(tx->connp);
  tell_headers(c, CHTP_RESPONSE_HEADER, tx->response_headers);
  c->config->sink(c->context, CHTP_RESPONSE_HEADERS, NULL, 0, NULL, 0);
  return HTP_OK;
}

static int response_body(htp_tx_data_t *d) {
  chtp_connection *c = owner(d->tx->connp);
  if (d->data && d->len) c->config->sink(c->context, CHTP_RESPONSE_BODY, d->data, d->len, NULL, 0);
  return HTP_OK;
}

static int response_done(htp_tx_t *tx) {
  chtp_connection *c = owner(tx->connp);
  c->config->sink(c->context, CHTP_RESPONSE_DONE, NULL, 0, NULL, 0);
  return HTP_OK;
}

static void apply_profile(htp_cfg_t *h, int profile) {
  const enum htp_server_personality_t names[] = {HTP_SERVER_IDS, HTP_SERVER_APACHE_2, HTP_SERVER_IIS_7_5, HTP_SERVER_GENERIC};
  htp_config_set_server_personality(h, names[profile]);
  /* Some personalities turn paths into small letters, in which rules with capital letters find nothing. */
  htp_config_set_convert_lowercase(h, HTP_DECODER_URL_PATH, 0);
  /* HTTP.sys takes %uNNNN unless PercentUAllowed is 0 (Microsoft, "Http.sys registry settings for Windows"). */
  if (profile == CHTP_IIS) htp_config_set_u_encoding_decode(h, HTP_DECODER_URL_PATH, 1);
  if (profile == CHTP_NGINX) {
    /* nginx decodes %2f into a separator and merges separators; backslashes and %u stay as they are. */
    htp_config_set_path_separators_decode(h, HTP_DECODER_URL_PATH, 1);
    htp_config_set_path_separators_compress(h, HTP_DECODER_URL_PATH, 1);
    htp_config_set_backslash_convert_slashes(h, HTP_DECODER_URL_PATH, 0);
    htp_config_set_u_encoding_decode(h, HTP_DECODER_URL_PATH, 0);
  }
}

chtp_config *chtp_config_create(int profile, size_t header_limit, chtp_sink sink) {
  if (profile < 0 || profile > CHTP_NGINX) return NULL;
  chtp_config *c = calloc(1, sizeof *c);
  htp_cfg_t *h = htp_config_create();
  if (!c || !h) {
    free(c);
    if (h) htp_config_destroy(h);
    return NULL;
  }
  c->htp = h;
  c->sink = sink;
  apply_profile(h, profile);
  htp_config_set_field_limits(h, header_limit / 2, header_limit);
  htp_config_set_log_level(h, HTP_LOG_NONE);
  htp_config_set_tx_auto_destroy(h, 1);
  htp_config_set_request_decompression(h, 1);
  htp_config_set_response_decompression(h, 1);
  htp_config_set_lzma_memlimit(h, 0);
  /* A limit in wall time would let the same capture end differently on a busy machine. */
  htp_config_set_compression_time_limit(h, 600u * 1000 * 1000);
  htp_config_set_parse_request_auth(h, 0);
  htp_config_set_parse_request_cookies(h, 0);
  htp_config_register_request_start(h, request_start);
  htp_config_register_request_line(h, request_line);
  htp_config_register_request_header_data(h, request_header_data);
  htp_config_register_request_headers(h, request_headers);
  htp_config_register_request_body_data(h, request_body);
  htp_config_register_request_trailer(h, request_trailer);
  htp_config_register_request_complete(h, request_done);
  htp_config_register_response_start(h, response_start);
  htp_config_register_response_line(h, response_line);
  htp_config_register_response_header_data(h, response_header_data);
  htp_config_register_response_headers(h, response_headers);
  htp_config_register_response_body_data(h, response_body);
  htp_config_register_response_complete(h, response_done);
  return c;
}

void chtp_config_destroy(chtp_config *config) {
  if (!config) return;
  htp_config_destroy(config->htp);
  free(config);
}

static int start_parser(chtp_connection *c) {
  c->parser = htp_connp_create(c->config->htp);
  if (!c->parser) return CHTP_ERROR;
  htp_connp_set_user_data(c->parser, c);
  htp_connp_open(c->parser, NULL, 0, NULL, 0, NULL);
  c->since_fresh = 0;
  return CHTP_OK;
}

chtp_connection *chtp_connection_create(chtp_config *config) {
  chtp_connection *c = calloc(1, sizeof *c);
  if (!c) return NULL;
  c->config = config;
  if (start_parser(c) != CHTP_OK) {
    free(c);
    return NULL;
  }
  return c;
}

void chtp_connection_destroy(chtp_connection *c) {
  if (!c) return;
  if (c->parser) htp_connp_destroy_all(c->parser);
  free(c);
}

static int outcome(int state) {
  switch (state) {
    case HTP_STREAM_DATA:
    case HTP_STREAM_OPEN:
    case HTP_STREAM_CLOSED:
      return CHTP_OK;
    case HTP_STREAM_TUNNEL:
      return CHTP_TUNNEL;
    case HTP_STREAM_DATA_OTHER:
      return CHTP_OTHER;
    default:
      return CHTP_ERROR;
  }
}

int chtp_request_data(chtp_connection *c, void *context, const void *data, size_t length, int requests_only) {
  if (!c->parser) return CHTP_ERROR;
  c->context = context;
  c->requests_only = requests_only && !c->has_responses;
  int result = outcome(htp_connp_req_data(c->parser, NULL, data, length));
  c->piece += (int64_t)length;
  if (c->requests_only) {
    for (unsigned i = 0; i < c->done_count; i++) htp_tx_destroy_incomplete(c->done[i]);
    c->done_count = 0;
    if (result == CHTP_OK && c->since_fresh >= REQUESTS_PER_PARSER && !htp_connp_get_in_tx(c->parser)) {
      htp_connp_destroy_all(c->parser);
      c->parser = NULL;
      if (start_parser(c) != CHTP_OK) result = CHTP_ERROR;
    }
    if (c->since_fresh > REQUESTS_WITHOUT_PAUSE) result = CHTP_ERROR;
  }
  c->context = NULL;
  return result;
}

int64_t chtp_expected_end(const chtp_connection *c) { return c->expected_end < 0 ? -1 : c->expected_end - c->piece; }
int64_t chtp_request_end(const chtp_connection *c) { return c->request_end - c->piece; }

int chtp_is_at_rest(const chtp_connection *c) {
  return c->parser && !htp_connp_get_in_tx(c->parser) && !htp_connp_get_out_tx(c->parser);
}

int chtp_reuse(chtp_connection *c) {
  c->has_responses = 0;
  c->flags = 0;
  c->done_count = 0;
  if (c->parser && c->since_fresh < REQUESTS_PER_PARSER) return CHTP_OK;
  if (c->parser) htp_connp_destroy_all(c->parser);
  c->parser = NULL;
  return start_parser(c);
}

int chtp_response_data(chtp_connection *c, void *context, const void *data, size_t length) {
  if (!c->parser) return CHTP_ERROR;
  c->context = context;
  c->has_responses = 1;
  int result = outcome(htp_connp_res_data(c->parser, NULL, data, length));
  c->context = NULL;
  return result;
}

void chtp_close(chtp_connection *c, void *context) {
  if (!c->parser) return;
  c->context = context;
  c->requests_only = 0;
  htp_connp_close(c->parser, NULL);
  c->context = NULL;
}

void chtp_close_requests(chtp_connection *c, void *context) {
  if (!c->parser) return;
  c->context = context;
  htp_connp_req_close(c->parser, NULL);
  c->done_count = 0;
  c->context = NULL;
}

uint64_t chtp_last_flags(const chtp_connection *c) { return c->flags; }
