/* The tar reader: ustar (POSIX.1-1988), pax (POSIX.1-2001) and GNU, strictly.
 *
 * What two readers could understand in two ways is refused: an image must be the same tree to everyone
 * who checks it. There is one parser, and what it says is what is extracted. */

#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unpack.h"

#define BLOCK 512
#define EXTENTS_MAX ((size_t) 1 << 17)
#define XATTRS_MAX 128

struct header {
        char name[100];
        char mode[8];
        char uid[8];
        char gid[8];
        char size[12];
        char mtime[12];
        char checksum[8];
        char type;
        char link[100];
        char magic[8];
        char owner[32];
        char group[32];
        char major[8];
        char minor[8];
        union {
                char prefix[155];                          /* ustar and pax */
                struct {                                   /* GNU */
                        char times_and_more[41];
                        struct { char offset[12], size[12]; } sparse[4];
                        char is_extended;
                        char real_size[12];
                } gnu;
        };
        char rest[12];
};

/* A block of more extents after a GNU header. */
struct extension {
        struct { char offset[12], size[12]; } sparse[21];
        char is_extended;
        char rest[7];
};

_Static_assert(sizeof(struct header) == BLOCK && sizeof(struct extension) == BLOCK, "tar is made of blocks");

/* What a pax header said. */
struct pax {
        const char *path, *link, *sparse_name;
        size_t path_size, link_size, sparse_name_size;
        bool has_size, has_uid, has_gid, has_mtime, has_real_size;
        bool sparse, sparse_has_offset, sparse_in_data;
        uint64_t size, uid, gid, real_size, sparse_major, sparse_offset, sparse_blocks;
        bool has_sparse_blocks;
        struct timespec mtime;
};

int entry_fail(const struct tar_entry *entry, struct error *reterr, int number, const char *format, ...) {
        char text[600];
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(text, sizeof(text), format, arguments);
        va_end(arguments);
        return fail(reterr, number, "%.400s%s: %s", *entry->path ? entry->path : "./", strlen(entry->path) > 400 ? "..." : "", text);
}

static void *grow(void *array, size_t *allocated, size_t item) {
        size_t more = *allocated ? 2 * *allocated : 16;
        void *bigger = reallocarray(array, more, item);

        if (bigger)
                *allocated = more;
        return bigger;
}

/* The number is octal digits between spaces and NULs, or GNU's base 256 behind a first byte with the top bit. */
static int parse_field(const char *field, size_t size, int64_t *ret) {
        const uint8_t *bytes = (const uint8_t *) field;
        size_t i = 0;

        if (bytes[0] & 0x80) {
                uint8_t sign = bytes[0] == 0xff ? 0xff : 0;
                uint64_t number = sign ? UINT64_MAX : 0;

                if (bytes[0] != 0xff && bytes[0] != 0x80)
                        return -ERANGE;
                for (i = 1; i < size; i++) {
                        if (i + 8 < size && bytes[i] != sign)
                                return -ERANGE;
                        number = number << 8 | bytes[i];
                }
                /* In a field of 12 bytes the last 8 hold the number, and their top bit must be its sign. */
                if (size > 8 && (bytes[size - 8] & 0x80) != (sign & 0x80))
                        return -ERANGE;
                *ret = (int64_t) number;
                return 0;
        }

        uint64_t number = 0;

        while (i < size && bytes[i] == ' ')
                i++;
        for (; i < size && bytes[i] >= '0' && bytes[i] <= '7'; i++)
                number = number << 3 | (bytes[i] - '0');
        for (; i < size; i++)
                if (bytes[i] != 0 && bytes[i] != ' ')
                        return -EINVAL;
        *ret = (int64_t) number;
        return 0;
}

static int parse_unsigned(const struct tar_entry *entry, const char *what, const char *field, size_t size, uint64_t *ret, struct error *reterr) {
        int64_t number;
        int r = parse_field(field, size, &number);

        if (r == -ERANGE || (r == 0 && number < 0))
                return entry_fail(entry, reterr, 0, "its %s is negative or too large", what);
        if (r < 0)
                return entry_fail(entry, reterr, 0, "its %s is not a number", what);
        *ret = (uint64_t) number;
        return 0;
}

#define PARSE_FIELD(entry, what, field, ret, reterr) parse_unsigned((entry), (what), (field), sizeof(field), (ret), (reterr))

/* Decimal digits and nothing else; at most 2^63 - 1. Returns the first byte after them. */
static const char *parse_decimal(const char *text, uint64_t *ret) {
        uint64_t number = 0;
        const char *p = text;

        for (; *p >= '0' && *p <= '9'; p++)
                if (__builtin_mul_overflow(number, 10U, &number) || __builtin_add_overflow(number, (unsigned) (*p - '0'), &number) ||
                    number > INT64_MAX)
                        return NULL;
        *ret = number;
        return p == text ? NULL : p;
}

