/* The supervisor: what `rkt-py run` becomes. It carries out a plan, holds the pod's lock, keeps what the
 * apps write, and leaves nothing behind.
 *
 * Built static, with every csrc/supervisor_*.c; needs no library but libc. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "printable.h"
#include "supervisor.h"

const struct rkt_plan *plan;

void close_pointer(int *fd) {
        if (*fd >= 0)
                close(*fd);
}

int fail(struct error *reterr, int number, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        vsnprintf(reterr->text, sizeof(reterr->text), format, arguments);
        va_end(arguments);
        reterr->number = number;
        return -(number ? number : EIO);
}

const char *plan_string(uint32_t offset) {
        return offset > 0 && offset < plan->size ? (const char *) plan + offset : "";
}

const void *plan_array(struct rkt_span span, size_t item) {
        static const uint64_t nothing[16];

        if (span.count == 0)
                return nothing;
        if (span.offset >= plan->size || (plan->size - span.offset) / item < span.count)
                abort();
        return (const char *) plan + span.offset;
}

int write_file(int dir_fd, const char *path, const char *text) {
        _cleanup_close_ int fd = openat(dir_fd, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

        if (fd < 0 || write(fd, text, strlen(text)) < 0)
                return -errno;
        return 0;
}

static int create_file(int dir_fd, const char *path, const char *text) {
        _cleanup_close_ int fd = openat(dir_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);

        if (fd < 0 || write(fd, text, strlen(text)) < 0)
                return -errno;
        return 0;
}

int wait_status_code(int status) {
        return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* A pid sent along is seen by the receiver as it is in its own pid namespace (unix(7), SCM_CREDENTIALS). */
int send_event(int socket, const struct event *event, int fd, pid_t pid) {
        struct iovec data = { (void *) (uintptr_t) event, sizeof(*event) };
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))];
        } control = { 0 };
        struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1 };

        if (pid > 0) {
                struct ucred credentials = { .pid = pid, .uid = getuid(), .gid = getgid() };

                message.msg_control = &control;
                message.msg_controllen = CMSG_SPACE(sizeof(credentials));
                control.header = (struct cmsghdr) { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_CREDENTIALS, .cmsg_len = CMSG_LEN(sizeof(credentials)) };
                memcpy(CMSG_DATA(&control.header), &credentials, sizeof(credentials));
        } else if (fd >= 0) {
                message.msg_control = &control;
                message.msg_controllen = CMSG_SPACE(sizeof(fd));
                control.header = (struct cmsghdr) { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(fd)) };
                memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
        }
        return sendmsg(socket, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* 1, or 0 at the end, or -errno. */
int receive_event(int socket, struct event *ret_event, int *ret_fd, pid_t *ret_pid) {
        struct iovec data = { ret_event, sizeof(*ret_event) };
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int))];
        } control = { 0 };
        struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };
        ssize_t n;

        do
                n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        if (n != sizeof(*ret_event))
                return 0;
        for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
                if (header->cmsg_level != SOL_SOCKET)
                        continue;
                if (header->cmsg_type == SCM_RIGHTS) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(header), sizeof(fd));
                        if (ret_fd)
                                *ret_fd = fd;
                        else
                                close(fd);
                } else if (header->cmsg_type == SCM_CREDENTIALS && ret_pid) {
                        struct ucred credentials;

                        memcpy(&credentials, CMSG_DATA(header), sizeof(credentials));
                        *ret_pid = credentials.pid;
                }
        }
        return 1;
}

/* One of our own standard streams, written to without ever waiting. */
struct outlet {
        int fd;
        bool socket;
        bool pipe;
        bool gone;
        size_t length;
        char bytes[4096];
};

struct stream {
        int fd;
        uint32_t app;
        bool is_stderr;
};

struct app {
        struct log *log;
        int32_t code;
        bool started;
        bool ended;
};

static struct outlet outlets[2];
static struct stream streams[2 * MAX_APPS];
static struct app apps[MAX_APPS];
static struct stdio stdios[MAX_APPS];
static struct relay relay = { .master = -1 };
static uint32_t n_streams;
static int32_t result = -1;
static bool failed;

