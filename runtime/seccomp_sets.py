"""Sets of system calls, and the rules they make: read only when a filter has to be compiled.

The default list is that of moby's default profile (moby/profiles, seccomp, June 2026), which Docker and
containerd use; the groups are systemd's, with calls that are younger than its in the group of their
elders. What is here changes together with `seccomp.LIST_VERSION`.
"""

from __future__ import annotations

from rkt_py.aci.name import quoted
from rkt_py.aci.value import value
from rkt_py.runtime.errors import PlanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# <seccomp.h>, enum scmp_compare
LT, EQ, MASKED_EQ = 2, 4, 7

# Calls with one and the same number on every architecture, from the first of these on (x32 sets bit 30).
# libseccomp knows those that were there when it was made; this list does not depend on its age.
SHARED_FIRST = 424
SHARED = """
    pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig
    fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2
    mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret
    process_mrelease futex_waitv set_mempolicy_home_node cachestat fchmodat2 map_shadow_stack futex_wake
    futex_wait futex_requeue statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal
    setxattrat getxattrat listxattrat removexattrat open_tree_attr file_getattr file_setattr listns
""".split()
# Where the old numbers of x32 begin.
SHARED_END = 512

# x86-64 has two calls of its own that libseccomp learned late.
X86_64_ONLY = {"uretprobe": 335, "uprobe": 336}

ALLOWED = """
    _llseek _newselect accept accept4 access adjtimex alarm arch_prctl arm_fadvise64_64 arm_sync_file_range
    bind breakpoint brk cacheflush cachestat capget capset chdir chmod chown chown32 clock_adjtime
    clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create
    epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2
    execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir
    fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork
    fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex
    futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_robust_list get_thread_area
    getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups
    getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid
    getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid gettimeofday
    getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get
    ioprio_set ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32
    lgetxattr link linkat listen listmount listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat
    lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat
    mlock mlock2 mlockall mmap mmap2 modify_ldt mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
    mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd
    msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause
    pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl
    pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6
    pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom
    recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
    restart_syscall riscv_flush_icache riscv_hwprobe rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
    s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
    seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg
    sendto set_robust_list set_thread_area set_tid_address set_tls setfsgid setfsgid32 setfsuid setfsuid32
    setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid
    setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr
    setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn
    socketcall socketpair splice stat stat64 statfs statfs64 statmount statx swapcontext symlink symlinkat
    sync sync_file_range sync_file_range2 syncfs sysinfo tee tgkill time timer_create timer_delete
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64
    ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice
    wait4 waitid waitpid write writev
""".split()

# By the number of the capability without which the call can do nothing good. seccomp.RELEVANT is their mask.
ALLOWED_WITH = {
    2: ["open_by_handle_at"],
    16: ["delete_module", "finit_module", "init_module"],
    17: ["ioperm", "iopl"],
    18: ["chroot"],
    19: ["kcmp", "pidfd_getfd", "process_madvise"],
    20: ["acct"],
    21: """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
        lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr
        perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare
    """.split(),
    22: ["reboot"],
    23: ["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"],
    25: ["clock_settime", "clock_settime64", "settimeofday", "stime"],
    26: ["vhangup"],
    34: ["syslog"],
    38: ["perf_event_open"],
    39: ["bpf"],
}
_SYS_ADMIN = 1 << 21

# Address families of <linux/socket.h>: without AF_VSOCK (40), which reaches the hypervisor and other guests
# past every namespace, AF_ALG (38), the kernel's cryptography, and those the kernel has no more.
FAMILIES_BELOW = 12
FAMILIES = (
    13,
    14,
    15,
    16,
    17,
    18,
    21,
    22,
    24,
    26,
    27,
    28,
    29,
    30,
    31,
    32,
    33,
    35,
    36,
    39,
    41,
    42,
    43,
    44,
    45,
)

# What personality(2) may ask for: PER_LINUX, PER_LINUX32, UNAME26, both, or nothing but what it is now.
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
NAMESPACES = 0x7E020000

# The first call that an app's libc should hear ENOSYS of, so that it uses an older one: it is younger than
# the default list, which has an opinion on those before it.
YOUNGER_THAN_DEFAULT = "file_getattr"

