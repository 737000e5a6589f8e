/* The one way to a path of an image or a pod. */

#ifndef OPEN_IN_ROOT_H
#define OPEN_IN_ROOT_H

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef RESOLVE_IN_ROOT
#error "linux headers of 5.6 or later are needed"
#endif

/* Open a path as a process whose root is root_fd would see it: never outside of it, never through a magic link. The
 * descriptor is close-on-exec. Returns it, or -errno. */
static inline int open_in_root(int root_fd, const char *path, int flags, uint64_t resolve) {
        struct open_how how = {
                .flags = (uint64_t) (flags | O_CLOEXEC),
                .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve,
        };

        /* EAGAIN: a rename or mount somewhere on the host raced with "..". */
        for (int attempt = 0; attempt < 32; attempt++) {
                int fd = (int) syscall(SYS_openat2, root_fd, path, &how, sizeof(how));

                if (fd >= 0)
                        return fd;
                if (errno != EAGAIN && errno != EINTR)
                        return -errno;
        }
        return -EAGAIN;
}

#endif
