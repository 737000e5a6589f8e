/* Rings: how the stages of the extractor hand bytes to each other. */

#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "unpack.h"

/* A producer goes on if there is room for this much, and a consumer gives back no less. */
#define STEP ((size_t) 128 << 10)

/* Who waits is not woken for less, unless its producer must wait too: of four threads on two processors, sleep and
 * waking would cost as much as the work. */
#define BATCH ((size_t) 512 << 10)

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
        pthread_cond_init(&ring->has_room, NULL);
        return 0;
}

void ring_cursor(struct ring *ring, struct cursor *cursor) {
        *cursor = (struct cursor) { .ring = ring };
        pthread_cond_init(&cursor->has_bytes, NULL);
        ring->cursors[ring->n_cursors++] = cursor;
}

static size_t ring_room(const struct ring *ring) {
        uint64_t tail = ring->head;

        for (unsigned i = 0; i < ring->n_cursors; i++)
                tail = MIN(tail, ring->cursors[i]->released);
        return ring->size - (size_t) (ring->head - tail);
}

static bool cursor_can_go(const struct cursor *cursor) {
        const struct ring *ring = cursor->ring;

        return ring->closed || ring->head >= cursor->hoped || ring->flushed >= cursor->needed;
}

static void ring_tell(struct ring *ring) {
        for (unsigned i = 0; i < ring->n_cursors; i++)
                if (ring->cursors[i]->needed && cursor_can_go(ring->cursors[i]))
                        pthread_cond_signal(&ring->cursors[i]->has_bytes);
}

/* Return room for at least STEP bytes. The bytes there stay as they are until the next call, published or not. */
uint8_t *ring_reserve(struct ring *ring, size_t *ret_size) {
        uint8_t *bytes;

        pthread_mutex_lock(&ring->lock);
        if (ring_room(ring) < STEP) {
                ring->is_full = true;
                while (ring_room(ring) < BATCH)
                        pthread_cond_wait(&ring->has_room, &ring->lock);
                ring->is_full = false;
        }
        *ret_size = MIN(ring_room(ring), 2 * STEP);
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

/* Let consumers have what there is: the next bytes may be long in coming. */
void ring_flush(struct ring *ring) {
        pthread_mutex_lock(&ring->lock);
        ring->flushed = ring->head;
        ring_tell(ring);
        pthread_mutex_unlock(&ring->lock);
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
        cursor->released = cursor->at;
        if (cursor->ring->is_full && ring_room(cursor->ring) >= BATCH)
                pthread_cond_signal(&cursor->ring->has_room);
}

/* Wait for `wanted` bytes; return how many there are, fewer only at the end of the stream. */
ssize_t cursor_wait(struct cursor *cursor, size_t wanted, struct error *reterr) {
        struct ring *ring = cursor->ring;

        if (cursor->head - cursor->at < wanted && !cursor->ended) {
                pthread_mutex_lock(&ring->lock);
                if (ring->head - cursor->at < wanted) {
                        if (cursor->feeds)
                                ring_flush(cursor->feeds);
                        cursor_release(cursor);
                        cursor->needed = cursor->at + wanted;
                        cursor->hoped = cursor->at + (wanted > BATCH ? wanted : BATCH);
                        while (!cursor_can_go(cursor))
                                pthread_cond_wait(&cursor->has_bytes, &ring->lock);
                        cursor->needed = 0;
                }
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