# rkt's names for what a default filter is there to stop, with what came after rkt for the same purposes.
BLACKLIST = """
    _sysctl acct add_key adjtimex bpf clock_adjtime clock_adjtime64 clock_settime clock_settime64
    create_module delete_module finit_module fsconfig fsmount fsopen fspick get_kernel_syms get_mempolicy
    init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load
    keyctl lookup_dcookie mbind mount mount_setattr move_mount move_pages name_to_handle_at nfsservctl
    open_by_handle_at open_tree open_tree_attr perf_event_open pidfd_getfd pivot_root process_madvise
    process_vm_readv process_vm_writev ptrace query_module quotactl quotactl_fd reboot request_key
    set_mempolicy set_mempolicy_home_node setns settimeofday stime swapoff swapon sysfs umount umount2 unshare
    uselib userfaultfd ustat vm86 vm86old
""".split()

SYSTEMD = {
    "aio": """
        io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit io_uring_enter
        io_uring_register io_uring_setup
    """,
    "basic-io": """
        _llseek close close_range dup dup2 dup3 lseek pread64 preadv preadv2 pwrite64 pwritev pwritev2 read
        readv write writev
    """,
    "chown": "chown chown32 fchown fchown32 fchownat lchown lchown32",
    "clock": "adjtimex clock_adjtime clock_adjtime64 clock_settime clock_settime64 settimeofday",
    "cpu-emulation": "modify_ldt subpage_prot switch_endian vm86 vm86old",
    "debug": """
        lookup_dcookie perf_event_open pidfd_getfd ptrace rtas s390_runtime_instr sys_debug_setcontext
    """,
    "default": """
        arch_prctl brk cacheflush clock_getres clock_getres_time64 clock_gettime clock_gettime64
        clock_nanosleep clock_nanosleep_time64 execve exit exit_group futex futex_requeue futex_time64
        futex_wait futex_waitv futex_wake get_robust_list get_thread_area getegid getegid32 geteuid geteuid32
        getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getrandom getresgid getresgid32
        getresuid getresuid32 getrlimit getsid gettid gettimeofday getuid getuid32 map_shadow_stack membarrier
        mmap mmap2 mprotect mseal munmap nanosleep pause prlimit64 restart_syscall riscv_flush_icache
        riscv_hwprobe rseq rt_sigreturn sched_getaffinity sched_yield set_robust_list set_thread_area
        set_tid_address set_tls sigreturn time ugetrlimit uretprobe
    """,
    "file-system": """
        access chdir chmod close creat faccessat faccessat2 fallocate fchdir fchmod fchmodat fchmodat2 fcntl
        fcntl64 fgetxattr file_getattr file_setattr flistxattr fremovexattr fsetxattr fstat fstat64 fstatat64
        fstatfs fstatfs64 ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat
        inotify_add_watch inotify_init inotify_init1 inotify_rm_watch lgetxattr link linkat listmount
        listxattr listxattrat llistxattr lremovexattr lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat
        newfstatat oldfstat oldlstat oldstat open openat openat2 readlink readlinkat removexattr removexattrat
        rename renameat renameat2 rmdir setxattr setxattrat stat stat64 statfs statfs64 statmount statx
        symlink symlinkat truncate truncate64 unlink unlinkat utime utimensat utimensat_time64 utimes
    """,
    "io-event": """
        _newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
        epoll_wait_old eventfd eventfd2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select
    """,
    "ipc": """
        ipc memfd_create mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
        mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd pipe pipe2 process_madvise process_vm_readv
        process_vm_writev semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget
    """,
    "keyring": "add_key keyctl request_key",
    "memlock": "mlock mlock2 mlockall munlock munlockall",
    "module": "delete_module finit_module init_module",
    "mount": """
        chroot fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree open_tree_attr
        pivot_root umount umount2
    """,
    "network-io": """
        accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg
        recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socket socketcall socketpair
    """,
    "obsolete": """
        _sysctl afs_syscall bdflush break create_module ftime get_kernel_syms getpmsg gtty idle lock mpx prof
        profil putpmsg query_module security sgetmask ssetmask stime stty sysfs tuxcall ulimit uselib ustat
        vserver
    """,
    "pkey": "pkey_alloc pkey_free pkey_mprotect",
    "privileged": """
        @chown @clock @module @raw-io @reboot @swap _sysctl acct bpf capset chroot fanotify_init fanotify_mark
        nfsservctl open_by_handle_at pivot_root quotactl quotactl_fd setdomainname setfsuid setfsuid32
        setgroups setgroups32 sethostname setresuid setresuid32 setreuid setreuid32 setuid setuid32 vhangup
    """,
    "process": """
        capget clone clone3 execveat fork getrusage kill pidfd_open pidfd_send_signal prctl rt_sigqueueinfo
        rt_tgsigqueueinfo setns swapcontext tgkill times tkill unshare vfork wait4 waitid waitpid
    """,
    "raw-io": """
        ioperm iopl pciconfig_iobase pciconfig_read pciconfig_write s390_pci_mmio_read s390_pci_mmio_write
    """,
    "reboot": "kexec_file_load kexec_load reboot",
    "resources": """
        ioprio_set mbind migrate_pages move_pages nice sched_setaffinity sched_setattr sched_setparam
        sched_setscheduler set_mempolicy set_mempolicy_home_node setpriority setrlimit
    """,
    "sandbox": "landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp",
    "setuid": """
        setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32
        setreuid setreuid32 setuid setuid32
    """,
    "signal": """
        rt_sigaction rt_sigpending rt_sigprocmask rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
        sigaction sigaltstack signal signalfd signalfd4 sigpending sigprocmask sigsuspend
    """,
    "swap": "swapoff swapon",
    "sync": "fdatasync fsync msync sync sync_file_range sync_file_range2 syncfs",
    "system-service": """
        @aio @basic-io @chown @default @file-system @io-event @ipc @keyring @memlock @network-io @process
        @resources @setuid @signal @sync @timer arm_fadvise64_64 cachestat capget capset copy_file_range
        fadvise64 fadvise64_64 flock get_mempolicy getcpu getpriority ioctl ioprio_get kcmp madvise mremap
        name_to_handle_at oldolduname olduname personality readahead readdir remap_file_pages
        sched_get_priority_max sched_get_priority_min sched_getattr sched_getparam sched_getscheduler
        sched_rr_get_interval sched_rr_get_interval_time64 sched_yield sendfile sendfile64 setfsgid setfsgid32
        setfsuid setfsuid32 setpgid setsid splice sysinfo tee umask uname userfaultfd vmsplice
    """,
    "timer": """
        alarm getitimer setitimer timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
        timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime
        timerfd_settime64 times
    """,
}


