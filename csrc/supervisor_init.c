/* Pid 1 of a pod: builds the roots, starts the apps, reaps, forwards signals, ends the pod. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "supervisor.h"

struct app {
        pid_t pid;
        uint32_t next;
        int32_t code;
        int mount_ns;
        int cgroups[MAX_HIERARCHIES];
        int n_cgroups;
        int leaf;
        bool failed;
        bool ended;
};

static struct app apps[MAX_APPS];
static struct stdio streams[MAX_APPS];
static int to_supervisor;
static int null_fd = -1;
static bool stopping;
static struct timespec stop_at;

static _Noreturn void give_up(int32_t app, const struct error *error) {
        struct event event = { .type = EVENT_ERROR, .app = app, .error = *error };

        (void) send_event(to_supervisor, &event, -1, 0);
        _exit(254);
}

/* Replace a directory of the host's by a mount of its own: read-only, and ".." does not lead out of it. */
static int detach(int *directory_fd, struct error *reterr) {
        struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };
        int clone = (int) syscall(SYS_open_tree, *directory_fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);

        if (clone < 0)
                return fail(reterr, errno, "clone the mount of a cgroup");
        close(*directory_fd);
        *directory_fd = clone;
        if (syscall(SYS_mount_setattr, clone, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
                return fail(reterr, errno, "make a cgroup read-only");
        return 0;
}

/* The pod's cgroup is the root of what the pod sees of them. Those of the apps can be opened only now: once we have left
 * the host's mounts they are out of reach. */
static int enter_cgroups(int ns, struct error *reterr) {
        int fds[MAX_HIERARCHIES], n, r;

        n = cgroups_open(-1, fds, MAX_HIERARCHIES, reterr);
        if (n < 0)
                return n;
        r = cgroups_join(fds, n, reterr);
        if (r < 0)
                return r;
        while (n > 0)
                close(fds[--n]);
        for (uint32_t i = 0; i < plan->apps.count; i++) {
                apps[i].n_cgroups = cgroups_open((int32_t) i, apps[i].cgroups, MAX_HIERARCHIES, reterr);
                if (apps[i].n_cgroups < 0)
                        return apps[i].n_cgroups;
                r = cgroups_leaf((int32_t) i, &apps[i].leaf, reterr);
                if (r > 0)
                        r = detach(&apps[i].leaf, reterr);
                if (r < 0)
                        return r;
        }
        if (plan->flags & RKT_NEW_CGROUP && (ns >= 0 ? setns(ns, CLONE_NEWCGROUP) : unshare(CLONE_NEWCGROUP)) < 0)
                return fail(reterr, errno, "enter a cgroup namespace");
        return 0;
}

static int loopback_up(struct error *reterr) {
        _cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        struct ifreq request = { .ifr_name = "lo" };

        if (fd < 0)
                return fail(reterr, errno, "open a socket");
        if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
                return fail(reterr, errno, "read the state of lo");
        request.ifr_flags |= IFF_UP | IFF_RUNNING;
        if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
                return fail(reterr, errno, "bring up lo");
        return 0;
}

static int build_root(const struct rkt_app *app, struct error *reterr) {
        const struct rkt_op *ops = PLAN_ARRAY(struct rkt_op, app->ops);
        _cleanup_close_ int root_fd = -1;
        int r;

        for (uint32_t i = 0; i < app->ops.count; i++) {
                if (root_fd < 0 && ops[i].kind != RKT_OP_ROOT) {
                        root_fd = open(plan_string(app->root), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                        if (root_fd < 0)
                                return fail(reterr, errno, "open the root %s", plan_string(app->root));
                }
                r = root_apply(root_fd, &ops[i], reterr);
                if (r < 0)
                        return r;
        }
        return root_pivot(root_fd, reterr);
}

/* The second and later apps' mount namespaces: each is made by a child that does nothing else. */
static int build_elsewhere(const struct rkt_app *app, int32_t index, int *ret_mount_ns, struct error *reterr) {
        int pair[2], r, status;
        struct event event = { .type = EVENT_READY };
        pid_t pid;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return fail(reterr, errno, "make a socket");
        pid = fork();
        if (pid < 0)
                return fail(reterr, errno, "fork");
        if (pid == 0) {
                int ns;

                (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (unshare(CLONE_NEWNS) < 0) {
                        (void) fail(reterr, errno, "make a mount namespace");
                        give_up(index, reterr);
                }
                /* Opened through the host's /proc, which is still there. */
                ns = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
                if (ns < 0)
                        (void) fail(reterr, errno, "open the mount namespace");
                if (ns < 0 || build_root(app, reterr) < 0 || send_event(pair[1], &event, ns, 0) < 0)
                        give_up(index, reterr);
                _exit(0);
        }
        close(pair[1]);
        r = receive_event(pair[0], &event, ret_mount_ns, NULL);
        close(pair[0]);
        if (waitpid(pid, &status, 0) < 0 || status != 0 || r <= 0)
                _exit(254); /* it has said why */
        return 0;
}

static _Noreturn void become(const struct app *app, const struct rkt_process *process, const struct stdio *stdio, int error_fd) {
        struct error error = { 0 };

        if (cgroups_join(app->cgroups, app->n_cgroups, &error) >= 0) {
                if (app->mount_ns < 0 || setns(app->mount_ns, CLONE_NEWNS) >= 0)
                        process_exec(process, stdio, error_fd);
                (void) fail(&error, errno, "enter the app's mount namespace");
        }
        (void) !write(error_fd, &error, sizeof(error));
        _exit(254);
}

/* Whether some app has a process that is not started yet. */
static bool starts_more(void) {
        const struct rkt_app *plan_apps = PLAN_ARRAY(struct rkt_app, plan->apps);

        for (uint32_t i = 0; i < plan->apps.count; i++)
                if (!apps[i].ended && apps[i].next < plan_apps[i].processes.count)
                        return true;
        return false;
}

static int start_process(int32_t index, const struct rkt_process *process, struct error *reterr) {
        struct app *app = &apps[index];
        struct stdio stdio = streams[index];
        struct event started = { .type = EVENT_PID, .app = index, .value = (int32_t) process->role };
        int pipe_fds[2], go[2], r;

        if (stdio.in < 0)
                stdio.in = null_fd;
        if (process->stdio == RKT_STDIO_NULL)
                stdio.out = stdio.err = null_fd;
        if (pipe2(pipe_fds, O_CLOEXEC) < 0 || pipe2(go, O_CLOEXEC) < 0)
                return fail(reterr, errno, "make a pipe");
        app->pid = cgroups_fork(app->leaf);
        if (app->pid < 0)
                return fail(reterr, errno, "fork");
        if (app->pid == 0) {
                char end;

                close(go[1]);
                (void) !read(go[0], &end, 1);
                become(app, process, &stdio, pipe_fds[1]);
        }
        close(pipe_fds[1]);
        close(go[0]);
        /* The supervisor learns the pid as it is outside: to tell another's takes a capability. */
        (void) send_event(to_supervisor, &started, -1, app->pid);
        r = starts_more() ? 0 : process_drop_privileges(reterr);
        if (r < 0)
                (void) kill(app->pid, SIGKILL);
        close(go[1]);
        if (r >= 0)
                r = process_wait_exec(pipe_fds[0], reterr);
        close(pipe_fds[0]);
        if (r < 0) {
                (void) waitpid(app->pid, NULL, 0);
                app->pid = 0;
        }
        return r;
}

static void begin_stop(int signal_number) {
        for (uint32_t i = 0; i < plan->apps.count; i++)
                if (apps[i].pid > 0) {
                        (void) kill(apps[i].pid, signal_number);
                        (void) kill(apps[i].pid, SIGCONT); /* who is stopped hears of nothing but this */
                }
        if (stopping)
                return;
        stopping = true;
        clock_gettime(CLOCK_MONOTONIC, &stop_at);
        stop_at.tv_sec += plan->stop_timeout_ms / 1000;
        stop_at.tv_nsec += plan->stop_timeout_ms % 1000 * 1000000;
        if (stop_at.tv_nsec >= 1000000000) {
                stop_at.tv_sec++;
                stop_at.tv_nsec -= 1000000000;
        }
}

static void end_app(int32_t index) {
        struct app *app = &apps[index];
        struct event event = { .type = EVENT_EXITED, .app = index, .value = app->code };

        app->ended = true;
        (void) send_event(to_supervisor, &event, -1, 0);
        if (app->failed && !stopping)
                begin_stop(SIGTERM);
}

/* Start what comes next of an app: its pre-start handlers, its main program, its post-stop handlers. */
static void advance(int32_t index) {
        const struct rkt_app *plan_app = PLAN_ARRAY(struct rkt_app, plan->apps) + index;
        const struct rkt_process *processes = PLAN_ARRAY(struct rkt_process, plan_app->processes);
        struct app *app = &apps[index];

        while (app->next < plan_app->processes.count) {
                const struct rkt_process *process = &processes[app->next++];
                struct event event = { .type = EVENT_ERROR, .app = index };

                if ((app->failed || stopping) && process->role != RKT_ROLE_POST_STOP)
                        continue;
                if (start_process(index, process, &event.error) >= 0) {
                        if (process->role == RKT_ROLE_MAIN) {
                                event = (struct event) { .type = EVENT_STARTED, .app = index };
                                (void) send_event(to_supervisor, &event, -1, 0);
                        }
                        return;
                }
                app->failed = true;
                app->code = 254;
                (void) send_event(to_supervisor, &event, -1, 0);
        }
        end_app(index);
}

static void process_ended(int32_t index, int status) {
        const struct rkt_app *plan_app = PLAN_ARRAY(struct rkt_app, plan->apps) + index;
        const struct rkt_process *processes = PLAN_ARRAY(struct rkt_process, plan_app->processes);
        struct app *app = &apps[index];
        int code = wait_status_code(status);

        app->pid = 0;
        if (processes[app->next - 1].role == RKT_ROLE_MAIN || (code != 0 && app->code == 0))
                app->code = app->code == 0 ? code : app->code;
        if (code != 0)
                app->failed = true;
        advance(index);
}

static void reap(void) {
        for (;;) {
                int status;
                pid_t pid = waitpid(-1, &status, WNOHANG);

                if (pid <= 0)
                        return;
                for (uint32_t i = 0; i < plan->apps.count; i++)
                        if (apps[i].pid == pid) {
                                process_ended((int32_t) i, status);
                                break;
                        }
        }
}

static bool all_ended(void) {
        for (uint32_t i = 0; i < plan->apps.count; i++)
                if (!apps[i].ended)
                        return false;
        return true;
}

static int time_left(void) {
        struct timespec now;
        long long ms;

        if (!stopping)
                return -1;
        clock_gettime(CLOCK_MONOTONIC, &now);
        ms = (stop_at.tv_sec - now.tv_sec) * 1000LL + (stop_at.tv_nsec - now.tv_nsec) / 1000000;
        return ms > 0 ? (int) ms : 0;
}

static void loop(int signal_fd) {
        while (!all_ended()) {
                struct pollfd polled = { .fd = signal_fd, .events = POLLIN };
                struct signalfd_siginfo info;
                int left = time_left();

                if (poll(&polled, 1, left) == 0 || left == 0)
                        return; /* with us every process of the pod dies */
                if (read(signal_fd, &info, sizeof(info)) != sizeof(info))
                        continue;
                switch (info.ssi_signo) {
                case SIGCHLD:
                        reap();
                        break;
                case SIGTERM:
                case SIGINT:
                        if (stopping && info.ssi_signo == SIGINT)
                                return;
                        begin_stop(SIGTERM);
                        break;
                default:
                        for (uint32_t i = 0; i < plan->apps.count; i++)
                                if (apps[i].pid > 0)
                                        (void) kill(apps[i].pid, (int) info.ssi_signo);
                }
        }
}

static int set_up(int cgroup_ns, struct error *reterr, int32_t *ret_app) {
        const struct rkt_app *plan_apps = PLAN_ARRAY(struct rkt_app, plan->apps);
        const struct rkt_op *pod_ops = PLAN_ARRAY(struct rkt_op, plan->pod_ops);
        _cleanup_close_ int host_fd = -1;
        int r;

        *ret_app = -1;
        r = enter_cgroups(cgroup_ns, reterr);
        if (r < 0)
                return r;
        if (plan->netns_fd >= 0 && setns(plan->netns_fd, CLONE_NEWNET) < 0)
                return fail(reterr, errno, "enter the network namespace");
        if (plan->flags & RKT_NEW_UTS && *plan_string(plan->hostname)
            && sethostname(plan_string(plan->hostname), strlen(plan_string(plan->hostname))) < 0)
                return fail(reterr, errno, "set the hostname %s", plan_string(plan->hostname));
        if (plan->flags & RKT_LOOPBACK) {
                r = loopback_up(reterr);
                if (r < 0)
                        return r;
        }
        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return fail(reterr, errno, "make the mounts private");
        /* pod_fd would not do: it is of the mount namespace we were cloned from, where we cannot mount. */
        host_fd = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (host_fd < 0)
                return fail(reterr, errno, "open /");
        for (uint32_t i = 0; i < plan->pod_ops.count; i++) {
                r = root_apply(host_fd, &pod_ops[i], reterr);
                if (r < 0)
                        return r;
        }
        for (uint32_t i = plan->apps.count; i > 1; i--) {
                *ret_app = (int32_t) i - 1;
                r = build_elsewhere(&plan_apps[i - 1], *ret_app, &apps[i - 1].mount_ns, reterr);
                if (r < 0)
                        return r;
        }
        *ret_app = 0;
        return build_root(&plan_apps[0], reterr);
}

static int compare_fds(const void *one, const void *other) {
        return *(const int *) one - *(const int *) other;
}

/* Close what we hold of the host, before there is anybody in the pod: who has CAP_SYS_PTRACE there may open what we have
 * open, and from the pod's directory ".." leads to the host's root. The locks are the supervisor's, with whom we die. */
static int close_host(int signal_fd, struct error *reterr) {
        static int kept[4 + MAX_APPS * (5 + MAX_HIERARCHIES)];
        size_t n = 0;
        int next = 3;
        bool inherits = false;

        null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null_fd < 0)
                return fail(reterr, errno, "open /dev/null");
        kept[n++] = null_fd;
        kept[n++] = signal_fd;
        kept[n++] = to_supervisor;
        for (uint32_t i = 0; i < plan->apps.count; i++) {
                inherits |= streams[i].in == STDIN_FILENO;
                kept[n++] = streams[i].in;
                kept[n++] = streams[i].out;
                kept[n++] = streams[i].err;
                kept[n++] = apps[i].mount_ns;
                kept[n++] = apps[i].leaf;
                for (int j = 0; j < apps[i].n_cgroups; j++)
                        kept[n++] = apps[i].cgroups[j];
        }
        for (int fd = 0; fd < 3 && !inherits; fd++)
                if (dup2(null_fd, fd) < 0)
                        return fail(reterr, errno, "set up standard stream %d", fd);
        qsort(kept, n, sizeof(kept[0]), compare_fds);
        for (size_t i = 0; i < n; i++) {
                if (kept[i] > next && syscall(SYS_close_range, next, kept[i] - 1, 0) < 0)
                        return fail(reterr, errno, "close file descriptors");
                if (kept[i] >= next)
                        next = kept[i] + 1;
        }
        if (syscall(SYS_close_range, next, ~0U, 0) < 0)
                return fail(reterr, errno, "close file descriptors");
        return 0;
}

_Noreturn void init_run(int socket, const struct stdio *stdios, int cgroup_ns) {
        const struct rkt_process *first;
        struct error error = { 0 };
        _cleanup_close_ int signal_fd = -1;
        sigset_t all;
        int32_t where;

        to_supervisor = socket;
        memcpy(streams, stdios, sizeof(struct stdio) * plan->apps.count);
        for (uint32_t i = 0; i < plan->apps.count; i++)
                apps[i].mount_ns = apps[i].leaf = -1;
        /* Nobody in the pod may trace us or read our memory and fds (CVE-2016-9962). */
        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* It may have died before we asked: its end of the socket is closed then, whoever our parent is now. */
        if (poll(&(struct pollfd){ .fd = socket }, 1, 0) != 0)
                _exit(254);
        (void) prctl(PR_SET_DUMPABLE, 0);
        (void) prctl(PR_SET_NAME, "rkt-py-init");
        (void) setsid();
        (void) umask(0);
        if (set_up(cgroup_ns, &error, &where) < 0)
                give_up(where, &error);

        first = PLAN_ARRAY(struct rkt_process, PLAN_ARRAY(struct rkt_app, plan->apps)->processes);
        if (first->stdio == RKT_STDIO_TTY) {
                struct event event = { .type = EVENT_TTY };
                int master, slave;

                if (terminal_open(&master, &slave, &error) < 0 || terminal_console(slave, &error) < 0)
                        give_up(0, &error);
                (void) !fchown(slave, first->uid, 5);
                /* It answers when the terminal has the size of the caller's. */
                if (send_event(to_supervisor, &event, master, 0) < 0
                    || receive_event(to_supervisor, &event, NULL, NULL) <= 0)
                        _exit(254);
                close(master);
                streams[0] = (struct stdio) { slave, slave, slave, true };
        }

        sigfillset(&all);
        (void) sigprocmask(SIG_BLOCK, &all, NULL);
        signal_fd = signalfd(-1, &all, SFD_CLOEXEC);
        if (signal_fd < 0) {
                (void) fail(&error, errno, "receive signals");
                give_up(-1, &error);
        }
        if (close_host(signal_fd, &error) < 0)
                give_up(-1, &error);
        for (uint32_t i = 0; i < plan->apps.count; i++)
                advance((int32_t) i);
        loop(signal_fd);
        _exit(0);
}
