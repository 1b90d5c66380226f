// Faults below a process, by LD_PRELOAD. It is told by the environment what to do:
//
//   PONOS_SHIM_DIR    the directory that it watches, as an absolute path without links
//   PONOS_SHIM_ONLY   if set, only files below it whose path begins so are watched
//   PONOS_SHIM_TRACE  a file to which every change below the directory is appended, in order and with its data
//   PONOS_SHIM_FULL   while this file exists, nothing below the directory can grow: ENOSPC
//   PONOS_SHIM_CLOCK  a file of eight bytes: nanoseconds, signed, by which the wall clock is wrong
//
// A change and its record are one step under a lock of all traced processes, so the order of records is the order
// of changes. A sync has two records, before and after: what was written before the first is safe after the second.
// What cannot be followed (a writable shared mapping, a copy inside the kernel) is recorded as such or refused.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, RESIZE, SYNC_BEGIN, SYNC_END, REMOVE, RENAME, MAKE_DIR, MAP };

// The form that `faults/trace.rs` reads; the path and the data follow.
struct header {
  uint32_t kind, path;
  uint64_t inode, offset, data;
};

static char watched[PATH_MAX];
static size_t watched_length;
static int trace = -1;
static const char *full, *only;
static const int64_t *shift;
static uint64_t syncs;
static pthread_mutex_t one_thread = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) {
  void *found = dlsym(RTLD_NEXT, name);
  if (!found) abort();
  return found;
}

__attribute__((constructor)) static void start(void) {
  const char *directory = getenv("PONOS_SHIM_DIR"), *clock = getenv("PONOS_SHIM_CLOCK"), *to = getenv("PONOS_SHIM_TRACE");
  full = getenv("PONOS_SHIM_FULL");
  only = getenv("PONOS_SHIM_ONLY");
  if (directory && strlen(directory) < sizeof watched) {
    strcpy(watched, directory);
    watched_length = strlen(watched);
  }
  if (to && (trace = syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0) abort();
  if (clock) {
    int fd = syscall(SYS_openat, AT_FDCWD, clock, O_RDONLY | O_CLOEXEC);
    void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) abort();
    __atomic_store_n(&shift, map, __ATOMIC_RELEASE);
    syscall(SYS_close, fd);
  }
}

// Paths below the directory, relative to it; NULL for all others.
static const char *below(const char *path) {
  if (!watched_length || strncmp(path, watched, watched_length)) return NULL;
  if (path[watched_length] == 0) return only ? NULL : "";
  if (path[watched_length] != '/') return NULL;
  path += watched_length + 1;
  return only && strncmp(path, only, strlen(only)) ? NULL : path;
}

static const char *path_of(int fd, char *buffer) {
  if (!watched_length) return NULL;
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, buffer, PATH_MAX - 1);
  if (length < 0) return NULL;
  buffer[length] = 0;
  // A file without a name is nothing that a power cut leaves.
  const char gone[] = " (deleted)";
  size_t tail = sizeof gone - 1;
  if ((size_t)length > tail && !strcmp(buffer + length - tail, gone)) return NULL;
  return below(buffer);
}

// A path as an argument: the directory is resolved, the last part is not.
static const char *path_at(int directory, const char *path, char *buffer) {
  if (!watched_length || !path || !*path) return NULL;
  char joined[2 * PATH_MAX], parent[PATH_MAX];
  if (*path == '/' || directory == AT_FDCWD) {
    snprintf(joined, sizeof joined, "%s%s", *path == '/' ? "" : "./", path);
  } else {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    ssize_t length = readlink(link, parent, sizeof parent - 1);
    if (length < 0) return NULL;
    snprintf(joined, sizeof joined, "%.*s/%s", (int)length, parent, path);
  }
  size_t length = strlen(joined);
  while (length > 1 && joined[length - 1] == '/') joined[--length] = 0;
  char *last = strrchr(joined, '/');
  *last = 0;
  if (!realpath(last == joined ? "/" : joined, parent)) return NULL;
  return snprintf(buffer, PATH_MAX, "%s/%s", parent, last + 1) < PATH_MAX ? below(buffer) : NULL;
}