@value
class Rule:
    """A call that is allowed when its arguments meet all conditions; each is (index, op, a, b)."""

    call: str
    arguments: tuple[tuple[int, int, int, int], ...] = ()


@value
class Calls:
    """What a list of names and wildcards stands for."""

    rules: tuple[Rule, ...]
    own: frozenset[str]
    """Names that the user wrote, each of which must be a call that there is."""
    default: bool
    """Whether the default list is part of it."""


def systemd(group: str) -> list[str]:
    """Return the calls of one of systemd's groups, those of the groups in it too."""
    calls = []
    for name in SYSTEMD[group].split():
        calls += systemd(name[1:]) if name[0] == "@" else [name]
    return calls


def default(capabilities: int) -> list[Rule]:
    """Return the default list for an app with these capabilities."""
    rules = [Rule(call) for call in ALLOWED]
    for number, calls in ALLOWED_WITH.items():
        if capabilities >> number & 1:
            rules += [Rule(call) for call in calls]
    if not capabilities & _SYS_ADMIN:
        # s390 has the flags in the second argument, and nobody runs this on s390: there clone() is EPERM.
        rules.append(Rule("clone", ((0, MASKED_EQ, NAMESPACES, 0),)))
    rules += [Rule("personality", ((0, EQ, persona, 0),)) for persona in PERSONALITIES]
    rules.append(Rule("socket", ((0, LT, FAMILIES_BELOW, 0),)))
    rules += [Rule("socket", ((0, EQ, family, 0),)) for family in FAMILIES]
    return rules


def expand(items: Iterable[str], capabilities: int) -> Calls:
    """Return what names and wildcards of a set stand for. Raises PlanError."""
    rules: list[Rule] = []
    own = set()
    has_default = False
    for item in items:
        if item[:1] != "@":
            own.add(item)
            rules.append(Rule(item))
            continue
        scope, _, name = item[1:].partition("/")
        if scope in ("rkt", "docker") and name == "default-whitelist":
            has_default = True
            rules += default(capabilities)
        elif scope in ("rkt", "docker") and name == "default-blacklist":
            rules += [Rule(call) for call in BLACKLIST]
        elif scope == "systemd" and name == "default-whitelist":
            rules += [Rule(call) for call in systemd("default")]
        elif scope == "systemd" and name in SYSTEMD:
            rules += [Rule(call) for call in systemd(name)]
        elif item not in ("@appc.io/all", "@appc.io/empty"):
            raise PlanError(f"there is no set of system calls {quoted(item)}")
    return Calls(tuple(dict.fromkeys(rules)), frozenset(own), has_default)