/* One write: what others write to the same file does not get between the words. */
static void complain(const char *who, const struct error *error) {
        char text[4 * sizeof(error->text) + 2048];
        FILE *file = fmemopen(text, sizeof(text), "w");
        long size;

        if (!file)
                return;
        fprintf(file, "%s: ", plan_string(plan->verb));
        if (who)
                fprintf(file, "app \"%s\": ", who);
        fputs("cannot ", file);
        print_escaped(file, error->text);
        if (error->number)
                fprintf(file, ": %s", strerror(error->number));
        fputc('\n', file);
        fflush(file);
        size = ftell(file);
        fclose(file);
        (void) !write(STDERR_FILENO, text, (size_t) size);
}

static const char *app_name(int32_t index) {
        return plan_string(PLAN_ARRAY(struct rkt_app, plan->apps)[index].name);
}

static void status_file(const char *app, const char *suffix, const char *text) {
        char path[512];

        snprintf(path, sizeof(path), "rkt/status/%s%s", app, suffix);
        (void) create_file(plan->pod_fd, path, text);
}

static void outlet_open(struct outlet *outlet, int fd) {
        char path[32];
        struct stat st;

        outlet->fd = fd;
        if (fstat(fd, &st) < 0)
                outlet->gone = true;
        else if (S_ISSOCK(st.st_mode))
                outlet->socket = true;
        else if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
                int again;

                /* An open file of our own: O_NONBLOCK on the caller's would be seen by its other users. */
                outlet->pipe = S_ISFIFO(st.st_mode);
                snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
                again = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
                if (again >= 0)
                        outlet->fd = again;
        }
}

static void outlet_flush(struct outlet *outlet) {
        size_t done = 0;

        while (!outlet->gone && done < outlet->length) {
                ssize_t n = outlet->socket ? send(outlet->fd, outlet->bytes + done, outlet->length - done, MSG_DONTWAIT | MSG_NOSIGNAL)
                                           : write(outlet->fd, outlet->bytes + done, outlet->length - done);
                if (n >= 0)
                        done += (size_t) n;
                else if (errno == EAGAIN)
                        break;
                else if (errno != EINTR)
                        outlet->gone = true;
        }
        if (outlet->gone)
                done = outlet->length;
        memmove(outlet->bytes, outlet->bytes + done, outlet->length - done);
        outlet->length -= done;
}

/* False at the stream's end. */
static bool stream_step(struct stream *stream) {
        struct outlet *outlet = &outlets[stream->is_stderr];
        ssize_t n = read(stream->fd, outlet->bytes, sizeof(outlet->bytes));

        if (n <= 0)
                return n < 0 && (errno == EAGAIN || errno == EINTR);
        log_write(apps[stream->app].log, stream->is_stderr, outlet->bytes, (size_t) n);
        outlet->length = (size_t) n;
        outlet_flush(outlet);
        /* Who reads our pipe no more wants no more: the app sees what it would have without us. A socket is a
         * journal that may come back, and no reason to lose an app. */
        return !(outlet->gone && outlet->pipe);
}

static void close_stream(struct stream *stream) {
        close(stream->fd);
        stream->fd = -1;
}

static void app_ended(int32_t index, int32_t code) {
        char text[16];

        apps[index].ended = true;
        apps[index].code = code;
        if (code != 0 && !failed) {
                failed = true;
                result = code;
        }
        snprintf(text, sizeof(text), "%d", code);
        status_file(app_name(index), "", text);
}

/* 1, or 0 when there will be no more of them. */
static int handle_event(int socket) {
        struct event event, ready = { .type = EVENT_READY };
        int fd = -1, r;
        pid_t pid = 0;

        r = receive_event(socket, &event, &fd, &pid);
        if (r <= 0)
                return 0;
        switch (event.type) {

        case EVENT_PID:
                if (event.value == RKT_ROLE_MAIN) {
                        char text[16];

                        snprintf(text, sizeof(text), "%d", pid);
                        status_file(app_name(event.app), "-pid", text);
                }
                break;

        case EVENT_STARTED:
                apps[event.app].started = true;
                status_file(app_name(event.app), "-started", "");
                break;

        case EVENT_EXITED:
                app_ended(event.app, event.value);
                break;

        case EVENT_ERROR:
                complain(event.app >= 0 ? app_name(event.app) : NULL, &event.error);
                if (!failed)
                        result = 254;
                failed = true;
                break;

        case EVENT_TTY:
                relay_start(&relay, fd);
                outlet_open(&outlets[0], STDOUT_FILENO);
                return send_event(socket, &ready, -1, 0) < 0 ? 0 : 1;
        }
        return 1;
}