static void lock(void) {
  pthread_mutex_lock(&one_thread);
  while (trace >= 0 && flock(trace, LOCK_EX) < 0 && errno == EINTR) {}
}

static void unlock(void) {
  int error = errno;
  if (trace >= 0) flock(trace, LOCK_UN);
  pthread_mutex_unlock(&one_thread);
  errno = error;
}

static void put(const void *bytes, size_t length) {
  while (length) {
    ssize_t done = syscall(SYS_write, trace, bytes, length);
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) abort(); // A trace with a hole would prove anything.
    bytes = (const char *)bytes + done;
    length -= done;
  }
}

static void record(uint32_t kind, const char *path, uint64_t inode, uint64_t offset, const void *data, uint64_t length) {
  if (trace < 0) return;
  int error = errno;
  struct header header = {kind, strlen(path), inode, offset, data ? length : 0};
  char small[sizeof header + PATH_MAX];
  memcpy(small, &header, sizeof header);
  memcpy(small + sizeof header, path, header.path);
  put(small, sizeof header + header.path);
  if (data) put(data, length);
  errno = error;
}

static uint64_t inode_of(int fd) {
  struct stat info;
  return fstat(fd, &info) ? 0 : info.st_ino;
}

// A regular file below the directory.
static const char *file(int fd, char *buffer, struct stat *info) {
  if (!watched_length || fstat(fd, info) || !S_ISREG(info->st_mode)) return NULL;
  return path_of(fd, buffer);
}

static int is_full(void) { return full && syscall(SYS_faccessat, AT_FDCWD, full, F_OK) == 0; }

// How much of a write a full disk takes: what overwrites; -1 and ENOSPC if that is nothing.
static ssize_t room(const struct stat *info, off_t offset, size_t length) {
  if (offset + (off_t)length <= info->st_size || !is_full()) return length;
  if (offset < info->st_size) return info->st_size - offset;
  errno = ENOSPC;
  return -1;
}

static ssize_t traced_write(int fd, const void *data, size_t length, off_t offset) {
  char buffer[PATH_MAX];
  struct stat info;
  int at_cursor = offset < 0;
  const char *path = length ? file(fd, buffer, &info) : NULL;
  if (!path) return at_cursor ? syscall(SYS_write, fd, data, length) : syscall(SYS_pwrite64, fd, data, length, offset);
  lock();
  fstat(fd, &info);
  if (fcntl(fd, F_GETFL) & O_APPEND) offset = info.st_size;
  else if (at_cursor) offset = lseek(fd, 0, SEEK_CUR);
  ssize_t done = room(&info, offset, length);
  if (done > 0) done = at_cursor ? syscall(SYS_write, fd, data, done) : syscall(SYS_pwrite64, fd, data, done, offset);
  if (done > 0) record(WRITE, path, info.st_ino, offset, data, done);
  unlock();
  return done;
}

ssize_t write(int fd, const void *data, size_t length) { return traced_write(fd, data, length, -1); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return traced_write(fd, data, length, offset); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) { return traced_write(fd, data, length, offset); }

// One piece after the other; a caller must expect a short write.
static ssize_t traced_pieces(int fd, const struct iovec *pieces, int count, off_t offset) {
  ssize_t all = 0;
  for (int i = 0; i < count; i++) {
    ssize_t done = traced_write(fd, pieces[i].iov_base, pieces[i].iov_len, offset < 0 ? -1 : offset + all);
    if (done < 0) return all ? all : done;
    all += done;
    if ((size_t)done < pieces[i].iov_len) break;
  }
  return all;
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
  char buffer[PATH_MAX];
  struct stat info;
  if (file(fd, buffer, &info)) return traced_pieces(fd, pieces, count, -1);
  return syscall(SYS_writev, fd, pieces, count);
}
ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset) { return traced_pieces(fd, pieces, count, offset); }
ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t offset) { return traced_pieces(fd, pieces, count, offset); }

