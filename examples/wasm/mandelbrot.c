/* A picture of the Mandelbrot set, as a BMP, computed anew for each request:
 *
 *     /?x=-0.7436&y=0.1318&zoom=300
 *
 * By the CGI convention (RFC 3875): what is asked is in QUERY_STRING, what is printed is the answer, headers first.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 480, HEIGHT = 320, STEPS_MAX = 300, HEAD = 54 };

/* The number that the query gives to this name, within bounds; else `otherwise`. */
static double asked(const char *name, double least, double most, double otherwise) {
  const char *query = getenv("QUERY_STRING");
  size_t length = strlen(name);
  while (query && *query) {
    if (!strncmp(query, name, length) && query[length] == '=') {
      char *end;
      double value = strtod(query + length + 1, &end);
      /* Not a number is not at least anything, so that it is refused too. */
      if (end != query + length + 1 && value >= least && value <= most) return value;
      return otherwise;
    }
    query = strchr(query, '&');
    if (query) query++;
  }
  return otherwise;
}

/* How many steps a point takes to get away; STEPS_MAX for one that does not. */
static int steps(double x, double y) {
  double re = 0, im = 0;
  int step = 0;
  while (step < STEPS_MAX && re * re + im * im <= 4) {
    double next = re * re - im * im + x;
    im = 2 * re * im + y;
    re = next;
    step++;
  }
  return step;
}

static void put(uint8_t *at, uint32_t value) {
  for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> 8 * i);
}

int main(void) {
  static uint8_t picture[HEAD + WIDTH * HEIGHT * 3];
  double x = asked("x", -3, 3, -0.6), y = asked("y", -3, 3, 0), zoom = asked("zoom", 1, 1e12, 1);
  double size = 3.2 / zoom / WIDTH;
  memcpy(picture, "BM", 2);
  put(picture + 2, sizeof picture);
  put(picture + 10, HEAD);
  put(picture + 14, 40);
  put(picture + 18, WIDTH);
  put(picture + 22, HEIGHT);
  put(picture + 26, 1 | 24 << 16); /* one plane, 24 bits for each point */
  uint8_t *point = picture + HEAD;
  for (int row = 0; row < HEIGHT; row++)
    for (int column = 0; column < WIDTH; column++) {
      int step = steps(x + (column - WIDTH / 2) * size, y + (row - HEIGHT / 2) * size);
      int inside = step == STEPS_MAX;
      *point++ = (uint8_t)(inside ? 0 : 60 + step * 9);
      *point++ = (uint8_t)(inside ? 0 : step * 5);
      *point++ = (uint8_t)(inside ? 0 : step * 2);
    }
  printf("Content-Type: image/bmp\nCache-Control: max-age=3600\n\n");
  return fwrite(picture, sizeof picture, 1, stdout) == 1 ? 0 : 1;
}
