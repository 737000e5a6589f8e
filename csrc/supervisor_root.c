/* An app's root: mounts, devices, links and files, laid in by fd. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "open_in_root.h"
#include "supervisor.h"

/* Open a directory inside the root, making what is missing, one component at a time: every one is opened
 * in the root anew, so that links inside the image are followed as the app would see them. */
static int open_directory(int root_fd, const char *path, uint32_t mode, uint64_t resolve) {
        char part[4096];
        int fd = open_in_root(root_fd, path, O_PATH | O_DIRECTORY, resolve);
        size_t end = 0, length = strlen(path);

        if (fd != -ENOENT)
                return fd;
        if (length >= sizeof(part))
                return -ENAMETOOLONG;
        while (end < length) {
                _cleanup_close_ int parent = -1;
                size_t start = end + strspn(path + end, "/");

                end = start + strcspn(path + start, "/");
                if (start == end)
                        break;
                memcpy(part, path, end);
                part[end] = '\0';
                fd = open_in_root(root_fd, part, O_PATH | O_DIRECTORY, resolve);
                if (fd >= 0) {
                        close(fd);
                        continue;
                }
                if (fd != -ENOENT)
                        return fd;
                part[start] = '\0';
                parent = open_in_root(root_fd, start ? part : "/", O_PATH | O_DIRECTORY, resolve);
                if (parent < 0)
                        return parent;
                memcpy(part + start, path + start, end - start);
                /* A dangling link gives EEXIST here and ENOENT when opened: it is never followed. */
                if (mkdirat(parent, part + start, end == length ? mode : 0755) < 0 && errno != EEXIST)
                        return -errno;
        }
        return open_in_root(root_fd, path, O_PATH | O_DIRECTORY, resolve);
}

/* Split a path into its parent, opened, and its last component. */
static int open_parent(int root_fd, const char *path, uint64_t resolve, int *ret_fd, const char **ret_name) {
        char parent[4096];
        const char *slash = strrchr(path, '/');
        size_t length = slash ? (size_t) (slash - path) : 0;
        int fd;

        if (length >= sizeof(parent))
                return -ENAMETOOLONG;
        memcpy(parent, path, length);
        parent[length] = '\0';
        *ret_name = slash ? slash + 1 : path;
        if (!**ret_name || strcmp(*ret_name, "..") == 0 || strcmp(*ret_name, ".") == 0)
                return -EINVAL;
        fd = open_directory(root_fd, length ? parent : "/", 0755, resolve);
        if (fd < 0)
                return fd;
        *ret_fd = fd;
        return 0;
}

static int open_target_file(int root_fd, const char *path, uint64_t resolve) {
        _cleanup_close_ int parent = -1;
        const char *name;
        int fd = open_in_root(root_fd, path, O_PATH, resolve), r;

        if (fd != -ENOENT)
                return fd;
        r = open_parent(root_fd, path, resolve, &parent, &name);
        if (r < 0)
                return r;
        fd = openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0644);
        if (fd < 0)
                return -errno;
        close(fd);
        return open_in_root(root_fd, path, O_PATH, resolve);
}

static int set_attributes(int fd, uint64_t attributes, bool recursive) {
        struct mount_attr attr = { .attr_set = attributes };

        if (!attributes)
                return 0;
        if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &attr, sizeof(attr)) < 0)
                return -errno;
        return 0;
}

static int attach(int mount_fd, int target_fd) {
        if (syscall(SYS_move_mount, mount_fd, "", target_fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0)
                return -errno;
        return 0;
}

/* A new file system that is mounted nowhere yet. Options are "key=value,flag". */
static int new_mount(const char *fstype, const char *options, uint64_t attributes) {
        _cleanup_close_ int fs = (int) syscall(SYS_fsopen, fstype, FSOPEN_CLOEXEC);
        char text[4096], *option, *state = NULL;
        int fd;

        if (fs < 0)
                return -errno;
        if (strlen(options) >= sizeof(text))
                return -ENAMETOOLONG;
        strcpy(text, options);
        for (option = strtok_r(text, ",", &state); option; option = strtok_r(NULL, ",", &state)) {
                char *value = strchr(option, '=');
                long r;

                if (value)
                        *value++ = '\0';
                r = value ? syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, option, value, 0)
                          : syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, option, NULL, 0);
                if (r < 0)
                        return -errno;
        }
        /* What /proc/mounts shows as the device. */
        (void) syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "source", fstype, 0);
        if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
                return -errno;
        fd = (int) syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes);
        return fd < 0 ? -errno : fd;
}

