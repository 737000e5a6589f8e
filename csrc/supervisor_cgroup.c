/* Cgroups of a pod: made, filled, left. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
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

int cgroups_make(struct error *reterr) {
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
        }
        return 0;
}

/* The files through which a process joins the cgroups of an app (-1: the pod's own), opened. The directory that pid 1
 * was cloned into is left out. Returns how many there are. */
int cgroups_open(int32_t app, int *ret_fds, int max, struct error *reterr) {
        const struct rkt_cgroup *cgroups = PLAN_ARRAY(struct rkt_cgroup, plan->cgroups);
        int n = 0;

        for (uint32_t i = 0; i < plan->cgroups.count; i++) {
                char file[4096];

                if (!cgroups[i].attach || cgroups[i].app != app || (cgroups[i].unified && app == -1))
                        continue;
                if (n == max)
                        return fail(reterr, E2BIG, "join more than %d cgroups", max);
                snprintf(file, sizeof(file), "%s/%s", plan_string(cgroups[i].path), cgroups[i].unified ? "cgroup.procs" : "tasks");
                ret_fds[n] = open(file, O_WRONLY | O_CLOEXEC);
                if (ret_fds[n] < 0)
                        return fail(reterr, errno, "open %s", file);
                n++;
        }
        return n;
}

/* Join them, ourselves. A thread that moves itself by v1's `tasks` needs no lock of the kernel's; to move another, or
 * a whole process, takes one that costs 7 to 14 ms when nobody had it lately. We are one thread, so it is the same. */
int cgroups_join(const int *fds, int n, struct error *reterr) {
        for (int i = 0; i < n; i++)
                if (write(fds[i], "0", 1) < 0)
                        return fail(reterr, errno, "join a cgroup");
        return 0;
}

/* The directory to clone pid 1 into: no attach, no wait for a grace period of the kernel. */
int cgroups_unified_fd(void) {
        const struct rkt_cgroup *cgroups = PLAN_ARRAY(struct rkt_cgroup, plan->cgroups);

        for (uint32_t i = 0; i < plan->cgroups.count; i++)
                if (cgroups[i].unified && cgroups[i].attach && cgroups[i].app == -1)
                        return open(plan_string(cgroups[i].path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return -1;
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
