/* What the parts of the extractor know of each other. */

#ifndef UNPACK_H
#define UNPACK_H

#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#define _cleanup_close_ __attribute__((cleanup(close_pointer)))
#define TAKE_FD(fd) ({ int _taken = (fd); (fd) = -1; _taken; })
#define MIN(a, b) ({ typeof(a) _a = (a); typeof(b) _b = (b); _a < _b ? _a : _b; })
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The largest thing the tar reader wants in one piece. The ring of the archive holds four. */
#define EXTENDED_MAX ((size_t) 1 << 20)

/* What the decoders of xz and zstd may allocate for an archive's dictionary or window. */
#define WINDOW_MAX_LOG 27

/* Why it ended, as a sentence; names in it are raw bytes until it is reported. */
struct error {
        int number;
        char text[1400];
};

/* Bytes from one producer to each of several consumers. The memory is mapped twice in a row, so that whatever
 * is in the ring is seen in one piece wherever it begins. */
struct ring {
        uint8_t *bytes;
        size_t size;
        uint64_t limit;          /* bytes that may ever go in */
        pthread_mutex_t lock;
        pthread_cond_t has_room;
        bool is_full;            /* the producer waits */
        bool closed;
        uint64_t head;
        uint64_t flushed;        /* up to here, no consumer is to wait for more */
        struct cursor *cursors[2];
        unsigned n_cursors;
        struct error error;      /* why the producer ended early; .number is 0 if it did not */
};

/* A consumer's place in a ring. */
struct cursor {
        struct ring *ring;
        uint64_t at;
        uint64_t released;       /* what the producer knows of `at` */
        uint64_t head;           /* what this consumer knows of the ring's head */
        uint64_t needed;         /* it waits for the head to be here, or for nothing (0) */
        uint64_t hoped;          /* and would rather wait until it is here */
        struct ring *feeds;      /* the ring that the bytes it waits for go on to, if any */
        pthread_cond_t has_bytes;
        bool ended;
};

struct limits {
        uint64_t entries;
        uint64_t size;
        uint64_t manifest;
};

struct extent {
        uint64_t offset;
        uint64_t size;
};

struct xattr {
        const char *name;
        const char *value;
        size_t size;
};

/* A member of the archive, its extended headers laid over its own. */
struct tar_entry {
        char type;             /* of the tar header: '0' to '6' */
        mode_t mode;
        uid_t uid;
        gid_t gid;
        struct timespec mtime;
        unsigned major;
        unsigned minor;
        uint64_t size;         /* of the file; a sparse one has less in the archive */
        char path[PATH_MAX];   /* without "." and empty components; "" is the top */
        char link[PATH_MAX];   /* a hard link's is made like `path`, a symbolic link's is as it came */
        bool sparse;
        struct extent *extents;
        size_t n_extents;
        size_t extents_allocated;
        struct xattr *xattrs;
        size_t n_xattrs;
        size_t xattrs_allocated;
};

struct tar {
        struct cursor *in;
        struct tar_entry entry;
        uint64_t left;         /* bytes of the entry's data not read yet */
        unsigned padding;
        size_t lent;           /* bytes of it that are in use */
        uint64_t n_entries;
        uint64_t n_headers;    /* extended ones and all */
        const struct limits *limits;
        bool compressed;
        char *extended;        /* the entry's pax header; xattrs point into it */
        char *name;            /* its GNU long name and long link */
        char *link;
        struct {
                bool has_uid, has_gid, has_mtime;
                uint64_t uid, gid;
                struct timespec mtime;
        } global;
};

/* unpack.c */
void close_pointer(int *fd);
int fail(struct error *reterr, int number, const char *format, ...) __attribute__((format(printf, 3, 4)));
int write_all(int fd, const void *bytes, size_t size);

/* unpack_ring.c */
int ring_make(struct ring *ring, size_t size, uint64_t limit, struct error *reterr);
void ring_cursor(struct ring *ring, struct cursor *cursor);
uint8_t *ring_reserve(struct ring *ring, size_t *ret_size);
int ring_publish(struct ring *ring, size_t size, struct error *reterr);
void ring_flush(struct ring *ring);
void ring_close(struct ring *ring, const struct error *error);
ssize_t cursor_wait(struct cursor *cursor, size_t wanted, struct error *reterr);
const uint8_t *cursor_bytes(const struct cursor *cursor);
void cursor_advance(struct cursor *cursor, size_t size);

/* unpack_decompress.c */
struct compression {
        const char *name;
        int (*run)(struct cursor *in, struct ring *out, struct error *reterr);
};
void decompress_load(void);
const struct compression *compression_of(const uint8_t *bytes, size_t size);

/* unpack_tar.c */
int tar_next(struct tar *tar, struct error *reterr);
ssize_t tar_data(struct tar *tar, const uint8_t **ret_bytes, size_t most, struct error *reterr);
int tar_skip(struct tar *tar, size_t size, struct error *reterr);
int entry_fail(const struct tar_entry *entry, struct error *reterr, int number, const char *format, ...)
        __attribute__((format(printf, 4, 5)));

/* unpack_extract.c */
int extract(struct tar *tar, int into_fd, const struct limits *limits, bool sync, struct error *reterr);

/* unpack_confine.c */
int confine_process(int into_fd, const int *keep, size_t n_keep, struct error *reterr);
int confine_threads(struct error *reterr);

#endif
