// Does the work that its argument names and prints the name, the nanoseconds that the work itself
// has taken by the monotonic clock, and a checksum of the result. For `integer` it is what CoreMark
// does: a list is searched and sorted, matrices are multiplied, a state machine reads numbers, and
// all of it goes into a CRC.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// The same numbers in every run.
static uint32_t seed;
static uint32_t next_number(void) {
  seed ^= seed << 13;
  seed ^= seed >> 17;
  seed ^= seed << 5;
  return seed;
}

static uint16_t crc16(uint32_t value, uint16_t crc) {
  for (int bit = 0; bit < 32; bit++, value >>= 1) {
    int carry = (crc ^ value) & 1;
    crc >>= 1;
    if (carry) crc ^= 0xa001;
  }
  return crc;
}

struct node {
  struct node *next;
  int32_t value;
};

static struct node *merge(struct node *a, struct node *b) {
  struct node *head = NULL, **end = &head;
  while (a && b) {
    struct node **less = a->value <= b->value ? &a : &b;
    *end = *less;
    end = &(*less)->next;
    *less = *end;
  }
  *end = a ? a : b;
  return head;
}

static struct node *sort(struct node *list) {
  if (!list || !list->next) return list;
  struct node *middle = list;
  for (struct node *fast = list->next; fast && fast->next; fast = fast->next->next) {
    middle = middle->next;
  }
  struct node *rest = middle->next;
  middle->next = NULL;
  return merge(sort(list), sort(rest));
}

#define NODES 2000
static uint16_t list(uint16_t crc) {
  static struct node nodes[NODES];
  for (int i = 0; i < NODES; i++) {
    nodes[i].value = next_number() & 0xffff;
    nodes[i].next = i + 1 < NODES ? &nodes[i + 1] : NULL;
  }
  struct node *head = nodes;
  for (int i = 0; i < 50; i++) {
    int32_t wanted = next_number() & 0xffff;
    uint32_t place = 0;
    for (struct node *node = head; node && node->value != wanted; node = node->next) place++;
    crc = crc16(place, crc);
  }
  head = sort(head);
  for (struct node *node = head; node; node = node->next) crc = crc16(node->value, crc);
  return crc;
}

#define SIDE 60
static uint16_t matrix(uint16_t crc) {
  static int32_t a[SIDE][SIDE], b[SIDE][SIDE];
  for (int i = 0; i < SIDE; i++) {
    for (int j = 0; j < SIDE; j++) {
      a[i][j] = next_number() & 0xff;
      b[i][j] = next_number() & 0xff;
    }
  }
  for (int i = 0; i < SIDE; i++) {
    for (int j = 0; j < SIDE; j++) {
      int32_t sum = 0;
      for (int k = 0; k < SIDE; k++) sum += a[i][k] * b[k][j];
      crc = crc16(sum, crc);
    }
  }
  return crc;
}

// Reads numbers such as `+12`, `3.5e-7` or `x1`, and counts how each of them ends.
static uint16_t state_machine(uint16_t crc) {
  static const char *const words[] = {"5012", "+122", "-8.75", "1.5e-7", "12x", "-.", "e9", "0.1E+3"};
  enum state { BEGIN, SIGN, INTEGER, FRACTION, EXPONENT, EXPONENT_SIGN, SCIENTIFIC, INVALID, STATES };
  uint32_t ends[STATES] = {0};
  for (int i = 0; i < 2000; i++) {
    enum state state = BEGIN;
    for (const char *c = words[next_number() % 8]; *c && state != INVALID; c++) {
      int digit = *c >= '0' && *c <= '9', sign = *c == '+' || *c == '-';
      int power = *c == 'e' || *c == 'E';
      switch (state) {
        case BEGIN:
        case SIGN:
          state = digit ? INTEGER : *c == '.' ? FRACTION : sign && state == BEGIN ? SIGN : INVALID;
          break;
        case INTEGER:
          state = digit ? INTEGER : *c == '.' ? FRACTION : power ? EXPONENT : INVALID;
          break;
        case FRACTION:
          state = digit ? FRACTION : power ? EXPONENT : INVALID;
          break;
        case EXPONENT:
          state = digit ? SCIENTIFIC : sign ? EXPONENT_SIGN : INVALID;
          break;
        default:
          state = digit ? SCIENTIFIC : INVALID;
      }
    }
    ends[state]++;
  }
  for (int i = 0; i < STATES; i++) crc = crc16(ends[i], crc);
  return crc;
}

static uint64_t integer(void) {
  uint16_t crc = 0xffff;
  for (int i = 0; i < 60; i++) crc = state_machine(matrix(list(crc)));
  return crc;
}