static int mask_file(int target_fd) {
        /* The host's /dev/null, proven to be it: never the pod's (CVE-2025-31133). */
        _cleanup_close_ int null_fd = open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC), clone = -1;
        struct stat st;

        if (null_fd < 0 || fstat(null_fd, &st) < 0)
                return -errno;
        if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
                return -ENODEV;
        clone = (int) syscall(SYS_open_tree, null_fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
        if (clone < 0)
                return -errno;
        return attach(clone, target_fd);
}

static int op_mask(int root_fd, const char *target) {
        static int first = -1;
        _cleanup_close_ int fd = open_in_root(root_fd, target, O_PATH | O_NOFOLLOW, 0), empty = -1;
        struct stat st;
        int r;

        if (fd == -ENOENT || fd == -ENOTDIR || fd == -EACCES)
                return 0;
        if (fd < 0)
                return fd;
        if (fstat(fd, &st) < 0)
                return -errno;
        if (S_ISLNK(st.st_mode))
                return 0;
        if (!S_ISDIR(st.st_mode))
                return mask_file(fd);
        /* One file system for all of them, cloned from where it was mounted first: a new one each would cost more than the
         * rest of the masks together, and as much again at the end. */
        if (first >= 0)
                empty = (int) syscall(SYS_open_tree, first, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
        else
                empty = new_mount("tmpfs", "size=0,nr_inodes=1,mode=0555", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
        if (empty < 0)
                return first >= 0 ? -errno : empty;
        r = attach(empty, fd);
        if (r >= 0 && first < 0)
                first = open_in_root(root_fd, target, O_PATH | O_NOFOLLOW, 0);
        return r;
}

static int op_protect(int root_fd, const char *target, uint64_t attributes, bool recursive) {
        _cleanup_close_ int fd = open_in_root(root_fd, target, O_PATH | O_NOFOLLOW, 0), clone = -1;
        int r;

        if (fd == -ENOENT || fd == -ENOTDIR)
                return 0;
        if (fd < 0)
                return fd;
        clone = (int) syscall(SYS_open_tree, fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0));
        if (clone < 0)
                return -errno;
        r = set_attributes(clone, attributes, recursive);
        if (r < 0)
                return r;
        return attach(clone, fd);
}

static bool is_same_file(int fd, int other) {
        struct stat one, two;

        return fstat(fd, &one) >= 0 && fstat(other, &two) >= 0 && one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

/* A link of the image may lead a volume to where only we mount, and from where we ourselves will read and write as if it
 * were the kernel's (CVE-2019-16884, CVE-2019-19921). */
static bool is_ours(int root_fd, int target_fd) {
        static const char *const places[] = { "/", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue" };
        struct statfs fs;

        if (fstatfs(target_fd, &fs) < 0 || fs.f_type == PROC_SUPER_MAGIC || fs.f_type == SYSFS_MAGIC || fs.f_type == CGROUP_SUPER_MAGIC
            || fs.f_type == CGROUP2_SUPER_MAGIC)
                return true;
        for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
                _cleanup_close_ int fd = open_in_root(root_fd, places[i], O_PATH, RESOLVE_NO_SYMLINKS);

                if (fd >= 0 && is_same_file(fd, target_fd))
                        return true;
        }
        return false;
}

static int op_bind(int root_fd, const struct rkt_op *op, const char *source, const char *target, uint64_t resolve, struct error *reterr) {
        bool recursive = op->flags & RKT_OP_RECURSIVE;
        _cleanup_close_ int clone = -1, target_fd = -1;
        struct stat st;
        int r;

        clone = (int) syscall(SYS_open_tree, AT_FDCWD, source,
                              OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW | (recursive ? AT_RECURSIVE : 0));
        if (clone < 0 || fstat(clone, &st) < 0)
                return fail(reterr, errno, "open the volume source %s", source);
        if (S_ISLNK(st.st_mode))
                return fail(reterr, ELOOP, "use the volume source %s, which is a symbolic link", source);
        r = set_attributes(clone, op->attributes, recursive);
        if (r < 0)
                return fail(reterr, -r, "set the attributes of the mount of %s", source);
        target_fd = S_ISDIR(st.st_mode) ? open_directory(root_fd, target, op->mode, resolve) : open_target_file(root_fd, target, resolve);
        if (target_fd < 0)
                return fail(reterr, -target_fd, "make the mount point %s", target);
        if (!resolve && is_ours(root_fd, target_fd))
                return fail(reterr, EPERM, "mount %s on %s, which leads to /proc, /sys, /dev or the root itself", source, target);
        r = attach(clone, target_fd);
        if (r < 0)
                return fail(reterr, -r, "mount %s on %s", source, target);
        return 0;
}

static int op_mount(int root_fd, const struct rkt_op *op, const char *fstype, const char *options, const char *target, uint64_t resolve, struct error *reterr) {
        _cleanup_close_ int fd = new_mount(fstype, options, op->attributes), target_fd = -1;
        int r;

        if (fd < 0)
                return fail(reterr, -fd, "make a %s for %s", fstype, target);
        target_fd = open_directory(root_fd, target, op->mode, resolve);
        if (target_fd < 0)
                return fail(reterr, -target_fd, "open the image's %s%s", target,
                            target_fd == -ELOOP ? ", which is or leads through a symbolic link" : "");
        r = attach(fd, target_fd);
        if (r < 0)
                return fail(reterr, -r, "mount %s on %s", fstype, target);
        return 0;
}

/* A file of the pod in the app's /etc: what is there by another type (a link to the host's
 * resolver, say) is replaced, in the pod's own layer; nothing is followed. */
static int op_file(int root_fd, const struct rkt_op *op, const char *content, const char *target) {
        _cleanup_close_ int parent = -1, fd = -1;
        size_t length = strlen(content);
        const char *name;
        struct stat st;
        int r;

        r = open_parent(root_fd, target, RESOLVE_NO_SYMLINKS, &parent, &name);
        if (r < 0)
                return r;
        if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) >= 0) {
                if (op->flags & RKT_OP_IF_MISSING)
                        return 0;
                if (S_ISDIR(st.st_mode))
                        return -EISDIR;
                if (unlinkat(parent, name, 0) < 0)
                        return -errno;
        }
        fd = openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, op->mode);
        if (fd < 0)
                return -errno;
        while (length > 0) {
                ssize_t n = write(fd, content, length);
                if (n < 0)
                        return -errno;
                content += n;
                length -= (size_t) n;
        }
        return fchmod(fd, op->mode) < 0 ? -errno : 0;
}

