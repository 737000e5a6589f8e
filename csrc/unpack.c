/* The extractor: an image archive to a directory, its hash, and a copy of its bytes, in one pass.
 *
 *     source -> reader ----> decompressor ----> hasher
 *                 |                       `--> extractor -> DIRECTORY/manifest, DIRECTORY/rootfs
 *                 `-> keep
 *
 * Each is a thread, the extractor the first one; rings are between them. What goes wrong upstream reaches the extractor
 * behind the bytes that came before it, so the first error of the archive is the one reported.
 *
 * Built with every csrc/unpack_*.c and -pthread. Libraries: libz, libzstd, liblzma, libbz2 and libcrypto (SHA-512 alone)
 * are linked in, libc is not; libisal is loaded at run time where there is one:
 *
 *     gcc -O2 -fPIE -pie -pthread csrc/unpack*.c -o unpack -l:libz.a -l:libzstd.a -l:liblzma.a -l:libbz2.a -l:libcrypto.a */

#define _GNU_SOURCE
#define OPENSSL_SUPPRESS_DEPRECATED
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <openssl/sha.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "printable.h"
#include "unpack.h"

#define PACKED_RING ((size_t) 1 << 20)
#define TAR_RING (4 * EXTENDED_MAX)
#define FIRST 8

struct options {
        int source;
        int into;
        int keep;
        int report;
        bool sync;
        struct limits limits;
};

/* What the stages share. A stage writes only what is its own, and the others read it once it has ended. */
struct line {
        const struct options *options;
        const struct compression *compression;
        struct ring packed;
        struct ring tar;
        struct cursor to_decompress;
        struct cursor to_hash;
        struct cursor to_extract;
        pthread_mutex_t gate;
        uint8_t first[FIRST];
        size_t n_first;
        uint64_t n_source;
        uint8_t digest[SHA512_DIGEST_LENGTH];
};

void close_pointer(int *fd) {
        if (*fd >= 0)
                close(*fd);
}

int fail(struct error *reterr, int number, const char *format, ...) {
        va_list arguments;
        int n;

        va_start(arguments, format);
        n = vsnprintf(reterr->text, sizeof(reterr->text), format, arguments);
        va_end(arguments);
        if (number && n >= 0 && (size_t) n < sizeof(reterr->text))
                snprintf(reterr->text + n, sizeof(reterr->text) - (size_t) n, ": %s", strerror(number));
        reterr->number = number ? number : EBADMSG;
        return -reterr->number;
}

int write_all(int fd, const void *bytes, size_t size) {
        for (size_t done = 0; done < size;) {
                ssize_t n = write(fd, (const char *) bytes + done, size - done);

                if (n < 0 && errno != EINTR)
                        return -errno;
                done += n > 0 ? (size_t) n : 0;
        }
        return 0;
}

static ssize_t read_some(int fd, void *bytes, size_t size) {
        ssize_t n;

        do
                n = read(fd, bytes, size);
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : n;
}

/* The first bytes are read before there is a ring to put them into: which one it is depends on them. */
static int read_first(struct line *line, struct error *reterr) {
        while (line->n_first < FIRST) {
                ssize_t n = read_some(line->options->source, line->first + line->n_first, FIRST - line->n_first);

                if (n < 0)
                        return fail(reterr, (int) -n, "cannot read the archive");
                if (n == 0)
                        break;
                line->n_first += (size_t) n;
        }
        return 0;
}

static int read_source(struct line *line, struct ring *ring, struct error *reterr) {
        int r;

        for (;;) {
                size_t room;
                uint8_t *bytes = ring_reserve(ring, &room);
                ssize_t n;

                if (line->n_source == 0) {
                        n = (ssize_t) line->n_first;
                        memcpy(bytes, line->first, (size_t) n);
                } else
                        n = read_some(line->options->source, bytes, room);
                if (n < 0)
                        return fail(reterr, (int) -n, "cannot read the archive");
                if (n == 0)
                        return 0;
                line->n_source += (size_t) n;
                r = ring_publish(ring, (size_t) n, reterr);
                if (r < 0)
                        return r;
                /* A pipe or socket with nothing more in it at this time. */
                if ((size_t) n < room)
                        ring_flush(ring);
                if (line->options->keep < 0)
                        continue;
                r = write_all(line->options->keep, bytes, (size_t) n);
                if (r < 0)
                        return fail(reterr, -r, "cannot write the copy of the archive");
        }
}

