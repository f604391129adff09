/* Watching folders: inotify(7). Where there is none, all of it fails with ENOSYS, and who asks looks now and then. */
#ifndef SSLSOCK_FOLDER_WATCH_H
#define SSLSOCK_FOLDER_WATCH_H

#include <errno.h>
#include <stdint.h>

#ifdef __linux__

#include <sys/inotify.h>
#include <sys/vfs.h>

/* What becomes of the entries of a folder, and of itself. */
#define FOLDER_ENTRIES (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF)
/* And what becomes of what is in its files. Who writes one is waited for until it is closed. */
#define FOLDER_CONTENTS (IN_CLOSE_WRITE | IN_ATTRIB)
/* The folder is another one now, or none; or events were lost. */
#define FOLDER_GONE (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED | IN_Q_OVERFLOW)

static inline int folder_watch_open(void)
{
    return inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
}

static inline int folder_watch_add(int fd, const char *path, uint32_t mask)
{
    return inotify_add_watch(fd, path, mask | IN_ONLYDIR | IN_MASK_ADD);
}

static inline int folder_watch_remove(int fd, int number)
{
    return inotify_rm_watch(fd, number);
}

/* Whether others can change the folder without this kernel's knowledge: 1 yes, 0 no, -1 with errno. The numbers are those of
   statfs(2) and of linux/magic.h. */
static inline int folder_is_remote(const char *path)
{
    static const uint32_t remote[] = {
        0x6969,     /* NFS */
        0x517B,     /* SMB */
        0xFF534D42, /* CIFS */
        0xFE534D42, /* SMB2 */
        0x65735546, /* FUSE */
        0x01021997, /* 9p */
        0x00C36400, /* Ceph */
        0x5346414F, /* AFS */
        0x6B414653, /* kAFS */
        0x73757245, /* Coda */
        0x564C,     /* NCP */
        0x01161970, /* GFS2 */
        0x7461636F, /* OCFS2 */
        0x47504653, /* GPFS */
        0x0BD00BD0, /* Lustre */
        0x19830326, /* BeeGFS */
        0x786F4256, /* VirtualBox's shared folders */
    };
    struct statfs found;
    unsigned i;

    if (statfs(path, &found) < 0)
        return -1;
    for (i = 0; i < sizeof remote / sizeof *remote; i++)
        if ((uint32_t) found.f_type == remote[i])
            return 1;
    return 0;
}

#else

#define FOLDER_ENTRIES 0
#define FOLDER_CONTENTS 0
#define FOLDER_GONE 0

struct inotify_event {
    int wd;
    uint32_t mask, cookie, len;
    char name[1];
};

static inline int folder_watch_open(void)
{
    errno = ENOSYS;
    return -1;
}

static inline int folder_watch_add(int fd, const char *path, uint32_t mask)
{
    (void) fd, (void) path, (void) mask;
    return folder_watch_open();
}

static inline int folder_watch_remove(int fd, int number)
{
    (void) fd, (void) number;
    return folder_watch_open();
}

static inline int folder_is_remote(const char *path)
{
    (void) path;
    return folder_watch_open();
}

#endif

#endif
