/* Cgroups of a pod: made, filled, left. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "supervisor.h"

/* A parent may be removed by another pod's gc between its mkdir and the child's: so, some tries. */
static int make_directory(const char *path) {
        char part[4096];
        size_t length = strlen(path);

        if (length >= sizeof(part))
                return -ENAMETOOLONG;
        for (int attempt = 0; attempt < 20; attempt++) {
                if (mkdir(path, 0755) >= 0 || errno == EEXIST)
                        return 0;
                if (errno != ENOENT)
                        return -errno;
                for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
                        memcpy(part, path, (size_t) (slash - path));
                        part[slash - path] = '\0';
                        if (mkdir(part, 0755) < 0 && errno != EEXIST && errno != ENOENT && errno != EROFS)
                                return -errno;
                }
        }
        return -ENOENT;
}

static _Noreturn void send_namespace(int socket) {
        struct event event = { .type = EVENT_READY };
        int fds[MAX_HIERARCHIES], n, ns = -1;

        n = cgroups_open(-1, fds, MAX_HIERARCHIES, &event.error);
        if (n >= 0 && cgroups_join(fds, n, &event.error) >= 0) {
                if (unshare(CLONE_NEWCGROUP) < 0)
                        (void) fail(&event.error, errno, "make a cgroup namespace");
                else if ((ns = open("/proc/self/ns/cgroup", O_RDONLY | O_CLOEXEC)) < 0)
                        (void) fail(&event.error, errno, "open the cgroup namespace");
        }
        if (ns < 0)
                event.type = EVENT_ERROR;
        _exit(send_event(socket, &event, ns, 0) < 0);
}

/* Of v2, the pod's directory is the root of what the pod sees. A namespace is rooted where its maker is, and nobody can
 * be in that directory once the apps have limits: so a process makes it that ends before. */
static int make_namespace(const char *path, int *ret_ns, struct error *reterr) {
        _cleanup_close_ int directory_fd = -1, ours = -1;
        struct event event;
        int pair[2], r;
        pid_t pid;

        directory_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (directory_fd < 0)
                return fail(reterr, errno, "open %s", path);
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return fail(reterr, errno, "make a socket");
        ours = pair[0];
        pid = cgroups_fork(directory_fd);
        if (pid == 0)
                send_namespace(pair[1]);
        close(pair[1]);
        if (pid < 0)
                return fail(reterr, errno, "fork into %s", path);
        r = receive_event(ours, &event, ret_ns, NULL);
        if (waitpid(pid, NULL, 0) < 0 || r <= 0)
                return fail(reterr, r < 0 ? -r : ECHILD, "make a cgroup namespace");
        if (event.type == EVENT_ERROR) {
                *reterr = event.error;
                return -event.error.number;
        }
        return 0;
}

/* ret_ns: the pod's cgroup namespace, -1 when pid 1 can make it where it is. */
int cgroups_make(int *ret_ns, struct error *reterr) {
        const struct rkt_cgroup *cgroups = PLAN_ARRAY(struct rkt_cgroup, plan->cgroups);

        for (uint32_t i = 0; i < plan->cgroups.count; i++) {
                const char *path = plan_string(cgroups[i].path);
                const struct rkt_setting *settings = PLAN_ARRAY(struct rkt_setting, cgroups[i].settings);
                int r = make_directory(path);

                if (r < 0)
                        return fail(reterr, -r, "make the cgroup %s", path);
                for (uint32_t j = 0; j < cgroups[i].settings.count; j++) {
                        char file[4096];

                        snprintf(file, sizeof(file), "%s/%s", path, plan_string(settings[j].file));
                        r = write_file(AT_FDCWD, file, plan_string(settings[j].value));
                        if (r < 0 && settings[j].required)
                                return fail(reterr, -r, "write %s to %s", plan_string(settings[j].value), file);
                }
                if (cgroups[i].unified && !cgroups[i].attach && plan->flags & RKT_NEW_CGROUP) {
                        r = make_namespace(path, ret_ns, reterr);
                        if (r < 0)
                                return r;
                }
        }
        return 0;
}

/* The files through which a process joins v1's cgroups of an app (-1: the pod's own), opened. Returns how many there
 * are. */
int cgroups_open(int32_t app, int *ret_fds, int max, struct error *reterr) {
        const struct rkt_cgroup *cgroups = PLAN_ARRAY(struct rkt_cgroup, plan->cgroups);
        int n = 0;

        for (uint32_t i = 0; i < plan->cgroups.count; i++) {
                char file[4096];

                if (!cgroups[i].attach || cgroups[i].app != app || cgroups[i].unified)
                        continue;
                if (n == max)
                        return fail(reterr, E2BIG, "join more than %d cgroups", max);
                snprintf(file, sizeof(file), "%s/tasks", plan_string(cgroups[i].path));
                ret_fds[n] = open(file, O_WRONLY | O_CLOEXEC);
                if (ret_fds[n] < 0)
                        return fail(reterr, errno, "open %s", file);
                n++;
        }
        return n;
}

/* Join them, ourselves. A thread that moves itself by v1's `tasks` needs no lock of the kernel's; to move another, or
 * a whole process, takes one that costs 7 to 14 ms when nobody had it lately. We are one thread, so it is the same. v2
 * has no such file: there processes are cloned to where they belong. */
int cgroups_join(const int *fds, int n, struct error *reterr) {
        for (int i = 0; i < n; i++)
                if (write(fds[i], "0", 1) < 0)
                        return fail(reterr, errno, "join a cgroup");
        return 0;
}

/* 1 and v2's directory of an app (-1: pid 1's), opened; 0 when there is none. */
int cgroups_leaf(int32_t app, int *ret_fd, struct error *reterr) {
        const struct rkt_cgroup *cgroups = PLAN_ARRAY(struct rkt_cgroup, plan->cgroups);

        for (uint32_t i = 0; i < plan->cgroups.count; i++) {
                if (!cgroups[i].unified || !cgroups[i].attach || cgroups[i].app != app)
                        continue;
                *ret_fd = open(plan_string(cgroups[i].path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                return *ret_fd < 0 ? fail(reterr, errno, "open %s", plan_string(cgroups[i].path)) : 1;
        }
        return 0;
}

/* fork(), into a directory of v2 unless that is -1. */
pid_t cgroups_fork(int leaf) {
        struct clone_args arguments = { .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t) leaf };

        return leaf < 0 ? fork() : (pid_t) syscall(SYS_clone3, &arguments, sizeof(arguments));
}

void cgroups_remove(void) {
        const struct rkt_cgroup *cgroups = PLAN_ARRAY(struct rkt_cgroup, plan->cgroups);

        /* Entered processes may need a moment to die with their pid namespace. */
        for (int attempt = 0; attempt < 200; attempt++) {
                bool busy = false;

                for (uint32_t i = plan->cgroups.count; i > 0; i--)
                        if (rmdir(plan_string(cgroups[i - 1].path)) < 0 && errno == EBUSY)
                                busy = true;
                if (!busy)
                        return;
                nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
        }
}
