/* A process of an app: from a fork of ours to the app's program. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "supervisor.h"

#define MAX_ARGUMENTS 4096

/* Not by signal(3): C libraries keep the first real-time signals for themselves, and whoever started us may have had
 * another one, which ignored them. */
static void reset_signals(void) {
        static const uint64_t default_action[4];
        sigset_t none;

        for (int signal_number = 1; signal_number <= 64; signal_number++)
                (void) syscall(SYS_rt_sigaction, signal_number, default_action, NULL, sizeof(uint64_t));
        sigemptyset(&none);
        (void) sigprocmask(SIG_SETMASK, &none, NULL);
}

static int set_stdio(const struct stdio *stdio, struct error *reterr) {
        const int fds[] = { stdio->in, stdio->out, stdio->err };

        for (int i = 0; i < 3; i++)
                if (dup2(fds[i], i) < 0)
                        return fail(reterr, errno, "set up standard stream %d", i);
        if (stdio->terminal && ioctl(0, TIOCSCTTY, 0) < 0)
                return fail(reterr, errno, "take the terminal");
        return 0;
}

static int set_oom_score(int adjustment, struct error *reterr) {
        _cleanup_close_ int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        struct statfs fs;
        char text[16];
        int length = snprintf(text, sizeof(text), "%d", adjustment);

        if (fd < 0 || fstatfs(fd, &fs) < 0)
                return fail(reterr, errno, "open /proc/self/oom_score_adj");
        if (fs.f_type != PROC_SUPER_MAGIC)
                return fail(reterr, EPERM, "set the OOM score: /proc of the pod is not procfs");
        if (write(fd, text, (size_t) length) < 0)
                return fail(reterr, errno, "set the OOM score to %d", adjustment);
        return 0;
}

static int set_directory(const char *directory, struct error *reterr) {
        char cwd[4096];

        if (chdir(directory) < 0)
                return fail(reterr, errno, "change to the working directory %s", directory);
        /* The kernel says "(unreachable)" of what is outside of the root (CVE-2024-21626). */
        if (syscall(SYS_getcwd, cwd, sizeof(cwd)) < 0 || cwd[0] != '/')
                return fail(reterr, EXDEV, "use the working directory %s, which is outside of the root", directory);
        return 0;
}

static int set_users(const struct rkt_process *process, struct error *reterr) {
        const uint32_t *groups = PLAN_ARRAY(uint32_t, process->groups);
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[2] = { { 0 } }, ours[2] = { { 0 } };

        if (syscall(SYS_setgroups, process->groups.count, groups) < 0)
                return fail(reterr, errno, "set the supplementary groups");
        for (int capability = 0; capability < 64; capability++) {
                if (process->capabilities & (UINT64_C(1) << capability))
                        continue;
                if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0) {
                        if (errno == EINVAL)
                                break; /* past the last one this kernel knows */
                        return fail(reterr, errno, "drop capability %d", capability);
                }
        }
        (void) prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
                return fail(reterr, errno, "keep capabilities until exec");
        if (syscall(SYS_setresgid, process->gid, process->gid, process->gid) < 0)
                return fail(reterr, errno, "become group %u", process->gid);
        if (syscall(SYS_setresuid, process->uid, process->uid, process->uid) < 0)
                return fail(reterr, errno, "become user %u", process->uid);
        /* What is permitted now does not outlive execve(), which makes it anew from the bounding set (user 0) or
         * from nothing. CAP_SYS_ADMIN stays until then since a filter can't be loaded without. */
        data[0].permitted = UINT32_C(1) << CAP_SYS_ADMIN;
        if (process->uid == 0) {
                data[0].permitted |= (uint32_t) process->capabilities;
                data[1].permitted = (uint32_t) (process->capabilities >> 32);
        }
        /* We may have less than there is: a container's root, say. What we lack nobody gets. */
        if (syscall(SYS_capget, &header, ours) < 0)
                return fail(reterr, errno, "read the capabilities");
        data[0].permitted &= ours[0].permitted;
        data[1].permitted &= ours[1].permitted;
        data[0].effective = data[0].permitted;
        data[1].effective = data[1].permitted;
        if (syscall(SYS_capset, &header, data) < 0)
                return fail(reterr, errno, "set the capabilities");
        return 0;
}

/* Keep nothing but the right to signal the pod's users: an app with CAP_SYS_PTRACE could make use of all that we may do. */
int process_drop_privileges(struct error *reterr) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[2] = { { 0 } };

        for (int capability = 0; capability < 64; capability++)
                if (capability != CAP_KILL && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0) {
                        if (errno == EINVAL)
                                break; /* past the last one this kernel knows */
                        return fail(reterr, errno, "drop capability %d", capability);
                }
        data[0].permitted = data[0].effective = UINT32_C(1) << CAP_KILL;
        if (syscall(SYS_capset, &header, data) < 0)
                return fail(reterr, errno, "set the capabilities");
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return fail(reterr, errno, "set no_new_privs");
        return 0;
}

