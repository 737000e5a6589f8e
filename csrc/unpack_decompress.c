/* Decompression: from one ring to another, each format by its own library, to the very end of the stream. */

#define _GNU_SOURCE
#include <bzlib.h>
#include <dlfcn.h>
#include <errno.h>
#include <isa-l/igzip_lib.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "unpack.h"

#define TRUNCATED "the archive is truncated: its %s stream has no end"
#define CORRUPT "the archive is corrupt: %s in its %s stream"

static void free_pointer(void *pointer) {
        free(*(void **) pointer);
}

/* ISA-L is three times as quick as zlib, and Debian has it as a shared library only: used where it is installed. */
static struct {
        void (*init)(struct inflate_state *state);
        void (*reset)(struct inflate_state *state);
        int (*inflate)(struct inflate_state *state);
} isal;

void decompress_load(void) {
        void *library = dlopen("libisal.so.2", RTLD_NOW | RTLD_LOCAL);

        if (!library)
                return;
        *(void **) &isal.init = dlsym(library, "isal_inflate_init");
        *(void **) &isal.reset = dlsym(library, "isal_inflate_reset");
        *(void **) &isal.inflate = dlsym(library, "isal_inflate");
        if (!isal.init || !isal.reset)
                isal.inflate = NULL;
}

static void end_inflate(z_stream *stream) {
        (void) inflateEnd(stream);
}

static int corrupt_gzip(const z_stream *stream, int r, struct error *reterr) {
        const char *message = stream->msg ? stream->msg : "";

        if (r == Z_MEM_ERROR)
                return fail(reterr, ENOMEM, "cannot decompress the archive");
        if (strstr(message, "data check") || strstr(message, "length check"))
                return fail(reterr, 0, CORRUPT, "wrong CRC or length", "gzip");
        if (strstr(message, "header") || strstr(message, "method") || strstr(message, "window size"))
                return fail(reterr, 0, CORRUPT, "bytes that are not gzip", "gzip");
        return fail(reterr, 0, CORRUPT, "bad data", "gzip");
}

static int gunzip_zlib(struct cursor *in, struct ring *out, struct error *reterr) {
        __attribute__((cleanup(end_inflate))) z_stream stream = { 0 };
        bool ended = false;
        int r;

        /* 16 more than the largest window: gzip, with its header and trailer. */
        if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK)
                return fail(reterr, ENOMEM, "cannot decompress the archive");
        for (;;) {
                ssize_t n = cursor_wait(in, 1, reterr);
                size_t room;

                if (n < 0)
                        return (int) n;
                if (ended) {
                        if (n == 0)
                                return 0;
                        (void) inflateReset(&stream);
                        ended = false;
                }
                stream.next_in = (uint8_t *) (uintptr_t) cursor_bytes(in);
                stream.avail_in = (uint32_t) n;
                stream.next_out = ring_reserve(out, &room);
                stream.avail_out = (uint32_t) room;
                r = inflate(&stream, Z_NO_FLUSH);
                if (r != Z_OK && r != Z_BUF_ERROR && r != Z_STREAM_END)
                        return corrupt_gzip(&stream, r, reterr);
                ended = r == Z_STREAM_END;
                if (n == 0 && stream.avail_out == room && !ended)
                        return fail(reterr, 0, TRUNCATED, "gzip");
                cursor_advance(in, (size_t) n - stream.avail_in);
                r = ring_publish(out, room - stream.avail_out, reterr);
                if (r < 0)
                        return r;
        }
}