static int op_device(int root_fd, const struct rkt_op *op, const char *target) {
        _cleanup_close_ int parent = -1;
        const char *name;
        int r;

        r = open_parent(root_fd, target, RESOLVE_NO_SYMLINKS, &parent, &name);
        if (r < 0)
                return r;
        if (mknodat(parent, name, S_IFCHR | op->mode, makedev(op->device_major, op->device_minor)) < 0)
                return -errno;
        if (fchmodat(parent, name, op->mode, 0) < 0 || fchownat(parent, name, op->uid, op->gid, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        return 0;
}

static int op_symlink(int root_fd, const struct rkt_op *op, const char *text, const char *target) {
        _cleanup_close_ int parent = -1;
        const char *name;
        int r;

        r = open_parent(root_fd, target, RESOLVE_NO_SYMLINKS, &parent, &name);
        if (r < 0)
                return r;
        if (symlinkat(text, parent, name) < 0 && !(errno == EEXIST && op->flags & RKT_OP_IF_MISSING))
                return -errno;
        return 0;
}

/* Change the mount that the target is the root of. */
static int op_attributes(int root_fd, const char *target, uint64_t attributes, bool recursive) {
        _cleanup_close_ int fd = open_in_root(root_fd, target, O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);

        return fd < 0 ? fd : set_attributes(fd, attributes, recursive);
}

static int op_mkdir(int root_fd, const struct rkt_op *op, const char *target, uint64_t resolve) {
        _cleanup_close_ int fd = open_in_root(root_fd, target, O_PATH | O_DIRECTORY, resolve);

        if (fd >= 0)
                return 0;
        fd = open_directory(root_fd, target, op->mode, resolve);
        if (fd < 0)
                return fd;
        return fchownat(fd, "", op->uid, op->gid, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

int root_apply(int root_fd, const struct rkt_op *op, struct error *reterr) {
        const char *source = plan_string(op->source), *target = plan_string(op->target);
        const char *fstype = plan_string(op->fstype), *options = plan_string(op->options);
        uint64_t resolve = op->flags & RKT_OP_NO_SYMLINKS ? RESOLVE_NO_SYMLINKS : 0;
        int r;

        switch (op->kind) {

        case RKT_OP_ROOT:
                /* Paths of our own making, before any process of the pod exists. */
                if (*fstype ? mount(fstype, target, fstype, 0, options) < 0 : mount(source, target, NULL, MS_BIND | MS_REC, NULL) < 0)
                        return fail(reterr, errno, "mount the root file system on %s", target);
                return 0;

        case RKT_OP_MOUNT:
                r = op_mount(root_fd, op, fstype, options, target, resolve, reterr);
                return r < 0 && op->flags & RKT_OP_OPTIONAL ? 0 : r;

        case RKT_OP_BIND:
                r = op_bind(root_fd, op, source, target, resolve, reterr);
                return r < 0 && op->flags & RKT_OP_OPTIONAL ? 0 : r;

        case RKT_OP_MKDIR:
                r = op_mkdir(root_fd, op, target, resolve);
                return r < 0 ? fail(reterr, -r, "make the directory %s", target) : 0;

        case RKT_OP_DEVICE:
                r = op_device(root_fd, op, target);
                return r < 0 ? fail(reterr, -r, "make the device %s", target) : 0;

        case RKT_OP_SYMLINK:
                r = op_symlink(root_fd, op, source, target);
                return r < 0 ? fail(reterr, -r, "make the link %s", target) : 0;

        case RKT_OP_FILE:
                r = op_file(root_fd, op, source, target);
                return r < 0 ? fail(reterr, -r, "write %s", target) : 0;

        case RKT_OP_ATTRIBUTES:
                r = op_attributes(root_fd, target, op->attributes, op->flags & RKT_OP_RECURSIVE);
                return r < 0 ? fail(reterr, -r, "change the mount on %s", target) : 0;

        case RKT_OP_MASK:
                r = op_mask(root_fd, target);
                return r < 0 ? fail(reterr, -r, "mask %s", target) : 0;

        case RKT_OP_PROTECT:
                r = op_protect(root_fd, target, op->attributes, op->flags & RKT_OP_RECURSIVE);
                return r < 0 ? fail(reterr, -r, "make %s read-only", target) : 0;
        }
        return fail(reterr, EINVAL, "step %u of the plan", op->kind);
}

/* pivot_root(".", ".") stacks the old root over the new one: no directory for it is needed (pivot_root(2)). */
int root_pivot(int root_fd, struct error *reterr) {
        if (fchdir(root_fd) < 0)
                return fail(reterr, errno, "enter the root");
        if (syscall(SYS_pivot_root, ".", ".") < 0)
                return fail(reterr, errno, "pivot_root");
        if (umount2(".", MNT_DETACH) < 0)
                return fail(reterr, errno, "leave the host's root");
        if (chdir("/") < 0)
                return fail(reterr, errno, "chdir /");
        return 0;
}
