// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "machines/namespace/confine/confine.h"

#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// Rights younger than the headers we may be built with.
#ifndef LANDLOCK_ACCESS_FS_REFER
#  define LANDLOCK_ACCESS_FS_REFER (1ULL << 13)
#endif
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#  define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif
#ifndef LANDLOCK_ACCESS_FS_IOCTL_DEV
#  define LANDLOCK_ACCESS_FS_IOCTL_DEV (1ULL << 15)
#endif

/// Opens a file of our own process's in the machine's /proc. Returns a descriptor or -errno.
static int open_own(const struct berth_confinement* c, const char* name, int flags) {
  char path[256];
  snprintf(path, sizeof(path), "%s/proc/self/%s", c->tree != NULL ? c->tree : "", name);
  int fd = open(path, flags | O_CLOEXEC);
  return fd >= 0 ? fd : -errno;
}

/// Writes `text` to such a file. Returns 0 or -errno.
static int write_own(const struct berth_confinement* c, const char* name, const char* text) {
  int fd = open_own(c, name, O_WRONLY);
  if (fd < 0)
    return fd;
  size_t size = strlen(text);
  ssize_t written = write(fd, text, size);
  int error = written == (ssize_t)size ? 0 : (written < 0 ? -errno : -EIO);
  close(fd);
  return error;
}

/// Tells the kernel whom to kill first when memory runs out. Lowering needs a privilege that even
/// root may lack, so a value that is high enough already stays.
static int raise_oom_score(const struct berth_confinement* c) {
  char text[16];
  int fd = open_own(c, "oom_score_adj", O_RDONLY);
  if (fd < 0)
    return fd;
  ssize_t size = read(fd, text, sizeof(text) - 1);
  close(fd);
  if (size <= 0)
    return -EIO;
  text[size] = '\0';
  int present = 0;
  if (sscanf(text, "%d", &present) == 1 && present >= c->oom_score_adj)
    return 0;
  snprintf(text, sizeof(text), "%d", c->oom_score_adj);
  return write_own(c, "oom_score_adj", text);
}

static int lower_priority(const struct berth_confinement* c) {
  errno = 0;
  int present = getpriority(PRIO_PROCESS, 0);
  if (present == -1 && errno != 0)
    return -errno;
  if (c->nice <= present)
    return 0;
  return setpriority(PRIO_PROCESS, 0, c->nice) == 0 ? 0 : -errno;
}

/// Lowers a limit, soft and hard. A hard limit is never raised: that takes CAP_SYS_RESOURCE, which
/// root in a container may not have.
static int lower_limit(__rlimit_resource_t resource, uint64_t value) {
  if (value == BERTH_LIMIT_KEEP)
    return 0;
  struct rlimit limit;
  if (getrlimit(resource, &limit) != 0)
    return -errno;
  if (limit.rlim_max == RLIM_INFINITY || value < limit.rlim_max)
    limit.rlim_max = (rlim_t)value;
  limit.rlim_cur = limit.rlim_max;
  return setrlimit(resource, &limit) == 0 ? 0 : -errno;
}

static int lower_limits(const struct berth_confinement* c) {
  int error = lower_limit(RLIMIT_CORE, 0);
  if (error == 0)
    error = lower_limit(RLIMIT_MEMLOCK, 0);
  if (error == 0)
    error = lower_limit(RLIMIT_NOFILE, c->nofile);
  if (error == 0)
    error = lower_limit(RLIMIT_NPROC, c->nproc);
  if (error == 0)
    error = lower_limit(RLIMIT_AS, c->address_space);
  if (error == 0)
    error = lower_limit(RLIMIT_FSIZE, c->file_size);
  return error;
}

/// Where a user namespace denies setgroups (an ordinary user's, or a machine's, which we have
/// joined) the groups we came with stay. Templates drop theirs before; an ordinary user cannot, and
/// the machine then contains nothing that belongs to those groups.
static int drop_groups(const struct berth_confinement* c) {
  if (setgroups(0, NULL) == 0 || getgroups(0, NULL) == 0)
    return 0;
  int error = -errno;
  char text[8] = "";
  int fd = open_own(c, "setgroups", O_RDONLY);
  if (fd < 0)
    return error;
  ssize_t size = read(fd, text, sizeof(text) - 1);
  close(fd);
  return size > 0 && strncmp(text, "deny", 4) == 0 ? 0 : error;
}

/// Changes all ids. The capabilities survive (they are dropped in a step of their own, which needs
/// one of them).
static int change_identity(const struct berth_confinement* c) {
  if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0)
    return -errno;
  int error = drop_groups(c);
  if (error != 0)
    return error;
  if (setresgid(c->gid, c->gid, c->gid) != 0 || setresuid(c->uid, c->uid, c->uid) != 0)
    return -errno;
  return 0;
}

/// Makes the innermost user namespace and maps one id into it. The mount namespace stays the outer
/// one's property, so that not even all capabilities of this namespace could mount anything.
static int enter_user_namespace(const struct berth_confinement* c) {
  if ((c->flags & BERTH_CONFINE_NEW_USER_NS) == 0)
    return 0;
  if (unshare(CLONE_NEWUSER) != 0)
    return -errno;
  // A process that changed its uid is not dumpable, and its /proc/self is then root's.
  if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0)
    return -errno;
  char map[48];
  snprintf(map, sizeof(map), "%u %u 1\n", c->inside_uid, c->uid);
  int error = write_own(c, "setgroups", "deny");
  if (error == 0)
    error = write_own(c, "uid_map", map);
  if (error == 0) {
    snprintf(map, sizeof(map), "%u %u 1\n", c->inside_gid, c->gid);
    error = write_own(c, "gid_map", map);
  }
  if (error != 0)
    return error;
  return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 ? 0 : -errno;
}

