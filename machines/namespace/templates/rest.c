// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "machines/namespace/templates/rest.h"

#include <sys/stat.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/// Most files that are opened anew; beyond that they stay in the old tree.
enum { files_max = 1024 };

/// A regular file that is open.
struct open_file {
  int fd;
  int flags;
  int close_on_exec;
  off_t offset;
  char* path;
};

static struct {
  char directory[PATH_MAX];
  struct open_file files[files_max];
  int count;
} rest;

static void forget_files(void) {
  for (int i = 0; i < rest.count; ++i)
    free(rest.files[i].path);
  rest.count = 0;
}

static void note_file(int fd) {
  struct stat info;
  if (fd < 3 || rest.count == files_max || fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)
      || info.st_nlink == 0)
    return;
  char link[32] = "/proc/self/fd/";
  char digits[12];
  int at = 0;
  for (int rest_of = fd; at == 0 || rest_of > 0; rest_of /= 10)
    digits[at++] = (char)('0' + rest_of % 10);
  for (size_t end = strlen(link); at > 0;)
    link[end++] = digits[--at];
  char path[PATH_MAX];
  ssize_t size = readlink(link, path, sizeof(path) - 1);
  if (size <= 0 || path[0] != '/')
    return;
  path[size] = '\0';
  struct open_file* file = &rest.files[rest.count];
  file->fd = fd;
  file->flags = fcntl(fd, F_GETFL);
  file->close_on_exec = fcntl(fd, F_GETFD) & FD_CLOEXEC;
  file->offset = lseek(fd, 0, SEEK_CUR);
  file->path = strdup(path);
  if (file->path != NULL && file->flags >= 0 && (file->flags & O_PATH) == 0 && file->offset >= 0)
    ++rest.count;
  else
    free(file->path);
}

int berth_rest(void) {
  if (getcwd(rest.directory, sizeof(rest.directory)) == NULL)
    rest.directory[0] = '\0';
  if (chdir("/") != 0)
    return -errno;
  forget_files();
  DIR* list = opendir("/proc/self/fd");
  if (list == NULL)
    return 0;
  for (struct dirent* entry; (entry = readdir(list)) != NULL;)
    if (entry->d_name[0] != '.')
      note_file(atoi(entry->d_name));
  closedir(list);
  return 0;
}

static void open_anew(const struct open_file* file) {
  const int kept = O_ACCMODE | O_APPEND | O_NONBLOCK | O_NOATIME | O_SYNC | O_DSYNC;
  int fd = open(file->path, (file->flags & kept) | O_CLOEXEC | O_NOCTTY);
  struct stat info;
  if (fd >= 0 && fstat(fd, &info) == 0 && S_ISREG(info.st_mode)
      && lseek(fd, file->offset, SEEK_SET) == file->offset)
    dup3(fd, file->fd, file->close_on_exec ? O_CLOEXEC : 0);
  if (fd >= 0)
    close(fd);
}

void berth_go_on(void) {
  if (rest.directory[0] == '/')
    (void)!chdir(rest.directory);
  for (int i = 0; i < rest.count; ++i)
    open_anew(&rest.files[i]);
  forget_files();
}