static void *reader(void *argument) {
        struct line *line = argument;
        struct ring *ring = line->compression->run ? &line->packed : &line->tar;
        struct error error = { 0 };

        /* Nothing moves before the reader does, and it waits until all threads are confined. */
        pthread_mutex_lock(&line->gate);
        pthread_mutex_unlock(&line->gate);
        ring_close(ring, read_source(line, ring, &error) < 0 ? &error : NULL);
        return NULL;
}

static void *decompressor(void *argument) {
        struct line *line = argument;
        struct error error = { 0 };

        ring_close(&line->tar, line->compression->run(&line->to_decompress, &line->tar, &error) < 0 ? &error : NULL);
        return NULL;
}

/* Image ID of the spec: the hash of the archive as it was before it was compressed. */
static void *hasher(void *argument) {
        struct line *line = argument;
        struct error error = { 0 };
        SHA512_CTX context;
        ssize_t n;

        SHA512_Init(&context);
        while ((n = cursor_wait(&line->to_hash, 1, &error)) > 0) {
                n = MIN(n, 256 << 10);
                SHA512_Update(&context, cursor_bytes(&line->to_hash), (size_t) n);
                cursor_advance(&line->to_hash, (size_t) n);
        }
        SHA512_Final(line->digest, &context);
        return NULL;
}

static int start(pthread_t *ret_thread, void *(*function)(void *), struct line *line, struct error *reterr) {
        int r = pthread_create(ret_thread, NULL, function, line);

        return r ? fail(reterr, r, "cannot start a thread") : 0;
}

static int sync_all(const struct options *options, struct error *reterr) {
        struct stat into, keep;

        if (!options->sync)
                return 0;
        if (syncfs(options->into) < 0)
                return fail(reterr, errno, "cannot write the image to disk");
        if (options->keep < 0)
                return 0;
        if (fstat(options->into, &into) < 0 || fstat(options->keep, &keep) < 0)
                return fail(reterr, errno, "cannot write the copy of the archive to disk");
        /* A pipe has no disk. */
        if (into.st_dev != keep.st_dev && fsync(options->keep) < 0 && errno != EINVAL)
                return fail(reterr, errno, "cannot write the copy of the archive to disk");
        return 0;
}

static int run(struct line *line, struct tar *tar, struct error *reterr) {
        const struct options *options = line->options;
        pthread_t threads[3];
        int n = 0, r;

        r = read_first(line, reterr);
        if (r < 0)
                return r;
        line->compression = compression_of(line->first, line->n_first);
        r = ring_make(&line->tar, TAR_RING, options->limits.size, reterr);
        if (r < 0)
                return r;
        ring_cursor(&line->tar, &line->to_hash);
        ring_cursor(&line->tar, &line->to_extract);
        pthread_mutex_lock(&line->gate);
        if (line->compression->run) {
                r = ring_make(&line->packed, PACKED_RING, UINT64_MAX, reterr);
                if (r < 0)
                        return r;
                ring_cursor(&line->packed, &line->to_decompress);
                line->to_decompress.feeds = &line->tar;
                r = start(&threads[n++], decompressor, line, reterr);
                if (r < 0)
                        return r;
        }
        r = start(&threads[n++], reader, line, reterr);
        if (r < 0)
                return r;
        r = start(&threads[n++], hasher, line, reterr);
        if (r < 0)
                return r;
        r = confine_threads(reterr);
        if (r < 0)
                return r;
        pthread_mutex_unlock(&line->gate);
        *tar = (struct tar) { .in = &line->to_extract, .limits = &options->limits, .compressed = line->compression->run };
        r = extract(tar, options->into, &options->limits, options->sync, reterr);
        if (r < 0)
                return r;
        while (n > 0)
                pthread_join(threads[--n], NULL);
        return sync_all(options, reterr);
}

static int report(const struct options *options, const struct line *line, const struct tar *tar, const struct error *error) {
        char text[8192];
        FILE *file = fmemopen(text, sizeof(text), "w");
        long size;

        if (!file)
                return -errno;
        if (error->number) {
                fprintf(file, "error=");
                print_escaped(file, error->text);
                fprintf(file, "\nerrno=%d\n", error->number == EBADMSG ? 0 : error->number);
        } else {
                fprintf(file, "sha512=");
                for (size_t i = 0; i < sizeof(line->digest); i++)
                        fprintf(file, "%02x", line->digest[i]);
                fprintf(file, "\nsize=%llu\ncompressed-size=%llu\ncompression=%s\nentries=%llu\n", (unsigned long long) line->tar.head,
                        (unsigned long long) line->n_source, line->compression->name, (unsigned long long) tar->n_entries);
        }
        fflush(file);
        size = ftell(file);
        fclose(file);
        return write_all(options->report, text, (size_t) size);
}

