/* A pseudo terminal of the pod's own, shown on the caller's. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "supervisor.h"

static struct termios saved;

/* Open a terminal in the pod's devpts. The caller is in the pod's mount namespace. */
int terminal_open(int *ret_master, int *ret_slave, struct error *reterr) {
        _cleanup_close_ int master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), slave = -1;
        int unlock = 0;

        if (master < 0)
                return fail(reterr, errno, "open a terminal");
        if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
                return fail(reterr, errno, "unlock the terminal");
        /* By fd, not by a path that the image could have made (CVE-2025-52565). */
        slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
        if (slave < 0)
                return fail(reterr, errno, "open the terminal's other side");
        *ret_master = TAKE_FD(master);
        *ret_slave = TAKE_FD(slave);
        return 0;
}

/* Make it the pod's /dev/console. */
int terminal_console(int slave_fd, struct error *reterr) {
        _cleanup_close_ int dev = open("/dev", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), file = -1, clone = -1;

        if (dev < 0)
                return fail(reterr, errno, "open /dev");
        file = openat(dev, "console", O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0600);
        if (file < 0)
                return fail(reterr, errno, "make /dev/console");
        clone = (int) syscall(SYS_open_tree, slave_fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
        if (clone < 0)
                return fail(reterr, errno, "bind the terminal");
        if (syscall(SYS_move_mount, clone, "", file, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
                return fail(reterr, errno, "mount the terminal on /dev/console");
        return 0;
}

void relay_start(struct relay *relay, int master) {
        struct termios raw;

        *relay = (struct relay) { .master = master, .out = STDOUT_FILENO, .input_open = true };
        (void) fcntl(master, F_SETFL, fcntl(master, F_GETFL) | O_NONBLOCK);
        if (tcgetattr(STDIN_FILENO, &saved) < 0)
                return;
        raw = saved;
        cfmakeraw(&raw);
        relay->raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) >= 0;
        relay_resize(relay);
}

void relay_resize(const struct relay *relay) {
        struct winsize size;

        if (relay->raw && ioctl(STDIN_FILENO, TIOCGWINSZ, &size) >= 0)
                (void) ioctl(relay->master, TIOCSWINSZ, &size);
}

void relay_finish(struct relay *relay) {
        if (relay->raw)
                (void) tcsetattr(STDIN_FILENO, TCSADRAIN, &saved);
        relay->raw = false;
}

/* Move what can be moved without waiting; each argument says that poll() found that side ready. */
void relay_step(struct relay *relay, bool from_caller, bool to_master, bool from_master, bool to_caller) {
        ssize_t n;

        if (from_caller && relay->to_master == 0) {
                n = read(STDIN_FILENO, relay->input, sizeof(relay->input));
                relay->to_master_at = 0;
                if (n > 0)
                        relay->to_master = (size_t) n;
                else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
                        /* The end of a file on our side is a ^D typed on theirs. */
                        relay->input_open = false;
                        relay->input[0] = 4;
                        relay->to_master = 1;
                }
        }
        if (relay->to_master > 0 && (to_master || from_caller)) {
                n = write(relay->master, relay->input + relay->to_master_at, relay->to_master);
                if (n > 0) {
                        relay->to_master_at += (size_t) n;
                        relay->to_master -= (size_t) n;
                } else if (n < 0 && errno != EAGAIN && errno != EINTR)
                        relay->to_master = 0;
        }
        if (from_master && relay->to_caller == 0) {
                n = read(relay->master, relay->output, sizeof(relay->output));
                relay->to_caller_at = 0;
                if (n > 0)
                        relay->to_caller = (size_t) n;
        }
        if (relay->to_caller > 0 && (to_caller || from_master)) {
                n = write(relay->out, relay->output + relay->to_caller_at, relay->to_caller);
                if (n > 0) {
                        relay->to_caller_at += (size_t) n;
                        relay->to_caller -= (size_t) n;
                } else if (n < 0 && errno != EAGAIN && errno != EINTR)
                        relay->to_caller = 0;
        }
}
