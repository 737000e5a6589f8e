/* Extraction: entries to files, below one directory and nowhere else.
 *
 *     DIRECTORY/
 *         manifest      the bytes of the entry "manifest"
 *         rootfs/       made here, so whatever is below it was made by this extraction
 *
 * Every file is made by a single name relative to the descriptor of its directory, and never opened again by a path.
 * The directories on the way to the last entry are kept open, as most entries are next to the one before. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "unpack.h"

#define DEPTH_MAX 512
#define PIECE ((size_t) 256 << 10)

/* How much a file is ahead of the disk before we ask for it to be written: the last sync is then short. */
#define WRITEBACK ((uint64_t) 4 << 20)

/* Memory for the names of directories that entries are in but that have no entry yet. */
#define IMPLIED_MAX ((size_t) 16 << 20)

/* A directory on the way to the last entry. The first is the one we extract into. */
struct level {
        int fd;
        size_t end;             /* of its name in extraction.path */
        struct timespec mtime;  /* what its time is to be; something made in it changes that */
        bool touched;
        bool is_ours;           /* a file made in it is owned by us, as no setgid bit or mount option says otherwise */
};

struct extraction {
        struct tar *tar;
        const struct limits *limits;
        uint64_t size;
        bool sync;
        uid_t uid;
        gid_t gid;
        bool has_manifest;
        bool has_top;
        char path[PATH_MAX];
        struct level levels[DEPTH_MAX];
        size_t depth;           /* of the last level */
        void *implied;          /* a tree (tsearch) of paths */
        size_t implied_size;
};

/* The paths we give have no "..", no symbolic link and no mount point in them. openat2 sees to it, whatever else is. */
static int open_directory(int dir_fd, const char *path, int flags) {
        struct open_how how = {
                .flags = (uint64_t) (flags | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC),
                .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
        };

        return (int) syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));
}

static int compare_paths(const void *a, const void *b) {
        return strcmp(a, b);
}

/* A directory may come after what is in it, once. Those that came are told from those that did not by remembering the
 * latter: in nearly all archives there are none. */
static int imply(struct extraction *x, const char *path, struct error *reterr) {
        char *copy = strdup(path);

        x->implied_size += strlen(path) + 64;
        if (x->implied_size > IMPLIED_MAX || !copy || !tsearch(copy, &x->implied, compare_paths)) {
                free(copy);
                return fail(reterr, 0, "the archive has too many files in directories that it does not have");
        }
        return 0;
}

static bool was_implied(struct extraction *x, const char *path) {
        char **found = tfind(path, &x->implied, compare_paths);
        char *copy = found ? *found : NULL;

        if (!copy)
                return false;
        x->implied_size -= strlen(path) + 64;
        tdelete(path, &x->implied, compare_paths);
        free(copy);
        return true;
}

static struct level *current(struct extraction *x) {
        return &x->levels[x->depth];
}

static int leave(struct extraction *x, struct error *reterr) {
        struct level *level = current(x);
        struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, level->mtime };

        if (level->touched && futimens(level->fd, times) < 0)
                return fail(reterr, errno, "cannot set the time of %.*s", (int) MIN(level->end, (size_t) 400), x->path);
        close(level->fd);
        x->depth--;
        return 0;
}

/* Enter a directory of the current one; x->path has its whole name. */
static int enter(struct extraction *x, const char *name, size_t end, struct error *reterr) {
        struct level *level;

        if (x->depth + 1 == DEPTH_MAX)
                return entry_fail(&x->tar->entry, reterr, 0, "more than %d directories deep", DEPTH_MAX - 2);
        level = &x->levels[x->depth + 1];
        level->fd = open_directory(current(x)->fd, name, O_RDONLY);
        if (level->fd < 0)
                return -errno;
        level->end = end;
        x->depth++;
        return 0;
}

/* Whether what is made in a directory of this group is ours, whatever its setgid bit and the file system's options. */
static bool makes_ours(const struct extraction *x, gid_t gid) {
        return x->uid == 0 && gid == x->gid;
}

/* The time that a directory entered has is the one it is to have. */
static int enter_existing(struct extraction *x, const char *name, size_t end, struct error *reterr) {
        struct stat st;
        int r = enter(x, name, end, reterr);

        if (r < 0)
                return r;
        if (fstat(current(x)->fd, &st) < 0)
                return -errno;
        current(x)->mtime = st.st_mtim;
        current(x)->touched = false;
        current(x)->is_ours = makes_ours(x, st.st_gid);
        return 0;
}