/* A gzip file is one or more members (RFC 1952, 2.2); the library checks each one's CRC and length. */
static int gunzip_isal(struct cursor *in, struct ring *out, struct error *reterr) {
        __attribute__((cleanup(free_pointer))) struct inflate_state *state = malloc(sizeof(*state));
        int r;

        if (!state)
                return fail(reterr, ENOMEM, "cannot decompress the archive");
        isal.init(state);
        state->crc_flag = ISAL_GZIP;
        for (;;) {
                ssize_t n = cursor_wait(in, 1, reterr);
                size_t room;

                if (n < 0)
                        return (int) n;
                if (state->block_state == ISAL_BLOCK_FINISH) {
                        if (n == 0)
                                return 0;
                        isal.reset(state);
                        state->crc_flag = ISAL_GZIP;
                }
                state->next_in = (uint8_t *) (uintptr_t) cursor_bytes(in);
                state->avail_in = (uint32_t) n;
                state->next_out = ring_reserve(out, &room);
                state->avail_out = (uint32_t) room;
                r = isal.inflate(state);
                if (r == ISAL_INCORRECT_CHECKSUM)
                        return fail(reterr, 0, CORRUPT, "wrong CRC or length", "gzip");
                if (r == ISAL_INVALID_WRAPPER || r == ISAL_UNSUPPORTED_METHOD)
                        return fail(reterr, 0, CORRUPT, "bytes that are not gzip", "gzip");
                /* ISAL_OUT_OVERFLOW and ISAL_END_INPUT are states of its own, not results of this call. */
                if (r != ISAL_DECOMP_OK)
                        return fail(reterr, 0, CORRUPT, "bad data", "gzip");
                if (n == 0 && state->avail_out == room && state->block_state != ISAL_BLOCK_FINISH)
                        return fail(reterr, 0, TRUNCATED, "gzip");
                cursor_advance(in, (size_t) n - state->avail_in);
                r = ring_publish(out, room - state->avail_out, reterr);
                if (r < 0)
                        return r;
        }
}

static int gunzip(struct cursor *in, struct ring *out, struct error *reterr) {
        return isal.inflate ? gunzip_isal(in, out, reterr) : gunzip_zlib(in, out, reterr);
}

static void free_zstd(ZSTD_DCtx **context) {
        ZSTD_freeDCtx(*context);
}

static int unzstd(struct cursor *in, struct ring *out, struct error *reterr) {
        __attribute__((cleanup(free_zstd))) ZSTD_DCtx *context = ZSTD_createDCtx();
        size_t state = 1;
        int r;

        if (!context || ZSTD_isError(ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, WINDOW_MAX_LOG)))
                return fail(reterr, ENOMEM, "cannot decompress the archive");
        for (;;) {
                ZSTD_inBuffer input;
                ZSTD_outBuffer output;
                ssize_t n = cursor_wait(in, 1, reterr);
                size_t room;

                if (n < 0)
                        return (int) n;
                /* 0 is the end of a frame with everything put out; a stream is one frame or more (RFC 8878, 3). */
                if (n == 0 && state == 0)
                        return 0;
                output = (ZSTD_outBuffer) { .dst = ring_reserve(out, &room) };
                output.size = room;
                input = (ZSTD_inBuffer) { .src = cursor_bytes(in), .size = (size_t) n };
                state = ZSTD_decompressStream(context, &output, &input);
                if (ZSTD_isError(state))
                        return fail(reterr, 0, CORRUPT, ZSTD_getErrorName(state), "zstd");
                if (n == 0 && output.pos == 0)
                        return fail(reterr, 0, TRUNCATED, "zstd");
                cursor_advance(in, input.pos);
                r = ring_publish(out, output.pos, reterr);
                if (r < 0)
                        return r;
        }
}

static int unxz(struct cursor *in, struct ring *out, struct error *reterr) {
        __attribute__((cleanup(lzma_end))) lzma_stream stream = LZMA_STREAM_INIT;
        int r;

        if (lzma_stream_decoder(&stream, UINT64_C(1) << WINDOW_MAX_LOG, LZMA_CONCATENATED | LZMA_TELL_UNSUPPORTED_CHECK) != LZMA_OK)
                return fail(reterr, ENOMEM, "cannot decompress the archive");
        for (;;) {
                ssize_t n = cursor_wait(in, 1, reterr);
                size_t room;

                if (n < 0)
                        return (int) n;
                stream.next_in = cursor_bytes(in);
                stream.avail_in = (size_t) n;
                stream.next_out = ring_reserve(out, &room);
                stream.avail_out = room;
                r = lzma_code(&stream, n == 0 ? LZMA_FINISH : LZMA_RUN);
                if (r == LZMA_MEMLIMIT_ERROR)
                        return fail(reterr, 0, CORRUPT, "a dictionary of more than 128 MiB", "xz");
                if (r == LZMA_MEM_ERROR)
                        return fail(reterr, ENOMEM, "cannot decompress the archive");
                if (r == LZMA_BUF_ERROR && n == 0)
                        return fail(reterr, 0, TRUNCATED, "xz");
                if (r == LZMA_FORMAT_ERROR)
                        return fail(reterr, 0, CORRUPT, "bytes that are not xz", "xz");
                if (r == LZMA_UNSUPPORTED_CHECK || r == LZMA_OPTIONS_ERROR)
                        return fail(reterr, 0, CORRUPT, "an unknown filter or check", "xz");
                if (r != LZMA_OK && r != LZMA_STREAM_END && r != LZMA_BUF_ERROR)
                        return fail(reterr, 0, CORRUPT, "bad data", "xz");
                cursor_advance(in, (size_t) n - stream.avail_in);
                if (ring_publish(out, room - stream.avail_out, reterr) < 0)
                        return -reterr->number;
                if (r == LZMA_STREAM_END)
                        return 0;
        }
}

