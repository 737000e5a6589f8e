/* Enter: one more process in a running pod, confined as the app's own are. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "printable.h"
#include "supervisor.h"

static int complain(const struct error *error) {
        fprintf(stderr, "%s: cannot ", plan_string(plan->verb));
        print_escaped(stderr, error->text);
        fprintf(stderr, ": %s\n", strerror(error->number));
        return 254;
}

/* The helper between us and the process: inside all namespaces but its child's new pid. It never outlives us, and is
 * not dumpable from before it joins the pod (CVE-2016-9962). */
static _Noreturn void join(const struct rkt_process *process, int socket, int error_fd) {
        struct stdio stdio = { 0, 1, 2, false };
        struct error error = { 0 };
        int master, slave = -1, cgroups[MAX_HIERARCHIES], n_cgroups;
        struct event event = { .type = EVENT_PID };
        pid_t pid;

        (void) prctl(PR_SET_PDEATHSIG, SIGKILL);
        n_cgroups = cgroups_open(0, cgroups, MAX_HIERARCHIES, &error);
        if (n_cgroups < 0)
                goto give_up;
        if (setns(plan->target_fd, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_NEWCGROUP) < 0) {
                (void) fail(&error, errno, "join the pod's namespaces");
                goto give_up;
        }
        if (chdir("/") < 0) {
                (void) fail(&error, errno, "enter the app's root");
                goto give_up;
        }
        if (process->stdio == RKT_STDIO_TTY) {
                if (terminal_open(&master, &slave, &error) < 0)
                        goto give_up;
                (void) !fchown(slave, process->uid, 5);
                /* What does not go to a terminal goes where it should as it is, without carriage returns. */
                stdio = (struct stdio) { slave, isatty(STDOUT_FILENO) ? slave : STDOUT_FILENO, isatty(STDERR_FILENO) ? slave : STDERR_FILENO, true };
                /* It answers when the terminal has the size of the caller's. */
                event = (struct event) { .type = EVENT_TTY };
                if (send_event(socket, &event, master, 0) < 0 || receive_event(socket, &event, NULL, NULL) <= 0)
                        _exit(254);
                close(master);
        }
        pid = fork();
        if (pid < 0) {
                (void) fail(&error, errno, "fork");
                goto give_up;
        }
        if (pid == 0) {
                if (cgroups_join(cgroups, n_cgroups, &error) < 0)
                        goto give_up;
                process_exec(process, &stdio, error_fd);
        }
        event = (struct event) { .type = EVENT_PID };
        (void) send_event(socket, &event, -1, pid);
        close(error_fd);
        if (slave >= 0)
                close(slave);
        /* We stay for its exit code: it is a child of ours, in a pid namespace that we are not in. */
        for (;;) {
                int status;

                if (waitpid(pid, &status, 0) == pid)
                        _exit(wait_status_code(status));
                if (errno != EINTR)
                        _exit(254);
        }

give_up:
        (void) !write(error_fd, &error, sizeof(error));
        _exit(254);
}

int enter_run(void) {
        static struct relay relay = { .master = -1 };
        const struct rkt_process *process = PLAN_ARRAY(struct rkt_process, PLAN_ARRAY(struct rkt_app, plan->apps)->processes);
        _cleanup_close_ int signal_fd = -1;
        struct event event = { 0 };
        struct error error = { 0 };
        _cleanup_close_ int leaf = -1;
        int pair[2], pipe_fds[2], status = 0, on = 1;
        pid_t helper, entered = 0;
        bool socket_open = true;
        sigset_t all;

        sigfillset(&all);
        (void) sigprocmask(SIG_SETMASK, &all, NULL);
        signal_fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
        if (signal_fd < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0 || pipe2(pipe_fds, O_CLOEXEC) < 0) {
                (void) fail(&error, errno, "set up the helper");
                return complain(&error);
        }
        (void) setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
        /* Here and not in its child: within the pod's cgroup namespace we could not clone from outside of it. */
        if (cgroups_leaf(0, &leaf, &error) < 0)
                return complain(&error);
        helper = cgroups_fork(leaf);
        if (helper < 0) {
                (void) fail(&error, errno, "fork");
                return complain(&error);
        }
        if (helper == 0) {
                close(pair[0]);
                close(pipe_fds[0]);
                join(process, pair[1], pipe_fds[1]);
        }
        close(pair[1]);
        close(pipe_fds[1]);
        for (;;) {
                struct pollfd polled[] = {
                        { .fd = signal_fd, .events = POLLIN },
                        { .fd = socket_open ? pair[0] : -1, .events = POLLIN },
                        { .fd = relay.master >= 0 && relay.input_open && relay.to_master == 0 ? STDIN_FILENO : -1, .events = POLLIN },
                        { .fd = relay.master, .events = (short) ((relay.to_caller == 0 ? POLLIN : 0) | (relay.to_master > 0 ? POLLOUT : 0)) },
                        { .fd = relay.to_caller > 0 ? relay.out : -1, .events = POLLOUT },
                };
                struct signalfd_siginfo info;

                if (poll(polled, 5, -1) < 0)
                        continue;
                if (polled[1].revents) {
                        int master = -1;

                        pid_t pid = 0;

                        socket_open = receive_event(pair[0], &event, &master, &pid) > 0;
                        if (socket_open && event.type == EVENT_TTY) {
                                relay_start(&relay, master);
                                if (!isatty(STDOUT_FILENO))
                                        relay.out = STDIN_FILENO;
                                event.type = EVENT_READY;
                                (void) send_event(pair[0], &event, -1, 0);
                        } else if (socket_open && event.type == EVENT_PID)
                                entered = pid;
                }
                if (relay.master >= 0)
                        relay_step(&relay, polled[2].revents, polled[3].revents & POLLOUT, polled[3].revents & (POLLIN | POLLHUP), polled[4].revents);
                if (polled[0].revents && read(signal_fd, &info, sizeof(info)) == sizeof(info)) {
                        if (info.ssi_signo == SIGWINCH)
                                relay_resize(&relay);
                        else if (info.ssi_signo != SIGCHLD && info.ssi_signo != SIGPIPE && entered > 0)
                                (void) kill(entered, (int) info.ssi_signo);
                        if (info.ssi_signo == SIGCHLD && waitpid(helper, &status, WNOHANG) == helper)
                                break;
                }
        }
        if (relay.master >= 0) {
                for (;;) {
                        struct pollfd last = { .fd = relay.master, .events = POLLIN };

                        if (poll(&last, 1, 0) <= 0 || !(last.revents & POLLIN))
                                break;
                        relay_step(&relay, false, false, true, true);
                        while (relay.to_caller > 0)
                                relay_step(&relay, false, false, false, true);
                }
                relay_finish(&relay);
        }
        if (process_wait_exec(pipe_fds[0], &error) < 0)
                return complain(&error);
        return wait_status_code(status);
}