// Copies inside the kernel are refused, as by file systems that cannot do them: callers copy themselves then.
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t length, unsigned flags) {
  char buffer[PATH_MAX];
  struct stat info;
  if (file(out, buffer, &info)) return errno = EXDEV, -1;
  return REAL(copy_file_range)(in, from, out, to, length, flags);
}
static ssize_t traced_send(int out, int in, off_t *from, size_t length) {
  char buffer[PATH_MAX];
  struct stat info;
  if (file(out, buffer, &info)) return errno = EINVAL, -1;
  return syscall(SYS_sendfile, out, in, from, length);
}
ssize_t sendfile(int out, int in, off_t *from, size_t length) { return traced_send(out, in, from, length); }
ssize_t sendfile64(int out, int in, off64_t *from, size_t length) { return traced_send(out, in, from, length); }

static int traced_resize(int fd, off_t size, int only_grow, int (*change)(int, off_t)) {
  char buffer[PATH_MAX];
  struct stat info;
  const char *path = file(fd, buffer, &info);
  if (!path) return change(fd, size);
  lock();
  fstat(fd, &info);
  int result = -1;
  if (size > info.st_size && is_full()) errno = ENOSPC;
  else result = change(fd, size);
  if (result == 0 && (size > info.st_size || !only_grow)) record(RESIZE, path, info.st_ino, size, NULL, 0);
  unlock();
  return result;
}

static int real_truncate(int fd, off_t size) { return syscall(SYS_ftruncate, fd, size); }
int ftruncate(int fd, off_t size) { return traced_resize(fd, size, 0, real_truncate); }
int ftruncate64(int fd, off64_t size) { return traced_resize(fd, size, 0, real_truncate); }

static int real_allocate(int fd, off_t size) { return syscall(SYS_fallocate, fd, 0, 0, size); }
int posix_fallocate(int fd, off_t offset, off_t length) {
  return traced_resize(fd, offset + length, 1, real_allocate) ? errno : 0;
}
int posix_fallocate64(int fd, off64_t offset, off64_t length) { return posix_fallocate(fd, offset, length); }
int fallocate(int fd, int mode, off_t offset, off_t length) {
  char buffer[PATH_MAX];
  struct stat info;
  if (!file(fd, buffer, &info)) return syscall(SYS_fallocate, fd, mode, offset, length);
  if (mode) return errno = EOPNOTSUPP, -1;
  return traced_resize(fd, offset + length, 1, real_allocate);
}
int fallocate64(int fd, int mode, off64_t offset, off64_t length) { return fallocate(fd, mode, offset, length); }

// The lock is not held meanwhile: others write while a disk syncs.
static int traced_sync(int fd, long call) {
  char buffer[PATH_MAX];
  const char *path = trace < 0 ? NULL : path_of(fd, buffer);
  if (!path) return syscall(call, fd);
  uint64_t inode = inode_of(fd);
  lock();
  uint64_t number = (uint64_t)getpid() << 32 | ++syncs;
  record(SYNC_BEGIN, path, inode, number, NULL, 0);
  unlock();
  int result = syscall(call, fd);
  lock();
  if (result == 0) record(SYNC_END, path, inode, number, NULL, 0);
  unlock();
  return result;
}
int fsync(int fd) { return traced_sync(fd, SYS_fsync); }
int fdatasync(int fd) { return traced_sync(fd, SYS_fdatasync); }

static int traced_open(int directory, const char *path, int flags, mode_t mode) {
  char buffer[PATH_MAX];
  const char *name = flags & (O_CREAT | O_TRUNC) ? path_at(directory, path, buffer) : NULL;
  if (!name) return syscall(SYS_openat, directory, path, flags, mode);
  struct stat before;
  lock();
  int existed = stat(buffer, &before) == 0;
  int fd = syscall(SYS_openat, directory, path, flags, mode);
  if (fd >= 0 && !existed) record(CREATE, name, inode_of(fd), 0, NULL, 0);
  else if (fd >= 0 && flags & O_TRUNC && before.st_size) record(RESIZE, name, before.st_ino, 0, NULL, 0);
  unlock();
  return fd;
}