/* An app takes some of them; what an app itself may have is in its limits. */
static void raise_descriptors(void) {
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return;
        limit.rlim_cur = limit.rlim_max;
        (void) setrlimit(RLIMIT_NOFILE, &limit);
}

static int make_streams(struct error *reterr) {
        const struct rkt_app *plan_apps = PLAN_ARRAY(struct rkt_app, plan->apps);

        outlet_open(&outlets[0], STDOUT_FILENO);
        outlet_open(&outlets[1], STDERR_FILENO);
        for (uint32_t i = 0; i < plan->apps.count; i++) {
                const struct rkt_process *process = PLAN_ARRAY(struct rkt_process, plan_apps[i].processes);
                int pipes[2][2];

                stdios[i] = (struct stdio) { -1, -1, -1, false };
                if (process->stdio == RKT_STDIO_INHERIT) {
                        stdios[i] = (struct stdio) { 0, 1, 2, false };
                        continue;
                }
                if (process->stdio != RKT_STDIO_STREAM)
                        continue;
                apps[i].log = log_open(plan->pod_fd, plan_string(plan_apps[i].name), plan->log_max_kib);
                for (int j = 0; j < 2; j++) {
                        if (pipe2(pipes[j], O_CLOEXEC) < 0)
                                return fail(reterr, errno, "make a pipe");
                        (void) fcntl(pipes[j][0], F_SETFL, O_NONBLOCK);
                        /* So that the app may open /dev/stdout, which asks for the pipe's owner. */
                        (void) !fchown(pipes[j][1], process->uid, process->gid);
                        streams[n_streams++] = (struct stream) { pipes[j][0], i, j == 1 };
                }
                stdios[i].out = pipes[0][1];
                stdios[i].err = pipes[1][1];
        }
        return 0;
}

static void close_pod_ends(void) {
        for (uint32_t i = 0; i < plan->apps.count; i++) {
                if (stdios[i].out > 2)
                        close(stdios[i].out);
                if (stdios[i].err > 2)
                        close(stdios[i].err);
        }
}

static pid_t clone_init(int leaf, int *ret_pidfd) {
        struct clone_args arguments = {
                .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_PIDFD,
                .pidfd = (uint64_t) (uintptr_t) ret_pidfd,
                .exit_signal = SIGCHLD,
        };

        if (plan->flags & RKT_NEW_NET)
                arguments.flags |= CLONE_NEWNET;
        if (plan->flags & RKT_NEW_IPC)
                arguments.flags |= CLONE_NEWIPC;
        if (plan->flags & RKT_NEW_UTS)
                arguments.flags |= CLONE_NEWUTS;
        if (leaf >= 0) {
                arguments.flags |= CLONE_INTO_CGROUP;
                arguments.cgroup = (uint64_t) leaf;
        }
        return (pid_t) syscall(SYS_clone3, &arguments, sizeof(arguments));
}

static void handle_signal(int signal_fd, pid_t pid, unsigned int *stops) {
        struct signalfd_siginfo info;

        if (read(signal_fd, &info, sizeof(info)) != sizeof(info))
                return;
        switch (info.ssi_signo) {
        case SIGCHLD:
        case SIGPIPE: /* this and the next are about what we write, not the apps */
        case SIGXFSZ:
                break;
        case SIGWINCH:
                relay_resize(&relay);
                break;
        case SIGTERM:
        case SIGINT:
                if (++*stops > 1) {
                        (void) kill(pid, SIGKILL);
                        break;
                }
                (void) kill(pid, SIGTERM);
                (void) kill(pid, SIGCONT);
                /* Should pid 1 itself be kept from ending the pod in time: who may trace it can stop it. */
                (void) setitimer(ITIMER_REAL, &(struct itimerval){ .it_value.tv_sec = plan->stop_timeout_ms / 1000 + 2 }, NULL);
                break;
        default:
                if (info.ssi_signo == SIGALRM && info.ssi_code == SI_KERNEL)
                        (void) kill(pid, SIGKILL);
                else
                        (void) kill(pid, (int) info.ssi_signo);
        }
}