static bool is_decimal(const char *text, uint64_t *ret) {
        const char *end = parse_decimal(text, ret);

        return end && *end == '\0';
}

/* "-1.25" is a second and a quarter before 1970, as (-2 s, 750000000 ns). Digits after the ninth are dropped. */
static bool parse_time(const char *text, struct timespec *ret) {
        bool negative = *text == '-';
        uint64_t seconds;
        long nanoseconds = 0;
        const char *p = parse_decimal(text + negative, &seconds);

        if (!p)
                return false;
        if (*p == '.') {
                long unit = 100000000;

                for (p++; *p >= '0' && *p <= '9'; p++, unit /= 10)
                        nanoseconds += (*p - '0') * unit;
        }
        if (*p)
                return false;
        *ret = (struct timespec) { .tv_sec = (time_t) seconds, .tv_nsec = nanoseconds };
        if (negative) {
                ret->tv_sec = -ret->tv_sec - (nanoseconds > 0);
                ret->tv_nsec = nanoseconds > 0 ? 1000000000 - nanoseconds : 0;
        }
        return true;
}

/* Read `size` bytes of the archive and the padding behind them, into memory with a NUL at its end. */
static int read_extended(struct tar *tar, uint64_t size, const char *what, char **ret, struct error *reterr) {
        size_t whole = (size_t) (size + BLOCK - 1) / BLOCK * BLOCK;
        char *bytes;
        ssize_t n;

        if (size > EXTENDED_MAX)
                return fail(reterr, 0, "a header (%s) of %llu bytes is in the archive; %zu are allowed", what, (unsigned long long) size, EXTENDED_MAX);
        n = cursor_wait(tar->in, whole, reterr);
        if (n < 0)
                return (int) n;
        if ((size_t) n < whole)
                return fail(reterr, 0, "the archive is truncated: it ends within a header (%s)", what);
        bytes = malloc((size_t) size + 1);
        if (!bytes)
                return fail(reterr, ENOMEM, "cannot read a header (%s)", what);
        memcpy(bytes, cursor_bytes(tar->in), (size_t) size);
        bytes[size] = '\0';
        cursor_advance(tar->in, whole);
        free(*ret);
        *ret = bytes;
        return 0;
}

static int add_extent(struct tar_entry *entry, uint64_t offset, uint64_t size, struct error *reterr) {
        if (entry->n_extents == entry->extents_allocated) {
                struct extent *bigger = entry->n_extents < EXTENTS_MAX ? grow(entry->extents, &entry->extents_allocated, sizeof(*bigger)) : NULL;

                if (!bigger)
                        return fail(reterr, 0, "a sparse file of more than %zu pieces is in the archive", EXTENTS_MAX);
                entry->extents = bigger;
        }
        entry->extents[entry->n_extents++] = (struct extent) { offset, size };
        return 0;
}

/* A later value replaces an earlier one of the same name: bsdtar writes each attribute twice, in two spellings. */
static int add_xattr(struct tar_entry *entry, const char *name, const char *value, size_t size, struct error *reterr) {
        for (size_t i = 0; i < entry->n_xattrs; i++)
                if (strcmp(entry->xattrs[i].name, name) == 0) {
                        entry->xattrs[i] = (struct xattr) { name, value, size };
                        return 0;
                }
        if (entry->n_xattrs == entry->xattrs_allocated) {
                struct xattr *bigger = entry->n_xattrs < XATTRS_MAX ? grow(entry->xattrs, &entry->xattrs_allocated, sizeof(*bigger)) : NULL;

                if (!bigger)
                        return fail(reterr, 0, "a file of more than %d extended attributes is in the archive", XATTRS_MAX);
                entry->xattrs = bigger;
        }
        entry->xattrs[entry->n_xattrs++] = (struct xattr) { name, value, size };
        return 0;
}