/* Give a directory its owner, and its mode, which mkdir also takes from its parent, and its time, when we leave it. */
static int own_directory(struct extraction *x, uid_t uid, gid_t gid, mode_t mode, struct timespec mtime, struct error *reterr) {
        const struct tar_entry *entry = &x->tar->entry;
        struct level *level = current(x);

        if ((!level[-1].is_ours || uid != x->uid || gid != x->gid) && fchown(level->fd, uid, gid) < 0)
                return entry_fail(entry, reterr, errno, "cannot set its owner");
        if (fchmod(level->fd, mode) < 0)
                return entry_fail(entry, reterr, errno, "cannot set its mode");
        level->is_ours = makes_ours(x, gid);
        level->mtime = mtime;
        level->touched = true;
        return 0;
}

/* Go to the directory that `path` is in, making what is missing, and return the name in it. */
static int go(struct extraction *x, const char *path, const char **ret_name, struct error *reterr) {
        const struct tar_entry *entry = &x->tar->entry;
        const char *name, *slash;
        size_t same = x->depth;
        int r;

        while (same > 0 && (strncmp(path, x->path, x->levels[same].end) != 0 || path[x->levels[same].end] != '/'))
                same--;
        while (x->depth > same) {
                r = leave(x, reterr);
                if (r < 0)
                        return r;
        }
        name = path + (same > 0 ? x->levels[same].end + 1 : 0);
        for (; (slash = strchr(name, '/')); name = slash + 1) {
                size_t start = (size_t) (name - path), end = (size_t) (slash - path);
                bool made = false;

                memcpy(x->path + start, name, end - start);
                x->path[end] = '\0';
                if (start > 0)
                        x->path[start - 1] = '/';
                r = enter_existing(x, x->path + start, end, reterr);
                if (r == -ENOENT) {
                        if (mkdirat(current(x)->fd, x->path + start, 0755) < 0)
                                return entry_fail(entry, reterr, errno, "cannot make %.400s", x->path);
                        current(x)->touched = made = true;
                        r = imply(x, x->path, reterr);
                        if (r < 0)
                                return r;
                        r = enter(x, x->path + start, end, reterr);
                }
                if (reterr->number)
                        return r;
                if (r == -ENOTDIR || r == -ELOOP)
                        return entry_fail(entry, reterr, 0, "%.400s is not a directory", x->path);
                if (r < 0)
                        return entry_fail(entry, reterr, -r, "cannot open %.400s", x->path);
                /* The archive says nothing of it; the same archive makes the same tree all the same. */
                if (made) {
                        r = own_directory(x, 0, 0, 0755, (struct timespec) { 0 }, reterr);
                        if (r < 0)
                                return r;
                }
        }
        *ret_name = name;
        return 0;
}

static int cannot_make(const struct tar_entry *entry, int number, struct error *reterr) {
        if (number == EEXIST)
                return entry_fail(entry, reterr, 0, "it is in the archive twice");
        return entry_fail(entry, reterr, number, "cannot make it");
}

/* Attributes that change what a file is or means to us are for us to set: overlayfs would obey its own. */
static bool may_have(const char *name) {
        return strcmp(name, "security.capability") == 0 || (strncmp(name, "user.", 5) == 0 && strncmp(name, "user.overlay.", 13) != 0);
}

static int set_xattrs(const struct tar_entry *entry, int fd, struct error *reterr) {
        for (size_t i = 0; i < entry->n_xattrs; i++) {
                const struct xattr *xattr = &entry->xattrs[i];

                if (may_have(xattr->name) && fsetxattr(fd, xattr->name, xattr->value, xattr->size, 0) < 0)
                        return entry_fail(entry, reterr, errno, "cannot set its attribute %.100s", xattr->name);
        }
        return 0;
}

static int write_data(struct extraction *x, int fd, uint64_t offset, uint64_t size, struct error *reterr) {
        const struct tar_entry *entry = &x->tar->entry;
        uint64_t asked = offset;

        while (size > 0) {
                const uint8_t *bytes;
                ssize_t n = tar_data(x->tar, &bytes, (size_t) MIN(size, (uint64_t) PIECE), reterr);

                if (n < 0)
                        return (int) n;
                for (ssize_t done = 0; done < n;) {
                        ssize_t written = pwrite(fd, bytes + done, (size_t) (n - done), (off_t) offset);

                        if (written < 0 && errno == EINTR)
                                continue;
                        if (written < 0)
                                return entry_fail(entry, reterr, errno, "cannot write it");
                        done += written;
                        offset += (uint64_t) written;
                }
                size -= (uint64_t) n;
                if (x->sync && offset - asked >= WRITEBACK) {
                        (void) sync_file_range(fd, (off_t) asked, (off_t) (offset - asked), SYNC_FILE_RANGE_WRITE);
                        asked = offset;
                }
        }
        return 0;
}