/* Until pid 1 has ended and all it wrote is passed on. */
static int loop(int socket, int signal_fd, int pidfd, pid_t pid, struct error *reterr) {
        static struct pollfd polled[5 + 2 + 2 * MAX_APPS];
        bool ended = false, socket_open = true;
        unsigned int stops = 0;

        for (;;) {
                uint32_t n = 0, i_stream, i_relay = 0, i_outlet;
                bool any = false;
                int r;

                polled[n++] = (struct pollfd) { .fd = signal_fd, .events = POLLIN };
                polled[n++] = (struct pollfd) { .fd = ended ? -1 : pidfd, .events = POLLIN };
                polled[n++] = (struct pollfd) { .fd = socket_open ? socket : -1, .events = POLLIN };
                i_outlet = n;
                for (int i = 0; i < 2; i++) {
                        polled[n++] = (struct pollfd) { .fd = outlets[i].length > 0 ? outlets[i].fd : -1, .events = POLLOUT };
                        any |= outlets[i].length > 0;
                }
                i_stream = n;
                for (uint32_t i = 0; i < n_streams; i++) {
                        bool wanted = streams[i].fd >= 0 && outlets[streams[i].is_stderr].length == 0;
                        polled[n++] = (struct pollfd) { .fd = wanted ? streams[i].fd : -1, .events = POLLIN };
                }
                if (relay.master >= 0) {
                        i_relay = n;
                        polled[n++] = (struct pollfd) { .fd = relay.input_open && relay.to_master == 0 ? STDIN_FILENO : -1, .events = POLLIN };
                        polled[n++] = (struct pollfd) { .fd = relay.master,
                                                        .events = (short) ((relay.to_caller == 0 ? POLLIN : 0) | (relay.to_master > 0 ? POLLOUT : 0)) };
                        polled[n++] = (struct pollfd) { .fd = relay.to_caller > 0 ? STDOUT_FILENO : -1, .events = POLLOUT };
                        any |= relay.to_caller > 0;
                }

                r = poll(polled, n, ended && !any ? 0 : -1);
                if (r < 0 && errno != EINTR)
                        return fail(reterr, errno, "wait for events");
                if (r < 0)
                        continue;
                /* Once pid 1 is gone nobody writes: nothing to read means all was read. */
                if (ended && r == 0)
                        return 0;
                if (polled[0].revents)
                        handle_signal(signal_fd, pid, &stops);
                if (ended && stops > 1)
                        return 0;
                if (polled[2].revents)
                        socket_open = handle_event(socket) > 0;
                for (int i = 0; i < 2; i++)
                        if (polled[i_outlet + (uint32_t) i].revents)
                                outlet_flush(&outlets[i]);
                for (uint32_t i = 0; i < n_streams; i++)
                        if (polled[i_stream + i].revents && outlets[streams[i].is_stderr].length == 0 && !stream_step(&streams[i]))
                                close_stream(&streams[i]);
                if (i_relay > 0) {
                        short master = polled[i_relay + 1].revents;

                        relay_step(&relay, polled[i_relay].revents, master & POLLOUT, master & (POLLIN | POLLHUP), polled[i_relay + 2].revents);
                        /* Every process that had the terminal open has closed it. */
                        if (master & POLLHUP && relay.to_caller == 0 && ended) {
                                relay_finish(&relay);
                                close(relay.master);
                                relay.master = -1;
                        }
                }
                if (polled[1].revents)
                        ended = true;
        }
}

/* What the pod directory says of the cgroups, for gc, should we not be there to remove them: no cgroups without it. */
static int record_cgroups(struct error *reterr) {
        const struct rkt_cgroup *cgroups = PLAN_ARRAY(struct rkt_cgroup, plan->cgroups);
        static char text[65536];
        size_t length = 0;
        int r;

        for (uint32_t i = 0; i < plan->cgroups.count; i++) {
                length += (size_t) snprintf(text + length, sizeof(text) - length, "%s\n", plan_string(cgroups[i].path));
                if (length >= sizeof(text))
                        return fail(reterr, E2BIG, "write down the cgroups of the pod");
        }
        r = create_file(plan->pod_fd, "subcgroup", text);
        return r < 0 ? fail(reterr, -r, "write down the cgroups of the pod") : 0;
}

