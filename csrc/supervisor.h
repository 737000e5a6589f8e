/* What the parts of the supervisor know of each other. */

#ifndef SUPERVISOR_H
#define SUPERVISOR_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "rkt.h"

#define _cleanup_close_ __attribute__((cleanup(close_pointer)))
#define TAKE_FD(fd) ({ int _taken = (fd); (fd) = -1; _taken; })
#define MAX_APPS 256
#define MAX_HIERARCHIES 16

/* A failed step, as a sentence without its end: "mount /proc: Permission denied". */
struct error {
        int number;
        char text[300];
};

/* What pid 1 tells the supervisor. Exit codes are those of a shell: 128 + n for signal n. */
enum event_type {
        EVENT_STARTED = 1,
        EVENT_EXITED,
        EVENT_ERROR,
        EVENT_TTY,
        EVENT_READY,
        EVENT_PID,
};

struct event {
        uint32_t type;
        int32_t app;
        int32_t value;
        uint32_t reserved;
        struct error error;
};

/* The ends of an app's standard streams that its processes get. */
struct stdio {
        int in;
        int out;
        int err;
        bool terminal;
};

/* A terminal of the pod, shown on the caller's standard streams. */
struct relay {
        int master;
        int out;
        bool raw;
        bool input_open;
        size_t to_master;
        size_t to_master_at;
        size_t to_caller;
        size_t to_caller_at;
        char input[4096];
        char output[4096];
};

extern const struct rkt_plan *plan;

/* supervisor.c */
void close_pointer(int *fd);
int fail(struct error *reterr, int number, const char *format, ...) __attribute__((format(printf, 3, 4)));
const char *plan_string(uint32_t offset);
const void *plan_array(struct rkt_span span, size_t item);
#define PLAN_ARRAY(type, span) ((const type *) plan_array((span), sizeof(type)))
int send_event(int socket, const struct event *event, int fd, pid_t pid);
int receive_event(int socket, struct event *ret_event, int *ret_fd, pid_t *ret_pid);
int write_file(int dir_fd, const char *path, const char *text);
int wait_status_code(int status);

/* supervisor_cgroup.c */
int cgroups_make(int *ret_ns, struct error *reterr);
int cgroups_open(int32_t app, int *ret_fds, int max, struct error *reterr);
int cgroups_join(const int *fds, int n, struct error *reterr);
int cgroups_leaf(int32_t app, int *ret_fd, struct error *reterr);
pid_t cgroups_fork(int leaf);
void cgroups_remove(void);

/* supervisor_root.c */
int root_apply(int root_fd, const struct rkt_op *op, struct error *reterr);
int root_pivot(int root_fd, struct error *reterr);

/* supervisor_process.c */
_Noreturn void process_exec(const struct rkt_process *process, const struct stdio *stdio, int error_fd);
int process_drop_privileges(struct error *reterr);
int process_wait_exec(int error_fd, struct error *ret_error);

/* supervisor_init.c */
_Noreturn void init_run(int socket, const struct stdio *stdios, int cgroup_ns);

/* supervisor_relay.c */
int terminal_open(int *ret_master, int *ret_slave, struct error *reterr);
int terminal_console(int slave_fd, struct error *reterr);
void relay_start(struct relay *relay, int master);
void relay_resize(const struct relay *relay);
void relay_step(struct relay *relay, bool from_caller, bool to_master, bool from_master, bool to_caller);
void relay_finish(struct relay *relay);

/* supervisor_log.c */
struct log;
struct log *log_open(int pod_fd, const char *app, uint32_t max_kib);
void log_write(struct log *log, bool is_stderr, const char *bytes, size_t size);
void log_close(struct log *log);

/* supervisor_enter.c */
int enter_run(void);

#endif
