/* A stand-in for a shared disk whose lock daemon does not answer: whoever asks for a lock of a
 * file below $HANG_BELOW waits for ever, as on NFS or EFS. The file $HANG_MARK says that somebody
 * does. Preloaded into the program that is tested. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void hang(int fd, int cmd) {
    if (cmd != F_SETLK && cmd != F_SETLKW && cmd != F_OFD_SETLK && cmd != F_OFD_SETLKW &&
        cmd != F_GETLK && cmd != F_OFD_GETLK)
        return;
    char link[64], path[4096];
    const char *below = getenv("HANG_BELOW"), *mark = getenv("HANG_MARK");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0 || !below)
        return;
    path[size] = 0;
    if (strncmp(path, below, strlen(below)))
        return;
    if (mark)
        close(creat(mark, 0600));
    for (;;)
        pause();
}

#define WRAP(name)                                                                                 \
    int name(int fd, int cmd, ...) {                                                               \
        static int (*real)(int, int, ...);                                                         \
        va_list rest;                                                                              \
        va_start(rest, cmd);                                                                       \
        void *argument = va_arg(rest, void *);                                                     \
        va_end(rest);                                                                              \
        if (!real)                                                                                 \
            real = (int (*)(int, int, ...))dlsym(RTLD_NEXT, #name);                                \
        hang(fd, cmd);                                                                             \
        return real(fd, cmd, argument);                                                            \
    }

WRAP(fcntl)
WRAP(fcntl64)
