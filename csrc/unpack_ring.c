/* Rings: how the stages of the extractor hand bytes to each other. */

#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "unpack.h"

/* What a producer makes, and a consumer gives back, at least, before the other one is told. Telling costs a
 * wake-up; with four threads on two processors that is most of what the rings cost. */
#define STEP ((size_t) 128 << 10)

int ring_make(struct ring *ring, size_t size, uint64_t limit, struct error *reterr) {
        _cleanup_close_ int fd = memfd_create("ring", MFD_CLOEXEC);
        uint8_t *bytes;

        *ring = (struct ring) { .size = size, .limit = limit };
        if (fd < 0 || ftruncate(fd, (off_t) size) < 0)
                return fail(reterr, errno, "cannot make a buffer of %zu bytes", size);
        bytes = mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (bytes == MAP_FAILED)
                return fail(reterr, errno, "cannot make a buffer of %zu bytes", size);
        for (unsigned i = 0; i < 2; i++)
                if (mmap(bytes + i * size, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
                        return fail(reterr, errno, "cannot make a buffer of %zu bytes", size);
        ring->bytes = bytes;
        pthread_mutex_init(&ring->lock, NULL);
        pthread_cond_init(&ring->changed, NULL);
        return 0;
}

void ring_cursor(struct ring *ring, struct cursor *ret_cursor) {
        *ret_cursor = (struct cursor) { .ring = ring, .index = ring->n_cursors++ };
}

static size_t ring_free(const struct ring *ring) {
        uint64_t tail = ring->tails[0];

        for (unsigned i = 1; i < ring->n_cursors; i++)
                tail = MIN(tail, ring->tails[i]);
        return ring->size - (size_t) (ring->head - tail);
}

static void ring_wait(struct ring *ring) {
        ring->n_waiting++;
        pthread_cond_wait(&ring->changed, &ring->lock);
        ring->n_waiting--;
}

static void ring_tell(struct ring *ring) {
        if (ring->n_waiting > 0)
                pthread_cond_broadcast(&ring->changed);
}

/* Return room for at least STEP bytes. The bytes there stay as they are until the next call, published or not. */
uint8_t *ring_reserve(struct ring *ring, size_t *ret_size) {
        uint8_t *bytes;

        pthread_mutex_lock(&ring->lock);
        if (ring_free(ring) < STEP)
                while (ring_free(ring) < ring->size / 4)
                        ring_wait(ring);
        *ret_size = MIN(ring_free(ring), 2 * STEP);
        bytes = ring->bytes + ring->head % ring->size;
        pthread_mutex_unlock(&ring->lock);
        return bytes;
}

/* What is behind the limit is not published, but what is before it: an error in that comes first. */
int ring_publish(struct ring *ring, size_t size, struct error *reterr) {
        size_t allowed = (size_t) MIN((uint64_t) size, ring->limit - ring->head);

        pthread_mutex_lock(&ring->lock);
        ring->head += allowed;
        ring_tell(ring);
        pthread_mutex_unlock(&ring->lock);
        if (allowed < size)
                return fail(reterr, 0, "the archive unpacks to more than %llu bytes", (unsigned long long) ring->limit);
        return 0;
}

/* End the stream; with an error, consumers learn of it once they have read what came before it. */
void ring_close(struct ring *ring, const struct error *error) {
        pthread_mutex_lock(&ring->lock);
        if (error)
                ring->error = *error;
        ring->closed = true;
        ring_tell(ring);
        pthread_mutex_unlock(&ring->lock);
}

static void cursor_release(struct cursor *cursor) {
        cursor->ring->tails[cursor->index] = cursor->released = cursor->at;
        ring_tell(cursor->ring);
}

/* Wait for `wanted` bytes; return how many there are, fewer only at the end of the stream. */
ssize_t cursor_wait(struct cursor *cursor, size_t wanted, struct error *reterr) {
        struct ring *ring = cursor->ring;

        if (cursor->head - cursor->at < wanted && !cursor->ended) {
                pthread_mutex_lock(&ring->lock);
                if (ring->head - cursor->at < wanted)
                        cursor_release(cursor);
                while (ring->head - cursor->at < wanted && !ring->closed)
                        ring_wait(ring);
                cursor->head = ring->head;
                cursor->ended = ring->closed;
                pthread_mutex_unlock(&ring->lock);
        }
        if (cursor->head - cursor->at < wanted && ring->error.number) {
                *reterr = ring->error;
                return -ring->error.number;
        }
        return (ssize_t) (cursor->head - cursor->at);
}

const uint8_t *cursor_bytes(const struct cursor *cursor) {
        return cursor->ring->bytes + cursor->at % cursor->ring->size;
}

void cursor_advance(struct cursor *cursor, size_t size) {
        cursor->at += size;
        if (cursor->at - cursor->released < STEP)
                return;
        pthread_mutex_lock(&cursor->ring->lock);
        cursor_release(cursor);
        pthread_mutex_unlock(&cursor->ring->lock);
}
