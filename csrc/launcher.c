/* rkt-py: start the Python this program was installed beside, isolated and without `site`.
 *
 * A console script of pip costs 20 ms before its first line: `site`, .pth files, importlib.metadata, `re`.
 * This one finds the package by the place of its own executable, and by nothing else: it is run by root,
 * so neither PATH, PYTHON*, HOME nor the current directory have a say in which code is started.
 *
 *     PREFIX/bin/rkt-py       PREFIX/lib/python3.N/site-packages/rkt_py      venv, pipx, pip --user, /usr/local
 *                             PREFIX/lib/python3.N/dist-packages/rkt_py      Debian's /usr/local
 *                             ... /__editable___rkt_py_*_finder.py           pip install -e: the tree is named there
 *     TREE/rkt_py/bin/rkt-py  TREE/rkt_py, with the Python of TREE/.venv     a source tree after `make build`
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EXIT_OWN_ERROR 254 /* as all of rkt-py's own errors */

struct start {
        char python[PATH_MAX];
        char script[PATH_MAX];
};

/* Put the parts, up to the NULL, one after the other; false when they do not fit. */
static bool join(char ret[static PATH_MAX], const char *const parts[]) {
        char path[PATH_MAX];
        size_t length = 0;

        for (; *parts; parts++) {
                size_t n = strlen(*parts);

                if (n >= PATH_MAX - length)
                        return false;
                memcpy(path + length, *parts, n);
                length += n;
        }
        path[length] = 0;
        memcpy(ret, path, length + 1);
        return true;
}

#define JOIN(ret, ...) join(ret, (const char *const[]) { __VA_ARGS__, NULL })

static bool starts_with(const char *text, const char *prefix) {
        return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool cut_suffix(char *text, const char *suffix) {
        size_t n = strlen(text), m = strlen(suffix);

        if (n < m || strcmp(text + n - m, suffix) != 0)
                return false;
        text[n - m] = 0;
        return true;
}

/* Return the bytes read, at most size - 1, always terminated; negative when there is no such file. */
static ssize_t read_file(const char *path, char *ret, size_t size) {
        size_t length = 0;
        ssize_t n;
        int fd;

        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
                return -errno;
        while (length < size - 1) {
                n = read(fd, ret + length, size - 1 - length);
                if (n <= 0)
                        break;
                length += (size_t) n;
        }
        close(fd);
        ret[length] = 0;
        return (ssize_t) length;
}

/* "python3" (a distribution's own modules) or "python3.N". */
static bool is_python_directory(const char *name) {
        if (!starts_with(name, "python3"))
                return false;
        name += strlen("python3");
        if (!*name)
                return true;
        if (*name++ != '.' || !*name)
                return false;
        return name[strspn(name, "0123456789")] == 0;
}

/* Find the interpreter the directory's packages are for: the environment's own, or the system's of that version
 * for `pip install --user` and for Debian's /usr/local, which have none. */
static bool find_python(const char *prefix, const char *version, struct start *start) {
        const char *const prefixes[] = { prefix, "/usr/local", "/usr" };

        for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++)
                if (JOIN(start->python, prefixes[i], "/bin/", version) && access(start->python, X_OK) == 0)
                        return true;
        return false;
}

static bool find_script(const char *parent, struct start *start) {
        return JOIN(start->script, parent, "/rkt_py/__main__.py") && access(start->script, R_OK) == 0;
}

/* An editable install leaves a finder whose MAPPING line holds {'rkt_py': '/path/of/the/tree/rkt_py'}. */
static bool read_finder(const char *path, struct start *start) {
        static const char key[] = "'rkt_py': '";
        char text[16384], *package, *end;

        if (read_file(path, text, sizeof(text)) < 0)
                return false;
        package = strstr(text, key);
        if (!package)
                return false;
        package += strlen(key);
        end = package + strcspn(package, "'\\\n");
        if (*end != '\'' || *package != '/')
                return false;
        *end = 0;
        return cut_suffix(package, "/rkt_py") && find_script(package, start);
}

static bool find_editable(const char *site, struct start *start) {
        char path[PATH_MAX];
        struct dirent *entry;
        bool found = false;
        DIR *directory;

        directory = opendir(site);
        if (!directory)
                return false;
        while (!found && (entry = readdir(directory)))
                if (starts_with(entry->d_name, "__editable___rkt_py_") && JOIN(path, site, "/", entry->d_name))
                        found = cut_suffix(entry->d_name, "_finder.py") && read_finder(path, start);
        closedir(directory);
        return found;
}

