/* Rules to BPF, by libseccomp. */

#define _GNU_SOURCE
#include <errno.h>
#include <seccomp.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "seccomp_core.h"

/* A process may change to any of these in the middle of its life, so one filter is for all of them. */
static const uint32_t architectures[] = {
#if defined(__x86_64__)
        SCMP_ARCH_X86_64, SCMP_ARCH_X86, SCMP_ARCH_X32,
#elif defined(__aarch64__)
        SCMP_ARCH_AARCH64, SCMP_ARCH_ARM,
#else
        SCMP_ARCH_NATIVE,
#endif
};
#define N_ARCHITECTURES (sizeof(architectures) / sizeof(architectures[0]))

int rkt_seccomp_architectures(uint32_t *ret_tokens, uint32_t size) {
        if (size < N_ARCHITECTURES)
                return -ENOBUFS;
        for (uint32_t i = 0; i < N_ARCHITECTURES; i++)
                ret_tokens[i] = architectures[i] == SCMP_ARCH_NATIVE ? seccomp_arch_native() : architectures[i];
        return (int) N_ARCHITECTURES;
}

int rkt_seccomp_resolve(uint32_t token, const char *name) {
        return seccomp_syscall_resolve_name_arch(token, name);
}

static int add_rule(scmp_filter_ctx filter, const struct rkt_seccomp_rule *rule) {
        struct scmp_arg_cmp arguments[6];
        int r;

        if (rule->n_arguments > 6)
                return -EINVAL;
        for (uint32_t i = 0; i < rule->n_arguments; i++)
                arguments[i] = (struct scmp_arg_cmp) {
                        .arg = rule->arguments[i].index,
                        .op = (enum scmp_compare) rule->arguments[i].op,
                        .datum_a = rule->arguments[i].a,
                        .datum_b = rule->arguments[i].b,
                };
        r = seccomp_rule_add_array(filter, rule->action, rule->call, rule->n_arguments, arguments);
        /* The same rule by another name: some calls share a number. */
        return r == -EEXIST ? 0 : r;
}

static int fill(scmp_filter_ctx filter, const struct rkt_seccomp_rule *rules, uint32_t n_rules, int32_t *ret_rule) {
        int r;

        for (uint32_t i = 0; i < N_ARCHITECTURES; i++) {
                r = seccomp_arch_add(filter, architectures[i]);
                if (r < 0 && r != -EEXIST)
                        return r;
        }
        r = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
        if (r < 0)
                return r;
        for (uint32_t i = 0; i < n_rules; i++) {
                r = add_rule(filter, &rules[i]);
                if (r < 0) {
                        *ret_rule = (int32_t) i;
                        return r;
                }
        }
        /* A binary tree instead of a list; only faster, so whether this libseccomp has it does not matter. */
        (void) seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
        return 0;
}

static int export(scmp_filter_ctx filter, uint8_t *ret_program, uint32_t size) {
        int fd = memfd_create("seccomp", MFD_CLOEXEC), r;
        struct stat st;
        ssize_t n;

        if (fd < 0)
                return -errno;
        r = seccomp_export_bpf(filter, fd);
        if (r >= 0 && fstat(fd, &st) < 0)
                r = -errno;
        if (r >= 0 && (uint64_t) st.st_size > size)
                r = -E2BIG;
        if (r >= 0) {
                n = pread(fd, ret_program, size, 0);
                r = n < 0 ? -errno : n != st.st_size ? -EIO : (int) n;
        }
        (void) close(fd);
        return r;
}

int rkt_seccomp_compile(uint32_t default_action, const struct rkt_seccomp_rule *rules, uint32_t n_rules,
                        uint8_t *ret_program, uint32_t size, int32_t *ret_rule) {
        scmp_filter_ctx filter = seccomp_init(default_action);
        int r;

        *ret_rule = -1;
        if (!filter)
                return -EINVAL;
        r = fill(filter, rules, n_rules, ret_rule);
        if (r >= 0)
                r = export(filter, ret_program, size);
        seccomp_release(filter);
        return r;
}
