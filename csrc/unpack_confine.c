/* Confinement: what the extractor takes from itself before it looks at the archive.
 *
 * The tar reader and the extractor are written so that nothing leaves the directory. This is for the day when they, or
 * a decompression library, have a bug. */

#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "unpack.h"

#define BIT(capability) (UINT64_C(1) << (capability))
#define CAPABILITIES (BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_FSETID) | BIT(CAP_MKNOD) | BIT(CAP_SETFCAP))

static int compare_fds(const void *a, const void *b) {
        return *(const int *) a - *(const int *) b;
}

static int close_others(const int *keep, size_t n_keep) {
        int fds[16];
        unsigned first = 3;

        for (size_t i = 0; i < n_keep; i++)
                fds[i] = keep[i];
        qsort(fds, n_keep, sizeof(*fds), compare_fds);
        for (size_t i = 0; i < n_keep; i++) {
                if (fds[i] < (int) first)
                        continue;
                if (fds[i] > (int) first && syscall(SYS_close_range, first, (unsigned) fds[i] - 1, 0) < 0)
                        return -errno;
                first = (unsigned) fds[i] + 1;
        }
        return syscall(SYS_close_range, first, UINT_MAX, 0) < 0 ? -errno : 0;
}

static int drop_capabilities(void) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[2];

        if (syscall(SYS_capget, &header, data) < 0)
                return -errno;
        for (unsigned i = 0; i < 2; i++) {
                data[i].permitted &= (uint32_t) (CAPABILITIES >> (32 * i));
                data[i].effective = data[i].permitted;
                data[i].inheritable = 0;
        }
        return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

/* Before there are threads: capabilities are each thread's own. */
int confine_process(int into_fd, const int *keep, size_t n_keep, struct error *reterr) {
        struct rlimit core = { 0 }, files;
        int r;

        if (geteuid() != 0)
                return fail(reterr, EPERM, "cannot extract an image: only root can");
        r = close_others(keep, n_keep);
        if (r < 0)
                return fail(reterr, -r, "cannot close the files that were open");
        if (setrlimit(RLIMIT_CORE, &core) < 0)
                return fail(reterr, errno, "cannot limit the size of core files");
        /* A directory of the path we are at takes one each. */
        if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
                files.rlim_cur = files.rlim_max;
                (void) setrlimit(RLIMIT_NOFILE, &files);
        }
        if (fchdir(into_fd) < 0 || chroot(".") < 0)
                return fail(reterr, errno, "cannot confine itself to the directory");
        r = drop_capabilities();
        if (r < 0)
                return fail(reterr, -r, "cannot drop capabilities");
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return fail(reterr, errno, "cannot set no_new_privs");
        return 0;
}

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#elif defined(__riscv) && __riscv_xlen == 64
#define ARCHITECTURE AUDIT_ARCH_RISCV64
#endif

#if defined(ARCHITECTURE) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, (action))
#define ALLOW(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 1), RETURN(SECCOMP_RET_ALLOW)
/* The low half of the third argument is all there is of a `prot`. */
#define ALLOW_UNLESS_EXECUTABLE(call) \
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 4), LOAD(args[2]), \
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 0, 1), \
        RETURN(SECCOMP_RET_KILL_PROCESS), RETURN(SECCOMP_RET_ALLOW)

/* What the threads do once they run. There is no way to run a program, map code, open a socket, trace a process,
 * mount, change identity or root. */
static struct sock_filter instructions[] = {
        LOAD(arch),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0), RETURN(SECCOMP_RET_KILL_PROCESS),
        LOAD(nr),
        ALLOW(openat), ALLOW(pwrite64), ALLOW(utimensat), ALLOW(close), ALLOW(futex), ALLOW(read), ALLOW(write),
        ALLOW(openat2), ALLOW(fstat), ALLOW(newfstatat), ALLOW(mkdirat), ALLOW(mknodat), ALLOW(symlinkat), ALLOW(linkat),
        ALLOW(fchown), ALLOW(fchownat), ALLOW(fchmod), ALLOW(fchmodat), ALLOW(ftruncate), ALLOW(fsetxattr),
        ALLOW(fremovexattr), ALLOW(sync_file_range), ALLOW(syncfs), ALLOW(fsync),
        ALLOW(brk), ALLOW(munmap), ALLOW(mremap), ALLOW(madvise), ALLOW_UNLESS_EXECUTABLE(mmap), ALLOW_UNLESS_EXECUTABLE(mprotect),
        ALLOW(set_robust_list), ALLOW(rseq), ALLOW(rt_sigprocmask), ALLOW(rt_sigreturn), ALLOW(restart_syscall),
        ALLOW(sched_yield), ALLOW(sched_getaffinity), ALLOW(getrandom), ALLOW(geteuid), ALLOW(getegid), ALLOW(getpid), ALLOW(gettid), ALLOW(tgkill), ALLOW(exit), ALLOW(exit_group),
        RETURN(SECCOMP_RET_KILL_PROCESS),
};

int confine_threads(struct error *reterr) {
        struct sock_fprog program = { .len = COUNT(instructions), .filter = instructions };

        if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) != 0)
                return fail(reterr, errno, "cannot restrict its system calls");
        return 0;
}

#else

int confine_threads(struct error *reterr) {
        (void) reterr;
        return 0;
}

#endif