static bool parse_number(const char *text, uint64_t most, uint64_t *ret) {
        char *end;

        if (*text < '0' || *text > '9')
                return false;
        errno = 0;
        *ret = strtoull(text, &end, 10);
        return *end == '\0' && errno == 0 && *ret <= most;
}

enum { SOURCE, INTO, KEEP, REPORT, PARENT, MAX_ENTRIES, MAX_SIZE, MAX_MANIFEST, SYNC, ZLIB };

static int parse_options(int argc, char **argv, uint64_t *values) {
        static const struct option known[] = {
                { "source", required_argument, NULL, SOURCE },
                { "into", required_argument, NULL, INTO },
                { "keep", required_argument, NULL, KEEP },
                { "report", required_argument, NULL, REPORT },
                { "parent", required_argument, NULL, PARENT },
                { "max-entries", required_argument, NULL, MAX_ENTRIES },
                { "max-size", required_argument, NULL, MAX_SIZE },
                { "max-manifest", required_argument, NULL, MAX_MANIFEST },
                { "sync", no_argument, NULL, SYNC },
                { "zlib", no_argument, NULL, ZLIB },
                { 0 },
        };
        int option;

        while ((option = getopt_long(argc, argv, "", known, NULL)) >= 0) {
                if (option > ZLIB)
                        return -EINVAL;
                values[option] = 1;
                if (option < SYNC && !parse_number(optarg, option < PARENT ? INT_MAX : INT64_MAX, &values[option]))
                        return -EINVAL;
        }
        return optind == argc && values[SOURCE] != UINT64_MAX && values[INTO] != UINT64_MAX ? 0 : -EINVAL;
}

static int die_with_parent(uint64_t parent, struct error *reterr) {
        if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
                return fail(reterr, errno, "cannot ask for the parent's death signal");
        /* It may have died before we asked. */
        if (parent && (uint64_t) getppid() != parent)
                return fail(reterr, ECHILD, "cannot go on without its parent");
        return 0;
}

int main(int argc, char **argv) {
        static struct line line = { .gate = PTHREAD_MUTEX_INITIALIZER };
        static struct tar tar;
        struct error error = { 0 };
        uint64_t values[ZLIB + 1] = {
                [SOURCE] = UINT64_MAX, [INTO] = UINT64_MAX, [KEEP] = UINT64_MAX, [REPORT] = STDOUT_FILENO,
                [MAX_ENTRIES] = 1000000, [MAX_SIZE] = UINT64_C(32) << 30, [MAX_MANIFEST] = 4 << 20,
        };
        struct options options;
        int r;

        if (parse_options(argc, argv, values) < 0) {
                fprintf(stderr, "usage: unpack --source FD --into FD [--keep FD] [--report FD] [--parent PID] [--sync]\n"
                                "              [--max-entries N] [--max-size BYTES] [--max-manifest BYTES] [--zlib]\n");
                return 2;
        }
        options = (struct options) {
                .source = (int) values[SOURCE], .into = (int) values[INTO], .keep = (int) values[KEEP], .report = (int) values[REPORT],
                .sync = values[SYNC],
                .limits = { .entries = values[MAX_ENTRIES], .size = values[MAX_SIZE], .manifest = values[MAX_MANIFEST] },
        };
        line.options = &options;
        /* Now, while the root is the machine's own and pages may still be made executable. */
        if (!values[ZLIB])
                decompress_load();
        umask(0);
        /* Both then are errors of write(2), which are reported. */
        signal(SIGPIPE, SIG_IGN);
        signal(SIGXFSZ, SIG_IGN);
        r = confine_process(options.into, (int[]) { options.source, options.into, options.keep, options.report }, 4, &error);
        if (r >= 0)
                r = die_with_parent(values[PARENT], &error);
        if (r >= 0)
                r = run(&line, &tar, &error);
        if (report(&options, &line, &tar, &error) < 0)
                r = -EPIPE;
        /* Not exit(): after an error the other threads are still at work. */
        _exit(r < 0);
}
