/* What of a text may go to a terminal as it is. Names come from images, and a terminal obeys more than it shows. */

#ifndef PRINTABLE_H
#define PRINTABLE_H

#include <stdint.h>
#include <stdio.h>

/* How many bytes from `p` on are one printable character of UTF-8; 0 if they are not. */
static inline size_t printable(const uint8_t *p) {
        size_t n = *p < 0x80 ? 1 : *p >= 0xc2 && *p < 0xe0 ? 2 : (*p & 0xf0) == 0xe0 ? 3 : *p >= 0xf0 && *p < 0xf5 ? 4 : 0;

        if (n == 1)
                return *p >= ' ' && *p != 0x7f && *p != '\\';
        for (size_t i = 1; i < n; i++)
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
        /* C1 control characters, overlong forms, surrogates, what is behind the last character. */
        if ((p[0] == 0xc2 && p[1] < 0xa0) || (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
            (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
                return 0;
        /* U+200B to 200F, U+2028 to 202E, U+2060 to 206F, U+FEFF: not seen, or turning round what follows. */
        if (p[0] == 0xe2 && ((p[1] == 0x80 && ((p[2] >= 0x8b && p[2] <= 0x8f) || (p[2] >= 0xa8 && p[2] <= 0xae))) ||
                             (p[1] == 0x81 && p[2] >= 0xa0 && p[2] <= 0xaf)))
                return 0;
        if (p[0] == 0xef && p[1] == 0xbb && p[2] == 0xbf)
                return 0;
        return n;
}

static inline void print_escaped(FILE *file, const char *text) {
        const uint8_t *p = (const uint8_t *) text;

        while (*p) {
                size_t n = printable(p);

                if (n == 0)
                        fprintf(file, *p == '\\' ? "\\\\" : "\\x%02x", *p);
                else
                        fwrite(p, 1, n, file);
                p += n ? n : 1;
        }
}

#endif