static int write_file(struct extraction *x, int fd, struct error *reterr) {
        const struct tar_entry *entry = &x->tar->entry;
        int r;

        if (entry->size > x->limits->size - x->size)
                return entry_fail(entry, reterr, 0, "with it the archive unpacks to more than %llu bytes", (unsigned long long) x->limits->size);
        x->size += entry->size;
        if (!entry->sparse)
                return write_data(x, fd, 0, entry->size, reterr);
        for (size_t i = 0; i < entry->n_extents; i++) {
                r = write_data(x, fd, entry->extents[i].offset, entry->extents[i].size, reterr);
                if (r < 0)
                        return r;
        }
        if (ftruncate(fd, (off_t) entry->size) < 0)
                return entry_fail(entry, reterr, errno, "cannot make it %llu bytes long", (unsigned long long) entry->size);
        return 0;
}

static int make_file(struct extraction *x, const char *name, struct error *reterr) {
        const struct tar_entry *entry = &x->tar->entry;
        const struct level *level = current(x);
        bool is_ours = level->is_ours && entry->uid == x->uid && entry->gid == x->gid;
        struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, entry->mtime };
        _cleanup_close_ int fd = -1;
        int r;

        fd = openat(level->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, entry->mode & 0777);
        if (fd < 0)
                return cannot_make(entry, errno, reterr);
        r = write_file(x, fd, reterr);
        if (r < 0)
                return r;
        /* This order: a write takes the capabilities, a new owner both them and the setuid bit. */
        if (!is_ours && fchown(fd, entry->uid, entry->gid) < 0)
                return entry_fail(entry, reterr, errno, "cannot set its owner");
        if ((entry->mode & 07000) && fchmod(fd, entry->mode) < 0)
                return entry_fail(entry, reterr, errno, "cannot set its mode");
        r = set_xattrs(entry, fd, reterr);
        if (r < 0)
                return r;
        if (futimens(fd, times) < 0)
                return entry_fail(entry, reterr, errno, "cannot set its time");
        if (close(TAKE_FD(fd)) < 0)
                return entry_fail(entry, reterr, errno, "cannot write it");
        return 0;
}

static int make_directory(struct extraction *x, const char *name, struct error *reterr) {
        const struct tar_entry *entry = &x->tar->entry;
        size_t start = (size_t) (name - entry->path);
        int r;

        if (mkdirat(current(x)->fd, name, 0700) < 0) {
                if (errno != EEXIST || !was_implied(x, entry->path))
                        return cannot_make(entry, errno, reterr);
        } else
                current(x)->touched = true;
        memcpy(x->path + start, name, strlen(name) + 1);
        if (start > 0)
                x->path[start - 1] = '/';
        r = enter(x, name, start + strlen(name), reterr);
        if (reterr->number)
                return r;
        if (r < 0)
                return entry_fail(entry, reterr, -r, "cannot open it");
        r = own_directory(x, entry->uid, entry->gid, entry->mode, entry->mtime, reterr);
        if (r < 0)
                return r;
        return set_xattrs(entry, current(x)->fd, reterr);
}

/* Symbolic links, devices and fifos, which are never opened. */
static int make_special(struct extraction *x, const char *name, struct error *reterr) {
        const struct tar_entry *entry = &x->tar->entry;
        struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, entry->mtime };
        mode_t kind = entry->type == '3' ? S_IFCHR : entry->type == '4' ? S_IFBLK : S_IFIFO;
        int fd = current(x)->fd, r;

        if (entry->type == '3' && entry->major == 0 && entry->minor == 0)
                return entry_fail(entry, reterr, 0, "character device 0:0, which an overlay takes for a deleted file");
        r = entry->type == '2' ? symlinkat(entry->link, fd, name)
                               : mknodat(fd, name, kind | (entry->mode & 0777), kind == S_IFIFO ? 0 : makedev(entry->major, entry->minor));
        if (r < 0)
                return cannot_make(entry, errno, reterr);
        if (fchownat(fd, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) < 0)
                return entry_fail(entry, reterr, errno, "cannot set its owner");
        /* fchmodat() would follow a link. This is none: we have just made it. */
        if (entry->type != '2' && (entry->mode & 07000) && fchmodat(fd, name, entry->mode, 0) < 0)
                return entry_fail(entry, reterr, errno, "cannot set its mode");
        if (utimensat(fd, name, times, AT_SYMLINK_NOFOLLOW) < 0)
                return entry_fail(entry, reterr, errno, "cannot set its time");
        return 0;
}

static bool is_in_rootfs(const char *path) {
        return strncmp(path, "rootfs/", 7) == 0;
}