// Bodies that attract each other, step by step.
#define BODIES 20
static uint64_t floating(void) {
  double place[BODIES][3], speed[BODIES][3] = {{0}}, mass[BODIES];
  for (int i = 0; i < BODIES; i++) {
    mass[i] = 1 + next_number() % 1000 / 1000.0;
    for (int d = 0; d < 3; d++) place[i][d] = next_number() % 100000 / 1000.0;
  }
  for (int step = 0; step < 48000; step++) {
    for (int i = 0; i < BODIES; i++) {
      for (int j = i + 1; j < BODIES; j++) {
        double delta[3], square = 0.01;
        for (int d = 0; d < 3; d++) {
          delta[d] = place[i][d] - place[j][d];
          square += delta[d] * delta[d];
        }
        double pull = 0.001 / (square * __builtin_sqrt(square));
        for (int d = 0; d < 3; d++) {
          speed[i][d] -= delta[d] * mass[j] * pull;
          speed[j][d] += delta[d] * mass[i] * pull;
        }
      }
    }
    for (int i = 0; i < BODIES; i++) {
      for (int d = 0; d < 3; d++) place[i][d] += 0.001 * speed[i][d];
    }
  }
  double sum = 0;
  for (int i = 0; i < BODIES; i++) sum += place[i][0] + place[i][1] + place[i][2];
  return (uint64_t)(sum * 1e6);
}

// Copies blocks, and follows a chain that leads through all of the memory.
#define WORDS (4u << 20)
static uint64_t memory(void) {
  uint32_t *words = malloc(WORDS * sizeof *words);
  if (!words) return 0;
  for (uint32_t i = 0; i < WORDS; i++) words[i] = i;
  // One cycle through all of them.
  for (uint32_t i = WORDS - 1; i > 0; i--) {
    uint32_t other = next_number() % i, kept = words[i];
    words[i] = words[other];
    words[other] = kept;
  }
  uint32_t at = 0;
  for (int i = 0; i < 500000; i++) at = words[at];
  uint64_t sum = at;
  for (int i = 0; i < 20; i++) {
    memmove(words + WORDS / 2, words, WORDS / 2 * sizeof *words);
    words[i] ^= next_number();
  }
  for (uint32_t i = 0; i < WORDS; i++) sum += words[i];
  free(words);
  return sum;
}

// Writes a document of objects, then reads it: every string, number, list and object in it.
static char document[1 << 20];
static const char *at;

static void skip_space(void) {
  while (*at == ' ' || *at == '\n') at++;
}

static uint64_t text(void) {
  uint64_t hash = 14695981039346656037u;
  for (at++; *at != '"'; at++) {
    if (*at == '\\') at++;
    hash = (hash ^ (unsigned char)*at) * 1099511628211u;
  }
  at++;
  return hash;
}

static uint64_t value(void) {
  skip_space();
  uint64_t sum = 0;
  if (*at == '"') return text();
  if (*at == '{' || *at == '[') {
    char end = *at == '{' ? '}' : ']';
    for (at++, skip_space(); *at != end; skip_space()) {
      if (*at == ',') at++;
      skip_space();
      if (end == '}') {
        sum += text();
        skip_space();
        at++;
      }
      sum = sum * 31 + value();
    }
    at++;
    return sum;
  }
  char *end;
  double number = strtod(at, &end);
  if (end == at) {
    // `true`, `false` or `null`.
    while (*at >= 'a' && *at <= 'z') sum += *at++;
    return sum;
  }
  at = end;
  return (uint64_t)(number * 1000);
}

static uint64_t json(void) {
  uint64_t sum = 0;
  for (int round = 0; round < 40; round++) {
    char *end = document;
    end += sprintf(end, "[");
    for (int i = 0; i < 5000; i++) {
      uint32_t number = next_number();
      end += sprintf(end, "%s\n  {\"id\": %d, \"name\": \"item \\\"%08x\\\"\", \"price\": %u.%02u, ",
                     i ? "," : "", i, number, number % 1000, number % 100);
      end += sprintf(end, "\"tags\": [\"a\", \"b%u\"], \"there\": %s}", number % 7,
                     number & 1 ? "true" : "null");
    }
    sprintf(end, "\n]");
    at = document;
    sum = sum * 31 + value();
  }
  return sum;
}

static const struct {
  const char *name;
  uint64_t (*work)(void);
} WORKS[] = {{"integer", integer}, {"float", floating}, {"memory", memory}, {"json", json}};

int main(int argc, char **argv) {
  for (size_t i = 0; argc == 2 && i < sizeof WORKS / sizeof *WORKS; i++) {
    if (strcmp(argv[1], WORKS[i].name)) continue;
    struct timespec begin, end;
    seed = 2463534242;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    uint64_t sum = WORKS[i].work();
    clock_gettime(CLOCK_MONOTONIC, &end);
    long long nanoseconds = (end.tv_sec - begin.tv_sec) * 1000000000LL + end.tv_nsec - begin.tv_nsec;
    printf("%s %lld %016llx\n", argv[1], nanoseconds, (unsigned long long)sum);
    return 0;
  }
  fputs("usage: compute integer|float|memory|json\n", stderr);
  return 2;
}
