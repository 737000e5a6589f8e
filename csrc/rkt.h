/* The whole interface between Python and C: the Plan as memory, and the functions of core.c.
 *
 * cffi reads this file as it stands. A plan is one block of memory, handed over as a sealed memfd:
 * a struct rkt_plan at its start, then arrays and strings that the structs point to by their offset
 * from the start. Offset 0 is the empty array and the string that is not there. */

#ifndef RKT_H
#define RKT_H

#include <stdint.h>

#define RKT_PLAN_MAGIC 0x70746b72
#define RKT_PLAN_VERSION 1

/* rkt_plan.mode */
#define RKT_MODE_RUN 1
#define RKT_MODE_ENTER 2

/* rkt_plan.flags */
#define RKT_NEW_NET 1
#define RKT_LOOPBACK 2
#define RKT_NEW_IPC 4
#define RKT_NEW_UTS 8
#define RKT_NEW_CGROUP 16

/* rkt_op.kind */
#define RKT_OP_MOUNT 1
#define RKT_OP_BIND 2
#define RKT_OP_MKDIR 3
#define RKT_OP_DEVICE 4
#define RKT_OP_SYMLINK 5
#define RKT_OP_FILE 6
#define RKT_OP_MASK 7
#define RKT_OP_PROTECT 8
#define RKT_OP_ROOT 9
#define RKT_OP_ATTRIBUTES 10

/* rkt_op.flags */
#define RKT_OP_RECURSIVE 1
#define RKT_OP_IF_MISSING 2
#define RKT_OP_OPTIONAL 16
#define RKT_OP_NO_SYMLINKS 32

/* rkt_process.stdio */
#define RKT_STDIO_NULL 0
#define RKT_STDIO_STREAM 1
#define RKT_STDIO_TTY 2
#define RKT_STDIO_INHERIT 3

/* rkt_process.role */
#define RKT_ROLE_PRE_START 1
#define RKT_ROLE_MAIN 2
#define RKT_ROLE_POST_STOP 3

struct rkt_span {
        uint32_t offset;
        uint32_t count;
};

/* One step that builds an app's root. Targets are paths inside it, resolved by
 * openat2(RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS); sources are paths of the host. */
struct rkt_op {
        uint32_t kind;
        uint32_t flags;
        uint32_t source;
        uint32_t target;
        uint32_t fstype;
        uint32_t options;
        uint32_t mode;
        uint32_t uid;
        uint32_t gid;
        uint32_t device_major;
        uint32_t device_minor;
        uint32_t reserved;
        uint64_t attributes;
};

struct rkt_rlimit {
        uint32_t resource;
        uint32_t reserved;
        uint64_t soft;
        uint64_t hard;
};

struct rkt_process {
        uint32_t role;
        uint32_t stdio;
        uint32_t uid;
        uint32_t gid;
        struct rkt_span groups;
        struct rkt_span argv;
        struct rkt_span env;
        struct rkt_span rlimits;
        struct rkt_span seccomp;
        uint32_t directory;
        uint32_t search_path;
        uint32_t umask;
        int32_t oom_score_adj;
        uint32_t set_oom_score_adj;
        uint32_t no_new_privs;
        uint64_t capabilities;
};

struct rkt_app {
        uint32_t name;
        uint32_t root;
        struct rkt_span ops;
        struct rkt_span processes;
};

struct rkt_setting {
        uint32_t file;
        uint32_t value;
        uint32_t required;
};

/* A directory in a cgroup hierarchy. app is the index of the app it is for, -1 the pod's own (pid 1's). */
struct rkt_cgroup {
        uint32_t path;
        int32_t app;
        uint32_t attach;
        uint32_t unified;
        struct rkt_span settings;
};

struct rkt_plan {
        uint32_t magic;
        uint32_t version;
        uint32_t size;
        uint32_t mode;
        uint32_t flags;
        uint32_t verb;
        uint32_t hostname;
        int32_t pod_fd;
        int32_t netns_fd;
        int32_t target_fd;
        uint32_t stop_timeout_ms;
        uint32_t log_max_kib;
        struct rkt_span apps;
        struct rkt_span cgroups;
        struct rkt_span pod_ops;
};

/* core.c: what Python needs of the kernel and cannot reach by itself.
 * Every function returns 0 or a positive number, or -errno. */

int rkt_open_in_root(int root_fd, const char *path, int flags, uint64_t resolve);
int rkt_new_netns(void);
int rkt_sealed_memfd(const char *name, const uint8_t *bytes, uint64_t size);
int rkt_open_program(const char *path);
int rkt_exec_supervisor(const char *path, int plan_fd, const int *fds, uint32_t n_fds);
int rkt_spawn_supervisor(const char *path, int plan_fd, const int *fds, uint32_t n_fds, int *ret_pidfd);
int64_t rkt_file_system_type(const char *path);
int rkt_wait_pidfd(int pidfd, int timeout_ms, int *ret_status);

#endif