static int run(struct error *reterr) {
        _cleanup_close_ int signal_fd = -1, leaf = -1, cgroup_ns = -1, pidfd = -1, ours = -1, theirs = -1;
        int pair[2], status = 0, r, recorded, on = 1;
        sigset_t all;
        char text[16];
        pid_t pid;

        raise_descriptors();
        if (plan->apps.count == 0 || plan->apps.count > MAX_APPS)
                return fail(reterr, E2BIG, "run a pod of %u apps", plan->apps.count);
        sigfillset(&all);
        (void) sigprocmask(SIG_SETMASK, &all, NULL);
        signal_fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
        if (signal_fd < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return fail(reterr, errno, "set up the supervisor");
        ours = pair[0];
        theirs = pair[1];
        (void) setsockopt(ours, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
        r = make_streams(reterr);
        if (r < 0)
                return r;
        r = record_cgroups(reterr);
        if (r < 0)
                return r;
        r = cgroups_make(&cgroup_ns, reterr);
        if (r >= 0)
                r = cgroups_leaf(-1, &leaf, reterr);
        if (r < 0) {
                cgroups_remove();
                return r;
        }

        pid = clone_init(leaf, &pidfd);
        if (pid < 0) {
                r = fail(reterr, errno, "make the pod's namespaces");
                cgroups_remove();
                return r;
        }
        if (pid == 0) {
                close(TAKE_FD(ours));
                init_run(theirs, stdios, cgroup_ns);
        }
        close(TAKE_FD(theirs));
        close_pod_ends();

        snprintf(text, sizeof(text), "%d", pid);
        recorded = create_file(plan->pod_fd, "pid", text);
        if (recorded < 0) /* a pod that nobody could stop or enter */
                (void) kill(pid, SIGKILL);
        r = loop(ours, signal_fd, pidfd, pid, reterr);
        relay_finish(&relay);
        if (waitpid(pid, &status, 0) < 0)
                status = SIGKILL;
        for (uint32_t i = 0; i < plan->apps.count; i++) {
                if (!apps[i].ended && apps[i].started)
                        app_ended((int32_t) i, 128 + SIGKILL);
                log_close(apps[i].log);
        }
        cgroups_remove();
        if (r < 0)
                return r;
        if (recorded < 0)
                return fail(reterr, -recorded, "write down the pid of the pod");
        if (result >= 0)
                return result;
        return status == 0 ? 0 : failed ? 254 : wait_status_code(status);
}

static int load_plan(const char *argument, struct error *reterr) {
        char *end;
        long fd = strtol(argument, &end, 10);
        const struct rkt_plan *loaded;
        struct stat st;

        if (*end || fd < 3 || fstat((int) fd, &st) < 0 || st.st_size < (off_t) sizeof(*loaded))
                return fail(reterr, EBADF, "read the plan");
        loaded = mmap(NULL, (size_t) st.st_size, PROT_READ, MAP_PRIVATE, (int) fd, 0);
        if (loaded == MAP_FAILED)
                return fail(reterr, errno, "read the plan");
        close((int) fd);
        if (loaded->magic != RKT_PLAN_MAGIC || loaded->version != RKT_PLAN_VERSION || loaded->size != st.st_size)
                return fail(reterr, EPROTO, "read a plan of another version");
        plan = loaded;
        return 0;
}

int main(int argc, char **argv) {
        struct error error = { 0 };
        int r;

        (void) prctl(PR_SET_NAME, "rkt-py");
        (void) prctl(PR_SET_DUMPABLE, 0);
        if (argc != 2 || load_plan(argv[1], &error) < 0) {
                fprintf(stderr, "supervisor: started by rkt-py only, with a plan: %s\n", error.text);
                return 254;
        }
        if (plan->mode == RKT_MODE_ENTER)
                return enter_run();
        r = run(&error);
        if (r < 0) {
                complain(NULL, &error);
                return 254;
        }
        return r;
}
