/* The interface between Python and libseccomp. cffi reads this file as it stands: no preprocessor in it. */

/* A condition on an argument, as <seccomp.h> has it: op is one of enum scmp_compare. */
struct rkt_seccomp_argument {
        uint32_t index;
        uint32_t op;
        uint64_t a;
        uint64_t b;
};

/* What becomes of a call whose arguments meet all conditions. `call` is its number here, or libseccomp's
 * pseudo number if only another architecture has it; `action` is one of SECCOMP_RET_*. */
struct rkt_seccomp_rule {
        int32_t call;
        uint32_t action;
        uint32_t n_arguments;
        struct rkt_seccomp_argument arguments[6];
};

/* Return the architectures that programs of this machine may be of, native first, up to `size` tokens. */
int rkt_seccomp_architectures(uint32_t *ret_tokens, uint32_t size);

/* Return a call's number on an architecture; below -1 if only others have it, -1 if none does. */
int rkt_seccomp_resolve(uint32_t token, const char *name);

/* Compile rules to BPF: the number of bytes, or -errno, and in *ret_rule which rule it was (-1: none). */
int rkt_seccomp_compile(uint32_t default_action, const struct rkt_seccomp_rule *rules, uint32_t n_rules,
                        uint8_t *ret_program, uint32_t size, int32_t *ret_rule);
