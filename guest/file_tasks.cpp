// SPDX-License-Identifier: Apache-2.0
#include "guest/file_tasks.hpp"

#include "guest/files.hpp"
#include "messages/path_text.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <dirent.h>
#include <fcntl.h>

namespace berth::guest {

namespace {

using std::chrono::steady_clock;

/// Entries looked at, or removed, in one slice: well below a millisecond.
constexpr int slice_entries = 128;
/// How long a removal may go on. The client's patience ends then, too.
constexpr std::chrono::seconds remove_time_max{30};
/// Directories that a removal holds open at once.
constexpr std::size_t open_levels_max = 32;
/// How often a directory is gone through again because something was made in it meanwhile.
constexpr int passes_max = 8;

struct close_directory {
  void operator()(DIR* directory) const { closedir(directory); }
};
using directory_stream = std::unique_ptr<DIR, close_directory>;

directory_stream stream_of(owned_fd fd) {
  directory_stream stream{fd ? fdopendir(fd.get()) : nullptr};
  if (stream)
    fd.release();
  return stream;
}

bool is_dots(std::string_view name) {
  return name == "." || name == "..";
}

/// Lists a directory, and those below it breadth first, as far as the bounds go.
class list_task : public file_task {
public:
  list_task(const list_dir& request, file_tasks::list_answer answer)
    : answer_(std::move(answer))
    , depth_(std::clamp<std::uint32_t>(request.depth, 1, list_depth_max)) {
    listed_.request = request.request;
    request_path top = path_of(request.path.empty() ? default_directory : request.path);
    if (top.error)
      give_up(top.error.code, top.error.text);
    else
      pending_.push_back({top.path, 1});
  }

  bool step() override {
    for (int i = 0; i < slice_entries && !over_; ++i)
      one();
    return !over_;
  }

  void give_up(ec failure, const std::string& why) override {
    listed_.entries.clear();
    listed_.failure = failure;
    listed_.error = why;
    finish();
  }

private:
  struct directory {
    std::string path;
    std::uint32_t level;
  };

  void one() {
    if (!stream_)
      return open_next();
    errno = 0;
    const dirent* found = readdir(stream_.get());
    if (found == nullptr) {
      stream_.reset();
      return;
    }
    if (is_dots(found->d_name))
      return;
    if (listed_.entries.size() >= list_entries_max || bytes_ >= list_bytes_max) {
      listed_.truncated = true;
      finish();
      return;
    }
    add(found->d_name);
  }

  void open_next() {
    if (pending_.empty())
      return finish();
    here_ = std::move(pending_.front());
    pending_.pop_front();
    bool top = here_.level == 1;
    stream_ = stream_of(open_directory(here_.path, O_RDONLY | (top ? 0 : O_NOFOLLOW)));
    // Below the top: it may be gone by now, or be nobody's business.
    if (!stream_ && top) {
      path_error why = error_of(here_.path, errno);
      give_up(why.code, why.text);
    }
  }

  void add(const std::string& name) {
    int fd = dirfd(stream_.get());
    struct stat info {};
    if (fstatat(fd, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0)
      return;
    std::string path = here_.path + (here_.path.ends_with('/') ? "" : "/") + name;
    listed_.entries.push_back(info_of(path, info, fd, name, owners_));
    const file_info& added = listed_.entries.back();
    bytes_ += added.path.size() + added.name.size() + added.target.size();
    if (S_ISDIR(info.st_mode) && here_.level < depth_ && !is_made_up(fd))
      pending_.push_back({path, here_.level + 1});
  }

  void finish() {
    over_ = true;
    stream_.reset();
    std::ranges::sort(listed_.entries, {}, &file_info::path);
    answer_(listed_);
  }

  file_tasks::list_answer answer_;
  std::uint32_t depth_;
  owner_names owners_;
  dir_listed listed_;
  std::size_t bytes_ = 0;
  std::deque<directory> pending_;
  directory here_;
  directory_stream stream_;
};

/// Removes what a path names. Works on descriptors only, so that nobody can lead it astray by
/// putting a link where a directory was.
class remove_task : public file_task {
public:
  remove_task(const remove_path& request, file_tasks::remove_answer answer)
    : answer_(std::move(answer)) {
    done_.request = request.request;
    request_path target = path_of(request.path);
    path_ = target.path;
    done_.path = path_to_text(path_);
    split_path parts = split(path_);
    name_ = parts.name;
    if (target.error)
      give_up(target.error.code, target.error.text);
    else if (name_.empty() || is_dots(name_))
      give_up(ec::rejected, done_.path + ": is not removed by this name");
    else if (above_ = open_directory(parts.directory, O_RDONLY); !above_)
      fail_with(errno);
  }

