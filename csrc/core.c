/* What Python needs of the kernel and cannot reach by itself. Included by the cffi extension. */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "open_in_root.h"
#include "rkt.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

int rkt_open_in_root(int root_fd, const char *path, int flags, uint64_t resolve) {
        return open_in_root(root_fd, path, flags, resolve);
}

/* A network namespace that lives as long as this fd and the processes in it; its lo is up. Only the calling
 * thread leaves its own, and comes back. */
int rkt_new_netns(void) {
        struct ifreq request = { .ifr_name = "lo" };
        int before, made = -1, sock, r = 0;

        before = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
        if (before < 0)
                return -errno;
        if (unshare(CLONE_NEWNET) < 0) {
                r = -errno;
                close(before);
                return r;
        }
        made = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
        if (made < 0)
                r = -errno;
        sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (r >= 0 && (sock < 0 || ioctl(sock, SIOCGIFFLAGS, &request) < 0))
                r = -errno;
        request.ifr_flags |= IFF_UP;
        if (r >= 0 && ioctl(sock, SIOCSIFFLAGS, &request) < 0)
                r = -errno;
        if (sock >= 0)
                close(sock);
        if (setns(before, CLONE_NEWNET) < 0)
                _exit(254); /* a thread in a namespace that nobody expects must not go on */
        close(before);
        if (r < 0 && made >= 0)
                close(made);
        return r < 0 ? r : made;
}

int rkt_sealed_memfd(const char *name, const uint8_t *bytes, uint64_t size) {
        int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), r;

        if (fd < 0)
                return -errno;
        while (size > 0) {
                ssize_t n = write(fd, bytes, size);

                if (n < 0) {
                        r = -errno;
                        close(fd);
                        return r;
                }
                bytes += n;
                size -= (uint64_t) n;
        }
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0) {
                r = -errno;
                close(fd);
                return r;
        }
        return fd;
}

/* A program of ours as a sealed copy in memory: what a pod finds at /proc/1/exe cannot be written to
 * (CVE-2019-5736). It is 60 kB; a read-only mount of the file would be a mount to be torn down at each start,
 * for which the kernel waits. */
int rkt_open_program(const char *path) {
        struct stat st;
        off_t offset = 0;
        int file = open(path, O_RDONLY | O_CLOEXEC), fd = -1, r = 0;

        if (file < 0 || fstat(file, &st) < 0)
                goto failed;
        fd = memfd_create("rkt-py-supervisor", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
        if (fd < 0 && errno == EINVAL) /* before Linux 6.3 every memfd can be executed */
                fd = memfd_create("rkt-py-supervisor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                goto failed;
        while (offset < st.st_size)
                if (sendfile(fd, file, &offset, (size_t) (st.st_size - offset)) <= 0)
                        goto failed;
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
                goto failed;
        close(file);
        return fd;

failed:
        r = errno ? -errno : -EIO;
        if (file >= 0)
                close(file);
        if (fd >= 0)
                close(fd);
        return r;
}

static void arguments_for(int plan_fd, char number[16], char *argv[3], char *env[1]) {
        snprintf(number, 16, "%d", plan_fd);
        argv[0] = (char *) (uintptr_t) "rkt-py-supervisor";
        argv[1] = number;
        argv[2] = NULL;
        env[0] = NULL;
}

/* Become the supervisor. plan_fd and fds go along under their numbers, and nothing else that is open but the
 * standard streams: what our caller forgot to close is not the pod's. */
int rkt_exec_supervisor(const char *path, int plan_fd, const int *fds, uint32_t n_fds) {
        char number[16], *argv[3], *env[1];
        int fd = rkt_open_program(path), r;

        if (fd < 0)
                return fd;
        if (syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC) < 0 || fcntl(plan_fd, F_SETFD, 0) < 0)
                goto failed;
        for (uint32_t i = 0; i < n_fds; i++)
                if (fcntl(fds[i], F_SETFD, 0) < 0)
                        goto failed;
        arguments_for(plan_fd, number, argv, env);
        /* Python ignores SIGPIPE and SIGXFSZ, and what is ignored stays so over an exec. */
        (void) signal(SIGPIPE, SIG_DFL);
        (void) signal(SIGXFSZ, SIG_DFL);
        execveat(fd, "", argv, env, AT_EMPTY_PATH);
failed:
        r = -errno;
        close(fd);
        return r;
}

/* Start the supervisor as a child. fds[0..2] become its standard streams (-1: /dev/null), the others are
 * kept under their numbers, as plan_fd is. Returns its pid. */
int rkt_spawn_supervisor(const char *path, int plan_fd, const int *fds, uint32_t n_fds, int *ret_pidfd) {
        char number[16], program[32], *argv[3], *env[1];
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t signals;
        int fd, r, pidfd;
        pid_t pid;

        if (n_fds < 3)
                return -EINVAL;
        fd = rkt_open_program(path);
        if (fd < 0)
                return fd;
        arguments_for(plan_fd, number, argv, env);
        snprintf(program, sizeof(program), "/proc/self/fd/%d", fd);
        if ((r = posix_spawn_file_actions_init(&actions)) != 0) {
                close(fd);
                return -r;
        }
        if ((r = posix_spawnattr_init(&attributes)) != 0) {
                posix_spawn_file_actions_destroy(&actions);
                close(fd);
                return -r;
        }
        for (uint32_t i = 0; i < 3 && r == 0; i++)
                r = fds[i] >= 0 ? posix_spawn_file_actions_adddup2(&actions, fds[i], (int) i)
                                : posix_spawn_file_actions_addopen(&actions, (int) i, "/dev/null", O_RDWR, 0);
        for (uint32_t i = 3; i < n_fds && r == 0; i++)
                r = posix_spawn_file_actions_adddup2(&actions, fds[i], fds[i]);
        if (r == 0)
                r = posix_spawn_file_actions_adddup2(&actions, plan_fd, plan_fd);
        sigfillset(&signals);
        if (r == 0)
                r = posix_spawnattr_setsigdefault(&attributes, &signals);
        sigemptyset(&signals);
        if (r == 0)
                r = posix_spawnattr_setsigmask(&attributes, &signals);
        if (r == 0)
                r = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
        if (r == 0)
                r = posix_spawn(&pid, program, &actions, &attributes, argv, env);
        posix_spawn_file_actions_destroy(&actions);
        posix_spawnattr_destroy(&attributes);
        close(fd);
        if (r != 0)
                return -r;
        pidfd = (int) syscall(SYS_pidfd_open, pid, 0);
        if (pidfd < 0) {
                r = -errno;
                (void) kill(pid, SIGKILL);
                (void) waitpid(pid, NULL, 0);
                return r;
        }
        *ret_pidfd = pidfd;
        return pid;
}

/* The f_type of statfs(2). */
int64_t rkt_file_system_type(const char *path) {
        struct statfs fs;

        return statfs(path, &fs) < 0 ? -errno : (int64_t) (uint32_t) fs.f_type;
}

/* Wait for a child by its pidfd: 1 with its exit code (128 + n for signal n), 0 at the timeout. */
int rkt_wait_pidfd(int pidfd, int timeout_ms, int *ret_status) {
        struct pollfd polled = { .fd = pidfd, .events = POLLIN };
        siginfo_t info = { 0 };
        int r = poll(&polled, 1, timeout_ms);

        if (r <= 0)
                return r < 0 ? -errno : 0;
        if (waitid((idtype_t) P_PIDFD, (id_t) pidfd, &info, WEXITED) < 0)
                return -errno;
        *ret_status = info.si_code == CLD_EXITED ? info.si_status : 128 + info.si_status;
        return 1;
}
