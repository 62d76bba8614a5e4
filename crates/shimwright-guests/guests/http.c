// Handles HTTP requests, one behaviour for each path. It speaks the canonical ABI of the component
// model itself: what a call returns beyond one number is written to the memory it is given.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HTTP "wasi:http/types@0.2.12"
#define OUTGOING "wasi:http/outgoing-handler@0.2.12"
#define STREAMS "wasi:io/streams@0.2.12"
#define POLL "wasi:io/poll@0.2.12"
#define TCP "wasi:sockets/tcp@0.2.12"
#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))

// A result, whose payload is below at an offset of 4, or 8 if an HTTP error is one of the cases.
typedef struct {
  int32_t failed;
  int32_t value[15];
} Result __attribute__((aligned(8)));

IMPORT(HTTP, "[constructor]fields") int32_t fields(void);
IMPORT(HTTP, "[method]incoming-request.path-with-query") void request_path(int32_t, Result *);
IMPORT(HTTP, "[method]incoming-request.consume") void request_body(int32_t, Result *);
IMPORT(HTTP, "[method]incoming-body.stream") void body_stream(int32_t, Result *);
IMPORT(HTTP, "[constructor]outgoing-response") int32_t response(int32_t);
IMPORT(HTTP, "[method]outgoing-response.body") void response_body(int32_t, Result *);
IMPORT(HTTP, "[method]outgoing-body.write") void body_write(int32_t, Result *);
IMPORT(HTTP, "[static]outgoing-body.finish") void body_finish(int32_t, int32_t, int32_t, Result *);
IMPORT(HTTP, "[static]response-outparam.set")
void respond(int32_t out, int32_t failed, int32_t response, int32_t, int64_t, int32_t, int32_t,
             int32_t, int32_t);
IMPORT(HTTP, "[constructor]outgoing-request") int32_t request(int32_t);
IMPORT(HTTP, "[method]outgoing-request.set-scheme")
int32_t request_scheme(int32_t, int32_t some, int32_t scheme, const char *, size_t);
IMPORT(HTTP, "[method]outgoing-request.set-authority")
int32_t request_authority(int32_t, int32_t some, const char *, size_t);
IMPORT(HTTP, "[method]outgoing-request.set-path-with-query")
int32_t request_target(int32_t, int32_t some, const char *, size_t);
IMPORT(HTTP, "[method]future-incoming-response.subscribe") int32_t future_pollable(int32_t);
IMPORT(HTTP, "[method]future-incoming-response.get") void future_get(int32_t, Result *);
IMPORT(HTTP, "[method]incoming-response.consume") void incoming_body(int32_t, Result *);
IMPORT(OUTGOING, "handle") void fetch(int32_t request, int32_t some, int32_t options, Result *);
IMPORT(STREAMS, "[method]output-stream.blocking-write-and-flush")
void stream_write(int32_t, const void *, size_t, Result *);
IMPORT(STREAMS, "[method]input-stream.blocking-read")
void stream_read(int32_t, int64_t length, Result *);
IMPORT(STREAMS, "[resource-drop]output-stream") void drop_output(int32_t);
IMPORT(POLL, "[method]pollable.block") void pollable_block(int32_t);
IMPORT(POLL, "[resource-drop]pollable") void drop_pollable(int32_t);
IMPORT("wasi:sockets/instance-network@0.2.12", "instance-network") int32_t network(void);
IMPORT("wasi:sockets/tcp-create-socket@0.2.12", "create-tcp-socket")
void tcp_socket(int32_t family, Result *);
IMPORT(TCP, "[method]tcp-socket.start-connect")
void tcp_connect(int32_t, int32_t network, int32_t family, int32_t port, int32_t, int32_t, int32_t,
                 int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, Result *);
IMPORT(TCP, "[method]tcp-socket.finish-connect") void tcp_connected(int32_t, Result *);
IMPORT(TCP, "[method]tcp-socket.subscribe") int32_t tcp_pollable(int32_t);

// Where a call puts a string or a list that it returns.
__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t, size_t, size_t);
void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
  (void)old_size, (void)align;
  return realloc(old, size);
}

static int32_t must(const Result *result, int payload) {
  if (result->failed & 0xff) abort();
  return result->value[payload];
}

static void block(int32_t pollable) {
  pollable_block(pollable);
  drop_pollable(pollable);
}

static void write_all(int32_t stream, const char *text, size_t length) {
  Result result;
  while (length > 0) {
    // One call takes no more than this.
    size_t part = length < 4096 ? length : 4096;
    stream_write(stream, text, part, &result);
    must(&result, 0);
    text += part;
    length -= part;
  }
}