#define OPEN(name, parameters, directory)                     \
  int name parameters {                                       \
    mode_t mode = 0;                                          \
    if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) { \
      va_list more;                                           \
      va_start(more, flags);                                  \
      mode = va_arg(more, mode_t);                            \
      va_end(more);                                           \
    }                                                         \
    return traced_open(directory, path, flags, mode);         \
  }
OPEN(open, (const char *path, int flags, ...), AT_FDCWD)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD)
OPEN(openat, (int at, const char *path, int flags, ...), at)
OPEN(openat64, (int at, const char *path, int flags, ...), at)
int creat(const char *path, mode_t mode) { return traced_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int unlinkat(int directory, const char *path, int flags) {
  char buffer[PATH_MAX];
  const char *name = path_at(directory, path, buffer);
  if (!name) return syscall(SYS_unlinkat, directory, path, flags);
  lock();
  int result = syscall(SYS_unlinkat, directory, path, flags);
  if (result == 0) record(REMOVE, name, 0, 0, NULL, 0);
  unlock();
  return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
  struct stat info;
  return lstat(path, &info) ? -1 : unlinkat(AT_FDCWD, path, S_ISDIR(info.st_mode) ? AT_REMOVEDIR : 0);
}

int renameat(int from_directory, const char *from, int to_directory, const char *to) {
  char old[PATH_MAX], new[PATH_MAX];
  const char *name = path_at(from_directory, from, old), *onto = path_at(to_directory, to, new);
  if (!name && !onto) return syscall(SYS_renameat, from_directory, from, to_directory, to);
  if (!name || !onto) return errno = EXDEV, -1;
  lock();
  int result = syscall(SYS_renameat, from_directory, from, to_directory, to);
  if (result == 0) record(RENAME, name, 0, 0, onto, strlen(onto));
  unlock();
  return result;
}
int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int mkdirat(int directory, const char *path, mode_t mode) {
  char buffer[PATH_MAX];
  const char *name = path_at(directory, path, buffer);
  if (!name) return syscall(SYS_mkdirat, directory, path, mode);
  lock();
  int result = syscall(SYS_mkdirat, directory, path, mode);
  if (result == 0) record(MAKE_DIR, name, 0, 0, NULL, 0);
  unlock();
  return result;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

static void *traced_map(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
  char buffer[PATH_MAX];
  struct stat info;
  const char *path = trace >= 0 && fd >= 0 && flags & MAP_SHARED && protection & PROT_WRITE ? file(fd, buffer, &info) : NULL;
  if (path) {
    lock();
    record(MAP, path, info.st_ino, 0, NULL, 0);
    unlock();
  }
  return (void *)syscall(SYS_mmap, at, length, protection, flags, fd, offset);
}
void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
  return traced_map(at, length, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t length, int protection, int flags, int fd, off64_t offset) {
  return traced_map(at, length, protection, flags, fd, offset);
}

static void move(struct timespec *time) {
  const int64_t *by = __atomic_load_n(&shift, __ATOMIC_ACQUIRE);
  if (!by) return;
  int64_t wrong = __atomic_load_n(by, __ATOMIC_RELAXED), nanos = time->tv_nsec + wrong % 1000000000;
  time->tv_sec += wrong / 1000000000 + (nanos >= 1000000000) - (nanos < 0);
  time->tv_nsec = nanos < 0 ? nanos + 1000000000 : nanos % 1000000000;
}
int clock_gettime(clockid_t clock, struct timespec *time) {
  static int (*ask)(clockid_t, struct timespec *);
  int (*known)(clockid_t, struct timespec *) = __atomic_load_n(&ask, __ATOMIC_ACQUIRE);
  if (!known) __atomic_store_n(&ask, known = REAL(clock_gettime), __ATOMIC_RELEASE);
  int result = known(clock, time);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) move(time);
  return result;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  (void)zone;
  struct timespec time;
  int result = clock_gettime(CLOCK_REALTIME, &time);
  *now = (struct timeval){time.tv_sec, time.tv_nsec / 1000};
  return result;
}
time_t time(time_t *to) {
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  if (to) *to = time.tv_sec;
  return time.tv_sec;
}
