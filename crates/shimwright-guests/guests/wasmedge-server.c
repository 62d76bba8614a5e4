// Serves HTTP with the sockets of WasmEdge, which no header declares: one connection after the
// other, on the address and the port given, and answers with the request's body.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define IMPORT(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(name)))

enum { INET4 = 1, STREAM = 2 };

typedef struct {
  const uint8_t *bytes;
  uint32_t length;
} Address;

IMPORT("sock_open") int32_t sock_open(int32_t family, int32_t type, int32_t *fd);
IMPORT("sock_bind") int32_t sock_bind(int32_t fd, const Address *, uint32_t port);
IMPORT("sock_listen") int32_t sock_listen(int32_t fd, int32_t backlog);
IMPORT("sock_accept") int32_t sock_accept(int32_t fd, int32_t *connection);

static void must(int32_t errno_, const char *what) {
  if (errno_) {
    fprintf(stderr, "%s: error %d\n", what, (int)errno_);
    exit(1);
  }
}

// Reads a request, and returns its body, or nothing if there is none.
static const char *body_of(int fd, char *request, size_t size) {
  size_t length = 0;
  for (;;) {
    ssize_t got = read(fd, request + length, size - 1 - length);
    if (got <= 0) return NULL;
    length += got;
    request[length] = 0;
    const char *end = strstr(request, "\r\n\r\n");
    if (!end) continue;
    const char *expected = strcasestr(request, "content-length:");
    if (!expected || strlen(end + 4) >= strtoul(expected + 15, NULL, 10)) return end + 4;
  }
}

int main(int argc, char **argv) {
  uint8_t ip[4];
  if (argc != 3 || sscanf(argv[1], "%hhu.%hhu.%hhu.%hhu", ip, ip + 1, ip + 2, ip + 3) != 4) return 2;
  Address address = {ip, sizeof ip};
  int32_t listening, connection;
  must(sock_open(INET4, STREAM, &listening), "open");
  must(sock_bind(listening, &address, strtoul(argv[2], NULL, 10)), "bind");
  must(sock_listen(listening, 16), "listen");
  puts("listening");
  fflush(stdout);
  for (;;) {
    static char request[4096], answer[4096 + 128];
    must(sock_accept(listening, &connection), "accept");
    const char *body = body_of(connection, request, sizeof request);
    if (body) {
      int length = snprintf(answer, sizeof answer,
                            "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
                            strlen(body), body);
      if (write(connection, answer, length) != length) must(1, "write");
    }
    close(connection);
  }
}