/* The program's path: as given when there is a slash in it, else the first match in the search path. */
static int find_program(const char *name, const char *search_path, char *ret_path, size_t size, struct error *reterr) {
        int found = ENOENT;
        struct stat st;

        if (strchr(name, '/')) {
                if (snprintf(ret_path, size, "%s", name) >= (int) size)
                        return fail(reterr, ENAMETOOLONG, "execute \"%.100s\"", name);
                return 0;
        }
        for (const char *start = search_path; *start;) {
                size_t length = strcspn(start, ":");

                if (snprintf(ret_path, size, "%.*s/%s", length ? (int) length : 1, length ? start : ".", name) < (int) size
                    && stat(ret_path, &st) >= 0 && S_ISREG(st.st_mode)) {
                        if (access(ret_path, X_OK) >= 0)
                                return 0;
                        found = errno;
                }
                start += length + (start[length] == ':');
        }
        return fail(reterr, found, "execute \"%.100s\"", name);
}

static int explain_exec(int number, const char *path, struct error *reterr) {
        struct stat st;

        if (number == ENOENT && stat(path, &st) >= 0)
                return fail(reterr, number, "execute \"%.100s\": its interpreter or loader is missing", path);
        return fail(reterr, number, "execute \"%.100s\"", path);
}

static int confine_and_exec(const struct rkt_process *process, const struct stdio *stdio, struct error *reterr) {
        const uint32_t *arguments = PLAN_ARRAY(uint32_t, process->argv), *variables = PLAN_ARRAY(uint32_t, process->env);
        const struct rkt_rlimit *limits = PLAN_ARRAY(struct rkt_rlimit, process->rlimits);
        static const char *argv[MAX_ARGUMENTS], *env[MAX_ARGUMENTS];
        char path[4096];
        int r;

        if (process->argv.count == 0 || process->argv.count >= MAX_ARGUMENTS || process->env.count >= MAX_ARGUMENTS)
                return fail(reterr, E2BIG, "start a program with %u arguments", process->argv.count);
        for (uint32_t i = 0; i < process->argv.count; i++)
                argv[i] = plan_string(arguments[i]);
        for (uint32_t i = 0; i < process->env.count; i++)
                env[i] = plan_string(variables[i]);

        reset_signals();
        (void) setsid();
        r = set_stdio(stdio, reterr);
        if (r < 0)
                return r;
        /* A keyring of its own: the caller's would be the app's else. Kernels without keys say ENOSYS. */
        (void) syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
        if (process->set_oom_score_adj) {
                r = set_oom_score(process->oom_score_adj, reterr);
                if (r < 0)
                        return r;
        }
        for (uint32_t i = 0; i < process->rlimits.count; i++) {
                struct rlimit limit, now;

                /* As much of what is asked for as the host lets a process without CAP_SYS_RESOURCE have. */
                if (getrlimit((__rlimit_resource_t) limits[i].resource, &now) < 0)
                        return fail(reterr, errno, "read resource limit %u", limits[i].resource);
                limit.rlim_max = limits[i].hard < now.rlim_max ? limits[i].hard : now.rlim_max;
                limit.rlim_cur = limits[i].soft < limit.rlim_max ? limits[i].soft : limit.rlim_max;
                if (setrlimit((__rlimit_resource_t) limits[i].resource, &limit) < 0)
                        return fail(reterr, errno, "set resource limit %u", limits[i].resource);
        }
        (void) umask((mode_t) process->umask);
        r = set_directory(plan_string(process->directory), reterr);
        if (r < 0)
                return r;
        r = set_users(process, reterr);
        if (r < 0)
                return r;
        r = find_program(argv[0], plan_string(process->search_path), path, sizeof(path), reterr);
        if (r < 0)
                return r;
        if (process->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return fail(reterr, errno, "set no_new_privs");
        if (syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
                return fail(reterr, errno, "close file descriptors");
        if (process->seccomp.count > 0) {
                struct sock_fprog program = {
                        .len = (unsigned short) process->seccomp.count,
                        .filter = (struct sock_filter *) (uintptr_t) PLAN_ARRAY(struct sock_filter, process->seccomp),
                };
                if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
                        return fail(reterr, errno, "load the seccomp filter");
        }
        execve(path, (char *const *) argv, (char *const *) env);
        return explain_exec(errno, path, reterr);
}

_Noreturn void process_exec(const struct rkt_process *process, const struct stdio *stdio, int error_fd) {
        struct error error = { 0 };

        confine_and_exec(process, stdio, &error);
        if (write(error_fd, &error, sizeof(error)) < 0)
                _exit(254);
        _exit(254);
}

/* Wait until the child's execve() closed the pipe (0), or for its report of why not (-errno). */
int process_wait_exec(int error_fd, struct error *ret_error) {
        ssize_t n;

        do
                n = read(error_fd, ret_error, sizeof(*ret_error));
        while (n < 0 && errno == EINTR);
        if (n == 0)
                return 0;
        if (n != sizeof(*ret_error))
                return fail(ret_error, EIO, "start a process");
        return -ret_error->number;
}
