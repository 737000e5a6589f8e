/* What an app writes, kept line by line: "TIME stdout F text", and one older file. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "supervisor.h"

#define LINE_MAX_BYTES 8192

struct log {
        int dir_fd;
        int fd;
        uint64_t size;
        uint64_t max;
        char name[256];
        size_t length[2];
        char line[2][LINE_MAX_BYTES];
        size_t pending;
        char text[4 * LINE_MAX_BYTES];
};

static void open_file(struct log *log) {
        struct stat st;

        log->fd = openat(log->dir_fd, log->name, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0640);
        log->size = log->fd >= 0 && fstat(log->fd, &st) >= 0 ? (uint64_t) st.st_size : 0;
}

struct log *log_open(int pod_fd, const char *app, uint32_t max_kib) {
        struct log *log = calloc(1, sizeof(*log));

        if (!log)
                return NULL;
        log->max = (uint64_t) max_kib * 1024;
        log->dir_fd = openat(pod_fd, "rkt/log", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        snprintf(log->name, sizeof(log->name), "%s", app);
        log->fd = -1;
        return log;
}

static void rotate(struct log *log) {
        char older[300];

        snprintf(older, sizeof(older), "%s.1", log->name);
        (void) renameat(log->dir_fd, log->name, log->dir_fd, older);
        close(log->fd);
        open_file(log);
}

/* RFC 3339 in UTC with nanoseconds. The C library's own way would read /etc/localtime. Days to civil: H. Hinnant. */
static int format_time(char *text, size_t size) {
        struct timespec now;
        long long days, second, era, day, year;
        long long day_of_era, year_of_era, day_of_year, month;

        clock_gettime(CLOCK_REALTIME, &now);
        days = now.tv_sec / 86400 + 719468;
        second = now.tv_sec % 86400;
        era = days / 146097;
        day_of_era = days - era * 146097;
        year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
        day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        month = (5 * day_of_year + 2) / 153;
        day = day_of_year - (153 * month + 2) / 5 + 1;
        month = month < 10 ? month + 3 : month - 9;
        year = year_of_era + era * 400 + (month <= 2);
        return snprintf(text, size, "%04lld-%02lld-%02lldT%02lld:%02lld:%02lld.%09ldZ", year, month, day,
                        second / 3600, second / 60 % 60, second % 60, now.tv_nsec);
}

/* A full disk must not stop the app: what cannot be written is lost, and the next is tried again. */
static void flush(struct log *log) {
        ssize_t n;

        if (log->pending == 0)
                return;
        if (log->fd < 0)
                open_file(log);
        if (log->size > 0 && log->size + log->pending > log->max)
                rotate(log);
        n = log->fd >= 0 ? write(log->fd, log->text, log->pending) : 0;
        if (n > 0)
                log->size += (uint64_t) n;
        log->pending = 0;
}

static void put_line(struct log *log, bool is_stderr, bool whole) {
        size_t length = log->length[is_stderr];

        if (log->pending + length + 64 > sizeof(log->text))
                flush(log);
        log->pending += (size_t) format_time(log->text + log->pending, 48);
        log->pending += (size_t) snprintf(log->text + log->pending, 16, " %s %c ", is_stderr ? "stderr" : "stdout", whole ? 'F' : 'P');
        memcpy(log->text + log->pending, log->line[is_stderr], length);
        log->pending += length;
        log->text[log->pending++] = '\n';
        log->length[is_stderr] = 0;
}

void log_write(struct log *log, bool is_stderr, const char *bytes, size_t size) {
        if (!log)
                return;
        while (size > 0) {
                const char *end = memchr(bytes, '\n', size);
                size_t length = end ? (size_t) (end - bytes) : size, room = LINE_MAX_BYTES - log->length[is_stderr];

                if (length > room)
                        length = room, end = NULL;
                memcpy(log->line[is_stderr] + log->length[is_stderr], bytes, length);
                log->length[is_stderr] += length;
                if (end)
                        put_line(log, is_stderr, true);
                else if (log->length[is_stderr] == LINE_MAX_BYTES)
                        put_line(log, is_stderr, false);
                bytes += length + (end != NULL);
                size -= length + (end != NULL);
        }
        flush(log);
}

void log_close(struct log *log) {
        if (!log)
                return;
        for (int i = 0; i < 2; i++)
                if (log->length[i] > 0)
                        put_line(log, i, true);
        flush(log);
        if (log->fd >= 0)
                close(log->fd);
        if (log->dir_fd >= 0)
                close(log->dir_fd);
        free(log);
}