static int make_link(struct extraction *x, const char *name, struct error *reterr) {
        const struct tar_entry *entry = &x->tar->entry;
        const struct level *level = current(x);
        const char *target = strrchr(entry->link, '/');
        _cleanup_close_ int opened = -1;
        int fd = level->fd;
        struct stat st;

        if (!is_in_rootfs(entry->link))
                return entry_fail(entry, reterr, 0, "a hard link to %.400s, which is not in rootfs", entry->link);
        if ((size_t) (target - entry->link) != level->end || strncmp(entry->link, x->path, level->end) != 0) {
                char parent[PATH_MAX];

                memcpy(parent, entry->link, (size_t) (target - entry->link));
                parent[target - entry->link] = '\0';
                fd = opened = open_directory(x->levels[0].fd, parent, O_PATH);
        }
        if (fd < 0 || fstatat(fd, target + 1, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
                return entry_fail(entry, reterr, 0, "a hard link to %.400s, which is no file that came before it", entry->link);
        if (linkat(fd, target + 1, level->fd, name, 0) < 0)
                return cannot_make(entry, errno, reterr);
        return 0;
}

static int make_manifest(struct extraction *x, struct error *reterr) {
        const struct tar_entry *entry = &x->tar->entry;
        _cleanup_close_ int fd = -1;
        int r;

        if (entry->type != '0' || entry->sparse)
                return entry_fail(entry, reterr, 0, "it is not an ordinary file");
        if (entry->size > x->limits->manifest)
                return entry_fail(entry, reterr, 0, "%llu bytes; %llu are allowed", (unsigned long long) entry->size, (unsigned long long) x->limits->manifest);
        fd = openat(x->levels[0].fd, "manifest", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
        if (fd < 0)
                return cannot_make(entry, errno, reterr);
        x->has_manifest = true;
        r = write_file(x, fd, reterr);
        if (r < 0)
                return r;
        if (close(TAKE_FD(fd)) < 0)
                return entry_fail(entry, reterr, errno, "cannot write it");
        return 0;
}

static int make_entry(struct extraction *x, struct error *reterr) {
        const struct tar_entry *entry = &x->tar->entry;
        const char *name = NULL;
        int r;

        /* Section "App Container Image" of the spec: the file "manifest", the directory "rootfs" and nothing else at
         * the top. The top itself is what `tar -c .` begins with. */
        if (strcmp(entry->path, "manifest") == 0)
                return make_manifest(x, reterr);
        if (*entry->path == '\0') {
                if (entry->type != '5' || x->has_top)
                        return entry_fail(entry, reterr, 0, x->has_top ? "it is in the archive twice" : "it is not a directory");
                x->has_top = true;
                return 0;
        }
        if (strcmp(entry->path, "rootfs") == 0) {
                if (entry->type != '5')
                        return entry_fail(entry, reterr, 0, "it is not a directory");
        } else if (!is_in_rootfs(entry->path))
                return entry_fail(entry, reterr, 0, "an image has \"manifest\" and \"rootfs\", and nothing else");
        r = go(x, entry->path, &name, reterr);
        if (r < 0)
                return r;
        if (entry->type == '5')
                return make_directory(x, name, reterr);
        current(x)->touched = true;
        if (entry->type == '0')
                return make_file(x, name, reterr);
        return entry->type == '1' ? make_link(x, name, reterr) : make_special(x, name, reterr);
}

/* What is below rootfs is of this extraction only if there was none. And what is made in a directory with a default
 * ACL has it too, so that its mode is not what we give. */
static int check_into(int into_fd, struct error *reterr) {
        static const char *const names[] = { "manifest", "rootfs" };
        struct stat st;

        for (size_t i = 0; i < COUNT(names); i++)
                if (fstatat(into_fd, names[i], &st, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT)
                        return fail(reterr, EEXIST, "cannot extract: %s", names[i]);
        if (fremovexattr(into_fd, "system.posix_acl_default") < 0 && errno != ENODATA && errno != EOPNOTSUPP)
                return fail(reterr, errno, "cannot extract: the default ACL of the directory");
        return 0;
}

int extract(struct tar *tar, int into_fd, const struct limits *limits, bool sync, struct error *reterr) {
        static struct extraction x;
        struct stat st;
        int r;

        x = (struct extraction) { .tar = tar, .limits = limits, .sync = sync, .uid = geteuid(), .gid = getegid(), .levels[0].fd = into_fd };
        r = check_into(into_fd, reterr);
        if (r < 0)
                return r;
        while ((r = tar_next(tar, reterr)) > 0) {
                r = make_entry(&x, reterr);
                if (r < 0)
                        return r;
        }
        if (r < 0)
                return r;
        if (!x.has_manifest)
                return fail(reterr, 0, "the archive has no manifest");
        while (x.depth > 0) {
                r = leave(&x, reterr);
                if (r < 0)
                        return r;
        }
        if (fstatat(into_fd, "rootfs", &st, AT_SYMLINK_NOFOLLOW) < 0)
                return fail(reterr, 0, "the archive has no rootfs");
        tdestroy(x.implied, free);
        return 0;
}