static bool find_in_site(const char *prefix, const char *version, const char *site, struct start *start) {
        struct stat st;

        if (stat(site, &st) < 0)
                return false;
        return find_python(prefix, version, start) && (find_script(site, start) || find_editable(site, start));
}

static bool find_in_lib(const char *prefix, const char *lib, struct start *start) {
        char directory_path[PATH_MAX], site[PATH_MAX];
        struct dirent *entry;
        bool found = false;
        DIR *directory;

        if (!JOIN(directory_path, prefix, lib))
                return false;
        directory = opendir(directory_path);
        if (!directory)
                return false;
        while (!found && (entry = readdir(directory))) {
                const char *version = entry->d_name;

                if (!is_python_directory(version))
                        continue;
                found = (JOIN(site, directory_path, "/", version, "/site-packages") &&
                         find_in_site(prefix, version, site, start)) ||
                        (JOIN(site, directory_path, "/", version, "/dist-packages") &&
                         find_in_site(prefix, version, site, start));
        }
        closedir(directory);
        return found;
}

/* A virtual environment that shows the system's packages needs `site` to find them. */
static bool shows_system_packages(const char *prefix) {
        char path[PATH_MAX], text[4096];

        if (!JOIN(path, prefix, "/pyvenv.cfg") || read_file(path, text, sizeof(text)) < 0)
                return false;
        return strstr(text, "include-system-site-packages = true");
}

_Noreturn static void fail(const char *what, const char *path) {
        char text[PATH_MAX];

        if (JOIN(text, "rkt-py: ", what, " ", path, ": ", strerror(errno), "\n"))
                (void) !write(STDERR_FILENO, text, strlen(text));
        _exit(EXIT_OWN_ERROR);
}

/* What is opened next must not become a standard stream that our caller closed. */
static void fill_streams(void) {
        int fd;

        do
                fd = open("/dev/null", O_RDWR);
        while (fd >= 0 && fd <= STDERR_FILENO);
        if (fd >= 0)
                close(fd);
}

int main(int argc, char *argv[]) {
        char self[PATH_MAX], tree[PATH_MAX], venv[PATH_MAX];
        const char *prefix;
        struct start start;
        sigset_t interrupt;
        bool quick = false;
        char **args;
        size_t n = 0;
        ssize_t r;

        fill_streams();

        /* The kernel's word for what runs: links are followed, argv[0] is not asked. */
        r = readlink("/proc/self/exe", self, sizeof(self) - 1);
        if (r < 0)
                fail("cannot read", "/proc/self/exe");
        self[r] = 0;

        if (!cut_suffix(self, "/bin/rkt-py")) {
                errno = EINVAL;
                fail("not named rkt-py in a bin directory:", self);
        }
        prefix = self;
        quick = find_in_lib(prefix, "/lib", &start) || find_in_lib(prefix, "/lib64", &start);
        if (!quick && JOIN(tree, self) && cut_suffix(tree, "/rkt_py") && JOIN(venv, tree, "/.venv")) {
                quick = find_script(tree, &start) && find_python(venv, "python3", &start);
                prefix = quick ? venv : self;
        }
        if (quick && shows_system_packages(prefix))
                quick = false;
        else if (!quick && (!JOIN(start.python, prefix, "/bin/python3") || access(start.python, X_OK) < 0))
                (void) JOIN(start.python, "/usr/bin/python3");

        args = calloc((size_t) argc + 8, sizeof(*args));
        if (!args)
                fail("cannot start", start.python);
        args[n++] = start.python;
        args[n++] = (char *) "-I"; /* no PYTHON*, no current directory, no ~/.local */
        if (quick)
                args[n++] = (char *) "-S"; /* __main__.py does the one thing `site` would do for us */
        args[n++] = (char *) "-X";
        args[n++] = (char *) "utf8"; /* names pass through as the bytes they are, whatever the locale */
        if (quick)
                args[n++] = start.script;
        else {
                args[n++] = (char *) "-m";
                args[n++] = (char *) "rkt_py";
        }
        for (int i = 1; i < argc; i++)
                args[n++] = argv[i];
        args[n] = NULL;

        /* Python raises KeyboardInterrupt wherever it is, with a traceback where nobody catches it yet: main() unblocks. */
        sigemptyset(&interrupt);
        sigaddset(&interrupt, SIGINT);
        (void) sigprocmask(SIG_BLOCK, &interrupt, NULL);
        execv(start.python, args);
        fail("cannot start", start.python);
}