static int hex_digit(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        c |= 0x20;
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The decoders work in place. GNU tar spells "=" and "%" in the name of an attribute so, and nothing else. */
static void decode_gnu(char *text) {
        char *to = text;

        for (const char *from = text; *from; to++) {
                bool equals = strncmp(from, "%3D", 3) == 0, percent = strncmp(from, "%25", 3) == 0;

                *to = equals ? '=' : *from;
                from += equals || percent ? 3 : 1;
        }
        *to = '\0';
}

static bool decode_percent(char *text) {
        char *to = text;

        for (char *from = text; *from; to++) {
                if (*from != '%') {
                        *to = *from++;
                        continue;
                }
                int high = hex_digit(from[1]), low = high < 0 ? -1 : hex_digit(from[2]);

                if (low < 0 || (high | low) == 0)
                        return false;
                *to = (char) (high << 4 | low);
                from += 3;
        }
        *to = '\0';
        return true;
}

static bool decode_base64(char *text, size_t size, size_t *ret_size) {
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        uint32_t bits = 0;
        unsigned n_bits = 0;
        size_t n = 0;

        while (size > 0 && text[size - 1] == '=')
                size--;
        for (size_t i = 0; i < size; i++) {
                const char *digit = text[i] ? strchr(digits, text[i]) : NULL;

                if (!digit)
                        return false;
                bits = bits << 6 | (uint32_t) (digit - digits);
                n_bits += 6;
                if (n_bits >= 8) {
                        n_bits -= 8;
                        text[n++] = (char) (bits >> n_bits);
                }
        }
        *ret_size = n;
        return true;
}

static bool begins_with(const char *text, const char *prefix, const char **ret_rest) {
        size_t n = strlen(prefix);

        *ret_rest = text + n;
        return strncmp(text, prefix, n) == 0;
}

/* "0,512,8192,512": offset and size in turn (GNU sparse 0.1). */
static bool parse_map(struct tar_entry *entry, const char *text, struct error *reterr) {
        for (;;) {
                uint64_t offset, size;

                text = parse_decimal(text, &offset);
                if (!text || *text++ != ',')
                        return false;
                text = parse_decimal(text, &size);
                if (!text || add_extent(entry, offset, size, reterr) < 0)
                        return false;
                if (*text == '\0')
                        return true;
                if (*text++ != ',')
                        return false;
        }
}

/* The three formats of GNU tar 1.13.92 to 1.15.90, each by its own keywords. */
static bool sparse_record(struct tar_entry *entry, struct pax *pax, const char *key, const char *value, size_t size, struct error *reterr) {
        uint64_t number;

        pax->sparse = true;
        if (strcmp(key, "name") == 0) {
                pax->sparse_name = value;
                pax->sparse_name_size = size;
                return true;
        }
        if (strcmp(key, "map") == 0)
                return entry->n_extents == 0 && !pax->sparse_has_offset && (*value == '\0' || parse_map(entry, value, reterr));
        if (!is_decimal(value, &number))
                return false;
        if (strcmp(key, "major") == 0) {
                pax->sparse_major = number;
                pax->sparse_in_data = number == 1;
                return number <= 1;
        }
        if (strcmp(key, "minor") == 0)
                return number <= 1;
        if (strcmp(key, "size") == 0 || strcmp(key, "realsize") == 0) {
                pax->real_size = number;
                pax->has_real_size = true;
                return true;
        }
        if (strcmp(key, "numblocks") == 0) {
                pax->sparse_blocks = number;
                pax->has_sparse_blocks = true;
                return true;
        }
        if (strcmp(key, "offset") == 0) {
                bool alone = !pax->sparse_has_offset;

                pax->sparse_offset = number;
                pax->sparse_has_offset = true;
                return alone;
        }
        if (strcmp(key, "numbytes") == 0) {
                bool paired = pax->sparse_has_offset;

                pax->sparse_has_offset = false;
                return paired && add_extent(entry, pax->sparse_offset, number, reterr) == 0;
        }
        return false;
}

/* One record of a pax header. What we do not know does not concern the tree, or is not kept: comment, atime, uname,
 * ACLs, SELinux labels. */
static bool pax_record(struct tar_entry *entry, struct pax *pax, char *key, char *value, size_t size, struct error *reterr) {
        bool is_text = !memchr(value, '\0', size);
        const char *rest;

        if (begins_with(key, "SCHILY.xattr.", &rest)) {
                decode_gnu(key);
                return *rest && add_xattr(entry, rest, value, size, reterr) == 0;
        }
        if (begins_with(key, "LIBARCHIVE.xattr.", &rest))
                return decode_percent(key) && *rest && decode_base64(value, size, &size) && add_xattr(entry, rest, value, size, reterr) == 0;
        if (begins_with(key, "GNU.sparse.", &rest))
                return is_text && sparse_record(entry, pax, rest, value, size, reterr);
        if (strcmp(key, "path") == 0) {
                pax->path = value;
                pax->path_size = size;
        } else if (strcmp(key, "linkpath") == 0) {
                pax->link = value;
                pax->link_size = size;
        } else if (strcmp(key, "size") == 0)
                return pax->has_size = is_text && is_decimal(value, &pax->size);
        else if (strcmp(key, "uid") == 0)
                return pax->has_uid = is_text && is_decimal(value, &pax->uid);
        else if (strcmp(key, "gid") == 0)
                return pax->has_gid = is_text && is_decimal(value, &pax->gid);
        else if (strcmp(key, "mtime") == 0)
                return pax->has_mtime = is_text && parse_time(value, &pax->mtime);
        return true;
}

/* "LENGTH KEY=VALUE\n", the length that of all of it. Makes NULs of the "=" and the "\n". */
static int parse_pax(char *bytes, size_t size, struct tar_entry *entry, struct pax *pax, struct error *reterr) {
        for (char *record = bytes, *end = bytes + size; record < end;) {
                uint64_t length;
                const char *space = *record == '0' ? NULL : parse_decimal(record, &length);
                char *key, *value;

                if (!space || *space != ' ' || length > (size_t) (end - record) || length < (size_t) (space - record) + 4)
                        return fail(reterr, 0, "an extended header in the archive has a record of wrong length");
                key = record + (space - record) + 1;
                record += length;
                value = memchr(key, '=', (size_t) (record - 1 - key));
                if (record[-1] != '\n' || !value || value == key || memchr(key, '\0', (size_t) (value - key)))
                        return fail(reterr, 0, "an extended header in the archive has a record that is not KEY=VALUE");
                record[-1] = '\0';
                *value++ = '\0';
                if (!pax_record(entry, pax, key, value, (size_t) (record - 1 - value), reterr)) {
                        if (reterr->number)
                                return -reterr->number;
                        return fail(reterr, 0, "an extended header in the archive has a wrong value for %.100s: %.100s", key, value);
                }
        }
        if (pax->sparse_has_offset)
                return fail(reterr, 0, "an extended header in the archive has a sparse offset without its size");
        return 0;
}

/* A header for all that follows may say who owns it and when it was made; a path or a size for all members is no
 * archive but a trick. */
static int parse_global(struct tar *tar, char *bytes, size_t size, struct error *reterr) {
        struct tar_entry scratch = { 0 };
        struct pax pax = { 0 };
        int r = parse_pax(bytes, size, &scratch, &pax, reterr);
        bool tricky = pax.path || pax.link || pax.has_size || pax.sparse || scratch.n_xattrs > 0;

        free(scratch.extents);
        free(scratch.xattrs);
        if (r < 0)
                return r;
        if (tricky)
                return fail(reterr, 0, "a global header in the archive sets a path, link, size or attribute for all entries");
        if (pax.has_uid) {
                tar->global.has_uid = true;
                tar->global.uid = pax.uid;
        }
        if (pax.has_gid) {
                tar->global.has_gid = true;
                tar->global.gid = pax.gid;
        }
        if (pax.has_mtime) {
                tar->global.has_mtime = true;
                tar->global.mtime = pax.mtime;
        }
        return 0;
}

/* Make "./rootfs//etc/" "rootfs/etc". */
static int normalise(const char *what, const char *name, size_t size, char *ret, struct error *reterr) {
        char *to = ret;

        if (size == 0)
                return fail(reterr, 0, "an empty %s is in the archive", what);
        if (memchr(name, '\0', size))
                return fail(reterr, 0, "%.400s: a %s with a NUL byte in it", name, what);
        if (size >= PATH_MAX)
                return fail(reterr, 0, "%.100s...: a %s of %zu bytes; %d are allowed", name, what, size, PATH_MAX - 1);
        if (name[0] == '/')
                return fail(reterr, 0, "%.400s: an absolute %s", name, what);
        for (const char *from = name; *from;) {
                size_t n = strcspn(from, "/");

                if (n == 2 && from[0] == '.' && from[1] == '.')
                        return fail(reterr, 0, "%.400s: a %s with \"..\" in it", name, what);
                if (n > 0 && !(n == 1 && from[0] == '.')) {
                        if (to > ret)
                                *to++ = '/';
                        memcpy(to, from, n);
                        to += n;
                }
                from += n + (from[n] == '/');
        }
        *to = '\0';
        return 0;
}

/* A name field need not end in NUL. */
static size_t copy_field(char *to, const char *field, size_t size) {
        size_t n = strnlen(field, size);

        memcpy(to, field, n);
        to[n] = '\0';
        return n;
}

static int read_long_name(struct tar *tar, uint64_t size, const char *what, char **ret, struct error *reterr) {
        int r;

        if (*ret)
                return fail(reterr, 0, "two headers (%s) for one entry are in the archive", what);
        r = read_extended(tar, size, what, ret, reterr);
        if (r < 0)
                return r;
        for (size_t i = strlen(*ret); i < size; i++)
                if ((*ret)[i])
                        return fail(reterr, 0, "%.400s: a name with a NUL byte in it", *ret);
        return 0;
}

static int entry_names(struct tar *tar, const struct header *header, bool is_gnu, const struct pax *pax, struct error *reterr) {
        struct tar_entry *entry = &tar->entry;
        char name[sizeof(header->prefix) + 1 + sizeof(header->name) + 1], link[sizeof(header->link) + 1];
        const char *path = name, *link_path = link;
        size_t size = 0, link_size;
        int r;

        /* In GNU's format the place of the prefix holds times and a sparse map. */
        if (!is_gnu && header->prefix[0]) {
                size = copy_field(name, header->prefix, sizeof(header->prefix));
                name[size++] = '/';
        }
        size += copy_field(name + size, header->name, sizeof(header->name));
        link_size = copy_field(link, header->link, sizeof(header->link));
        if (tar->name) {
                path = tar->name;
                size = strlen(path);
        } else if (pax->sparse_name) {
                path = pax->sparse_name;
                size = pax->sparse_name_size;
        } else if (pax->path) {
                path = pax->path;
                size = pax->path_size;
        }
        if (tar->link) {
                link_path = tar->link;
                link_size = strlen(link_path);
        } else if (pax->link) {
                link_path = pax->link;
                link_size = pax->link_size;
        }
        r = normalise("name", path, size, entry->path, reterr);
        if (r < 0)
                return r;
        if (path[size - 1] == '/' && entry->type != '5')
                return entry_fail(entry, reterr, 0, "the name of a directory, but it is none");
        *entry->link = '\0';
        if (entry->type == '1')
                return normalise("link target", link_path, link_size, entry->link, reterr);
        if (entry->type == '2') {
                if (link_size == 0 || memchr(link_path, '\0', link_size) || link_size >= sizeof(entry->link))
                        return entry_fail(entry, reterr, 0, "a symbolic link to a name that is empty, too long or has a NUL byte in it");
                memcpy(entry->link, link_path, link_size + 1);
        }
        return 0;
}

/* uid and gid -1 mean "leave it as it is" to chown(2), and nobody's number to everyone else. */
static int entry_owner(struct tar_entry *entry, const char *what, const char *field, size_t size, bool has_pax, uint64_t pax, bool has_global, uint64_t global, uid_t *ret, struct error *reterr) {
        uint64_t number = has_pax ? pax : global;

        if (!has_pax && !has_global) {
                int r = parse_unsigned(entry, what, field, size, &number, reterr);

                if (r < 0)
                        return r;
        }
        if (number >= UINT32_MAX)
                return entry_fail(entry, reterr, 0, "its %s is %llu; at most 4294967294 is allowed", what, (unsigned long long) number);
        *ret = (uid_t) number;
        return 0;
}

static int entry_attributes(struct tar *tar, const struct header *header, const struct pax *pax, struct error *reterr) {
        struct tar_entry *entry = &tar->entry;
        uint64_t number;
        int r;

        r = PARSE_FIELD(entry, "mode", header->mode, &number, reterr);
        if (r < 0)
                return r;
        entry->mode = (mode_t) (number & 07777);
        r = entry_owner(entry, "uid", header->uid, sizeof(header->uid), pax->has_uid, pax->uid, tar->global.has_uid, tar->global.uid, &entry->uid, reterr);
        if (r < 0)
                return r;
        r = entry_owner(entry, "gid", header->gid, sizeof(header->gid), pax->has_gid, pax->gid, tar->global.has_gid, tar->global.gid, &entry->gid, reterr);
        if (r < 0)
                return r;
        if (pax->has_mtime)
                entry->mtime = pax->mtime;
        else if (tar->global.has_mtime)
                entry->mtime = tar->global.mtime;
        else {
                int64_t seconds;

                if (parse_field(header->mtime, sizeof(header->mtime), &seconds) < 0)
                        return entry_fail(entry, reterr, 0, "its time is not a number");
                entry->mtime = (struct timespec) { .tv_sec = seconds };
        }
        if (entry->type != '3' && entry->type != '4')
                return 0;
        r = PARSE_FIELD(entry, "device number", header->major, &number, reterr);
        if (r < 0)
                return r;
        entry->major = (unsigned) MIN(number, (uint64_t) UINT32_MAX);
        r = PARSE_FIELD(entry, "device number", header->minor, &number, reterr);
        if (r < 0)
                return r;
        entry->minor = (unsigned) MIN(number, (uint64_t) UINT32_MAX);
        /* A dev_t of Linux has 12 and 20 bits. */
        if (entry->major > 0xfff || entry->minor > 0xfffff)
                return entry_fail(entry, reterr, 0, "its device number is too large");
        return 0;
}

/* The old GNU format: the map is in the header, and in blocks behind it. */
static int read_old_sparse(struct tar *tar, const struct header *header, struct error *reterr) {
        struct tar_entry *entry = &tar->entry;
        uint64_t offset, size;
        bool more = header->gnu.is_extended;
        int r;

        for (size_t i = 0; i < COUNT(header->gnu.sparse) && header->gnu.sparse[i].size[0]; i++) {
                r = PARSE_FIELD(entry, "sparse map", header->gnu.sparse[i].offset, &offset, reterr);
                if (r < 0)
                        return r;
                r = PARSE_FIELD(entry, "sparse map", header->gnu.sparse[i].size, &size, reterr);
                if (r < 0)
                        return r;
                r = add_extent(entry, offset, size, reterr);
                if (r < 0)
                        return r;
        }
        while (more) {
                struct extension extension;
                ssize_t n = cursor_wait(tar->in, BLOCK, reterr);

                if (n < 0)
                        return (int) n;
                if (n < BLOCK)
                        return fail(reterr, 0, "the archive is truncated: it ends within the sparse map of %.400s", entry->path);
                memcpy(&extension, cursor_bytes(tar->in), BLOCK);
                cursor_advance(tar->in, BLOCK);
                for (size_t i = 0; i < COUNT(extension.sparse) && extension.sparse[i].size[0]; i++) {
                        r = PARSE_FIELD(entry, "sparse map", extension.sparse[i].offset, &offset, reterr);
                        if (r < 0)
                                return r;
                        r = PARSE_FIELD(entry, "sparse map", extension.sparse[i].size, &size, reterr);
                        if (r < 0)
                                return r;
                        r = add_extent(entry, offset, size, reterr);
                        if (r < 0)
                                return r;
                }
                more = extension.is_extended;
        }
        return 0;
}

/* A line of the map at the start of the data of a sparse 1.0 file: a decimal number. */
static int read_map_number(struct tar *tar, uint64_t *read, uint64_t *ret, struct error *reterr) {
        char digits[24];

        for (size_t i = 0; i < sizeof(digits); i++) {
                const uint8_t *byte;
                ssize_t n = tar_data(tar, &byte, 1, reterr);

                if (n < 0)
                        return (int) n;
                if (n == 0)
                        break;
                ++*read;
                digits[i] = (char) *byte;
                if (digits[i] == '\n') {
                        digits[i] = '\0';
                        if (is_decimal(digits, ret))
                                return 0;
                        break;
                }
        }
        return entry_fail(&tar->entry, reterr, 0, "its sparse map is not one");
}

/* Sparse 1.0: the number of pieces, then offset and size of each, a line a number, padded to a block. */
static int read_sparse_in_data(struct tar *tar, struct error *reterr) {
        uint64_t count, read = 0;
        int r;

        r = read_map_number(tar, &read, &count, reterr);
        if (r < 0)
                return r;
        for (; count > 0; count--) {
                uint64_t offset, size;

                r = read_map_number(tar, &read, &offset, reterr);
                if (r < 0)
                        return r;
                r = read_map_number(tar, &read, &size, reterr);
                if (r < 0)
                        return r;
                r = add_extent(&tar->entry, offset, size, reterr);
                if (r < 0)
                        return r;
        }
        read = -read % BLOCK;
        if (read > tar->left)
                return entry_fail(&tar->entry, reterr, 0, "its sparse map is not one");
        tar->left -= read;
        return tar_skip(tar, (size_t) read, reterr);
}

static int check_extents(const struct tar *tar, struct error *reterr) {
        const struct tar_entry *entry = &tar->entry;
        uint64_t end = 0, stored = 0;

        for (size_t i = 0; i < entry->n_extents; i++) {
                const struct extent *extent = &entry->extents[i];

                /* Numbers are below 2^63, so a sum of two does not wrap. */
                if (extent->offset < end || extent->offset + extent->size > entry->size)
                        return entry_fail(entry, reterr, 0, "its sparse map overlaps itself or ends behind the file");
                end = extent->offset + extent->size;
                stored += extent->size;
        }
        if (stored != tar->left)
                return entry_fail(entry, reterr, 0, "its sparse map is of %llu bytes, the archive has %llu", (unsigned long long) stored, (unsigned long long) tar->left);
        return 0;
}

static int entry_sparse(struct tar *tar, const struct header *header, bool is_gnu, const struct pax *pax, struct error *reterr) {
        struct tar_entry *entry = &tar->entry;
        int r;

        if (entry->type == 'S') {
                if (!is_gnu || pax->sparse)
                        return entry_fail(entry, reterr, 0, "a sparse file in two formats");
                entry->type = '0';
                r = PARSE_FIELD(entry, "size", header->gnu.real_size, &entry->size, reterr);
                if (r < 0)
                        return r;
                r = read_old_sparse(tar, header, reterr);
        } else {
                if (entry->type != '0')
                        return entry_fail(entry, reterr, 0, "a sparse file that is none");
                if (!pax->has_real_size)
                        return entry_fail(entry, reterr, 0, "a sparse file without its size");
                if (pax->has_sparse_blocks && pax->sparse_blocks != entry->n_extents)
                        return entry_fail(entry, reterr, 0, "a sparse file with a map of %zu pieces instead of %llu", entry->n_extents, (unsigned long long) pax->sparse_blocks);
                if (pax->sparse_in_data && entry->n_extents > 0)
                        return entry_fail(entry, reterr, 0, "a sparse file with two maps");
                entry->size = pax->real_size;
                r = pax->sparse_in_data ? read_sparse_in_data(tar, reterr) : 0;
        }
        if (r < 0)
                return r;
        entry->sparse = true;
        return check_extents(tar, reterr);
}

static int make_entry(struct tar *tar, const struct header *header, const struct pax *pax, struct error *reterr) {
        struct tar_entry *entry = &tar->entry;
        bool is_gnu = memcmp(header->magic, "ustar  ", 8) == 0;
        uint64_t stored;
        int r;

        entry->type = header->type == '\0' || header->type == '7' ? '0' : header->type;
        entry->sparse = false;
        r = entry_names(tar, header, is_gnu, pax, reterr);
        if (r < 0)
                return r;
        if (!strchr("0123456S", entry->type))
                return entry_fail(entry, reterr, 0, "an entry of type \"%c\", which is not allowed", entry->type);
        r = entry_attributes(tar, header, pax, reterr);
        if (r < 0)
                return r;
        stored = pax->size;
        if (!pax->has_size) {
                r = PARSE_FIELD(entry, "size", header->size, &stored, reterr);
                if (r < 0)
                        return r;
        }
        /* Whether data follows such a header is what readers do not agree on. */
        if (stored > 0 && entry->type != '0' && entry->type != 'S')
                return entry_fail(entry, reterr, 0, "a size of %llu, but it is not a file", (unsigned long long) stored);
        entry->size = tar->left = stored;
        tar->padding = (unsigned) (-stored % BLOCK);
        return entry->type == 'S' || pax->sparse ? entry_sparse(tar, header, is_gnu, pax, reterr) : 0;
}

static bool all_zero(const uint8_t *bytes, size_t size) {
        return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* Two blocks of zeros end an archive; more zeros, to the size of a tape's record, may follow. Anything else behind
 * them would be hashed and signed but seen by nobody. */
static int read_end(struct tar *tar, struct error *reterr) {
        size_t blocks = 2 * BLOCK;

        for (;;) {
                ssize_t n = cursor_wait(tar->in, blocks > 0 ? blocks : 1, reterr);

                if (n < 0)
                        return (int) n;
                if ((size_t) n < blocks)
                        return fail(reterr, 0, "the archive is truncated: it has no two end blocks");
                if (n == 0)
                        return 0;
                n = MIN(n, 65536);
                if (!all_zero(cursor_bytes(tar->in), (size_t) n))
                        return fail(reterr, 0, "there is data behind the end of the archive");
                cursor_advance(tar->in, (size_t) n);
                blocks = 0;
        }
}

static int check_header(const struct tar *tar, const struct header *header, struct error *reterr) {
        const uint8_t *bytes = (const uint8_t *) header;
        unsigned sum = 8 * ' ';
        int64_t given;

        for (size_t i = 0; i < BLOCK; i++)
                if (i < offsetof(struct header, checksum) || i >= offsetof(struct header, type))
                        sum += bytes[i];
        if (memcmp(header->magic, "ustar", 6) != 0 && memcmp(header->magic, "ustar  ", 8) != 0) {
                if (tar->n_headers > 0)
                        return fail(reterr, 0, "the archive is corrupt: no header where one should be, after %.400s", tar->entry.path);
                return fail(reterr, 0, tar->compressed ? "what is compressed in it is not a tar archive" : "it is not an image: neither a tar archive nor one compressed by gzip, bzip2, xz or zstd");
        }
        if (parse_field(header->checksum, sizeof(header->checksum), &given) < 0 || given != sum)
                return fail(reterr, 0, "the archive is corrupt: a header has a wrong checksum, that of %.100s", header->name);
        return 0;
}

/* A header that belongs to the next entry, or to all; between it and its entry none of another format may stand, or
 * readers would not agree on what is about what. */
static int read_before(struct tar *tar, const struct header *header, struct pax *pax, bool *has_pax, struct error *reterr) {
        int64_t size;
        int r;

        if (parse_field(header->size, sizeof(header->size), &size) < 0 || size < 0)
                return fail(reterr, 0, "the archive is corrupt: a header has a wrong size, that of %.100s", header->name);
        if (*has_pax || (header->type != 'L' && header->type != 'K' && (tar->name || tar->link)))
                return fail(reterr, 0, "two headers of different kinds for one entry are in the archive");
        if (header->type == 'L')
                return read_long_name(tar, (uint64_t) size, "long name", &tar->name, reterr);
        if (header->type == 'K')
                return read_long_name(tar, (uint64_t) size, "long link", &tar->link, reterr);
        r = read_extended(tar, (uint64_t) size, "pax", &tar->extended, reterr);
        if (r < 0)
                return r;
        if (header->type == 'g')
                return parse_global(tar, tar->extended, (size_t) size, reterr);
        *has_pax = true;
        return parse_pax(tar->extended, (size_t) size, &tar->entry, pax, reterr);
}

/* Read the next entry; the last one's data has been read. Returns 0 at the end. */
int tar_next(struct tar *tar, struct error *reterr) {
        struct pax pax = { 0 };
        bool has_pax = false;
        int r;

        assert(tar->left == 0);
        r = tar_skip(tar, tar->padding, reterr);
        if (r < 0)
                return r;
        tar->padding = 0;
        tar->entry.n_xattrs = tar->entry.n_extents = 0;
        free(tar->name);
        free(tar->link);
        tar->name = tar->link = NULL;
        for (;;) {
                struct header header;
                ssize_t n = cursor_wait(tar->in, BLOCK, reterr);

                if (n < 0)
                        return (int) n;
                if (n == 0 && tar->n_headers == 0)
                        return fail(reterr, 0, "it is empty");
                if (n < BLOCK && tar->n_headers == 0)
                        return fail(reterr, 0, "it is not an image: too short for a tar archive");
                if (n < BLOCK)
                        return fail(reterr, 0, "the archive is truncated: it %s", n > 0 ? "ends within a header" : "has no two end blocks");
                memcpy(&header, cursor_bytes(tar->in), BLOCK);
                if (all_zero((const uint8_t *) &header, BLOCK)) {
                        if (has_pax || tar->name || tar->link)
                                return fail(reterr, 0, "the archive ends with a header for an entry that is not there");
                        return read_end(tar, reterr);
                }
                r = check_header(tar, &header, reterr);
                if (r < 0)
                        return r;
                cursor_advance(tar->in, BLOCK);
                if (++tar->n_headers > tar->limits->entries)
                        return fail(reterr, 0, "the archive has more than %llu entries", (unsigned long long) tar->limits->entries);
                if (!header.type || !strchr("gxLK", header.type)) {
                        tar->n_entries++;
                        r = make_entry(tar, &header, &pax, reterr);
                        return r < 0 ? r : 1;
                }
                r = read_before(tar, &header, &pax, &has_pax, reterr);
                if (r < 0)
                        return r;
        }
}

/* Give back what tar_data() lent. */
static void give_back(struct tar *tar) {
        cursor_advance(tar->in, tar->lent);
        tar->lent = 0;
}

/* Lend the next bytes of the entry's data, as many as are left but at most `most`, until the next call. */
ssize_t tar_data(struct tar *tar, const uint8_t **ret_bytes, size_t most, struct error *reterr) {
        size_t wanted = (size_t) MIN(tar->left, (uint64_t) most);
        ssize_t n;

        give_back(tar);
        n = cursor_wait(tar->in, wanted, reterr);
        if (n < 0)
                return n;
        if ((size_t) n < wanted)
                return fail(reterr, 0, "the archive is truncated: it ends within %.400s", tar->entry.path);
        *ret_bytes = cursor_bytes(tar->in);
        tar->left -= wanted;
        tar->lent = wanted;
        return (ssize_t) wanted;
}

int tar_skip(struct tar *tar, size_t size, struct error *reterr) {
        ssize_t n;

        give_back(tar);
        n = cursor_wait(tar->in, size, reterr);
        if (n < 0)
                return (int) n;
        if ((size_t) n < size)
                return fail(reterr, 0, "the archive is truncated: it ends within %.400s", tar->entry.path);
        cursor_advance(tar->in, size);
        return 0;
}
