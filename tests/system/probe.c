/* What busybox cannot ask: run in a pod by tests, static. Prints "NAME ERRNO" lines, or one value. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *name, long result) {
        printf("%s %d\n", name, result < 0 ? errno : 0);
        fflush(stdout);
}

static void clone3_fork(void) {
        struct clone_args arguments = { .exit_signal = SIGCHLD };
        long pid = syscall(SYS_clone3, &arguments, sizeof(arguments));

        if (pid == 0)
                _exit(0);
        say("clone3", pid);
        if (pid > 0)
                waitpid((pid_t) pid, NULL, 0);
}

static void clone_newuser(void) {
        long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);

        if (pid == 0)
                _exit(0);
        say("clone_newuser", pid);
        if (pid > 0)
                waitpid((pid_t) pid, NULL, 0);
}

static int calls(void) {
        uint32_t words[64] = { 0 };
        char buffer[256];

        say("mount", syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, NULL));
        say("umount2", syscall(SYS_umount2, "/proc", MNT_DETACH));
        say("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
        say("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1));
        say("move_mount", syscall(SYS_move_mount, AT_FDCWD, "/tmp", AT_FDCWD, "/var", 0));
        say("pivot_root", syscall(SYS_pivot_root, "/", "/"));
        say("keyctl", syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0));
        say("add_key", syscall(SYS_add_key, "user", "x", "y", 1, KEY_SPEC_PROCESS_KEYRING));
        say("unshare_newuser", syscall(SYS_unshare, CLONE_NEWUSER));
        say("unshare_newns", syscall(SYS_unshare, CLONE_NEWNS));
        clone_newuser();
        say("setns", syscall(SYS_setns, -1, 0));
        say("io_uring_setup", syscall(SYS_io_uring_setup, 1, words));
        say("bpf", syscall(SYS_bpf, 0, words, sizeof(words)));
        say("perf_event_open", syscall(SYS_perf_event_open, words, 0, -1, -1, 0));
        say("userfaultfd", syscall(SYS_userfaultfd, 0));
        say("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0));
        say("init_module", syscall(SYS_init_module, "", 0, ""));
        say("delete_module", syscall(SYS_delete_module, "nothing", 0));
        say("reboot", syscall(SYS_reboot, 0, 0, 0, NULL));
        say("swapon", syscall(SYS_swapon, "/nothing", 0));
        say("sethostname", syscall(SYS_sethostname, "x", 1));
        say("settimeofday", syscall(SYS_settimeofday, NULL, NULL));
        say("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, words, 0));
        say("syslog", syscall(SYS_syslog, 2, buffer, 0));
        say("acct", syscall(SYS_acct, "/nothing"));
        say("vsock", socket(40, SOCK_STREAM, 0));
        say("statx", syscall(SYS_statx, AT_FDCWD, "/", 0, 0x7ff, words));
        say("memfd_create", syscall(SYS_memfd_create, "x", 0));
        say("getrandom", syscall(SYS_getrandom, buffer, sizeof(buffer), 0));
        say("openat2", syscall(SYS_openat2, AT_FDCWD, "/", &(uint64_t[3]){ 0 }, 24));
        say("pidfd_open", syscall(SYS_pidfd_open, getpid(), 0));
        say("close_range", syscall(SYS_close_range, 100, 200, 0));
        clone3_fork();
        return 0;
}

/* Whether what the caller of rkt-py has in its session keyring can be found. */
static int find_key(const char *description) {
        say("search", syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", description, 0));
        return 0;
}

static int connect_abstract(const char *name) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);

        memcpy(address.sun_path + 1, name, strlen(name));
        say("connect", connect(fd, (struct sockaddr *) &address, (socklen_t) (offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name))));
        return 0;
}

/* Touch every page, so that it is memory and not a promise of it. */
static int allocate(size_t mib) {
        for (size_t i = 0; i < mib; i++) {
                char *block = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

                if (block == MAP_FAILED)
                        return 3;
                memset(block, (int) i | 1, 1 << 20);
        }
        puts("allocated");
        return 0;
}

static int forks(int wanted) {
        int made = 0, last = 0;

        for (; made < wanted; made++) {
                pid_t pid = fork();

                if (pid == 0) {
                        pause();
                        _exit(0);
                }
                if (pid < 0) {
                        last = errno;
                        break;
                }
        }
        printf("%d %d\n", made, last);
        fflush(stdout);
        return 0;
}

static int node(unsigned int type, const char *path, unsigned int major_number, unsigned int minor_number) {
        say("mknod", mknod(path, (mode_t) (type | 0600), makedev(major_number, minor_number)));
        say("open", open(path, O_RDONLY | O_NONBLOCK));
        return 0;
}

static int trace(pid_t pid) {
        say("ptrace", ptrace(PTRACE_ATTACH, pid, NULL, NULL));
        return 0;
}

static int type_into_terminal(void) {
        say("tiocsti", ioctl(0, TIOCSTI, "x"));
        return 0;
}

/* Leaves `n` children of pid 1 that end at once: zombies until it reaps them. */
static int orphans(int n) {
        for (int i = 0; i < n; i++) {
                pid_t pid = fork();

                if (pid == 0) {
                        if (fork() == 0)
                                _exit(0);
                        _exit(0);
                }
                waitpid(pid, NULL, 0);
        }
        return 0;
}

static int status(void) {
        char text[8192];
        int fd = open("/proc/self/status", O_RDONLY);
        ssize_t n = read(fd, text, sizeof(text));

        return n > 0 && write(1, text, (size_t) n) == n ? 0 : 1;
}

int main(int argc, char **argv) {
        const char *what = argc > 1 ? argv[1] : "", *argument = argc > 2 ? argv[2] : "";

        if (strcmp(what, "calls") == 0)
                return calls();
        if (strcmp(what, "status") == 0)
                return status();
        if (strcmp(what, "find-key") == 0)
                return find_key(argument);
        if (strcmp(what, "connect") == 0)
                return connect_abstract(argument);
        if (strcmp(what, "allocate") == 0)
                return allocate((size_t) atoi(argument));
        if (strcmp(what, "forks") == 0)
                return forks(atoi(argument));
        if (strcmp(what, "node") == 0 && argc == 6)
                return node(*argument == 'b' ? S_IFBLK : S_IFCHR, argv[3], (unsigned int) atoi(argv[4]), (unsigned int) atoi(argv[5]));
        if (strcmp(what, "trace") == 0)
                return trace(atoi(argument));
        if (strcmp(what, "tiocsti") == 0)
                return type_into_terminal();
        if (strcmp(what, "orphans") == 0)
                return orphans(atoi(argument));
        return 64;
}