static void end_bz2(bz_stream *stream) {
        BZ2_bzDecompressEnd(stream);
}

static int bunzip2(struct cursor *in, struct ring *out, struct error *reterr) {
        __attribute__((cleanup(end_bz2))) bz_stream stream = { 0 };
        int r = BZ_STREAM_END;

        for (;;) {
                ssize_t n = cursor_wait(in, 1, reterr);
                size_t room;

                if (n < 0)
                        return (int) n;
                /* Parallel compressors write one stream after another. */
                if (r == BZ_STREAM_END) {
                        if (n == 0)
                                return 0;
                        BZ2_bzDecompressEnd(&stream);
                        stream = (bz_stream) { 0 };
                        if (BZ2_bzDecompressInit(&stream, 0, 0) != BZ_OK)
                                return fail(reterr, ENOMEM, "cannot decompress the archive");
                }
                stream.next_in = (char *) (uintptr_t) cursor_bytes(in);
                stream.avail_in = (unsigned) n;
                stream.next_out = (char *) ring_reserve(out, &room);
                stream.avail_out = (unsigned) room;
                r = BZ2_bzDecompress(&stream);
                if (r == BZ_DATA_ERROR_MAGIC)
                        return fail(reterr, 0, CORRUPT, "bytes that are not bzip2", "bzip2");
                if (r == BZ_MEM_ERROR)
                        return fail(reterr, ENOMEM, "cannot decompress the archive");
                if (r != BZ_OK && r != BZ_STREAM_END)
                        return fail(reterr, 0, CORRUPT, "wrong CRC or bad data", "bzip2");
                if (n == 0 && r == BZ_OK && stream.avail_out == room)
                        return fail(reterr, 0, TRUNCATED, "bzip2");
                cursor_advance(in, (size_t) n - stream.avail_in);
                if (ring_publish(out, room - stream.avail_out, reterr) < 0)
                        return -reterr->number;
        }
}

static const struct {
        struct compression compression;
        uint8_t size;
        uint8_t mask[6];
        uint8_t magic[6];
} magics[] = {
        { { "gzip", gunzip }, 2, { 0xff, 0xff }, { 0x1f, 0x8b } },
        { { "bzip2", bunzip2 }, 3, { 0xff, 0xff, 0xff }, { 'B', 'Z', 'h' } },
        { { "xz", unxz }, 6, { 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, { 0xfd, '7', 'z', 'X', 'Z', 0 } },
        { { "zstd", unzstd }, 4, { 0xff, 0xff, 0xff, 0xff }, { 0x28, 0xb5, 0x2f, 0xfd } },
        /* A skippable frame, which parallel compressors and seekable formats begin with. */
        { { "zstd", unzstd }, 4, { 0xf0, 0xff, 0xff, 0xff }, { 0x50, 0x2a, 0x4d, 0x18 } },
};

/* The spec names no extension or media type for compression: it is what the first bytes say. */
const struct compression *compression_of(const uint8_t *bytes, size_t size) {
        static const struct compression none = { "none", NULL };

        for (size_t i = 0; i < COUNT(magics); i++) {
                bool same = size >= magics[i].size;

                for (size_t k = 0; same && k < magics[i].size; k++)
                        same = (bytes[k] & magics[i].mask[k]) == magics[i].magic[k];
                if (same)
                        return &magics[i].compression;
        }
        return &none;
}