// Copies until the end.
static void copy(int32_t from, int32_t to) {
  for (;;) {
    Result result;
    stream_read(from, 4096, &result);
    if (result.failed & 0xff) return;
    char *bytes = (char *)(intptr_t)result.value[0];
    write_all(to, bytes, result.value[1]);
    free(bytes);
  }
}

static int32_t stream_of(int32_t body) {
  Result result;
  body_stream(body, &result);
  return must(&result, 0);
}

// Answers with the body of `http://authority/`.
static void answer_fetch(const char *authority, int32_t to) {
  Result result;
  int32_t outgoing = request(fields());
  request_scheme(outgoing, 1, 0, 0, 0);
  request_authority(outgoing, 1, authority, strlen(authority));
  request_target(outgoing, 1, "/", 1);
  fetch(outgoing, 0, 0, &result);
  int32_t future = must(&result, 1);
  block(future_pollable(future));
  future_get(future, &result);
  // An option of a result of a result.
  if ((result.value[1] & 0xff) || (result.value[3] & 0xff)) {
    write_all(to, "no answer\n", 10);
    return;
  }
  incoming_body(result.value[5], &result);
  copy(stream_of(must(&result, 0)), to);
}

// Answers with what a server on this port of the loopback answers to `ping`.
static void answer_connect(int port, int32_t to) {
  Result result;
  tcp_socket(0, &result);
  int32_t socket = must(&result, 0);
  tcp_connect(socket, network(), 0, port, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, &result);
  if (!(result.failed & 0xff)) {
    block(tcp_pollable(socket));
    tcp_connected(socket, &result);
  }
  if (result.failed & 0xff) {
    write_all(to, "no answer\n", 10);
    return;
  }
  int32_t from = must(&result, 0), into = result.value[1];
  write_all(into, "ping", 4);
  copy(from, to);
}

static void answer(const char *path, int32_t incoming, int32_t to) {
  Result result;
  if (!strcmp(path, "/echo")) {
    request_body(incoming, &result);
    copy(stream_of(must(&result, 0)), to);
  } else if (!strcmp(path, "/given")) {
    char line[256] = "no file";
    FILE *file = fopen("/data/in.txt", "r");
    if (file && !fgets(line, sizeof line, file)) abort();
    const char *name = getenv("NAME");
    write_all(to, name ? name : "no name", name ? strlen(name) : 7);
    write_all(to, " ", 1);
    write_all(to, line, strlen(line));
  } else if (!strcmp(path, "/count")) {
    // How often this instance was asked.
    static int count;
    char line[16];
    write_all(to, line, snprintf(line, sizeof line, "%d\n", ++count));
  } else if (!strcmp(path, "/wait")) {
    // Until there is a file, so that a test decides how long a request takes.
    write(STDOUT_FILENO, "waiting\n", 8);
    while (access("/data/go", F_OK)) usleep(5000);
    write_all(to, "waited\n", 7);
  } else if (!strcmp(path, "/spin")) {
    write(STDOUT_FILENO, "spinning\n", 9);
    for (volatile int spinning = 1; spinning;) {
    }
  } else if (!strncmp(path, "/fetch/", 7)) {
    answer_fetch(path + 7, to);
  } else if (!strncmp(path, "/connect/", 9)) {
    answer_connect(atoi(path + 9), to);
  } else {
    write_all(to, "Hello from Wasm\n", 16);
  }
}

__attribute__((export_name("wasi:http/incoming-handler@0.2.12#handle"))) void
handle(int32_t incoming, int32_t out) {
  Result result;
  request_path(incoming, &result);
  // An option of a string, which ends with no zero.
  char path[256] = "";
  if (result.failed & 0xff) {
    size_t length = result.value[1];
    memcpy(path, (char *)(intptr_t)result.value[0], length < 255 ? length : 255);
  }
  if (!strcmp(path, "/trap")) __builtin_trap();
  if (!strcmp(path, "/log")) {
    write(STDOUT_FILENO, "to standard output\n", 19);
    write(STDERR_FILENO, "to standard error\n", 18);
  }
  int32_t answered = response(fields());
  response_body(answered, &result);
  int32_t body = must(&result, 0);
  body_write(body, &result);
  int32_t to = must(&result, 0);
  respond(out, 0, answered, 0, 0, 0, 0, 0, 0);
  answer(path, incoming, to);
  drop_output(to);
  body_finish(body, 0, 0, &result);
  must(&result, 0);
}