  bool step() override {
    if (!over_ && steady_clock::now() - started_ > remove_time_max)
      give_up(ec::deadline, done_.path + ": is large; a part is gone, remove it again to go on");
    for (int i = 0; i < slice_entries && !over_; ++i)
      levels_.empty() ? begin() : one();
    return !over_;
  }

  void give_up(ec failure, const std::string& why) override {
    done_.failure = failure;
    done_.error = why;
    finish();
  }

private:
  struct level {
    directory_stream stream;
    std::string name;
    int passes = 0;
  };

  /// What is no directory is gone at once.
  void begin() {
    if (unlinkat(above_.get(), name_.c_str(), 0) == 0)
      return finish();
    int why = errno;
    // EPERM is what some file systems say of a directory, and of a file that is not ours.
    if (why != EISDIR && why != EPERM)
      fail_with(why);
    else if (!enter(above_.get(), name_))
      fail_with(errno == ENOTDIR ? why : errno);
  }

  bool enter(int fd, const std::string& name) {
    directory_stream stream =
        stream_of(owned_fd{open_at(fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK)});
    if (!stream)
      return false;
    levels_.push_back({std::move(stream), name, 0});
    return true;
  }

  void one() {
    level& here = levels_.back();
    errno = 0;
    const dirent* found = readdir(here.stream.get());
    if (found == nullptr)
      return leave();
    if (is_dots(found->d_name))
      return;
    int fd = dirfd(here.stream.get());
    std::string name = found->d_name;
    if (found->d_type != DT_DIR) {
      if (unlinkat(fd, name.c_str(), 0) == 0 || errno == ENOENT)
        return;
      if (errno != EISDIR && errno != EPERM)
        return fail_with(errno);
    }
    // Deeper than descriptors go: it becomes a child of the top, which is gone through again.
    if (levels_.size() >= open_levels_max) {
      std::string brought = ".berth-removed-" + std::to_string(++brought_);
      if (renameat(fd, name.c_str(), dirfd(levels_.front().stream.get()), brought.c_str()) != 0)
        fail_with(errno);
      levels_.front().passes = 0;
      return;
    }
    if (!enter(fd, name) && errno != ENOENT)
      fail_with(errno);
  }

  /// A directory was gone through to its end: it is empty, unless something came in.
  void leave() {
    level& here = levels_.back();
    bool outermost = levels_.size() == 1;
    int fd = outermost ? above_.get() : dirfd(levels_[levels_.size() - 2].stream.get());
    if (unlinkat(fd, here.name.c_str(), AT_REMOVEDIR) == 0 || errno == ENOENT) {
      levels_.pop_back();
      if (outermost)
        finish();
      return;
    }
    if ((errno != ENOTEMPTY && errno != EEXIST) || ++here.passes >= passes_max)
      return fail_with(errno);
    rewinddir(here.stream.get());
  }

  void fail_with(int number) {
    path_error why = error_of(path_, number);
    give_up(why.code, why.text);
  }

  void finish() {
    over_ = true;
    levels_.clear();
    answer_(done_);
  }

  file_tasks::remove_answer answer_;
  steady_clock::time_point started_ = steady_clock::now();
  path_done done_;
  std::string path_;
  std::string name_;
  owned_fd above_;
  std::vector<level> levels_;
  unsigned brought_ = 0;
};

} // namespace

void file_tasks::add(std::unique_ptr<file_task> task) {
  if (!task->over() && tasks_.size() >= file_tasks_max)
    task->give_up(ec::no_capacity, "too many trees are listed or removed at once");
  else if (task->step())
    tasks_.push_back(std::move(task));
}

void file_tasks::list(const list_dir& request, list_answer answer) {
  add(std::make_unique<list_task>(request, std::move(answer)));
}

void file_tasks::remove(const remove_path& request, remove_answer answer) {
  add(std::make_unique<remove_task>(request, std::move(answer)));
}

void file_tasks::step() {
  if (tasks_.empty())
    return;
  std::unique_ptr<file_task> task = std::move(tasks_.front());
  tasks_.pop_front();
  if (task->step())
    tasks_.push_back(std::move(task));
}

void file_tasks::root_changed() {
  for (auto& task : tasks_)
    task->give_up(ec::conflict, "the session was taken back meanwhile");
  tasks_.clear();
}

} // namespace berth::guest