static int enter_tree(const struct berth_confinement* c) {
  if (c->tree == NULL)
    return 0;
  return chdir(c->tree) == 0 && chroot(".") == 0 ? 0 : -errno;
}

static int set_capabilities(const struct __user_cap_data_struct* sets) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  return syscall(SYS_capset, &header, sets) == 0 ? 0 : -errno;
}

/// Drops every capability from every set, the bounding set included, and locks the rules by which
/// uid 0 or a file could give any back.
static int drop_capabilities(const struct berth_confinement* c) {
  (void)c;
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  struct __user_cap_data_struct sets[2];
  if (syscall(SYS_capget, &header, sets) != 0)
    return -errno;
  // Changing the uid emptied the effective set; dropping the bounding set needs it once more.
  for (int i = 0; i < 2; ++i)
    sets[i].effective = sets[i].permitted;
  int error = set_capabilities(sets);
  if (error != 0)
    return error;
  for (unsigned long capability = 0; capability < 64; ++capability) {
    int held = prctl(PR_CAPBSET_READ, capability, 0, 0, 0);
    if (held < 0)
      break;
    if (held > 0 && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0)
      return -errno;
  }
  const unsigned long locked = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_NO_SETUID_FIXUP
                               | SECBIT_NO_SETUID_FIXUP_LOCKED | SECBIT_KEEP_CAPS_LOCKED
                               | SECBIT_NO_CAP_AMBIENT_RAISE | SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
  if (prctl(PR_SET_SECUREBITS, locked, 0, 0, 0) != 0)
    return -errno;
  if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0)
    return -errno;
  memset(sets, 0, sizeof(sets));
  return set_capabilities(sets);
}

static int forbid_new_privileges(const struct berth_confinement* c) {
  (void)c;
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? 0 : -errno;
}

int berth_landlock_abi(void) {
  long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
  return abi > 0 ? (int)abi : 0;
}

/// All rights on files this kernel's landlock knows.
static uint64_t known_rights(int abi) {
  uint64_t rights = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;
  if (abi >= 2)
    rights |= LANDLOCK_ACCESS_FS_REFER;
  if (abi >= 3)
    rights |= LANDLOCK_ACCESS_FS_TRUNCATE;
  if (abi >= 5)
    rights |= LANDLOCK_ACCESS_FS_IOCTL_DEV;
  return rights;
}

/// Files: everything below the anchor, for whoever else lets us, but no devices; nothing outside
/// it. What may be written is held by owners and by read-only mounts, since landlock knows a tree
/// by its inodes, and each state of the machine's files has inodes of its own. Only the `fs` rights
/// are handled: the scopes for signals and abstract sockets would part the jobs of one machine from
/// each other, since each interpreter put into it makes a domain of its own, and the pid and
/// network namespaces hold both already. As a side effect a process in a domain cannot change
/// mounts, whatever its capabilities, nor trace or look into a process of another domain.
static int restrict_files(const struct berth_confinement* c) {
  int abi = berth_landlock_abi();
  if (abi == 0) {
    if (c->anchor > 0)
      close(c->anchor);
    return (c->flags & BERTH_CONFINE_NEED_LANDLOCK) != 0 ? -ENOSYS : 0;
  }
  const uint64_t rights = known_rights(abi);
  const uint64_t devices = LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK;
  struct landlock_ruleset_attr attributes = {.handled_access_fs = rights};
  struct landlock_path_beneath_attr rule = {
      .allowed_access = rights & ~devices,
      .parent_fd = c->anchor > 0 ? c->anchor : open("/", O_PATH | O_CLOEXEC)};
  int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attributes, sizeof(attributes), 0);
  int error = ruleset >= 0 ? 0 : -errno;
  if (error == 0
      && syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) != 0)
    error = -errno;
  if (error == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) != 0)
    error = -errno;
  if (ruleset >= 0)
    close(ruleset);
  if (rule.parent_fd >= 0)
    close(rule.parent_fd);
  return error;
}

static int restrict_system_calls(const struct berth_confinement* c) {
  if (c->filter_length == 0)
    return 0;
  struct sock_filter* filter = (struct sock_filter*)(uintptr_t)c->filter;
  struct sock_fprog program = {.len = c->filter_length, .filter = filter};
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0 ? 0 : -errno;
}

int berth_confine(const struct berth_confinement* confinement, const char** step) {
  static const struct {
    const char* name;
    int (*take)(const struct berth_confinement*);
  } steps[] = {
      {"oom_score_adj", raise_oom_score},
      {"nice", lower_priority},
      {"rlimits", lower_limits},
      {"identity", change_identity},
      {"user namespace", enter_user_namespace},
      {"chroot", enter_tree},
      {"capabilities", drop_capabilities},
      {"no_new_privs", forbid_new_privileges},
      {"landlock", restrict_files},
      {"seccomp", restrict_system_calls},
  };
  for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); ++i) {
    *step = steps[i].name;
    int error = steps[i].take(confinement);
    if (error != 0)
      return error;
  }
  *step = "";
  return 0;
}
